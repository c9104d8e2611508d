#include <costate/sde/adjoint/adjoint.h>

#include <costate/autograd/ops.h>
#include <costate/sde/adjoint/methods.h>
#include <costate/sde/words.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <array>
#include <bit>

namespace costate::sde {
namespace {

constexpr std::array<std::string_view, 9> kNames = {"store_all",  "segments",     "binomial",  "binomial_online", "two_level",
                                                    "reversible", "interpolated", "backsolve", "forward"};
constexpr std::array<AdjointMethod, 9> kMethods = {
    AdjointMethod::store_all,  AdjointMethod::segments,     AdjointMethod::binomial,
    AdjointMethod::binomial_online, AdjointMethod::two_level, AdjointMethod::reversible,
    AdjointMethod::interpolated, AdjointMethod::backsolve, AdjointMethod::forward};

// Of forward sensitivity: each costs as much as a pullback.
constexpr std::int64_t most_tangents = 1024;

int slots_of(const Process& process, const AdjointOptions& options) {
  return options.slots ? options.slots : 2 + std::bit_width(static_cast<unsigned>(process.steps)) - 1;
}

}  // namespace

std::span<const AdjointMethod> adjoint_methods() { return kMethods; }
std::string_view name(AdjointMethod method) { return kNames[static_cast<std::size_t>(method)]; }
AdjointMethod adjoint_method(std::string_view word) { return kMethods[word_index(word, kNames, "an adjoint method")]; }
bool bitwise_exact(AdjointMethod method) { return method <= AdjointMethod::two_level; }

std::string refusal(const Process& process, const AdjointOptions& options) {
  const std::string_view method = name(options.method);
  const auto because = [&](std::initializer_list<Piece> pieces) { return sentence(pieces); };
  if (process.steps < 1) return because({"the process has no steps"});
  if (options.segment < 0) return because({method, ": segments of ", options.segment, " steps; expected at least 1 (0: chosen)"});
  if (options.slots < 0) return because({method, ": ", options.slots, " kept states; expected at least 1 (0: chosen)"});
  const bool slots = options.method == AdjointMethod::binomial || options.method == AdjointMethod::binomial_online ||
                     options.method == AdjointMethod::two_level;
  if (options.slots && !slots)
    return because({method, " keeps no chosen number of states; `slots` is of binomial, binomial_online and two_level"});
  const bool segment = options.method == AdjointMethod::segments || options.method == AdjointMethod::two_level ||
                       options.method == AdjointMethod::interpolated;
  if (options.segment && !segment)
    return because({method, " has no segments; `segment` is of segments, two_level and interpolated"});
  switch (options.method) {
    case AdjointMethod::reversible:
      if (!process.unstep)
        return because({"reversible: a step of \"", process.description,
                        "\" cannot be undone; take the solver reversible_heun, or the adjoint binomial, which has the exact "
                        "gradient in little memory"});
      break;
    case AdjointMethod::interpolated:
    case AdjointMethod::backsolve:
      if (!process.increment)
        return because({method, ": \"", process.description,
                        "\" is not the discretisation of a Stratonovich or noiseless equation, whose adjoint could be solved "
                        "backwards; take a Stratonovich solver (heun, reversible_heun) on such an equation, or the adjoint "
                        "binomial, which is exact for every process"});
      if (process.has_running_cost)
        return because({method, ": running costs are of the discrete adjoints; take binomial or store_all"});
      if (options.method == AdjointMethod::interpolated && options.segment > 1 && process.noisy)
        return because({"interpolated: a noisy path is not smooth between states that are ", options.segment,
                        " steps apart; take segment 1, or the adjoint segments, which is exact"});
      break;
    case AdjointMethod::forward:
      if (!process.push)
        return because({"forward: the state of \"", process.description,
                        "\" is more than x, and its tangents are not carried; take the adjoint binomial or reversible"});
      if (process.parameter_numbers() == 0)
        return because({"forward: the field has no parameters, and the gradient of x_0 takes an adjoint: take store_all"});
      if (process.parameter_numbers() > most_tangents)
        return because({"forward: one tangent for each of ", process.parameter_numbers(),
                        " numbers; expected at most ", most_tangents, "; take binomial, whose cost does not depend on how many "
                        "there are"});
      if (process.has_running_cost)
        return because({"forward: running costs are of the discrete adjoints; take binomial or store_all"});
      if (options.visit) return because({"forward: there are no costates to visit; take store_all"});
      break;
    default:
      break;
  }
  return {};
}

Gradient gradient(const Process& process, const Tensor& x0, const std::function<Tensor(const Tensor& x)>& terminal,
                  const AdjointOptions& options) {
  if (const std::string why = refusal(process, options); !why.empty()) fail(Fault::argument, {why});
  switch (options.method) {
    case AdjointMethod::reversible:
      return detail::reversible(process, x0, terminal, options);
    case AdjointMethod::interpolated:
      return detail::interpolated(process, x0, terminal, options);
    case AdjointMethod::backsolve:
      return detail::backsolve(process, x0, terminal, options);
    case AdjointMethod::forward:
      return detail::forward(process, x0, terminal);
    default:
      return detail::discrete(process, x0, terminal, options, detail::plan_of(process, options));
  }
}

Work predicted_work(const Process& process, const AdjointOptions& options) {
  if (const std::string why = refusal(process, options); !why.empty()) fail(Fault::argument, {why});
  const std::int64_t K = process.steps;
  Work work;
  const auto calls = [&](const CallWork& call, std::int64_t times) {
    work.evaluations += times * call.evaluations, work.pullbacks += times * call.pullbacks;
  };
  calls(process.start_work, 1);
  switch (options.method) {
    case AdjointMethod::reversible:
      calls(process.step_work, K), calls(process.unstep_work, K), calls(process.pullback_work, K);
      calls(process.pull_start_work, 1);
      work.recomputed = K;
      break;
    case AdjointMethod::backsolve:
      calls(process.step_work, K), calls(process.increment_work, 2 * K);
      work.recomputed = K;
      break;
    case AdjointMethod::interpolated: {
      calls(process.step_work, K), calls(process.increment_work, 2 * K);
      const std::int64_t s = std::max(1, options.segment), whole = K / s, rest = K % s;
      calls(process.increment_work, 2 * ((s > 1 ? whole : 0) + (rest > 1 ? 1 : 0)));
      break;
    }
    case AdjointMethod::forward:
      calls(process.step_work, K), calls(process.pullback_work, K);
      work.pullbacks += K * process.parameter_numbers() * process.pullback_work.pullbacks;
      break;
    default: {
      const PlanCost plan = cost(detail::plan_of(process, options), process.steps);
      calls(process.step_work, plan.steps), calls(process.pullback_work, K), calls(process.pull_start_work, 1);
      work.recomputed = plan.recomputed;
    }
  }
  return work;
}

namespace detail {

CheckpointPlan plan_of(const Process& process, const AdjointOptions& options) {
  const int slots = slots_of(process, options);
  switch (options.method) {
    case AdjointMethod::store_all:
      return store_all_plan(process.steps);
    case AdjointMethod::segments:
      return segment_plan(process.steps, options.segment);
    case AdjointMethod::binomial:
      return binomial_plan(process.steps, slots);
    case AdjointMethod::binomial_online:
      return online_plan(process.steps, slots);
    case AdjointMethod::two_level:
      return two_level_plan(process.steps, options.segment, slots);
    default:
      return {};
  }
}

void accumulate(std::vector<Tensor>& sum, std::vector<Tensor> terms) {
  if (sum.empty()) {
    sum = std::move(terms);
    return;
  }
  for (std::size_t i = 0; i < sum.size() && i < terms.size(); ++i) {
    sum[i].unshare();
    add_in_place(sum[i], terms[i]);
  }
}

State run_forwards(const Process& process, const Tensor& x0, Gradient& result) {
  State state = process.start(x0);
  count(result.work, process.start_work);
  for (int k = 0; k < process.steps; ++k) {
    state = process.step(k, state);
    count(result.work, process.step_work);
  }
  result.x = state[0];
  return state;
}

void finish(const Process& process, const Tensor& x0, State costate, Gradient& result) {
  if (process.pull_start) {
    StepPullback p = process.pull_start(x0, costate);
    count(result.work, process.pull_start_work);
    accumulate(result.parameters, std::move(p.parameters));
    costate = std::move(p.costate);
  }
  result.initial = std::move(costate[0]);
}

State terminal_costate(const State& last, const Terminal& terminal) {
  State costate(last.size());
  costate[0] = terminal(last[0]);
  require(costate[0].defined() && costate[0].shape() == last[0].shape(),
          "gradient: the terminal costate must have the shape of x, ", last[0].shape());
  return costate;
}

}  // namespace detail
}  // namespace costate::sde
