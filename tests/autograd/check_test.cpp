// The checker itself: it must find wrong derivatives of either order.
#include <costate/autograd/check.h>
#include <costate/autograd/ops.h>
#include <gtest/gtest.h>

namespace costate {
namespace {

using Inputs = std::span<const Var>;

TEST(Check, FindsAWrongRule) {
  const CustomRule wrong{"wrong", [](std::span<const Tensor> in) { return square(Var(in[0])).value(); },
                         [](const Tensor& g, std::span<const Tensor> in, const Tensor&) {
                           return std::vector<Tensor>{mul(g, affine(in[0], 2.001, 0)).value()};
                         }};
  const Tensor x[] = {Tensor::full({2}, 1.5, DType::f64)};
  const std::string s = check_gradients([&](Inputs in) { return custom(wrong, in); }, x);
  EXPECT_NE(s.find("first derivative with respect to element 0 of input 0"), std::string::npos) << s;
}

TEST(Check, FindsADerivativeThatIsNotDifferentiated) {
  // Detaching a factor keeps the first derivative of detach(x) x off by a factor of two, and the second at zero.
  const Tensor x[] = {Tensor::full({2}, 1.5, DType::f64)};
  EXPECT_NE(check_gradients([](Inputs in) { return mul(Var(in[0].value()), in[0]); }, x), "");
  EXPECT_EQ(check_gradients([](Inputs in) { return mul(sin(in[0]), exp(in[0])); }, x, 2), "");
}

TEST(Check, RefusesWhatItCannotCheck) {
  const auto f = [](Inputs in) { return square(in[0]); };
  const Tensor single[] = {Tensor::full({2}, 1.0)}, good[] = {Tensor::full({2}, 1.0, DType::f64)};
  EXPECT_THROW(check_gradients(f, single), Error);
  EXPECT_THROW(check_gradients(f, good, 3), Error);
  EXPECT_THROW(check_gradients(f, good, 0), Error);
}

}  // namespace
}  // namespace costate
