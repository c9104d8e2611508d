// The discrete adjoint: any plan of checkpoints.h, run on states.
#include <costate/sde/adjoint/methods.h>
#include <costate/sde/adjoint/offloaded.h>

#include <map>

namespace costate::sde::detail {
Gradient discrete(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options,
                  const CheckpointPlan& plan) {
  Gradient result;
  std::map<int, State> kept;
  Offloaded away(options.scratch, options.host_memory);
  State current = process.start(x0), costate;
  count(result.work, process.start_work);
  int at = 0;
  std::int64_t taken = 0;
  const auto take_step = [&](const State& state, int k) {
    count(result.work, process.step_work);
    ++taken;
    return process.step(k, state);
  };
  for (const CheckpointAction a : plan) switch (a.kind) {
      using Kind = CheckpointAction::Kind;
      case Kind::keep:
        for (const Tensor& t : current)
          if (t.defined()) t.storage().charge_to(memory::Tag::trajectory);
        kept[a.step] = current;
        break;
      case Kind::offload:
        result.work.offloaded_bytes += away.write(a.step, current);
        break;
      case Kind::load:
        current.clear();
        current = away.holds(a.step) ? away.read(a.step, away.last_below(a.step)) : kept.at(a.step);
        at = a.step;
        break;
      case Kind::drop:
        away.drop(a.step);
        kept.erase(a.step);
        break;
      case Kind::advance:
        for (; at < a.step; ++at) current = take_step(current, at);
        break;
      case Kind::finish: {
        const State last = take_step(current, at);
        result.x = last[0];
        costate = terminal_costate(last, terminal);
        break;
      }
      case Kind::pullback: {
        if (options.visit) options.visit(a.step, current[0], costate[0]);
        StepPullback p = process.pullback(a.step, current, costate);
        count(result.work, process.pullback_work);
        costate = std::move(p.costate);
        accumulate(result.parameters, std::move(p.parameters));
        result.running_cost += p.cost;
        break;
      }
    }
  result.work.recomputed = taken - process.steps;
  finish(process, x0, std::move(costate), result);
  return result;
}

}  // namespace costate::sde::detail
