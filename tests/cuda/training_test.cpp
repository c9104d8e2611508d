// Fine-tuning on the device: adjoint matching of an MLP, a UNet and a DiT gives the cpu's loss, reward and parameters, from
// the same noise, up to rounding.
#include <costate/finetune/adjoint_matching.h>
#include <costate/finetune/network_field.h>
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

struct Trained {
  std::vector<double> loss, reward;
  std::vector<Tensor> parameters;
};

Trained train(const Make& make, const Shape& sample, Device device) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(5, DType::f32, device);
  const nn::Network base = make(init);
  const auto dim = static_cast<std::size_t>(sample.numel());
  AdjointMatchingOptions o;
  o.batch = 2, o.seed = 3;
  o.learner.adamw.eps = 1e-3;  // a gradient of rounding alone shall not move a parameter by a whole step
  AdjointMatching objective(field_of(base), base, sde::exact_memoryless({}, sde::uniform_grid(3)), sample,
                            quadratic_reward(std::vector<double>(dim, 0.3), std::vector<double>(dim, 1.0)), o, device);
  Trained t;
  for (int i = 0; i < 2; ++i) {
    objective.step();
    t.loss.push_back(objective.last().loss), t.reward.push_back(objective.last().reward);
  }
  for (const Tensor& p : nn::parameters(objective.network())) t.parameters.push_back(p.to(Device::cpu));
  return t;
}

void expect_same(const Make& make, const Shape& sample) {
  const Trained a = train(make, sample, Device::cpu), b = train(make, sample, device()), again = train(make, sample, device());
  for (std::size_t i = 0; i < a.loss.size(); ++i) {
    EXPECT_NEAR(b.loss[i], a.loss[i], 1e-4 * std::abs(a.loss[i])) << "update " << i;
    EXPECT_NEAR(b.reward[i], a.reward[i], 1e-5 * std::max(1.0, std::abs(a.reward[i]))) << "update " << i;
  }
  ASSERT_EQ(a.parameters.size(), b.parameters.size());
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    expect_near(a.parameters[i], b.parameters[i], 1e-5, "parameter " + std::to_string(i));
    EXPECT_EQ(std::memcmp(b.parameters[i].raw(), again.parameters[i].raw(), static_cast<std::size_t>(b.parameters[i].bytes())),
              0)
        << "another run has other bits in parameter " << i;
  }
}

TEST(CudaTraining, Mlp) {
  expect_same(
      [](nn::Init& init) {
        nn::MlpOptions o;
        o.dim = 6, o.hidden = 24, o.depth = 2;
        return nn::Network(nn::make_velocity_mlp(o, init));
      },
      {6});
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
      {4, 4, 1});
}

TEST(CudaTraining, Dit) {
  expect_same(
      [](nn::Init& init) {
        nn::DitOptions o;
        o.channels = 1, o.height = 4, o.width = 4, o.patch = 2, o.hidden = 16, o.depth = 1, o.heads = 2;
        return nn::Network(nn::make_dit(o, init));
      },
      {4, 4, 1});
}

nn::Network small_unet(Device device) {
  nn::UNetOptions o;
  o.in_channels = o.out_channels = 1, o.block_out_channels = {4}, o.layers_per_block = 1, o.norm_num_groups = 2;
  o.down_block_types = {"DownBlock2D"}, o.up_block_types = {"UpBlock2D"};
  nn::Init init(8, DType::f32, device);
  const memory::TagScope scope(memory::Tag::parameters);
  return nn::Network(nn::make_unet(o, init));
}

TEST(CudaTraining, CheckpointsGoToFilesAndBack) {
  const nn::Network here = small_unet(Device::cpu), there = small_unet(device());
  const std::string path = testing::TempDir() + "costate-cuda-checkpoint.safetensors";
  nn::save(path, there);
  nn::Network back = small_unet(Device::cpu), again = small_unet(device());
  for (nn::Network* n : {&back, &again}) {
    nn::visit(*n, [](const std::string&, Var& p) { p = Var(Tensor::zeros(p.shape(), p.dtype(), p.value().device())); });
    nn::load(path, *n);
  }
  std::remove(path.c_str());
  const auto a = nn::parameters(here), b = nn::parameters(back), c = nn::parameters(again);
  for (std::size_t i = 0; i < a.size(); ++i) {
    expect_near(a[i], b[i], 0, "parameter " + std::to_string(i));
    expect_near(a[i], c[i], 0, "parameter " + std::to_string(i));
    EXPECT_EQ(c[i].device(), device());
  }
}

TEST(CudaTraining, StatesGoToDiskAndBack) {
  const auto gradient = [](Device d, sde::AdjointMethod method) {
    const nn::Network network = small_unet(d);
    const sde::NoiseKey key{3, 0};
    const Tensor x0 = sde::initial_noise({4, 4, 1}, 1, key, DType::f32, d);
    sde::AdjointOptions o;
    o.method = method, o.slots = 2;
    const sde::Process process =
        sde::chain_process(parametric_field_of(network), sde::exact_memoryless({}, sde::uniform_grid(5)), Tensor(), key);
    return sde::gradient(
               process, x0, [](const Tensor& x) { return x; }, o)
        .initial.to(Device::cpu);
  };
  const Tensor stored = gradient(device(), sde::AdjointMethod::store_all),
               disk = gradient(device(), sde::AdjointMethod::two_level);
  EXPECT_EQ(std::memcmp(stored.raw(), disk.raw(), static_cast<std::size_t>(stored.bytes())), 0);
  expect_near(gradient(Device::cpu, sde::AdjointMethod::store_all), disk, 1e-5, "gradient");
}

}  // namespace
}  // namespace costate::finetune
