// Adjoints through networks: what a long trajectory of a DiT needs.
#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/nn/dit.h>
#include <costate/nn/init.h>
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain_process.h>
#include <gtest/gtest.h>

namespace costate::finetune {
namespace {

nn::Network dit(Device device) {
  nn::DitOptions o;
  o.channels = 1, o.height = 8, o.width = 8;
  o.patch = 4, o.hidden = 16, o.depth = 2, o.heads = 2;
  nn::Init init(1, DType::f32, device);
  const memory::TagScope scope(memory::Tag::parameters);
  return nn::Network(nn::make_dit(o, init));
}

struct Peak {
  std::int64_t beside;  // the parameters
  std::int64_t state;
};
Peak peak(int steps, int slots, Device device) {
  const nn::Network network = dit(device);
  const sde::NoiseKey key{3, 0};
  const Tensor x0 = sde::initial_noise({8, 8, 1}, 16, key, DType::f32, device);
  sde::AdjointOptions o;
  if (slots) o.method = sde::AdjointMethod::binomial, o.slots = slots;
  const sde::Process process =
      sde::chain_process(parametric_field_of(network), sde::exact_memoryless({}, sde::uniform_grid(steps)), Tensor(), key);
  const std::int64_t before = memory::live().total;
  const memory::PeakScope scope;
  sde::gradient(process, x0, [](const Tensor& x) { return x; }, o);
  return {scope.peak().total - before, x0.bytes()};
}

// A thousand steps with twelve kept states: at most their bytes beside what two steps need, of which the sum of the
// parameters' gradients is a part (one step has nothing to add to).
TEST(AdjointNetwork, AThousandStepsOfADitInTheMemoryOfTwelveStatesAndAStep) {
  const Peak step = peak(2, 0, Device::cpu), thousand = peak(1000, 12, Device::cpu);
  EXPECT_LE(thousand.beside, step.beside + 12 * thousand.state);
  EXPECT_EQ(peak(1000, 12, Device::meta).beside, thousand.beside);
  // Stored, the states alone are a thousand; the plan says so without computing anything.
  EXPECT_GE(peak(1000, 0, Device::meta).beside, 999 * thousand.state);
  RecordProperty("bytes_of_a_step", std::to_string(step.beside));
  RecordProperty("bytes_of_a_thousand_steps", std::to_string(thousand.beside));
}

}  // namespace
}  // namespace costate::finetune
