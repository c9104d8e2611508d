// Checkpoint plans, on integers alone: what they do is sound, and what they cost is the known optimum.
#include <costate/sde/adjoint/checkpoints.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace costate::sde {
namespace {

constexpr int most_steps = 64, most_slots = 10;

// The optimum by dynamic programming over the first kept state, without the closed form.
std::vector<std::vector<std::int64_t>> optimum() {
  std::vector<std::vector<std::int64_t>> t(most_steps + 1, std::vector<std::int64_t>(most_slots + 1));
  for (int l = 2; l <= most_steps; ++l)
    for (int c = 1; c <= most_slots; ++c) {
      t[l][c] = l * (l - 1) / 2;
      for (int j = 1; j < l && c > 1; ++j) t[l][c] = std::min(t[l][c], j + t[l - j][c - 1] + t[j][c]);
    }
  return t;
}

TEST(Checkpoints, BinomialPlansTakeTheFewestSteps) {
  const auto t = optimum();
  for (int steps = 1; steps <= most_steps; ++steps)
    for (int slots = 1; slots <= most_slots; ++slots) {
      ASSERT_EQ(binomial_steps(steps, slots), t[steps][slots]) << steps << " steps, " << slots << " slots";
      const PlanCost c = cost(binomial_plan(steps, slots), steps);
      // The step to x_K is no repeat, and the optimum does not count it.
      ASSERT_EQ(c.steps, t[steps][slots] + 1) << steps << " steps, " << slots << " slots";
      ASSERT_LE(c.kept, slots);
    }
}

TEST(Checkpoints, BinomialCountsOfLongRuns) {
  // r = 4, as C(15, 12) = 455 < 1000 <= C(16, 12) = 1820: 4 * 1000 - C(16, 3).
  EXPECT_EQ(binomial_steps(1000, 12), 4000 - 560);
  EXPECT_EQ(cost(binomial_plan(1000, 12), 1000).steps, 3440 + 1);
}

TEST(Checkpoints, OnlinePlansAreOptimalWhileTwoRepetitionsSufficeAndNearItBeyond) {
  const auto t = optimum();
  double worst = 1;
  for (int steps = 1; steps <= most_steps; ++steps)
    for (int slots = 1; slots <= most_slots; ++slots) {
      const PlanCost online = cost(online_plan(steps, slots), steps);
      ASSERT_LE(online.kept, slots);
      const std::int64_t best = t[steps][slots] + 1;
      if (steps <= (slots + 2) * (slots + 1) / 2) {
        ASSERT_EQ(online.steps, best) << steps << " steps, " << slots << " slots";
      }
      worst = std::max(worst, static_cast<double>(online.steps) / static_cast<double>(best));
    }
  EXPECT_LT(worst, 1.14);  // measured: 1.136
}

TEST(Checkpoints, SegmentsAndStoreAll) {
  for (int steps = 1; steps <= most_steps; ++steps) {
    const PlanCost all = cost(store_all_plan(steps), steps);
    ASSERT_EQ(all.recomputed, 0);
    for (int s = 1; s <= steps + 2; ++s) {
      const PlanCost c = cost(segment_plan(steps, s), steps);
      const int stride = std::min(s, steps), segments = (steps + stride - 1) / stride, last = steps - (segments - 1) * stride;
      // All but the first state of each segment, and nothing of the last one.
      ASSERT_EQ(c.recomputed, (segments - 1) * (stride - 1)) << steps << " steps in segments of " << s;
      ASSERT_LE(c.kept, segments + stride - 1);
      ASSERT_LE(c.repetitions, 2);
      ASSERT_GE(last, 1);
    }
  }
}

TEST(Checkpoints, TwoLevelsWriteAndReadEveryStateOnce) {
  for (int steps = 1; steps <= most_steps; ++steps)
    for (int segment = 0; segment <= 9; ++segment)
      for (int slots = 1; slots <= 4; ++slots) {
        const PlanCost c = cost(two_level_plan(steps, segment, slots), steps);
        ASSERT_LE(c.kept, slots);
        const int s = std::min(segment ? segment : (slots + 2) * (slots + 1) / 2, steps);
        ASSERT_EQ(c.offloaded, (steps - 1) / s);
        std::int64_t expected = 1;  // the step to x_K
        for (int first = 0; first < steps; first += s)
          expected += binomial_steps(std::min(s, steps - first), slots) + (first + s < steps ? s : 0);
        ASSERT_EQ(c.steps, expected);
      }
}

TEST(Checkpoints, UnsoundPlansAreRefused) {
  using Kind = CheckpointAction::Kind;
  const auto sentence = [](const CheckpointPlan& plan) -> std::string {
    try {
      cost(plan, 2);
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  };
  EXPECT_NE(sentence({{Kind::load, 1}}).find("loads a state that is not kept"), std::string::npos);
  EXPECT_NE(sentence({{Kind::advance, 1}, {Kind::pullback, 1}}).find("pulls back another step"), std::string::npos);
  EXPECT_NE(sentence({{Kind::keep, 0}, {Kind::advance, 1}, {Kind::finish, 1}, {Kind::pullback, 1}}).find("it ends before"),
            std::string::npos);
  EXPECT_THROW(binomial_plan(0, 3), Error);
  EXPECT_THROW(binomial_plan(3, 0), Error);
  EXPECT_THROW(segment_plan(3, -1), Error);
}

}  // namespace
}  // namespace costate::sde
