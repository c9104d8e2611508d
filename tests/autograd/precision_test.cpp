// Products of bf16 and of TF32: what a scope reaches, what it leaves alone, what it costs.
#include <costate/autograd/ops.h>
#include <costate/tensor/packed.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/precision.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

namespace costate {
namespace {

Tensor random(const Shape& shape, unsigned seed, DType dtype = DType::f32) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (double& v : values) v = normal(generator);
  return Tensor::from(values, shape).to(dtype);
}

constexpr std::int64_t width = 96;
constexpr int depth = 3;

struct Layers {
  std::vector<Tensor> weight, bias;
  explicit Layers(DType dtype, Device device = Device::cpu) {
    const memory::TagScope scope(memory::Tag::parameters);
    for (unsigned i = 0; i < depth; ++i) {
      const Tensor w = random({width, width}, 10 + i, dtype);
      scale_in_place(w, 1 / std::sqrt(static_cast<double>(width)));
      weight.push_back(w.to(device));
      bias.push_back(random({width}, 20 + i, dtype).to(device));
    }
  }
  // The result, then the gradients of x, of all weights and of all biases; the sweep runs outside of the scope.
  std::vector<Tensor> gradients(const Tensor& x0, Precision precision) const {
    Tape tape;
    const Var x = tape.watch(x0);
    std::vector<Var> wrt{x};
    for (const Tensor& w : weight) wrt.push_back(tape.watch(w));
    for (const Tensor& b : bias) wrt.push_back(tape.watch(b));
    Var y = x;
    {
      const PrecisionScope scope(precision);
      for (std::size_t i = 0; i < depth; ++i)
        y = linear(y, wrt[1 + i], wrt[1 + depth + i], i + 1 < depth ? Activation::gelu_tanh : Activation::none);
      y = matmul(y, wrt[1], false, true);
    }
    const Tensor c = Tensor::full(y.shape(), 0.5, y.dtype(), y.device());
    std::vector<Tensor> g = tape.vjp(y, c, wrt);
    g.insert(g.begin(), y.value());
    return g;
  }
};

double relative(const Tensor& a, const Tensor& b) {
  const auto x = a.to_doubles(), y = b.to_doubles();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return std::sqrt(difference / size);
}
bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(a[i].raw(), b[i].raw(), static_cast<std::size_t>(a[i].bytes())) != 0) return false;
  return a.size() == b.size();
}

TEST(Precision, ResultsAndGradientsErrAsRoundingDoes) {
  const Layers layers(DType::f32);
  const Tensor x = random({160, width}, 1);
  const auto f32 = layers.gradients(x, Precision::f32), bf16 = layers.gradients(x, Precision::bf16_products);
  // A product of rounded operands errs by 0.41 sqrt(2) 2^-8 = 2^-8.8 of the size of its terms added in quadrature, which is
  // the size of the result for signs at random; a gradient passes through up to 8 products one after the other, whose errors
  // add in quadrature (2^-7.3), and through slopes near one.
  for (std::size_t i = 0; i < f32.size(); ++i) {
    const double error = relative(bf16[i], f32[i]);
    EXPECT_LT(error, 0x1p-6) << i;
    EXPECT_GT(error, 0x1p-12) << i;
  }
}

// TF32 has three significant bits more, and so an error of an eighth.
TEST(Precision, Tf32ErrsByAnEighth) {
  const Layers layers(DType::f32);
  const Tensor x = random({160, width}, 1);
  const auto f32 = layers.gradients(x, Precision::f32), tf32 = layers.gradients(x, Precision::tf32);
  for (std::size_t i = 0; i < f32.size(); ++i) {
    const double error = relative(tf32[i], f32[i]);
    EXPECT_LT(error, 0x1p-9) << i;
    EXPECT_GT(error, 0x1p-15) << i;
  }
}

// A convolution and its gradients, whose sweep runs outside of the scope; bf16_products leaves them alone.
TEST(Precision, ConvolutionsAreOfTf32Alone) {
  const Tensor x0 = random({2, 8, 8, 6}, 1), w0 = random({5, 3, 3, 6}, 2), g = random({2, 8, 8, 5}, 3);
  const auto gradients = [&](Precision precision) {
    Tape tape;
    const Var x = tape.watch(x0), w = tape.watch(w0), wrt[] = {x, w};
    Var y;
    {
      const PrecisionScope scope(precision);
      y = conv2d(x, w, Var(), {.top = 1, .bottom = 1, .left = 1, .right = 1});
    }
    std::vector<Tensor> out = tape.vjp(y, g, wrt);
    out.insert(out.begin(), y.value());
    return out;
  };
  const auto f32 = gradients(Precision::f32), tf32 = gradients(Precision::tf32);
  EXPECT_TRUE(same_bits(f32, gradients(Precision::bf16_products)));
  for (std::size_t i = 0; i < f32.size(); ++i) {
    EXPECT_LT(relative(tf32[i], f32[i]), 0x1p-11) << i;  // 0.41 sqrt(2) 2^-11 of the terms in quadrature, see above
    EXPECT_GT(relative(tf32[i], f32[i]), 0x1p-14) << i;
  }
}

TEST(Precision, LeavesDoublesAlone) {
  const Layers layers(DType::f64);
  const Tensor x = random({40, width}, 1, DType::f64);
  for (const Precision precision : {Precision::bf16_products, Precision::tf32})
    EXPECT_TRUE(same_bits(layers.gradients(x, Precision::f32), layers.gradients(x, precision)));
}

TEST(Precision, BitsDoNotDependOnTheNumberOfThreads) {
  const Layers layers(DType::f32);
  const Tensor x = random({700, width}, 1);
  const auto one = layers.gradients(x, Precision::bf16_products);
  for (int n : {2, 3}) {
    set_threads(n);
    EXPECT_TRUE(same_bits(layers.gradients(x, Precision::bf16_products), one)) << n;
  }
  set_threads(1);
}

TEST(Precision, ScopesNestAndReachWorkers) {
  EXPECT_EQ(current_precision(), Precision::f32);
  {
    const PrecisionScope outer(Precision::bf16_products);
    set_threads(2);
    parallel(4, [](std::int64_t) { EXPECT_EQ(current_precision(), Precision::bf16_products); });
    set_threads(1);
    {
      const PrecisionScope inner(Precision::f32);
      EXPECT_EQ(current_precision(), Precision::f32);
    }
    EXPECT_EQ(current_precision(), Precision::bf16_products);
  }
  EXPECT_EQ(current_precision(), Precision::f32);
}

TEST(Precision, PackedLayoutsOfBothPrecisionsFollowUpdates) {
  Layers layers(DType::f32);
  const Tensor x = random({20, width}, 1);
  const auto of_weight = [&](Precision p) {
    const PrecisionScope scope(p);
    return linear(x, layers.weight[0], layers.bias[0]).value().to_doubles();
  };
  const auto f32 = of_weight(Precision::f32), bf16 = of_weight(Precision::bf16_products);
  EXPECT_NE(f32, bf16);
  EXPECT_EQ(of_weight(Precision::f32), f32);
  EXPECT_EQ(of_weight(Precision::bf16_products), bf16);
  layers.weight[0].mutate<float>()[3] += 1;
  EXPECT_NE(of_weight(Precision::f32), f32);
  EXPECT_NE(of_weight(Precision::bf16_products), bf16);
}

// What products work in is in the ledger, and meta predicts it.
TEST(Precision, MemoryIsPredictedToTheByte) {
  for (const int n : {1, 2, 3})
    for (const Precision precision : {Precision::f32, Precision::bf16_products, Precision::tf32}) {
      set_threads(n);
      const auto peak = [&](Device device) {
        const Layers layers(DType::f32, device);
        const Tensor x = random({500, width}, 1).to(device);
        const memory::PeakScope scope;
        const auto before = memory::live().total;
        layers.gradients(x, precision);
        return scope.peak().total - before;
      };
      EXPECT_EQ(peak(Device::cpu), peak(Device::meta)) << n << " threads, precision " << static_cast<int>(precision);
    }
  set_threads(1);
}

}  // namespace
}  // namespace costate
