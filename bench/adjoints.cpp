// How long is a gradient of a stochastic differential equation, how much memory does it take, and how exact is it? The
// problems and the protocol are those of bench/peers/adjoint_problems.py and bench/compare_adjoints.py:
//
//   bench_adjoints --list
//   bench_adjoints [--problem ou|neural_sde] [--method M] [--precision f32|f64] [--threads 1] [--rounds 10] [--serve]
//
// Methods, an adjoint on a solver; chunks of rows each on one thread (sde/adjoint/batch.h):
//   store_all_euler              every state of Euler and Maruyama's method kept
//   segments_euler               sqrt K kept and sqrt K at a time between them; the same bits
//   binomial_euler               8 kept; the same bits
//   store_all_reversible_heun    the reversible Heun method, every state kept
//   reversible_reversible_heun   none kept: states are undone; the same up to rounding
//   store_all_heun               Heun's method, every state kept
//   backsolve_heun               none kept: the continuous adjoint, states solved backwards; O(h)-close
//   forward_euler                (ou) tangents carried along: of theta alone
// drift_evaluations is how often a row's drift is evaluated. difference_from_backprop is from store_all with the same solver.
#include <costate/finetune/network_field.h>
#include <costate/nn/mlp.h>
#include <costate/sde/adjoint/batch.h>
#include <costate/sde/grid.h>
#include <costate/sde/sde_process.h>
#include <costate/tensor/memory.h>
#include <costate/tensor/parallel.h>

#ifdef __linux__
#include <malloc.h>
#include <sched.h>
#endif

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "clock.h"

using namespace costate;

namespace {

constexpr std::int64_t full_batch = 256, dim = 32;
constexpr double noise_level = 0.5, true_theta = 1;

struct Method {
  const char* name;
  sde::AdjointMethod adjoint;
  const char* solver;
  int slots;
};
constexpr Method methods[] = {
    {"store_all_euler", sde::AdjointMethod::store_all, "euler_maruyama", 0},
    {"segments_euler", sde::AdjointMethod::segments, "euler_maruyama", 0},
    {"binomial_euler", sde::AdjointMethod::binomial, "euler_maruyama", 8},
    {"store_all_reversible_heun", sde::AdjointMethod::store_all, "reversible_heun", 0},
    {"reversible_reversible_heun", sde::AdjointMethod::reversible, "reversible_heun", 0},
    {"store_all_heun", sde::AdjointMethod::store_all, "heun", 0},
    {"backsolve_heun", sde::AdjointMethod::backsolve, "heun", 0},
    {"forward_euler", sde::AdjointMethod::forward, "euler_maruyama", 0},
};
bool offered(const Method& m, const std::string& problem) {
  return problem == "ou" || m.adjoint != sde::AdjointMethod::forward;
}
int steps_of(const std::string& problem) { return problem == "ou" ? 200 : 100; }

struct Settings {
  std::string problem = "ou", method = "store_all_euler", precision = "f32";
  int threads = 1, rounds = 10;
  bool serve = false;
  DType dtype() const { return precision == "f64" ? DType::f64 : DType::f32; }
};

// ---- the problems --------------------------------------------------------------------------------------------

Tensor made(const Shape& shape, DType dtype, const std::function<double(std::int64_t i, std::int64_t j)>& f) {
  std::vector<double> v;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j) v.push_back(f(i, j));
  return Tensor::from(v, shape).to(dtype);
}
Tensor initial(std::int64_t batch, DType dtype) {
  return made({batch, dim}, dtype, [](std::int64_t i, std::int64_t j) {
    return std::sin(0.1 * static_cast<double>(i) + 0.7 * static_cast<double>(j));
  });
}

sde::ParametricField ou(DType dtype) {
  const auto of = [](const Var& theta) -> sde::Field {
    return [theta](const Var& x, const Var&, const Tensor&) { return mul(neg(theta), x); };
  };
  const Tensor theta = Tensor::full({1}, true_theta, dtype);
  return {of(Var(theta)), [of, theta](Tape& tape, std::vector<Var>& watched) {
            watched.push_back(tape.watch(theta));
            return of(watched.back());
          }};
}

sde::ParametricField neural(DType dtype) {
  nn::MlpOptions options;
  options.dim = dim, options.hidden = 64, options.depth = 2, options.time_frequencies = 0;
  nn::Init init(1, dtype);
  nn::VelocityMlp network = nn::make_velocity_mlp(options, init);
  nn::visit(network, [&](const std::string&, Var& p) {
    if (p.rank() == 1) p = Tensor::zeros(p.shape(), dtype);
    else
      p = made(p.shape(), dtype, [&](std::int64_t i, std::int64_t j) {
        return 0.5 * std::sin(1 + 0.3 * static_cast<double>(i) + 0.7 * static_cast<double>(j)) /
               std::sqrt(static_cast<double>(p.extent(1)));
      });
  });
  return finetune::parametric_field_of(network);
}

sde::ParametricSde equation(const Settings& s) {
  const auto with = [](sde::Field drift) {
    sde::Sde e;
    e.drift = std::move(drift);
    e.diffusion = sde::Diffusion::of([](double) { return noise_level; });
    return e;
  };
  const sde::ParametricField f = s.problem == "ou" ? ou(s.dtype()) : neural(s.dtype());
  return {with(f.frozen), [f, with](Tape& tape, std::vector<Var>& watched) { return with(f.watch(tape, watched)); }};
}

// d/dtheta of E mean X_T^2 = m e^{-2 theta} + sigma^2 (1 - e^{-2 theta})/(2 theta), m the mean of x_0^2; T = 1.
double exact_theta_gradient() {
  double m = 0;
  for (const double x : initial(full_batch, DType::f64).to_doubles()) m += x * x / (full_batch * dim);
  const double theta = true_theta, e = std::exp(-2 * theta);
  return -2 * m * e + noise_level * noise_level * (e / theta - (1 - e) / (2 * theta * theta));
}

struct Result {
  double loss;
  sde::Gradient gradient;
};
// A gradient as a function of the seed of its noise.
std::function<Result(std::uint64_t)> make(const Settings& s, const Method& method, std::int64_t batch, int steps) {
  sde::AdjointOptions options;
  options.method = method.adjoint, options.slots = method.slots;
  const Tensor x0 = initial(batch, s.dtype());
  const sde::Solver& solver = sde::solver(method.solver);
  const double scale = 1.0 / static_cast<double>(batch * dim);
  return [=, &solver, e = equation(s), grid = sde::uniform_grid(steps)](std::uint64_t seed) {
    const sde::BrownianPath path(grid, {seed, 0});
    Result r{0, sde::batch_gradient(
                    x0, [&](std::int64_t first, std::int64_t) { return sde_process(e, solver, grid, path.from(first)); },
                    [&](std::int64_t, const Tensor& x) { return affine(Var(x), 2 * scale, 0).value(); }, options)};
    r.loss = scale * sum(square(Var(r.gradient.x))).value().item();
    return r;
  };
}

// ---- what is measured ----------------------------------------------------------------------------------------

double norm(std::span<const Tensor> tensors) {
  double sum = 0;
  for (const Tensor& t : tensors)
    for (const double v : t.to_doubles()) sum += v * v;
  return std::sqrt(sum);
}
// Of two gradients: the largest over its tensors of |a - b|/|b|.
double relative_difference(const sde::Gradient& a, const sde::Gradient& b) {
  const auto of = [](const Tensor& p, const Tensor& q) {
    if (!p.defined()) return 0.0;
    const Tensor d = sub(Var(p.to(DType::f64)), Var(q.to(DType::f64))).value();
    return norm({&d, 1}) / (norm({&q, 1}) + 1e-300);
  };
  double worst = of(a.initial, b.initial);
  for (std::size_t i = 0; i < a.parameters.size(); ++i) worst = std::max(worst, of(a.parameters[i], b.parameters[i]));
  return worst;
}

// A line "key: kilobytes kB" of /proc/self/status, in bytes; 0 where there is none.
long long status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key + ":", 0) == 0) return 1024 * std::atoll(line.c_str() + key.size() + 1);
  return 0;
}

class Measured {
 public:
  Measured(const Settings& s, const Method& m) : settings_(s), method_(m) {
    make(s, m, 4, 3)(0);  // a tiny problem: what is allocated once
    const int steps = steps_of(s.problem);
    if (m.adjoint != sde::AdjointMethod::store_all) {
      Method through = m;
      through.adjoint = sde::AdjointMethod::store_all, through.slots = 0;
      difference_ = relative_difference(make(s, m, 16, steps)(7).gradient, make(s, through, 16, steps)(7).gradient);
    }
    gradient_ = make(s, m, full_batch, steps);
    // The first gradient of full size: its memory, after what is free has been given back, and no time.
    memory::trim();
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    const long long before = status_bytes("VmRSS");
    const bool cleared = static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush);
    const memory::PeakScope scope;
    const std::int64_t live = memory::live().total;
    run();
    ledger_ = scope.peak().total - live;
    if (cleared && before > 0) resident_ = std::max(0LL, status_bytes("VmHWM") - before);
    seconds_.clear();
  }

  double run() {
    const double start = now(settings_.threads);
    last_ = gradient_(seed_++);
    seconds_.push_back(now(settings_.threads) - start);
    if (settings_.problem == "ou") theta_.push_back(last_.gradient.parameters[0].item());
    return seconds_.back();
  }

  std::string information(bool with_seconds) const {
    const sde::Gradient& g = last_.gradient;
    std::ostringstream out;
    out.precision(17);
    out << "{\"library\": \"Costate (" << kernels(Device::cpu).name << ")\", \"method\": \"" << method_.name
        << "\", \"problem\": \"" << settings_.problem << "\", \"precision\": \"" << settings_.precision
        << "\", \"threads\": " << settings_.threads << ", \"loss\": " << last_.loss << ", \"gradient_norm_x0\": ";
    if (g.initial.defined()) out << norm({&g.initial, 1});
    else out << "null";  // forward sensitivity has no costate
    out << ", \"gradient_norm_parameters\": " << norm(g.parameters) << ", \"peak_resident_bytes\": ";
    if (resident_) out << *resident_;
    else out << "null";
    out << ", \"ledger_peak_bytes\": " << ledger_ << ", \"drift_evaluations\": " << g.work.evaluations;
    if (difference_) out << ", \"difference_from_backprop\": " << *difference_;
    if (theta_.size() > 1) {  // the mean over gradients with noise of their own
      const double n = static_cast<double>(theta_.size()), exact = exact_theta_gradient();
      double mean = 0, variance = 0;
      for (const double t : theta_) mean += t / n;
      for (const double t : theta_) variance += (t - mean) * (t - mean) / (n - 1);
      out << ", \"theta_gradient\": " << mean << ", \"theta_standard_error\": " << std::sqrt(variance / n)
          << ", \"theta_exact\": " << exact << ", \"theta_relative_error\": " << std::abs(mean - exact) / std::abs(exact);
    }
    if (with_seconds) {
      out << ", \"seconds\": [";
      for (std::size_t i = 0; i < seconds_.size(); ++i) out << (i ? ", " : "") << seconds_[i];
      out << "]";
    }
    out << "}";
    return out.str();
  }

 private:
  Settings settings_;
  Method method_;
  std::function<Result(std::uint64_t)> gradient_;
  std::uint64_t seed_ = 0;
  Result last_{};
  std::vector<double> theta_, seconds_;
  std::optional<double> difference_;
  std::optional<long long> resident_;
  std::int64_t ledger_ = 0;
};

int refuse(const std::string& what, const std::string& found) {
  std::fprintf(stderr, "%s is '%s', which is not offered; the head of bench/adjoints.cpp lists the options\n", what.c_str(),
               found.c_str());
  return 2;
}

void list() {
  std::string line = "{";
  for (const std::string problem : {"ou", "neural_sde"}) {
    line += (line.size() > 1 ? "], \"" : "\"") + problem + "\": [";
    bool first = true;
    for (const Method& m : methods)
      if (offered(m, problem)) line += (std::exchange(first, false) ? "\"" : ", \"") + std::string(m.name) + "\"";
  }
  std::printf("%s]}\n", line.c_str());
}

// As many processors as threads, like the peers.
void bind(int threads) {
#ifdef __linux__
  cpu_set_t all, some;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  CPU_ZERO(&some);
  for (int cpu = 0, taken = 0; cpu < CPU_SETSIZE && taken < threads; ++cpu)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &some), ++taken;
  sched_setaffinity(0, sizeof some, &some);
#else
  (void)threads;
#endif
}

int serve(Measured& measured) {
  char line[64];
  while (std::fgets(line, sizeof line, stdin)) {
    if (std::strncmp(line, "run", 3) == 0) std::printf("%.9f\n", measured.run());
    else if (std::strncmp(line, "info", 4) == 0) std::printf("%s\n", measured.information(false).c_str());
    else break;
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  Settings s;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--list") return list(), 0;
    if (a == "--serve") {
      s.serve = true;
      continue;
    }
    if (i + 1 >= argc) return refuse("an option without a value", a);
    const std::string value = argv[++i];
    if (a == "--problem") s.problem = value;
    else if (a == "--method") s.method = value;
    else if (a == "--precision") s.precision = value;
    else if (a == "--threads") s.threads = std::atoi(value.c_str());
    else if (a == "--rounds") s.rounds = std::atoi(value.c_str());
    else return refuse("an option", a);
  }
  if (s.problem != "ou" && s.problem != "neural_sde") return refuse("--problem", s.problem);
  if (s.precision != "f32" && s.precision != "f64") return refuse("--precision", s.precision);
  if (s.threads < 1) return refuse("--threads", std::to_string(s.threads));
  const Method* method = nullptr;
  for (const Method& m : methods)
    if (s.method == m.name && offered(m, s.problem)) method = &m;
  if (!method) return refuse("--method", s.method);
  bind(s.threads);
  set_threads(s.threads);
  Measured measured(s, *method);
  if (s.serve) return serve(measured);
  for (int i = 0; i < s.rounds; ++i) measured.run();
  std::printf("%s\n", measured.information(true).c_str());
  return 0;
} catch (const Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
