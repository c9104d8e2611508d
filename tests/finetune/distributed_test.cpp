// Sums, trainings and samples that ranks share have the bits of one rank.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/distributed/sampling.h>
#include <costate/finetune/distributed/shared_sum.h>
#include <costate/finetune/flow_matching.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/nn/mlp.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>

#include "local_ranks.h"

namespace costate::finetune {
namespace {

using testing::LocalRank;
using testing::on_ranks;

std::vector<float> values_of(const std::vector<Tensor>& tensors) {
  std::vector<float> all;
  for (const Tensor& t : tensors) all.insert(all.end(), t.values<float>().begin(), t.values<float>().end());
  return all;
}

// Numbers of many magnitudes, whose sum depends on the order: no two orders of seven terms agree on all 100,000.
Gradients piece(std::int64_t i, const std::vector<Shape>& shapes) {
  Gradients g{.loss = 1.0 / static_cast<double>(i + 3), .parameters = {}};
  for (std::size_t k = 0; k < shapes.size(); ++k) {
    const Tensor t = Tensor::empty(shapes[k]);
    random_normal(t, k, Stream::noise, static_cast<std::uint64_t>(i) << 32, 0);
    g.parameters.push_back(t);
  }
  return g;
}

struct Summed {
  std::vector<float> values;
  double loss = 0;
  std::vector<double> numbers;
  std::int64_t sent = 0;
  bool operator==(const Summed& o) const { return values == o.values && loss == o.loss && numbers == o.numbers; }
};

Summed summed(std::int64_t pieces, const std::vector<Shape>& shapes) {
  SharedSum sum("test", pieces);
  for (std::int64_t i = 0; i < pieces; ++i)
    if (sum.mine(i)) sum.add(i, piece(i, shapes), {static_cast<double>(i * i)});
  Summed out;
  const Gradients g = sum.finish([&](std::span<const double> n) { out.numbers.push_back(n[0]); });
  for (std::size_t k = 0; k < shapes.size(); ++k) EXPECT_EQ(g.parameters[k].shape(), shapes[k]);
  out.values = values_of(g.parameters), out.loss = g.loss, out.sent = communicator().bytes_sent;
  return out;
}

TEST(Distributed, OrderedSumsHaveTheBitsOfOneRank) {
  // Shapes that no bucket ends with; parameters of more than a bucket (2^18 floats), and of fewer elements than ranks.
  for (const std::vector<Shape>& shapes : {std::vector<Shape>{{3, 5}, {1}, {300001}}, std::vector<Shape>{{2}}})
    for (const std::int64_t pieces : {5, 7, 10}) {
      Gradients by_hand = piece(0, shapes);
      for (std::int64_t i = 1; i < pieces; ++i) add(by_hand, piece(i, shapes));
      const Summed alone = summed(pieces, shapes);
      EXPECT_EQ(alone.values, values_of(by_hand.parameters));
      EXPECT_EQ(alone.loss, by_hand.loss);
      for (const int ranks : {2, 3, 4, 5})
        on_ranks(ranks, [&](LocalRank& rank) {
          EXPECT_TRUE(summed(pieces, shapes) == alone) << pieces << " pieces, rank " << rank.rank() << " of " << ranks;
        });
    }
}

TEST(Distributed, FastSumsAreSumsWithLessToSend) {
  const std::vector<Shape> shapes{{200000}};
  const Summed alone = summed(8, shapes);
  const double bytes = 4.0 * 200000;
  for (const Reduction reduction : {Reduction::ordered, Reduction::fast})
    on_ranks(2, [&](LocalRank&) {
      const Summed shared = summed(8, shapes);
      for (std::size_t i = 0; i < alone.values.size(); ++i)  // seven roundings of sums below 16
        ASSERT_NEAR(shared.values[i], alone.values[i], 7 * 16 * 6e-8);
      EXPECT_EQ(shared.numbers, alone.numbers);
      // (m + 1) P (R - 1)/R with m = 4 of 8 pieces, and 2 P (R - 1)/R; beside them numbers and counts.
      const double expected = (reduction == Reduction::ordered ? 5 : 2) * bytes / 2;
      EXPECT_NEAR(static_cast<double>(shared.sent), expected, 200);
    }, reduction);
}

TEST(Distributed, EveryRankNeedsAPiece) {
  on_ranks(3, [](LocalRank&) {
    try {
      SharedSum("flow matching", 2);
      ADD_FAILURE() << "two pieces for three ranks";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_STREQ(e.what(), "flow matching: 3 processes share the micro-batches of an update, but it has 2; choose a micro_batch "
                             "of at most 1/3 of the batch, or fewer processes");
    }
  });
}

TEST(Distributed, CollectivesKeepTheOrderOfRanks) {
  on_ranks(4, [](LocalRank& rank) {
    const std::vector<double> own(static_cast<std::size_t>(rank.rank()), rank.rank() + 0.5);
    const auto all = all_gather(own);
    ASSERT_EQ(all.size(), 4u);
    for (std::size_t r = 0; r < 4; ++r) EXPECT_EQ(all[r], std::vector<double>(r, static_cast<double>(r) + 0.5));
    EXPECT_EQ(all_gather(std::string(static_cast<std::size_t>(3 - rank.rank()), 'x')),
              (std::vector<std::string>{"xxx", "xx", "x", ""}));
    barrier();
  });
}

nn::Network network(std::uint64_t seed) {
  nn::Init init(seed);
  nn::VelocityMlp mlp = nn::make_velocity_mlp({.dim = 2, .hidden = 16, .depth = 2}, init);
  mlp.output.weight = Var(init.normal(mlp.output.weight.shape(), 0.3));  // a base that does something
  return mlp;
}

ControlProblem problem() {
  return {.chain = sde::exact_memoryless({}, sde::uniform_grid(6)),
          .base = field_of(network(5)),
          .sample_shape = {2},
          .reward = linear_reward({0.8, -0.4})};
}

// What three iterations leave, with all that they reported.
template <class Make>
std::vector<float> trained(const Make& make) {
  const auto objective = make();
  std::vector<float> out;
  for (int i = 0; i < 3; ++i) {
    const Metrics metrics = objective->step();
    for (const auto& m : metrics.entries()) out.push_back(std::isnan(m.value) ? -1.0f : static_cast<float>(m.value));
  }
  for (const float v : values_of(nn::parameters(objective->network()))) out.push_back(v);
  return out;
}

template <class Make>
void expect_the_bits_of_one_rank(const Make& make) {
  const std::vector<float> alone = trained(make);
  for (const int ranks : {2, 3, 4})
    on_ranks(ranks, [&](LocalRank& rank) { EXPECT_EQ(trained(make), alone) << "rank " << rank.rank() << " of " << ranks; });
}

TEST(Distributed, AdjointMatchingHasTheBitsOfOneRank) {
  for (const auto costate : {ValueGradientOptions::Costate::lean, ValueGradientOptions::Costate::full})
    expect_the_bits_of_one_rank([costate] {
      ValueGradientOptions o{.batch = 70, .micro_batch = 12, .seed = 3};
      o.costate = costate, o.early_steps = 2, o.late_steps = 2, o.learner.ema_decay = 0.9;
      return std::make_unique<ValueGradientRegression>(problem(), network(5), o);
    });
}

TEST(Distributed, BackpropagationHasTheBitsOfOneRank) {
  expect_the_bits_of_one_rank([] {
    BackpropagationOptions o;
    o.batch = 70, o.micro_batch = 16, o.seed = 3, o.kl_weight = 1;
    return std::make_unique<Backpropagation>(problem(), network(5), o);
  });
}

std::vector<float> pretrained(std::int64_t micro_batch) {
  data::Dataset set;
  set.count = 64, set.item_shape = {2}, set.description = "a line";
  for (int i = 0; i < 128; ++i) set.values.push_back(static_cast<float>(i) / 64 - 1);
  FlowMatching training(network(7), set, false, {.batch = 100, .micro_batch = micro_batch});
  for (int i = 0; i < 4; ++i) training.step();
  return values_of(nn::parameters(training.network()));
}

TEST(Distributed, FlowMatchingHasTheBitsOfOneRankAndMicroBatchesItsNumbers) {
  const std::vector<float> whole = pretrained(0), cut = pretrained(23);
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(cut[i], whole[i], 1e-4f);  // Adam's steps are 1e-3 each
  for (const int ranks : {2, 3, 5})
    on_ranks(ranks, [&](LocalRank& rank) { EXPECT_EQ(pretrained(23), cut) << "rank " << rank.rank() << " of " << ranks; });
}

TEST(Distributed, SharedSamplesAreThoseOfOneRank) {
  const sde::Field field = field_of(network(5));
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(4));
  for (const std::int64_t count : {1, 70, 300}) {
    const Tensor alone = sde::sample(field, chain, {2}, count, {}, {9, 4});
    for (const int ranks : {1, 2, 4})
      on_ranks(ranks, [&](LocalRank&) {
        const Tensor shared = shared_sample(field, chain, {2}, count, {}, {9, 4});
        EXPECT_EQ(values_of({shared}), values_of({alone})) << count << " samples, " << ranks << " ranks";
      });
  }
}

}  // namespace
}  // namespace costate::finetune
