// Rows of network calls of an iteration are those that the header of backpropagation.h states.
#include <gtest/gtest.h>

#include <atomic>

#include "backpropagation_support.h"

namespace costate::finetune {
namespace {

using testing::affine_steps;
using testing::plain_options;
using Truncation = BackpropagationOptions::Truncation;

struct Rows {
  std::int64_t plain = 0, state = 0, parameters = 0;
  friend bool operator==(const Rows&, const Rows&) = default;
};
std::ostream& operator<<(std::ostream& out, const Rows& r) {
  return out << r.plain << " plain, " << r.state << " by state, " << r.parameters << " by parameters";
}

struct Counted {
  testing::AffineSteps net;
  std::shared_ptr<std::atomic<std::int64_t>[]> counts;  // plain, state, parameters
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    const Var y = net(x, t, labels);
    counts[x.tape() ? 1 : y.tape() ? 2 : 0] += x.extent(0);
    return y;
  }
  void visit(const nn::Visitor& v) { net.visit(v); }
};

struct Measured {
  Rows tuned, base;
  std::int64_t rewards;
};
// Of one trajectory, in the first iteration. Ten steps; `quiet` takes the noise out of the last one.
Measured measure(const BackpropagationOptions& options, bool quiet) {
  constexpr std::int64_t batch = 40;
  BackpropagationOptions o = options;
  o.batch = batch;
  const auto counts = [] { return std::shared_ptr<std::atomic<std::int64_t>[]>(new std::atomic<std::int64_t>[3]()); };
  const Counted tuned{affine_steps(10, 0, .3), counts()}, base{affine_steps(10, 0, .3), counts()};
  std::int64_t rewards = 0;
  Reward reward = quadratic_reward({1.0}, {1.0});
  reward.value = [&rewards, inner = reward.value](const Var& x) {
    rewards += x.extent(0);
    return inner(x);
  };
  sde::Chain chain = testing::constant_chain(10, .5, 1, .3);
  if (quiet) chain.std.back() = 0;
  Backpropagation trainer(testing::scalar_problem(chain, nn::Network(base), std::move(reward)), nn::Network(tuned), o);
  trainer.step();
  const auto rows = [](const Counted& c) { return Rows{c.counts[0] / batch, c.counts[1] / batch, c.counts[2] / batch}; };
  return {rows(tuned), rows(base), rewards / batch};
}

TEST(BackpropagationCount, EveryObjectiveAsksForWhatItsHeaderSays) {
  const auto expect = [](const char* what, const BackpropagationOptions& o, bool quiet, Rows tuned, Rows base,
                         std::int64_t rewards) {
    SCOPED_TRACE(what);
    const Measured m = measure(o, quiet);
    EXPECT_EQ(m.tuned, tuned);
    EXPECT_EQ(m.base, base);
    EXPECT_EQ(m.rewards, rewards);
  };
  const BackpropagationOptions plain = plain_options(1);
  expect("draft", plain, false, {10, 9, 1}, {}, 1);
  BackpropagationOptions o = plain;
  o.adjoint.method = sde::AdjointMethod::binomial, o.adjoint.slots = 3;
  const sde::Process process = path_process(parametric_field_of(nn::Network(affine_steps(10, 0))),
                                            {.chain = testing::constant_chain(10, .5, 1, .3)}, {}, {}, {}, nullptr, nullptr);
  const std::int64_t again = sde::predicted_work(process, o.adjoint).recomputed;
  EXPECT_GT(again, 0);
  expect("draft with three states", o, false, {10 + again, 9, 1}, {}, 1);
  o = plain;
  o.truncation = Truncation::last, o.last_steps = 4;
  expect("draft_k", o, false, {10, 3, 1}, {}, 1);
  o.last_steps = 1, o.renoisings = 2;
  expect("draft_lv", o, false, {12, 0, 3}, {}, 3);
  o = plain;
  o.kl_weight = 1;
  expect("relative_entropy", o, false, {10, 9, 1}, {1, 9, 0}, 1);
  expect("relative_entropy, a last step without noise", o, true, {10, 9, 1}, {1, 8, 0}, 1);
  o.detached_inputs = true;
  expect("detached inputs with a divergence", o, true, {10, 0, 9}, {9, 0, 0}, 1);
  o = plain;
  o.keep_activations = true;
  expect("draft, kept", o, false, {0, 9, 1}, {}, 1);
  o.kl_weight = 1;
  expect("relative_entropy, kept", o, true, {0, 9, 1}, {1, 8, 0}, 1);
  o.kl_weight = 0, o.truncation = Truncation::last, o.last_steps = 4;
  expect("draft_k, kept", o, false, {6, 3, 1}, {}, 1);
  o.last_steps = 1, o.renoisings = 2;
  expect("draft_lv, kept", o, false, {9, 0, 3}, {}, 1 + 2);
  // Stops and random truncations: as many steps as were drawn.
  o = plain;
  o.truncation = Truncation::uniform;
  const nn::Network net(affine_steps(10, 0));
  const auto drawn = [&](const BackpropagationOptions& options) {
    return Backpropagation(testing::scalar_problem(testing::constant_chain(10, .5, 1, .3), net, quadratic_reward({1.0}, {1.0})),
                           net, options)
        .draw(0);
  };
  expect("align_prop", o, false, {10, 9 - drawn(o).first, 1}, {}, 1);
  o = plain;
  o.truncation = Truncation::last, o.stop_from = .5, o.stop_to = 1;
  expect("refl", o, false, {drawn(o).last(), 0, 1}, {}, 1);
  o = plain;
  o.detached_inputs = true, o.trained_steps = 3, o.stop_from = .5, o.stop_to = 1;
  expect("drtune", o, false, {drawn(o).last(), 0, 4}, {}, 1);
  o.keep_activations = true;
  expect("drtune, kept", o, false, {drawn(o).last() - 4, 0, 4}, {}, 1);
}

}  // namespace
}  // namespace costate::finetune
