// Recorded work: what runs from a graph has the bits of what ran without, what cannot be recorded is refused in words, and the
// graph's memory is nobody else's.
#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/reward/analytic.h>
#include <costate/nn/dit.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/nn/unet.h>
#include <costate/sde/chain.h>
#include <costate/sde/grid.h>
#include <costate/tensor/graph.h>

#include <fstream>
#include <iterator>

#include "on_device.h"

namespace costate {
namespace {

std::int64_t launches() { return backend_of(device()).launches(); }

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(Device::cpu), y = b.to(Device::cpu);
  return x.shape() == y.shape() && std::memcmp(x.raw(), y.raw(), static_cast<std::size_t>(x.bytes())) == 0;
}

TEST(CudaGraph, RunsTheSameAgainWithTheInputsAndTheNoiseOfTheTime) {
  const Tensor x = Tensor::empty({3, 50}, DType::f32, device()), out = Tensor::empty({3, 50}, DType::f32, device());
  int called = 0;
  const auto body = [&](std::uint64_t first) {
    ++called;
    const Tensor e = Tensor::empty_like(x);
    random_normal(e, 7, Stream::user, first, 2);
    out.copy_from(add(mul(Var(x), Var(e)), dropout(Var(x), 0.5, 3, first, 1)).value());
  };
  Graph graph(device());
  std::vector<const void*> addresses{x.raw()};
  for (std::uint64_t i = 0; i < 5; ++i) {
    x.copy_from(noise({3, 50}, DType::f32, device(), static_cast<std::uint32_t>(i)));
    body(100 * i);
    const Tensor expected = out.clone();
    out.fill(0);
    called = 0;
    const std::int64_t before = launches();
    graph.run(100 * i, [&] { body(100 * i); }, addresses);
    EXPECT_EQ(called, i < 2 ? 1 : 0) << i;
    // The graph itself, and the shift of the samples set and taken back.
    if (i > 1) {
      EXPECT_EQ(launches() - before, 3);
    }
    EXPECT_TRUE(same_bits(expected, out)) << "run " << i;
    EXPECT_EQ(graph.state(), i == 0 ? Graph::State::rehearsed : Graph::State::recorded);
  }
  // Noise outside of graphs is what it was.
  const Tensor here = Tensor::empty({3, 50}), there = Tensor::empty({3, 50}, DType::f32, device());
  random_normal(here, 1, Stream::user, 5, 0), random_normal(there, 1, Stream::user, 5, 0);
  EXPECT_TRUE(same_bits(here, there));
  // What has moved is recorded again.
  addresses[0] = out.raw();
  called = 0;
  for (int i = 0; i < 3; ++i) graph.run(0, [&] { body(0); }, addresses);
  EXPECT_EQ(called, 2);
}

// Values of the host within the recorded work are those of the recorded run.
TEST(CudaGraph, SmallTablesOfTheHostAreRecorded) {
  const Tensor out = Tensor::empty({600}, DType::f64, device());
  std::vector<double> table(600);
  Graph graph(device());
  for (int i = 0; i < 4; ++i) {
    for (std::size_t k = 0; k < table.size(); ++k) table[k] = static_cast<double>(k) + (i > 1 ? 0.5 : 0.0);
    graph.run(0, [&] { out.copy_from(Tensor::from(table, {600}, device())); });
  }
  EXPECT_EQ(graph.state(), Graph::State::recorded);
  EXPECT_EQ(out.slice(599, 1).item(), 599.0);
}

TEST(CudaGraph, WhatCannotBeRecordedIsRefusedInWords) {
  const Tensor x = Tensor::full({4}, 1.0, DType::f32, device());
  const std::vector<float> large(20'000);
  int times = 0;
  const struct {
    const char* what;
    std::function<void()> body;
  } cases[] = {
      {"numbers that the host reads", [&] { x.to_doubles(); }},
      {"a wait of the host", [] { synchronise(device()); }},
      {"more than 64 KiB from the host", [&] { Tensor::from(large, {20'000}, device()); }},
      {"more memory than its rehearsal took", [&] { Tensor::empty({++times == 2 ? 500'000 : 1000}, DType::f32, device()); }},
  };
  for (const auto& c : cases) {
    Graph graph(device());
    int called = 0;
    for (int i = 0; i < 3; ++i)
      EXPECT_NO_THROW(graph.run(0, [&] {
        ++called;
        c.body();
        x.fill(2.0 + i);
      })) << c.what;
    EXPECT_EQ(graph.state(), Graph::State::refused) << c.what;
    EXPECT_NE(graph.refusal().find(c.what), std::string::npos) << graph.refusal();
    EXPECT_EQ(called, 4) << c.what;  // the recording began and came to nothing, then the run was as ever
    EXPECT_EQ(x.to_doubles(), std::vector<double>(4, 4.0)) << c.what;
  }
  // An error of the work itself is its caller's, in both kinds of run, and the device goes on.
  Graph graph(device());
  EXPECT_THROW(graph.run(0, [] { fail(Fault::numerical, {"of its own"}); }), Error);
  int called = 0;
  EXPECT_NO_THROW(graph.run(0, [] {}));
  EXPECT_THROW(graph.run(0, [&] { fail(Fault::numerical, {"of its own ", ++called}); }), Error);
  EXPECT_EQ(x.to_doubles(), std::vector<double>(4, 4.0));
  EXPECT_THROW(Graph(Device::cpu), Error);
}

// A tensor that comes and goes between two launches never lies where the graph works.
TEST(CudaGraph, ItsMemoryIsItsOwn) {
  const Tensor x = noise({1000}, DType::f32, device(), 1), out = Tensor::empty({1000}, DType::f32, device());
  const auto body = [&] { out.copy_from(square(affine(Var(x), 2.0, 1.0)).value()); };
  body();
  const Tensor expected = out.clone();
  {
    Graph graph(device());
    for (int i = 0; i < 2; ++i) graph.run(0, body);
    std::vector<Tensor> others;
    for (int i = 0; i < 50; ++i) others.push_back(Tensor::full({1000}, i, DType::f32, device()));
    out.fill(0);
    graph.run(0, body);
    EXPECT_TRUE(same_bits(expected, out));
    for (int i = 0; i < 50; ++i) EXPECT_EQ(others[static_cast<std::size_t>(i)].slice(999, 1).item(), i);
    memory::trim();  // of what is free, not of the graph's
    out.fill(0);
    graph.run(0, body);
    EXPECT_TRUE(same_bits(expected, out));
  }
  memory::trim();
  EXPECT_EQ(Tensor::full({1000}, 3, DType::f32, device()).slice(7, 1).item(), 3);
}

TEST(CudaGraph, AWrongIndexInAGraphIsToldOf) {
  const Tensor index = Tensor::from(std::vector<std::int32_t>{0, 1}, {2}, device()),
               table = Tensor::full({2, 3}, 1.0, DType::f32, device()), out = Tensor::empty({2, 3}, DType::f32, device());
  Graph graph(device());
  const auto run = [&] { graph.run(0, [&] { out.copy_from(gather_rows(Var(table), index).value()); }); };
  run(), run(), run();
  EXPECT_NO_THROW(out.to_doubles());
  index.copy_from(Tensor::from(std::vector<std::int32_t>{0, 5}, {2}, device()));
  run();
  EXPECT_THROW(out.to_doubles(), Error);
}

}  // namespace
}  // namespace costate

namespace costate::finetune {
namespace {

using Make = std::function<nn::Network(nn::Init&)>;

struct Trained {
  std::vector<double> numbers;
  std::vector<Tensor> parameters;
  std::string not_recorded;
  std::int64_t launches = 0;  // of the last iteration
};

Trained train(const Make& make, ControlProblem problem, ValueGradientOptions o, bool graphs, int iterations = 4) {
  nn::Init init(5, DType::f32, device());
  const nn::Network base = make(init);
  problem.base = field_of(base), problem.device = device();
  o.graphs = graphs;
  ValueGradientRegression objective(problem, base, o);
  Trained t;
  for (int i = 0; i < iterations; ++i) {
    const std::int64_t before = backend_of(device()).launches();
    const Metrics m = objective.step();
    t.launches = backend_of(device()).launches() - before;
    for (const auto& e : m.entries()) t.numbers.push_back(e.value);
  }
  for (const Tensor& p : nn::parameters(objective.average())) t.parameters.push_back(p.to(Device::cpu));
  for (const Tensor& p : nn::parameters(objective.network())) t.parameters.push_back(p.to(Device::cpu));
  t.not_recorded = objective.not_recorded();
  EXPECT_EQ(objective.remark(), graphs ? t.not_recorded : "");
  return t;
}

ControlProblem towards_a_point(const Shape& sample, int steps = 3) {
  const auto dim = static_cast<std::size_t>(sample.numel());
  return {sde::exact_memoryless({}, sde::uniform_grid(steps)), {}, sample,
          quadratic_reward(std::vector<double>(dim, 0.3), std::vector<double>(dim, 1.0))};
}
ValueGradientOptions options_of(std::int64_t batch) {
  ValueGradientOptions o;
  o.batch = batch, o.seed = 3, o.learner.ema_decay = 0.9;
  o.learner.lr.warmup = 3, o.learner.lr.total = 20, o.learner.lr.decay = nn::LearningRate::Decay::cosine;
  return o;
}
nn::Network mlp(nn::Init& init) {
  nn::MlpOptions o;
  o.dim = 6, o.hidden = 16, o.depth = 2, o.classes = 2;
  return nn::Network(nn::make_velocity_mlp(o, init));
}

void expect_same_bits(const Make& make, const ControlProblem& problem, const ValueGradientOptions& o) {
  const Trained a = train(make, problem, o, false), b = train(make, problem, o, true);
  EXPECT_EQ(b.not_recorded, "");
  EXPECT_EQ(a.numbers, b.numbers);
  ASSERT_EQ(a.parameters.size(), b.parameters.size());
  for (std::size_t i = 0; i < a.parameters.size(); ++i)
    EXPECT_EQ(std::memcmp(a.parameters[i].raw(), b.parameters[i].raw(), static_cast<std::size_t>(a.parameters[i].bytes())), 0)
        << "parameter " << i;
}

// The learning rate changes in every update, the samples and labels too.
TEST(CudaRecordedTraining, AnMlpHasTheBitsOfTheLoopThatIsNotRecorded) {
  ControlProblem problem = towards_a_point({6});
  problem.labels = {0, 1};
  expect_same_bits(mlp, problem, options_of(4));
  ValueGradientOptions late = options_of(4);
  late.late_steps = 2, late.loss_clip = 3, late.loss_space = ValueGradientOptions::LossSpace::velocity;
  expect_same_bits(mlp, problem, late);
  ValueGradientOptions drawn = options_of(4);  // other steps in every iteration
  drawn.late_steps = 1, drawn.early_steps = 1;
  ControlProblem longer = towards_a_point({6}, 9);
  longer.labels = {0, 1};
  expect_same_bits(mlp, longer, drawn);
  ValueGradientOptions full = options_of(4);
  full.costate = ValueGradientOptions::Costate::full;
  expect_same_bits(mlp, problem, full);
}

TEST(CudaRecordedTraining, AUNet) {
  expect_same_bits(
      [](nn::Init& init) {
        nn::UNetOptions o;
        o.in_channels = o.out_channels = 1, o.block_out_channels = {8}, o.layers_per_block = 1, o.norm_num_groups = 2;
        o.down_block_types = {"AttnDownBlock2D"}, o.up_block_types = {"AttnUpBlock2D"};
        return nn::Network(nn::make_unet(o, init));
      },
      towards_a_point({2, 2, 1}, 2), options_of(2));
}

TEST(CudaRecordedTraining, ADit) {
  expect_same_bits(
      [](nn::Init& init) {
        nn::DitOptions o;
        o.channels = 1, o.height = 4, o.width = 4, o.patch = 2, o.hidden = 16, o.depth = 1, o.heads = 2;
        return nn::Network(nn::make_dit(o, init));
      },
      towards_a_point({4, 4, 1}, 2), options_of(2));
}

TEST(CudaRecordedTraining, WhereItCannotBeItSaysWhy) {
  ControlProblem problem = towards_a_point({6});
  problem.labels = {0, 1};
  // A state cost that reads on the host: the sweep goes on as ever.
  ControlProblem reading = problem;
  reading.state_cost = [](int, const Var& x) {
    const double scale = x.value().slice(0, 1).to_doubles()[0] > 1e9 ? 1 : 0.5;
    return affine(sum(square(x), 1), scale, 0.0);
  };
  const Trained c = train(mlp, reading, options_of(4), true), d = train(mlp, reading, options_of(4), false);
  EXPECT_NE(c.not_recorded.find("numbers that the host reads"), std::string::npos) << c.not_recorded;
  EXPECT_EQ(c.numbers, d.numbers);
  ValueGradientOptions micro = options_of(4);
  micro.micro_batch = 2;
  EXPECT_NE(train(mlp, problem, micro, true, 1).not_recorded.find("micro_batch"), std::string::npos);
}

// docs/cuda.md tells what the host launches in one iteration: of the bench's network, whatever the batch.
TEST(CudaRecordedTraining, LaunchesOfAnIteration) {
  ControlProblem problem{sde::euler_maruyama({}, sde::uniform_grid(10)), {}, {2}, linear_reward({2, 0})};
  ValueGradientOptions o;
  o.batch = 4, o.late_steps = 2, o.early_steps = 8, o.learner.ema_decay = 0.9;
  const Make make = [](nn::Init& init) {
    nn::MlpOptions m;
    m.dim = 2, m.hidden = 16, m.depth = 3, m.time_frequencies = 0;
    nn::VelocityMlp network = nn::make_velocity_mlp(m, init);
    network.output = nn::make_linear(init, 16, 2);
    return nn::Network(network);
  };
  const std::int64_t plain = train(make, problem, o, false, 2).launches, recorded = train(make, problem, o, true, 3).launches;
  o.keep_activations = true;  // the general way
  const std::int64_t general = train(make, problem, o, false, 2).launches;
  std::ifstream in(COSTATE_SOURCE_DIR "/docs/cuda.md");
  const std::string page{std::istreambuf_iterator<char>(in), {}};
  for (const auto& [what, count] : {std::pair{"the general way, with keep_activations", general},
                                    std::pair{"this path", plain},
                                    std::pair{"this path, recorded", recorded}}) {
    const std::string row = std::string("| ") + what + " | " + std::to_string(count) + " |";
    if (emulated()) {
      EXPECT_NE(page.find(row), std::string::npos) << "docs/cuda.md has no row\n" << row;
    }
  }
  EXPECT_LT(recorded, 40);
}

// An update whose numbers are not finite changes nothing, though the device has done it before the host knows.
TEST(CudaRecordedTraining, NumbersThatAreNotFiniteChangeNothing) {
  for (const bool graphs : {false, true}) {
    ControlProblem problem = towards_a_point({6});
    problem.labels = {0, 1};
    nn::Init init(5, DType::f32, device());
    const nn::Network base = mlp(init);
    problem.base = field_of(base), problem.device = device();
    problem.reward_multiplier = 1e3;
    auto lambda = std::make_shared<double>(1e-3);
    problem.reward.value = [lambda](const Var& x) { return affine(sum(square(x), 1), *lambda, 0.0); };
    ValueGradientOptions o = options_of(4);
    o.graphs = graphs;
    ValueGradientRegression objective(problem, base, o);
    for (int i = 0; i < 3; ++i) objective.step();
    const auto values = [&] {
      std::vector<Tensor> all;
      for (const Tensor& p : nn::parameters(objective.network())) all.push_back(p.to(Device::cpu).clone());
      for (const Tensor& p : nn::parameters(objective.average())) all.push_back(p.to(Device::cpu).clone());
      return all;
    };
    const auto before = values();
    *lambda = 1e37;  // a reward and a gradient that are finite, and with the multiplier are not
    EXPECT_THROW(objective.step(), Error);
    const auto after = values();
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_EQ(std::memcmp(before[i].raw(), after[i].raw(), static_cast<std::size_t>(before[i].bytes())), 0) << i;
    EXPECT_EQ(objective.iteration(), 3);
    *lambda = 1e-3;
    EXPECT_NO_THROW(objective.step());
  }
}

}  // namespace
}  // namespace costate::finetune
