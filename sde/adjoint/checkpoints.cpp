#include <costate/sde/adjoint/checkpoints.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace costate::sde {
namespace {

using Kind = CheckpointAction::Kind;

void check_steps(const char* what, int steps) {
  require(steps >= 1, what, ": ", steps, " steps; expected at least 1");
}
void check_slots(const char* what, int slots) {
  require(slots >= 1, what, ": ", slots, " kept states; expected at least 1, which holds x_0");
}

// C(n, k), or the largest number there is.
std::int64_t binomial(std::int64_t n, std::int64_t k) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  k = std::min(k, n - k);
  std::int64_t value = 1;
  for (std::int64_t i = 1; i <= k; ++i) {
    if (value > largest / (n - k + i)) return largest;
    value = value * (n - k + i) / i;
  }
  return value;
}

// How far to go before the next state is kept: the j that minimises j + t(l - j, c - 1) + t(j, c), which is convex in j.
int split(int length, int slots) {
  const auto rise = [&](int j) {  // from j to j + 1
    return 1 + binomial_steps(length - j - 1, slots - 1) - binomial_steps(length - j, slots - 1) +
           binomial_steps(j + 1, slots) - binomial_steps(j, slots);
  };
  int low = 1, high = length - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (rise(middle) >= 0)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Steps from..to-1 backwards. x_from is kept and current; `slots` counts it. On the forward sweep the last step is finished
// before it is pulled back.
void reverse(CheckpointPlan& plan, int from, int to, int slots, bool forward) {
  while (to - from > 1 && slots > 1) {
    const int middle = from + split(to - from, slots);
    plan.push_back({Kind::advance, middle});
    plan.push_back({Kind::keep, middle});
    reverse(plan, middle, to, slots - 1, forward);
    plan.push_back({Kind::drop, middle});
    plan.push_back({Kind::load, from});
    to = middle, forward = false;
  }
  for (int k = to - 1; k >= from; --k) {
    if (k > from) plan.push_back({Kind::advance, k});
    if (forward) plan.push_back({Kind::finish, k});
    forward = false;
    plan.push_back({Kind::pullback, k});
    if (k > from) plan.push_back({Kind::load, from});
  }
}

// Steps taken on the way back from the kept states `kept` (increasing, x_0 first), with x_{end} current.
std::int64_t steps_back(const std::vector<int>& kept, int end, int slots) {
  std::int64_t steps = 0;
  int room = slots - static_cast<int>(kept.size()) + 1;  // a state's own slot, and those that are free
  for (auto i = kept.rbegin(); i != kept.rend(); end = *i++, ++room) steps += binomial_steps(end - *i, room);
  return steps;
}

}  // namespace

std::int64_t binomial_steps(std::int64_t steps, std::int64_t slots) {
  if (steps <= 1) return 0;
  require(slots >= 1, "binomial_steps: ", slots, " kept states; expected at least 1");
  if (slots == 1) return steps * (steps - 1) / 2;
  std::int64_t r = 1;
  while (binomial(slots + r, slots) < steps) ++r;
  return r * steps - binomial(slots + r, r - 1);
}

CheckpointPlan store_all_plan(int steps) {
  check_steps("store_all_plan", steps);
  return segment_plan(steps, 1);
}

CheckpointPlan segment_plan(int steps, int segment) {
  check_steps("segment_plan", steps);
  require(segment >= 0, "segment_plan: segments of ", segment, " steps; expected at least 1 (0: sqrt K)");
  const int s = segment ? std::min(segment, steps)
                        : std::max(1, static_cast<int>(std::lround(std::sqrt(static_cast<double>(steps)))));
  const int last = (steps - 1) / s * s;  // the first step of the last segment
  CheckpointPlan plan;
  for (int first = 0; first < last; first += s) {
    plan.push_back({Kind::keep, first});
    plan.push_back({Kind::advance, first + s});
  }
  for (int first = last; first >= 0; first -= s) {
    const int end = std::min(first + s, steps);
    if (first != last) plan.push_back({Kind::load, first});
    for (int k = first; k + 1 < end; ++k) {
      if (k > first || first == last) plan.push_back({Kind::keep, k});
      plan.push_back({Kind::advance, k + 1});
    }
    if (end == steps) plan.push_back({Kind::finish, end - 1});
    for (int k = end - 1; k >= first; --k) {
      if (k + 1 < end) plan.push_back({Kind::load, k});
      if (k + 1 < end || (k == first && first != last)) plan.push_back({Kind::drop, k});
      plan.push_back({Kind::pullback, k});
    }
  }
  return plan;
}

CheckpointPlan binomial_plan(int steps, int slots) {
  check_steps("binomial_plan", steps), check_slots("binomial_plan", slots);
  CheckpointPlan plan{{Kind::keep, 0}};
  reverse(plan, 0, steps, slots, true);
  plan.push_back({Kind::drop, 0});
  return plan;
}

CheckpointPlan online_plan(int steps, int slots) {
  check_steps("online_plan", steps), check_slots("online_plan", slots);
  CheckpointPlan plan;
  std::vector<int> kept;
  for (int k = 0; k + 1 < steps; ++k) {
    // The step from x_k will be taken, so that x_k is not the last state that is needed: is it kept, and in whose place? As
    // if the run ended with the step after: x_{k+1} would be current.
    if (static_cast<int>(kept.size()) < slots) {
      kept.push_back(k);
      plan.push_back({Kind::keep, k});
    } else {
      std::int64_t least = std::numeric_limits<std::int64_t>::max();
      std::size_t best = 0;
      for (std::size_t i = 1; i < kept.size(); ++i) {  // x_0 stays
        std::vector<int> other = kept;
        other.erase(other.begin() + static_cast<std::ptrdiff_t>(i));
        other.push_back(k);
        if (const std::int64_t n = steps_back(other, k + 1, slots); n < least) least = n, best = i;
      }
      if (least < std::numeric_limits<std::int64_t>::max() && least <= steps_back(kept, k + 1, slots)) {
        plan.push_back({Kind::drop, kept[best]});
        plan.push_back({Kind::keep, k});
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(best));
        kept.push_back(k);
      }
    }
    plan.push_back({Kind::advance, k + 1});
  }
  // Back: the last step from the current state, the others by binomial plans between the kept ones.
  plan.push_back({Kind::finish, steps - 1});
  plan.push_back({Kind::pullback, steps - 1});
  int end = steps - 1, room = slots - static_cast<int>(kept.size()) + 1;
  for (auto i = kept.rbegin(); i != kept.rend(); end = *i++, ++room) {
    plan.push_back({Kind::load, *i});
    reverse(plan, *i, end, room, false);
    plan.push_back({Kind::drop, *i});
  }
  return plan;
}

CheckpointPlan two_level_plan(int steps, int segment, int slots) {
  check_steps("two_level_plan", steps), check_slots("two_level_plan", slots);
  require(segment >= 0, "two_level_plan: segments of ", segment, " steps; expected at least 1 (0: (slots + 2)(slots + 1)/2)");
  const int s = static_cast<int>(std::min<std::int64_t>(segment ? segment : binomial(slots + 2, 2), steps));
  const int last = (steps - 1) / s * s;
  CheckpointPlan plan;
  for (int first = 0; first < last; first += s) {
    plan.push_back({Kind::offload, first});
    plan.push_back({Kind::advance, first + s});
  }
  for (int first = last; first >= 0; first -= s) {
    if (first != last) {
      plan.push_back({Kind::load, first});
      plan.push_back({Kind::drop, first});
    }
    plan.push_back({Kind::keep, first});
    reverse(plan, first, std::min(first + s, steps), slots, first == last);
    plan.push_back({Kind::drop, first});
  }
  return plan;
}

PlanCost cost(const CheckpointPlan& plan, int steps) {
  PlanCost total;
  std::map<int, bool> kept;  // and whether on disk
  std::vector<std::int64_t> taken(static_cast<std::size_t>(steps));
  std::int64_t memory = 0, disk = 0;
  int current = 0, next = steps - 1;
  bool finished = false;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const CheckpointAction a = plan[i];
    const auto sound = [&](bool holds, const char* what) {
      require(holds, "checkpoint plan: action ", i, " ", what, " (step ", a.step, ", the current state is x_", current, ")");
    };
    sound(a.step >= 0 && a.step < steps, "names a state that there is not");
    switch (a.kind) {
      case Kind::keep:
      case Kind::offload:
        sound(a.step == current && !kept.contains(a.step), "keeps a state that is not current, or is kept");
        kept[a.step] = a.kind == Kind::offload;
        (a.kind == Kind::offload ? disk : memory) += 1;
        total.kept = std::max(total.kept, memory), total.offloaded = std::max(total.offloaded, disk);
        break;
      case Kind::load:
        sound(kept.contains(a.step), "loads a state that is not kept");
        current = a.step;
        break;
      case Kind::drop:
        sound(kept.contains(a.step), "drops a state that is not kept");
        (kept[a.step] ? disk : memory) -= 1;
        kept.erase(a.step);
        break;
      case Kind::advance:
        sound(a.step >= current, "goes backwards");
        for (; current < a.step; ++current) ++taken[static_cast<std::size_t>(current)], ++total.steps;
        break;
      case Kind::finish:
        sound(!finished && current == steps - 1 && a.step == current, "finishes from elsewhere than the last step");
        finished = true, ++taken[static_cast<std::size_t>(current)], ++total.steps;
        break;
      case Kind::pullback:
        sound(finished && a.step == next && current == next, "pulls back another step than the next one from its state");
        --next;
        break;
    }
  }
  require(next == -1 && kept.empty(), "checkpoint plan: it ends before step ", next, " is pulled back, with ", kept.size(),
          " states kept");
  total.recomputed = total.steps - steps;
  for (const std::int64_t n : taken) total.repetitions = std::max(total.repetitions, n);
  return total;
}

}  // namespace costate::sde
