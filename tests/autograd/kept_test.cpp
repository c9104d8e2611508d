// Activations kept in bf16: what the sweep computes from them, and what they take.
#include <costate/autograd/ops.h>
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
double relative(const Tensor& a, const Tensor& b) {
  const auto x = a.to_doubles(), y = b.to_doubles();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return std::sqrt(difference / size);
}
bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

TEST(KeptActivations, AreF32OrBf16) { EXPECT_THROW(const KeptTypeScope scope(DType::f64), Error); }

// Layers with everything that the networks are made of.
struct Layers {
  Tensor in, out, qkv, gamma, filters;
  explicit Layers(DType dtype, Device device = Device::cpu) {
    const memory::TagScope scope(memory::Tag::parameters);
    in = scaled({32, 24}, 2, dtype).to(device), out = scaled({24, 32}, 3, dtype).to(device);
    qkv = scaled({72, 24}, 4, dtype).to(device), gamma = random({24}, 5, dtype).to(device);
    filters = scaled({24, 3, 3, 24}, 6, dtype).to(device);
  }
  static Tensor scaled(const Shape& shape, unsigned seed, DType dtype) {
    const Tensor t = random(shape, seed, dtype);
    scale_in_place(t, 1 / std::sqrt(static_cast<double>(t.numel() / t.extent(0))));
    return t;
  }
  // The result, the gradients of x and of all parameters, and the bytes of activations that the tape holds; the sweep runs
  // outside of the scope.
  std::vector<Tensor> gradients(const Tensor& x0, DType kept, std::int64_t* bytes = nullptr, bool twice = false) const {
    Tape tape;
    const Var x = tape.watch(x0), a = tape.watch(in), b = tape.watch(out), c = tape.watch(qkv), g = tape.watch(gamma),
              f = tape.watch(filters), wrt[] = {x, a, b, c, g, f};
    const auto held = [] { return memory::live().by_tag[static_cast<int>(memory::Tag::activations)]; };
    const std::int64_t before = held();
    Var y;
    {
      const KeptTypeScope scope(kept);
      y = x;
      for (int i = 0; i < 2; ++i) {
        y = add(y, linear(linear(layer_norm(y, 1e-5), a, Var(), Activation::gelu_tanh), b, Var()));
        y = add(y, attention(linear(y, c, Var()), 2));
        const Var image = group_norm(reshape(y, {2, 4, 4, 24}), g, Var(), 4, 1e-5, Activation::silu);
        y = add(y, reshape(conv2d(image, f, Var(), {.top = 1, .bottom = 1, .left = 1, .right = 1}), y.shape()));
      }
    }
    if (bytes) *bytes = held() - before;
    const Tensor seed = Tensor::full(y.shape(), 0.5, y.dtype(), y.device());
    std::vector<Tensor> out_list;
    if (twice) tape.vjp(y, seed, wrt);
    out_list = std::move(tape).vjp(y, seed, wrt);
    out_list.insert(out_list.begin(), y.value());
    return out_list;
  }
};

TEST(KeptActivations, GradientsErrAsRoundingDoesAndResultsDoNot) {
  const Layers layers(DType::f32);
  const Tensor x = random({2, 16, 24}, 1);
  std::int64_t f32_bytes = 0, bf16_bytes = 0;
  const auto f32 = layers.gradients(x, DType::f32, &f32_bytes), bf16 = layers.gradients(x, DType::bf16, &bf16_bytes);
  EXPECT_TRUE(same_bits(f32[0], bf16[0]));
  // A rounded value errs by 0.41 2^-8 = 2^-9.3 in the root mean square; a cotangent passes through some ten rules, each of
  // which reads one or two such values (2^-7.1), and a score of attention, of size s, turns its error into one of s times that.
  for (std::size_t i = 1; i < f32.size(); ++i) {
    const double error = relative(bf16[i], f32[i]);
    EXPECT_LT(error, 0x1p-6) << i;
    EXPECT_GT(error, 0x1p-12) << i;
  }
  // Half, but for the last result, which the caller holds, and for statistics of norms and softmaxes.
  EXPECT_LT(static_cast<double>(bf16_bytes), 0.58 * static_cast<double>(f32_bytes));
  EXPECT_GT(static_cast<double>(bf16_bytes), 0.49 * static_cast<double>(f32_bytes));
}

TEST(KeptActivations, SweepsCanBeRepeated) {
  const Layers layers(DType::f32);
  const Tensor x = random({2, 16, 24}, 1);
  const auto once = layers.gradients(x, DType::bf16), again = layers.gradients(x, DType::bf16, nullptr, true);
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(same_bits(once[i], again[i])) << i;
}

TEST(KeptActivations, DoublesAndParametersStay) {
  const Layers layers(DType::f64);
  const Tensor x = random({2, 16, 24}, 1, DType::f64);
  const auto f64 = layers.gradients(x, DType::f32), kept = layers.gradients(x, DType::bf16);
  for (std::size_t i = 0; i < f64.size(); ++i) EXPECT_TRUE(same_bits(f64[i], kept[i])) << i;
  // d(w x)/dx is w, to the bit; d/dw is x rounded.
  const memory::TagScope scope(memory::Tag::parameters);
  const Tensor w = random({500}, 2);
  Tape tape;
  const Var vw = tape.watch(w), vx = tape.watch([] {
    const memory::TagScope inner(memory::Tag::activations);
    return random({500}, 3);
  }());
  const KeptTypeScope half(DType::bf16);
  const Var wrt[] = {vw, vx};
  const auto g = tape.vjp(mul(vw, vx), Tensor::full({500}, 1.0), wrt);
  EXPECT_TRUE(same_bits(g[1], w));
  EXPECT_TRUE(same_bits(g[0], vx.value().to(DType::bf16).to(DType::f32)));
}

// However many records keep a value, it is rounded once.
TEST(KeptActivations, AValueIsKeptOnce) {
  const auto bytes = [](DType kept) {
    const KeptTypeScope scope(kept);
    Tape tape;
    const Var x = tape.watch(random({4096}, 1)), y = silu(x);
    const std::int64_t before = memory::live().total;
    const Var a = mul(y, y), b = exp(y), c = square(y);
    return memory::live().total - before - 3 * 4 * 4096;  // without the results
  };
  EXPECT_EQ(bytes(DType::f32), 0);
  EXPECT_LE(bytes(DType::bf16), 2 * 2 * 4096);  // y and exp(y), which its rule reads
}

TEST(KeptActivations, MemoryIsPredictedToTheByte) {
  for (const DType kept : {DType::f32, DType::bf16}) {
    const auto peak = [&](Device device) {
      const Layers layers(DType::f32, device);
      const Tensor x = random({2, 16, 24}, 1).to(device);
      const memory::PeakScope scope;
      const auto before = memory::live().total;
      layers.gradients(x, kept);
      return scope.peak().total - before;
    };
    EXPECT_EQ(peak(Device::cpu), peak(Device::meta)) << name(kept);
  }
}

TEST(KeptActivations, ScopesNestAndReachWorkers) {
  EXPECT_EQ(current_kept_type(), DType::f32);
  {
    const KeptTypeScope outer(DType::bf16);
    set_threads(2);
    parallel(4, [](std::int64_t) { EXPECT_EQ(current_kept_type(), DType::bf16); });
    set_threads(1);
    const KeptTypeScope inner(DType::f32);
    EXPECT_EQ(current_kept_type(), DType::f32);
  }
  EXPECT_EQ(current_kept_type(), DType::f32);
}

}  // namespace
}  // namespace costate
