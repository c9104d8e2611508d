// Sums, trainings and samples that ranks share have the bits of one rank.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/distributed/sampling.h>
#include <costate/finetune/distributed/shared_sum.h>
#include <costate/finetune/flow_matching.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
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
      EXPECT_STREQ(e.what(), "flow matching: 3 processes share the micro-batches of an update, but it has 2; choose a "
                             "micro_batch of at most 1/3 of the batch, or fewer processes");
    }
  });
}

TEST(Distributed, RanksWithoutAPieceTakeThePartOfTheSum) {
  const std::vector<Shape> shapes{{3, 5}, {70000}};
  const std::vector<Tensor> like = piece(0, shapes).parameters;
  const auto shared = [&](std::int64_t pieces) {
    SharedSum sum("test", pieces, like);
    for (std::int64_t i = 0; i < pieces; ++i)
      if (sum.mine(i)) sum.add(i, piece(i, shapes), {static_cast<double>(i)});
    std::vector<double> numbers;
    const Gradients g = sum.finish([&](std::span<const double> n) { numbers.push_back(n[0]); });
    EXPECT_EQ(numbers.size(), static_cast<std::size_t>(pieces));
    return std::pair(values_of(g.parameters), g.loss);
  };
  for (const std::int64_t pieces : {1, 2}) {  // sums of two terms have no order: `fast` has these bits, too
    const auto alone = shared(pieces);
    for (const Reduction reduction : {Reduction::ordered, Reduction::fast})
      on_ranks(4, [&](LocalRank& rank) { EXPECT_EQ(shared(pieces), alone) << "rank " << rank.rank(); }, reduction);
  }
}

// A rank whose calls are written down.
class Observed final : public Communicator {
 public:
  explicit Observed(Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::unique_ptr<Transfer> send(int to, const Tensor& t) override { return begin(inner_.send(to, t)); }
  std::unique_ptr<Transfer> receive(int from, const Tensor& t) override { return begin(inner_.receive(from, t)); }
  int begun = 0, waited = 0;

 private:
  struct Watched final : Transfer {
    Watched(Observed& o, std::unique_ptr<Transfer> t) : owner(o), inner(std::move(t)) {}
    void wait() override { ++owner.waited, inner->wait(); }
    Observed& owner;
    std::unique_ptr<Transfer> inner;
  };
  std::unique_ptr<Transfer> begin(std::unique_ptr<Transfer> t) {
    ++begun;
    return std::make_unique<Watched>(*this, std::move(t));
  }
  Communicator& inner_;
};

TEST(Distributed, APieceIsUnderWayWhileTheNextIsComputed) {
  // Three pieces a rank. When a piece has been given, its buckets are under way and nothing waits for them: whatever the rank
  // does before it gives the next one overlaps. The next one waits for exactly those.
  const std::vector<Shape> shapes{{600000}};  // 2.4 MB: four buckets of at most a MiB, two each
  on_ranks(2, [&](LocalRank& local) {
    Observed rank(local);
    const CommunicatorScope scope(&rank);
    SharedSum sum("test", 6);
    int begun = 0;
    for (std::int64_t i = 0; i < 6; ++i) {
      if (!sum.mine(i)) continue;
      const Gradients g = piece(i, shapes);
      EXPECT_EQ(rank.waited, begun == 0 ? 0 : begun - 4);  // what computing this piece met: all but the last four are over
      sum.add(i, g);
      EXPECT_EQ(rank.begun, begun + 4) << "two buckets sent, two received";
      EXPECT_EQ(rank.waited, begun) << "those of the piece before, and none of this one";
      begun = rank.begun;
    }
    sum.finish();
  });
}

TEST(Distributed, CollectivesKeepTheOrderOfRanks) {
  on_ranks(4, [](LocalRank& rank) {
    const std::vector<double> own(static_cast<std::size_t>(rank.rank()), rank.rank() + 0.5);
    const auto all = all_gather(own);
    ASSERT_EQ(all.size(), 4u);
    for (std::size_t r = 0; r < 4; ++r) EXPECT_EQ(all[r], std::vector<double>(r, static_cast<double>(r) + 0.5));
    const double two[] = {1.0 * rank.rank(), 7};
    const auto alike = all_gather_alike(two);
    for (std::size_t r = 0; r < 4; ++r) EXPECT_EQ(alike[r], (std::vector<double>{static_cast<double>(r), 7}));
    EXPECT_THROW(all_gather(two, {1, 1, 1, 1}), Error);
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

struct PolicyGradientCase {
  const char* name;
  std::int64_t batch, micro_batch;
  void (*set)(PolicyGradientOptions&);
};

TEST(Distributed, PolicyGradientsHaveTheBitsOfOneRank) {
  using O = PolicyGradientOptions;
  const std::vector<PolicyGradientCase> cases{
      {"ratios in minibatches", 70, 6, [](O& o) { o.minibatches = 2, o.epochs = 2; }},
      {"groups of one label, in the loss", 64, 8, [](O& o) {
         o.advantage.baseline = Baseline::group, o.advantage.group_size = 4, o.divergence = O::Divergence::in_loss;
       }},
      {"siblings in a window", 64, 8, [](O& o) {
         o.advantage.baseline = Baseline::group, o.advantage.group_size = 4;
         o.window.kind = WindowOptions::Kind::segments, o.window.count = 2, o.window.iterations = 3, o.window.siblings = true;
       }},
      {"a critic, step by step", 40, 9, [](O& o) {
         o.advantage.baseline = Baseline::value, o.update = O::Update::timestep, o.critic.widths = {8};
       }},
      {"a loss of paths, replayed", 40, 9, [](O& o) {
         o.loss = O::Loss::trajectory_balance, o.log_z = O::LogZ::learned, o.divergence = O::Divergence::none;
         o.advantage.baseline = Baseline::none, o.replay = 2, o.minibatches = 2;
       }},
  };
  for (const PolicyGradientCase& c : cases) {
    SCOPED_TRACE(c.name);
    expect_the_bits_of_one_rank([&c] {
      PolicyGradientOptions o;
      o.batch = c.batch, o.micro_batch = c.micro_batch, o.seed = 3, o.learner.ema_decay = 0.9;
      c.set(o);
      return std::make_unique<PolicyGradient>("policy gradient", problem(), network(5), o);
    });
  }
}

TEST(Distributed, MicroBatchesOfPolicyGradientsHaveTheNumbersOfTheWhole) {
  // Noise and labels are functions of the sample's number: the paths are the same, and so is the gradient but for roundings.
  // Adam's steps are 1e-3 each, three of them.
  const auto after = [](std::int64_t micro_batch) {
    PolicyGradientOptions o;
    o.batch = 70, o.micro_batch = micro_batch, o.seed = 3;
    PolicyGradient training("policy gradient", problem(), network(5), o);
    for (int i = 0; i < 3; ++i) training.step();
    return values_of(nn::parameters(training.network()));
  };
  const std::vector<float> whole = after(0), cut = after(16);
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(cut[i], whole[i], 1e-4f);
}

TEST(Distributed, RewardsThatFailAreCountedOverAllMicroBatches) {
  // A path that ends to the left of 0 has no reward, about half of them.
  ControlProblem p = problem();
  p.reward = {.name = "half", .black_box = [](const Tensor& x) {
                std::vector<float> r;
                for (std::int64_t i = 0; i < x.extent(0); ++i) {
                  const float v = x.values<float>()[static_cast<std::size_t>(2 * i)];
                  r.push_back(v < 0 ? std::nanf("") : v);
                }
                return Tensor::from(r, {x.extent(0)});
              }};
  p.reward.on_failure = Reward::Policy::skip;
  const auto invalid = [&](std::int64_t micro_batch) {
    PolicyGradientOptions o;
    o.batch = 20, o.micro_batch = micro_batch, o.seed = 3;
    PolicyGradient training("policy gradient", p, network(5), o);
    return training.step()["invalid"];
  };
  const double whole = invalid(0);
  EXPECT_GT(whole, 0.2);
  EXPECT_LT(whole, 0.8);
  EXPECT_EQ(invalid(7), whole);
  on_ranks(3, [&](LocalRank&) { EXPECT_EQ(invalid(7), whole); });
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
