// Every differentiable op and its gradients on the device, against the cpu.
#include <costate/autograd/check.h>
#include <costate/autograd/tape.h>

#include "autograd/samples.h"
#include "on_device.h"

namespace costate {
namespace {

// Values and first derivatives, and where the op has them second ones.
std::vector<Tensor> derivatives(const Sample& s, const std::vector<Tensor>& inputs, DType dtype, Device device) {
  Tape tape;
  std::vector<Var> vars;
  for (const Tensor& t : inputs) vars.push_back(tape.watch(t.to(dtype).to(device)));
  const Var y = s.f(vars);
  const Tensor cotangent = noise(y.shape(), dtype, device, 1);
  std::vector<Tensor> all{y.value()};
  for (const Tensor& g : tape.vjp(y, cotangent, vars)) all.push_back(g);
  if (s.order < 2) return all;
  const std::vector<Var> recorded = tape.recorded_vjp(y, Var(cotangent), vars);
  Var total = sum(square(recorded[0]));
  for (std::size_t i = 1; i < recorded.size(); ++i) total = add(total, sum(square(recorded[i])));
  for (const Tensor& g : tape.vjp(total, vars)) all.push_back(g);
  return all;
}

// Rounding alone: sums are taken in another order than the cpu's, exponentials are those of another library in f64.
TEST(CudaOps, ValuesAndDerivativesAreTheCpusInDoublePrecision) {
  std::uint32_t n = 0;
  for (const Sample& s : samples()) {
    const auto inputs = inputs_of(s, n++);
    compare([&](Device d) { return derivatives(s, inputs, DType::f64, d); }, 1e-13, s.op);
  }
}

TEST(CudaOps, ValuesAndDerivativesAreTheCpusInSinglePrecision) {
  std::uint32_t n = 0;
  for (const Sample& s : samples()) {
    const auto inputs = inputs_of(s, n++);
    compare([&](Device d) { return derivatives(s, inputs, DType::f32, d); }, 2e-6, s.op);
  }
}

TEST(CudaOps, OperandsOnTwoDevicesAreRefusedInWords) {
  const Var here(Tensor::full({2, 2}, 1.0)), there(Tensor::full({2, 2}, 1.0, DType::f32, device()));
  try {
    add(here, there);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("cuda:0"), std::string::npos) << e.what();
  }
  EXPECT_THROW(gather_rows(there, Tensor::from(std::vector<std::int32_t>{0}, {1})), Error);
}

}  // namespace
}  // namespace costate
