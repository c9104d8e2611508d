// Fine-tuning on the device: adjoint matching of an MLP, a UNet and a DiT, reward backpropagation and policy gradients give
// the cpu's loss, reward and parameters, from the same noise, up to rounding.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/finetune/regression/device_iteration.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/reward/analytic.h>
#include <costate/finetune/reward/callback.h>
#include <costate/nn/dit.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/nn/save.h>
#include <costate/nn/unet.h>
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/grid.h>

#include "on_device.h"

namespace costate::finetune {
namespace {

using Make = std::function<nn::Network(nn::Init&)>;
using Objectives = std::function<std::unique_ptr<Objective>(const ControlProblem&, const nn::Network&)>;

struct Trained {
  std::vector<Metrics> metrics;  // of the updates
  std::vector<Tensor> parameters;
};

// With eps = 1e-3 a gradient of rounding alone does not move a parameter by a whole step.
template <class Options>
Options small_options(std::int64_t batch) {
  Options o;
  o.batch = batch, o.seed = 3, o.learner.adamw.eps = 1e-3;
  return o;
}
std::unique_ptr<Objective> adjoint_matching(const ControlProblem& problem, const nn::Network& base) {
  return std::make_unique<ValueGradientRegression>(problem, base, small_options<ValueGradientOptions>(2));
}

Trained train(const Make& make, ControlProblem problem, const Objectives& objectives, Device device) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(5, DType::f32, device);
  const nn::Network base = make(init);
  problem.base = field_of(base), problem.device = device;
  const auto objective = objectives(problem, base);
  Trained t;
  for (int i = 0; i < 2; ++i) t.metrics.push_back(objective->step());
  for (const Tensor& p : nn::parameters(objective->network())) t.parameters.push_back(p.to(Device::cpu));
  return t;
}

ControlProblem towards_a_point(const Shape& sample) {
  const auto dim = static_cast<std::size_t>(sample.numel());
  return {sde::exact_memoryless({}, sde::uniform_grid(3)), {}, sample,
          quadratic_reward(std::vector<double>(dim, 0.3), std::vector<double>(dim, 1.0))};
}

Trained expect_same(const Make& make, const ControlProblem& problem, const Objectives& objectives = adjoint_matching) {
  const Trained a = train(make, problem, objectives, Device::cpu), b = train(make, problem, objectives, device()),
                again = train(make, problem, objectives, device());
  // Differences of rounding size (the divergence of a network that has hardly moved, centred advantages) have no digits.
  for (std::size_t i = 0; i < a.metrics.size(); ++i)
    for (const auto& [name, value] : a.metrics[i].entries()) {
      const double there = b.metrics[i][name];
      EXPECT_TRUE(std::isnan(value) ? std::isnan(there) : std::abs(there - value) <= 1e-4 * std::abs(value) + 1e-6)
          << name << " of update " << i << ": " << value << ", " << there;
    }
  EXPECT_EQ(a.parameters.size(), b.parameters.size());
  for (std::size_t i = 0; i < std::min(a.parameters.size(), b.parameters.size()); ++i) {
    expect_near(a.parameters[i], b.parameters[i], 1e-5, "parameter " + std::to_string(i));
    EXPECT_EQ(std::memcmp(b.parameters[i].raw(), again.parameters[i].raw(), static_cast<std::size_t>(b.parameters[i].bytes())),
              0)
        << "another run has other bits in parameter " << i;
  }
  return a;
}

nn::Network small_mlp(nn::Init& init) {
  nn::MlpOptions o;
  o.dim = 6, o.hidden = 24, o.depth = 2, o.classes = 2;
  return nn::Network(nn::make_velocity_mlp(o, init));
}
ControlProblem with_labels() {
  ControlProblem p = towards_a_point({6});
  p.labels = {0, 1};
  return p;
}

TEST(CudaTraining, Mlp) { expect_same(small_mlp, with_labels()); }

TEST(CudaTraining, ClippedLosses) {
  const Trained t = expect_same(small_mlp, with_labels(), [](const ControlProblem& problem, const nn::Network& base) {
    auto o = small_options<ValueGradientOptions>(4);
    o.loss_clip = 1;
    return std::make_unique<ValueGradientRegression>(problem, base, o);
  });
  const double clipped = t.metrics[0]["clipped"];  // some, and not all
  EXPECT_GT(clipped, 0);
  EXPECT_LT(clipped, 1);
}

// Some steps for all, with weights of their own; residuals in units of the velocity; rows whose reward failed.
TEST(CudaTraining, DrawnStepsAndWeights) {
  ControlProblem problem{sde::exact_memoryless({}, sde::uniform_grid(6)), {}, {6}, linear_reward(std::vector<double>(6, 0.3))};
  problem.labels = {0, 1};
  problem.reward.on_failure = Reward::Policy::skip;
  problem.reward.value = [value = problem.reward.value](const Var& x) {
    std::vector<float> hole(static_cast<std::size_t>(x.extent(0)));
    hole[1] = std::nanf("");
    return add(value(x), Var(Tensor::from(hole, {x.extent(0)}, x.value().device())));
  };
  for (const auto space : {ValueGradientOptions::LossSpace::control, ValueGradientOptions::LossSpace::velocity})
    expect_same(small_mlp, problem, [space](const ControlProblem& p, const nn::Network& base) {
      auto o = small_options<ValueGradientOptions>(4);
      o.late_steps = 1, o.early_steps = 2, o.loss_space = space, o.loss_clip = 2;
      o.kl_weights = {1, 1.5, 0.5, 2, 1, 0.7};
      o.learner.lr.peak = 1e-2;  // so that the control of the second update has digits
      return std::make_unique<ValueGradientRegression>(p, base, o);
    });
}

// Samples so large that the rows of one step do not go through the network at once.
TEST(CudaTraining, AStepInSeveralPasses) {
  constexpr std::int64_t dim = 1 << 12;
  ASSERT_EQ(device_rows(dim), 64);
  const ControlProblem problem{sde::exact_memoryless({}, sde::uniform_grid(3)), {}, {dim},
                               linear_reward(std::vector<double>(dim, 0.05))};
  const auto wide = [](nn::Init& init) {
    nn::MlpOptions o;
    o.dim = dim, o.hidden = 2, o.depth = 1, o.time_frequencies = 1;
    return nn::Network(nn::make_velocity_mlp(o, init));
  };
  expect_same(wide, problem, [](const ControlProblem& p, const nn::Network& base) {
    auto o = small_options<ValueGradientOptions>(70);
    o.late_steps = 2;
    return std::make_unique<ValueGradientRegression>(p, base, o);
  });
}

TEST(CudaTraining, Backpropagation) {
  expect_same(small_mlp, with_labels(), [](const ControlProblem& problem, const nn::Network& base) {
    auto o = small_options<BackpropagationOptions>(4);
    o.kl_weight = 1;
    return std::make_unique<Backpropagation>(problem, base, o);
  });
}

// A reward that the host computes, and that fails for some samples; groups with labels; a critic whose neurons are reset.
TEST(CudaTraining, PolicyGradientOfABlackBox) {
  ControlProblem problem = with_labels();
  problem.reward = black_box_reward("host", [](std::span<const float> x, std::int64_t rows, std::span<float> value) {
    const std::size_t n = x.size() / static_cast<std::size_t>(rows);
    for (std::size_t i = 0; i < value.size(); ++i) value[i] = x[i * n] > 0.5f ? std::nanf("") : x[i * n] - x[i * n + 1];
  });
  problem.reward.on_failure = Reward::Policy::skip;
  expect_same(small_mlp, problem, [](const ControlProblem& p, const nn::Network& base) {
    auto o = small_options<PolicyGradientOptions>(8);
    o.advantage.baseline = Baseline::value, o.divergence = PolicyGradientOptions::Divergence::in_return_and_loss;
    o.epochs = 2, o.replay = 2;
    o.critic.widths = {8, 8}, o.critic.adamw.eps = 1e-3;
    o.critic.reset = CriticOptions::Reset::all, o.critic.reset_every = 1;
    return std::make_unique<PolicyGradient>("policy gradient", p, base, o);
  });
}

// The same reward with a gradient from the host.
TEST(CudaTraining, GradientsFromTheHost) {
  ControlProblem problem = with_labels();
  problem.reward = callback_reward("host", [](std::span<const float> x, std::int64_t, std::span<float> value,
                                              std::span<float> gradient) {
    const std::size_t n = x.size() / value.size();
    for (std::size_t i = 0; i < value.size(); ++i) {
      value[i] = x[i * n] * x[i * n + 1];
      gradient[i * n] = x[i * n + 1], gradient[i * n + 1] = x[i * n];
    }
  });
  problem.reward.on_failure = Reward::Policy::clip;
  problem.reward.clip_low = -0.2, problem.reward.clip_high = 1;
  expect_same(small_mlp, problem);
}

TEST(CudaTraining, UNet) {
  expect_same(
      [](nn::Init& init) {
        nn::UNetOptions o;
        o.in_channels = o.out_channels = 1, o.block_out_channels = {4, 8}, o.layers_per_block = 1, o.norm_num_groups = 2;
        o.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
        o.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
        return nn::Network(nn::make_unet(o, init));
      },
      towards_a_point({4, 4, 1}));
}

TEST(CudaTraining, Dit) {
  expect_same(
      [](nn::Init& init) {
        nn::DitOptions o;
        o.channels = 1, o.height = 4, o.width = 4, o.patch = 2, o.hidden = 16, o.depth = 1, o.heads = 2;
        return nn::Network(nn::make_dit(o, init));
      },
      towards_a_point({4, 4, 1}));
}

nn::Network small_unet(Device device) {
  nn::UNetOptions o;
  o.in_channels = o.out_channels = 1, o.block_out_channels = {8}, o.layers_per_block = 1, o.norm_num_groups = 2;
  o.down_block_types = {"DownBlock2D"}, o.up_block_types = {"UpBlock2D"};
  nn::Init init(8, DType::f32, device);
  const memory::TagScope scope(memory::Tag::parameters);
  return nn::Network(nn::make_unet(o, init));
}

TEST(CudaTraining, CheckpointsGoToFilesAndBack) {
  const nn::Network there = small_unet(device());
  const std::string path = testing::TempDir() + "costate-cuda-checkpoint.safetensors";
  nn::save(path, there);
  nn::Network back = small_unet(Device::cpu), again = small_unet(device());
  for (nn::Network* n : {&back, &again}) {
    nn::visit(*n, [](const std::string&, Var& p) { p = Var(Tensor::zeros(p.shape(), p.dtype(), p.value().device())); });
    nn::load(path, *n);
  }
  std::remove(path.c_str());
  const auto a = nn::parameters(there), b = nn::parameters(back), c = nn::parameters(again);
  for (std::size_t i = 0; i < a.size(); ++i) {
    expect_near(a[i], b[i], 0, "parameter " + std::to_string(i));
    expect_near(a[i], c[i], 0, "parameter " + std::to_string(i));
    EXPECT_EQ(c[i].device(), device());
  }
}

// To a file, or to the host's memory beside the kernels: at the latest time that their order leaves to copies, and at the
// earliest.
TEST(CudaTraining, StatesGoAwayAndBack) {
  const auto gradient = [](Device d, sde::AdjointMethod method, bool host_memory = false) {
    const nn::Network network = small_unet(d);
    const sde::NoiseKey key{3, 0};
    const Tensor x0 = sde::initial_noise({4, 4, 1}, 1, key, DType::f32, d);
    sde::AdjointOptions o;
    o.method = method, o.host_memory = host_memory;
    if (method == sde::AdjointMethod::two_level) o.slots = 1, o.segment = 2;
    const sde::Process process =
        sde::chain_process(parametric_field_of(network), sde::exact_memoryless({}, sde::uniform_grid(7)), Tensor(), key);
    const sde::Gradient g = sde::gradient(process, x0, [](const Tensor& x) { return x; }, o);
    EXPECT_EQ(g.work.offloaded_bytes, method == sde::AdjointMethod::two_level ? 3 * 64 : 0);
    return g.initial.to(Device::cpu);
  };
  const Tensor stored = gradient(device(), sde::AdjointMethod::store_all);
  const auto expect_bits = [&](const Tensor& x, const char* what) {
    EXPECT_EQ(std::memcmp(stored.raw(), x.raw(), static_cast<std::size_t>(stored.bytes())), 0) << what;
  };
  expect_bits(gradient(device(), sde::AdjointMethod::two_level), "disk");
  for (const char* when : {"late", "early"}) {
    setenv("COSTATE_EMULATED_COPIES", when, 1);
    expect_bits(gradient(device(), sde::AdjointMethod::two_level, true), when);
  }
  unsetenv("COSTATE_EMULATED_COPIES");
  memory::trim();
  expect_near(gradient(Device::cpu, sde::AdjointMethod::store_all), stored, 1e-5, "gradient");
  expect_near(gradient(Device::cpu, sde::AdjointMethod::two_level, true), stored, 1e-5, "gradient");  // on disk, as ever
}

// The emulator's copies tell apart who waits for them and who does not.
TEST(CudaTraining, CopiesBesideTheKernelsAreLateUntilTheyAreWaitedFor) {
  if (!emulated()) GTEST_SKIP() << "on a device the time of a copy is its own affair";
  const Backend& b = backend_of(device());
  const Tensor x = Tensor::full({100}, 1.0, DType::f32, device()), y = Tensor::full({100}, 0.0, DType::f32, device());
  void* const there = b.pin(400);
  const std::int64_t out = b.start_copy(x.raw(), there, 400), back = b.start_copy(there, y.raw_mutable(), 400);
  x.fill(2.0);  // too soon
  EXPECT_EQ(y.slice(99, 1).item(), 0.0);
  b.finish_copy(out);
  EXPECT_EQ(y.slice(99, 1).item(), 0.0);
  b.finish_copy(back);
  EXPECT_EQ(y.slice(99, 1).item(), 2.0);
  b.unpin(there);
}

}  // namespace
}  // namespace costate::finetune
