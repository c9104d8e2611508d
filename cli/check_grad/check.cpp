#include "check_grad/check.h"

#include <costate/autograd/ops.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "run/metrics.h"
#include "study/problem.h"

namespace costate::cli {
namespace {

using Clock = std::chrono::steady_clock;
using Tensors = std::vector<Tensor>;
using sde::AdjointMethod;
using Verdict = CheckRow::Verdict;

constexpr double kDifferences = 1e-6;  // relative, of extrapolated differences in double precision
constexpr double kRounding = 32;       // times that of one number: a path rounds at every step
// Undone steps differ from those taken by rounding, which undoing further steps amplifies: see `amplification`.
constexpr double kReversible = 1e-9;
// The same products of Jacobians, added up from the other end.
constexpr double kForward = 1e-10;

std::int64_t numel(const Tensors& list) {
  std::int64_t n = 0;
  for (const Tensor& t : list) n += t.numel();
  return n;
}
double dot(const Tensors& a, const Tensors& b) {
  double s = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto u = a[i].values<double>(), v = b[i].values<double>();
    for (std::size_t j = 0; j < u.size(); ++j) s += u[j] * v[j];
  }
  return s;
}
double norm(const Tensors& a) { return std::sqrt(dot(a, a)); }
Tensors moved(const Tensors& x, double h, const Tensors& u) {
  Tensors out;
  for (std::size_t i = 0; i < x.size(); ++i) out.push_back(axpby(1.0, Var(x[i]), h, Var(u[i])).value());
  return out;
}
Tensors converted(const Tensors& x, DType dtype) {
  Tensors out;
  for (const Tensor& t : x) out.push_back(t.to(dtype));
  return out;
}
Tensors unit_vector(const Tensors& like, std::uint64_t seed, int direction) {
  Tensors u;
  for (std::size_t i = 0; i < like.size(); ++i) {
    Tensor t = Tensor::empty({1, like[i].numel()}, DType::f64);
    random_normal(t, seed, Stream::probe, static_cast<std::uint64_t>(direction), static_cast<std::uint32_t>(i));
    u.push_back(t.reshape(like[i].shape()));
  }
  const double scale = 1 / norm(u);
  for (Tensor& t : u) t = affine(Var(t), scale, 0.0).value();
  return u;
}

CheckRow row_of(const CheckedProblem& problem, std::string method, std::string against) {
  CheckRow row;
  row.process = problem.process, row.method = std::move(method), row.against = std::move(against);
  return row;
}

// A cost, and how far off its last digits make it.
struct Cost {
  double value = 0, rounding = 0;
};
Cost terminal_cost(const TerminalCost& terminal, const Tensor& x) {
  Cost cost;
  for (const double v : terminal.value(x).to_doubles()) cost.value += v, cost.rounding += terminal.rounding * std::abs(v);
  return cost;
}
// The whole cost of a path. `slope`: |grad g(x_K)|, by which the rounding of x_K enters.
Cost path_cost(const CheckedProblem& problem, const Tensor& x0, const Tensors& parameters, double slope) {
  const CheckedPath path = problem.path(parameters);
  double running = 0;
  sde::State state = path.process.start(x0);
  for (int k = 0; k < path.process.steps; ++k) {
    if (path.running_cost) running += path.running_cost(k, state[0]);
    state = path.process.step(k, state);
  }
  Cost cost = terminal_cost(problem.terminal, state[0]);
  cost.value += running;
  cost.rounding += 0x1p-53 * (std::abs(running) + slope * norm({state[0]}));
  return cost;
}

// The derivative of f at 0, by extrapolated central differences, and the share of rounding in it.
struct Slope {
  double value = 0, rounding = 0;
};
template <class F>
Slope slope_at_zero(const F& f, double scale, double epsilon) {
  Slope best;
  double best_error = std::numeric_limits<double>::infinity(), before = 0, extrapolated = 0, earlier_change = 0;
  // The error of the extrapolation is O(h^4) and its rounding epsilon/h: h^5 ~ epsilon balances them. Kinks within a step
  // spoil that; where there are many, as with relu, the steps become smaller until none is left. Until then two changes in a
  // row must be small, as one may be by chance, and what the last step says beyond its rounding refutes the earlier ones.
  double h = scale * std::pow(epsilon, 0.2);
  for (int level = 0; level < 12; ++level, h /= 4) {
    const Cost up = f(h), down = f(-h);
    const double difference = (up.value - down.value) / (2 * h);
    const double next = (16 * difference - before) / 15, rounding = std::max(up.rounding, down.rounding) / h;
    const double change = std::abs(next - extrapolated);
    if (level > 1) {
      const bool converged = change <= 1e-9 * std::abs(next) + rounding;
      const double error = std::max({change, converged ? 0 : earlier_change, rounding});
      const bool refuted = converged && std::abs(best.value - next) > kRounding * rounding;
      if (error < best_error || refuted) best_error = error, best = {next, rounding};
      if (converged) break;
      earlier_change = change;
    }
    before = difference, extrapolated = next;
  }
  return best;
}

// g against differences of f(x + h u).
template <class F>
void compare_with_differences(const Tensors& x, const Tensors& g, const F& f, double epsilon, const CheckSettings& settings,
                              CheckRow& row) {
  const double size = norm(x), n = static_cast<double>(numel(x));
  double error = 0, slopes = 0, rounding = 0;
  for (int i = 0; i < settings.directions; ++i) {
    const Tensors u = unit_vector(x, settings.seed, i);
    const Slope slope = slope_at_zero([&](double h) { return f(moved(x, h, u)); }, size > 0 ? size : std::sqrt(n), epsilon);
    const double reverse = dot(g, u);
    row.directions.push_back({reverse, slope.value});
    error += (slope.value - reverse) * (slope.value - reverse), slopes += slope.value * slope.value;
    rounding += slope.rounding * slope.rounding;
  }
  const auto rms = [&](double sum) { return std::sqrt(n * sum / settings.directions); };
  const double whole = std::max(norm(g), rms(slopes));
  row.distance = error == 0 ? 0 : rms(error) / whole;
  row.tolerance = kDifferences + (whole > 0 ? kRounding * rms(rounding) / whole : 0);
  row.verdict = row.distance <= row.tolerance ? Verdict::holds : Verdict::fails;
}

// One gradient from parameters without anything derived from them yet, in the element type of `x0`.
sde::Gradient measured(const CheckedProblem& problem, const Tensor& x0, const Tensors& parameters,
                       const sde::AdjointOptions& options, CheckRow& row) {
  const memory::Usage before = memory::live();
  const memory::PeakScope scope;
  Tensors fresh;
  {
    const memory::TagScope tag(memory::Tag::parameters);
    for (const Tensor& t : parameters) fresh.push_back(t.clone());
  }
  const CheckedPath path = problem.path(fresh);
  const auto start = Clock::now();
  sde::Gradient g = sde::gradient(path.process, x0, problem.terminal.gradient, options);
  row.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  row.peak_bytes = scope.peak().total - before.total;
  row.work = g.work;
  return g;
}

void judge(CheckRow& row, double tolerance) {
  row.tolerance = tolerance;
  row.verdict = std::isinf(tolerance) ? Verdict::reported : row.distance <= tolerance ? Verdict::holds : Verdict::fails;
}

// By how much undoing all steps amplifies what is off in the last state, relative to the sizes of the states. Rounding enters
// at every step and is amplified at most so.
double amplification(const sde::Process& process, const Tensor& x0, std::uint64_t seed) {
  constexpr double off = 1e-8;
  sde::State state = process.start(x0);
  for (int k = 0; k < process.steps; ++k) state = process.step(k, state);
  sde::State beside = state;
  for (std::size_t i = 0; i < state.size(); ++i)
    beside[i] = moved({state[i]}, off * norm({state[i]}), unit_vector({state[i]}, seed, static_cast<int>(i)))[0];
  for (int k = process.steps - 1; k >= 0; --k) state = process.unstep(k, state), beside = process.unstep(k, beside);
  return norm({sub(Var(beside[0]), Var(state[0])).value()}) / (off * norm({x0}));
}

CheckRow method_row(const CheckedProblem& problem, AdjointMethod method, const sde::Gradient& stored,
                    const std::string& refusal, const CheckSettings& settings) {
  CheckRow row = row_of(problem, std::string(sde::name(method)), "store_all");
  row.refusal = refusal;
  if (!row.refusal.empty()) return row;
  sde::AdjointOptions options;
  options.method = method;
  sde::Gradient g;
  try {
    g = measured(problem, problem.x0, problem.parameters, options, row);
  } catch (const Error& e) {
    // Tangents take a second derivative, which fused ops do not have and say so.
    if (method != AdjointMethod::forward || e.fault() != Fault::argument) throw;
    row.refusal = sentence({"forward: ", e.what()});
    return row;
  }
  row.distance = relative_error(g, stored);
  if (sde::bitwise_exact(method)) {
    row.tolerance = 0;
    row.verdict = same_bits(g, stored) ? Verdict::holds : Verdict::fails;
  } else {
    double tolerance = method == AdjointMethod::forward ? kForward : std::numeric_limits<double>::infinity();
    if (method == AdjointMethod::reversible) {
      const sde::Process process = problem.path(problem.parameters).process;
      tolerance = kReversible + 10 * 0x1p-53 * process.steps * amplification(process, problem.x0, settings.seed);
    }
    judge(row, tolerance);
  }
  return row;
}

}  // namespace

std::string verdict_text(const CheckRow& row) {
  switch (row.verdict) {
    case Verdict::holds:
      return row.tolerance == 0 ? "same bits" : "holds";
    case Verdict::fails:
      return row.tolerance == 0 ? "other bits" : "fails";
    case Verdict::reported:
      return "not judged";
    default:
      return "refused";
  }
}

std::vector<CheckRow> check_methods(const CheckedProblem& problem, const CheckSettings& settings, Progress& progress) {
  require(settings.directions >= 1, "check-grad: ", settings.directions, " directions; expected at least 1");
  std::vector<CheckRow> rows;
  const auto done = [&](CheckRow row) {
    rows.push_back(std::move(row));
    progress.step(static_cast<std::int64_t>(rows.size()), rows.back().method + " against " + rows.back().against);
  };
  const TerminalCost& terminal = problem.terminal;
  // Also the one evaluation after which everything derived from frozen weights is there, and no method's peak counts it.
  const Cost cost = path_cost(problem, problem.x0, problem.parameters, 0);
  if (!std::isfinite(cost.value))
    fail(Fault::numerical, {"check-grad: the cost along \"", problem.process, "\" is ", cost.value, ", expected a number"});

  CheckRow x_row = row_of(problem, "store_all", "differences in x_0");
  const sde::Gradient stored = measured(problem, problem.x0, problem.parameters, {}, x_row);
  CheckRow end = row_of(problem, terminal.name, "differences in x_K");
  const Tensor slope = terminal.gradient(stored.x);
  const double epsilon = std::max(terminal.rounding, 0x1p-53), steepness = norm({slope});
  compare_with_differences({stored.x}, {slope}, [&](const Tensors& x) { return terminal_cost(terminal, x[0]); }, epsilon,
                           settings, end);
  done(std::move(end));
  compare_with_differences(
      {problem.x0}, {stored.initial},
      [&](const Tensors& x) { return path_cost(problem, x[0], problem.parameters, steepness); }, epsilon, settings, x_row);
  done(std::move(x_row));
  if (!problem.parameters.empty()) {
    CheckRow row = row_of(problem, "store_all", "differences in parameters");
    compare_with_differences(
        problem.parameters, stored.parameters,
        [&](const Tensors& p) { return path_cost(problem, problem.x0, p, steepness); }, epsilon, settings, row);
    done(std::move(row));
  }
  const CheckedPath path = problem.path(problem.parameters);
  for (const AdjointMethod method : sde::adjoint_methods()) {
    if (method == AdjointMethod::store_all) continue;
    sde::AdjointOptions options;
    options.method = method;
    done(method_row(problem, method, stored, sde::refusal(path.process, options), settings));
  }
  CheckRow narrow = row_of(problem, "store_all, single precision", "store_all");
  narrow.distance = relative_error(
      measured(problem, problem.x0.to(DType::f32), converted(problem.parameters, DType::f32), {}, narrow), stored);
  judge(narrow, settings.single_precision);
  done(std::move(narrow));
  return rows;
}

std::string first_failure(const std::vector<CheckRow>& rows) {
  for (const CheckRow& r : rows) {
    if (r.verdict != Verdict::fails) continue;
    const std::string head = sentence({"check-grad: on \"", r.process, "\" the gradient of ", r.method, " is "});
    if (r.tolerance == 0)
      return head + "not bit for bit that of " + r.against + ", but " + short_number(r.distance) + " off";
    return head + short_number(r.distance) + " off " + r.against + " (relative), but at most " + short_number(r.tolerance) +
           " was expected";
  }
  return {};
}

}  // namespace costate::cli
