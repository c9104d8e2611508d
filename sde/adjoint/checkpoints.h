// Which states to keep for the way back: plans, made of integers alone, that every checkpointing method is.
//
// K steps x_0 -> x_1 -> ... -> x_K are to be pulled back in the order K-1, ..., 0, and step k needs x_k. A plan is a list
// of actions on one current state, which is x_0 at first, and on the states that are kept. The binomial plan with c kept
// states takes the fewest steps possible (Griewank and Walther, Algorithm 799: revolve, ACM TOMS 26 (2000), 19-45):
//   t(l, c) = r l - C(c + r, r - 1),   r the least number with l <= C(c + r, c),
// no step being taken more than r times.
#pragma once
#include <cstdint>
#include <vector>

namespace costate::sde {

struct CheckpointAction {
  enum class Kind : std::uint8_t {
    keep,      // the current state, which is x_step, in memory
    offload,   // the same, on disk
    load,      // x_step, from wherever it is, becomes the current state; it stays kept
    drop,      // x_step is not needed any more
    advance,   // take steps until the current state is x_step
    finish,    // the current state is x_{K-1}: compute x_K, and the costate there, and go on with x_{K-1}
    pullback,  // of step `step`, whose state is the current one
  };
  Kind kind;
  int step;
  friend bool operator==(const CheckpointAction&, const CheckpointAction&) = default;
};
using CheckpointPlan = std::vector<CheckpointAction>;

// All states are kept: K of them, no step is taken twice.
CheckpointPlan store_all_plan(int steps);
// x_0, x_s, x_2s, ... are kept, and the states of one segment of s = `segment` steps: ceil(K/s) + s - 1 states, and no step
// is taken more than twice. segment 0: the integer nearest to sqrt K.
CheckpointPlan segment_plan(int steps, int segment);
// At most `slots` >= 1 states, x_0 among them, by the fewest steps.
CheckpointPlan binomial_plan(int steps, int slots);
// The same for a forward sweep that does not know when it will end: each state is kept, in the place of another when there
// is no room, as it makes the way back shortest if the run were to end with the next step; the way back is optimal for what
// was kept. As short as the binomial plan up to C(c + 2, 2) steps (the range that Stumm and Walther's online method covers
// too, SIAM J. Sci. Comput. 32 (2010), 836-854), and at most 14 % longer for up to 64 steps.
CheckpointPlan online_plan(int steps, int slots);
// x_0, x_s, x_2s, ... on disk, each written once and read once, and binomial plans with `slots` states in memory between
// them (periodic offload is optimal when disk is cheap: Aupy, Herrmann, Hovland, Robert, SIAM J. Sci. Comput. 38 (2016)).
// segment 0: the number of steps that `slots` states serve with one repetition, C(slots + 2, 2).
CheckpointPlan two_level_plan(int steps, int segment, int slots);

// The fewest steps that must be taken before the pullback of each of `steps` steps, with `slots` kept states: t(l, c).
std::int64_t binomial_steps(std::int64_t steps, std::int64_t slots);

// What a plan costs.
struct PlanCost {
  std::int64_t steps = 0;       // steps taken, the one to x_K among them
  std::int64_t recomputed = 0;  // of these, repeats: steps - K
  std::int64_t repetitions = 0; // of the step that is taken most often
  std::int64_t kept = 0;        // states in memory at most, the current one not counted
  std::int64_t offloaded = 0;   // states on disk at most
};
// Runs the plan on integers. Throws Error(argument) naming the first action that cannot be done: a state that is not there,
// a step out of order, a pullback from another state.
PlanCost cost(const CheckpointPlan& plan, int steps);

}  // namespace costate::sde
