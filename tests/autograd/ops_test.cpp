// Every differentiable op, in f64, against central differences: a table of samples. The table is complete by force: each
// function that ops.h declares must have a sample.
#include <costate/autograd/check.h>
#include <costate/autograd/ops.h>
#include <costate/tensor/pointwise.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "autograd/samples.h"

namespace costate {
namespace {

TEST(Ops, GradientsAgreeWithCentralDifferences) {
  std::uint32_t n = 0;
  for (const Sample& s : samples()) {
    EXPECT_EQ(check_gradients(s.f, inputs_of(s, n++), s.order), "") << s.op;
  }
}

TEST(Ops, EveryDeclaredOpHasASample) {
  std::ifstream file(std::string(COSTATE_SOURCE_DIR) + "/autograd/ops.h");
  ASSERT_TRUE(file.good());
  std::stringstream text;
  text << file.rdbuf();
  const std::string s = text.str();
  std::set<std::string> declared, sampled;
  const std::regex declaration(R"(\nVar (\w+)\()");
  for (auto it = std::sregex_iterator(s.begin(), s.end(), declaration); it != std::sregex_iterator(); ++it)
    declared.insert((*it)[1]);
  ASSERT_GT(declared.size(), 40u);
  for (const Sample& sample : samples()) sampled.insert(sample.op);
  for (const std::string& name : declared) EXPECT_TRUE(sampled.count(name)) << name << " has no sample";
  for (const PointwiseRow& r : pointwise_rows) EXPECT_TRUE(sampled.count(std::string(r.name))) << r.name;
}

TEST(Ops, OrdersBeyondTheTableAreRefusedInWords) {
  Tape tape;
  const Var x = tape.watch(Tensor::full({2}, 0.5, DType::f64));
  const Var w = tape.watch(Tensor::full({3, 2}, 0.5, DType::f64));
  const Var fused = linear(reshape(x, {1, 2}), w, Var(), Activation::silu);
  const Var wrt[] = {x};
  EXPECT_THROW(tape.recorded_vjp(fused, Var(Tensor::full({1, 3}, 1, DType::f64)), wrt), Error);
  const Var image = tape.watch(Tensor::full({1, 3, 2}, 0.5, DType::f64));
  const Var image_only[] = {image};
  for (const Var& y : {group_norm(image, {}, {}, 1, 1e-5, Activation::silu), attention(image, image, image, 1)})
    EXPECT_THROW(tape.recorded_vjp(y, Var(Tensor::full({1, 3, 2}, 1, DType::f64)), image_only), Error);
  // Third order of a pointwise op.
  const Var one(Tensor::full({2}, 1, DType::f64));
  const Var d1 = tape.recorded_vjp(sin(x), one, wrt)[0];
  const Var d2 = tape.recorded_vjp(d1, one, wrt)[0];
  EXPECT_THROW(tape.recorded_vjp(d2, one, wrt), Error);
}

TEST(Ops, SinglePrecisionAgreesWithDouble) {
  // The float kernels differ from the double ones by rounding alone: 1e-5 of the largest element for these well-scaled
  // inputs, values and gradients alike.
  std::uint32_t n = 0;
  for (const Sample& s : samples()) {
    const auto in = inputs_of(s, n++);
    const auto run = [&](DType dtype) {
      Tape tape;
      std::vector<Var> vars;
      for (const Tensor& t : in) vars.push_back(tape.watch(t.to(dtype)));
      const Var y = s.f(vars);
      std::vector<std::vector<double>> all{y.value().to_doubles()};
      for (const Tensor& g : tape.vjp(y, Tensor::full(y.shape(), 1, dtype), vars)) all.push_back(g.to_doubles());
      return all;
    };
    const auto a = run(DType::f32), b = run(DType::f64);
    for (std::size_t k = 0; k < a.size(); ++k) {
      double largest = 1;
      for (const double v : b[k]) largest = std::max(largest, std::abs(v));
      for (std::size_t i = 0; i < a[k].size(); ++i) EXPECT_NEAR(a[k][i], b[k][i], 1e-5 * largest) << s.op;
    }
  }
}

}  // namespace
}  // namespace costate
