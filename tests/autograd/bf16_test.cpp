// Ops on bf16: each is the op in f32 with its result rounded, and so is its rule.
#include <costate/autograd/ops.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/precision.h>
#include <costate/tensor/rounding.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "samples.h"

namespace costate {
namespace {

Tensor random(const Shape& shape, unsigned seed, DType dtype = DType::f32) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (double& v : values) v = normal(generator);
  return Tensor::from(values, shape).to(dtype);
}
bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}
// |a - b|/|b|, of all elements together.
double relative(const Tensor& a, const Tensor& b) {
  const auto x = a.to_doubles(), y = b.to_doubles();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return size > 0 ? std::sqrt(difference / size) : difference;
}

TEST(Bf16, RoundsToEightBitsAndBack) {
  const Tensor x = random({1000}, 1), half = x.to(DType::bf16), back = half.to(DType::f32);
  EXPECT_EQ(half.bytes(), 2000);
  for (std::size_t i = 0; i < 1000; ++i) EXPECT_EQ(back.values<float>()[i], rounding::to_bf16(x.values<float>()[i]));
  EXPECT_EQ(half.to_doubles(), back.to_doubles());
  EXPECT_TRUE(same_bits(half.clone().to(DType::f32), back));
  EXPECT_TRUE(same_bits(half.slice(10, 20).to(DType::f32), back.slice(10, 20)));
  EXPECT_TRUE(same_bits(x.to(DType::f64).to(DType::bf16), half));  // through f32, which the doubles are
  EXPECT_EQ(x.to(Device::meta).to(DType::bf16).bytes(), 2000);
}


// The result and the gradients by all operands, which are given in `values`, of the type that the op is asked for.
std::vector<Tensor> pulled(const Sample& s, const std::vector<Tensor>& values, DType dtype) {
  Tape tape;
  std::vector<Var> vars;
  for (const Tensor& v : values) vars.push_back(tape.watch(v.to(dtype)));
  const Var y = s.f(vars);
  EXPECT_EQ(y.dtype(), dtype) << s.op;
  std::vector<Tensor> all = std::move(tape).vjp(y, random(y.shape(), 9).to(DType::bf16).to(dtype), vars);
  all.insert(all.begin(), y.value());
  return all;
}

// A rounding errs by 2^-8 of the number at most. A sample is one op or two, the second often a square, which doubles the
// error: 3 2^-8 at most. A rule reads rounded results of the forward pass and rounds on its way, errors of which all but the
// last are averaged over the elements (2^-9.3 in the root mean square, some ten of them): 2^-6.
TEST(Bf16, EveryOpIsThatOfF32WithRoundedResults) {
  std::uint32_t n = 0;
  bool differs = false;
  for (const Sample& s : samples()) {
    std::vector<Tensor> values = inputs_of(s, n++);
    for (Tensor& v : values) v = v.to(DType::bf16).to(DType::f32);
    const auto exact = pulled(s, values, DType::f32), found = pulled(s, values, DType::bf16);
    EXPECT_LE(relative(found[0], exact[0]), 3 * 0x1p-8) << s.op;
    for (std::size_t i = 1; i < found.size(); ++i) {
      EXPECT_EQ(found[i].dtype(), DType::bf16) << s.op;
      EXPECT_LE(relative(found[i], exact[i]), 0x1p-6) << s.op << ", operand " << i - 1;
    }
    differs = differs || relative(found[0], exact[0]) > 0x1p-10;
  }
  EXPECT_TRUE(differs);
}

// To the bit: long and short rows, repeated operands, what is no multiple of a block, all layouts of matrices.
TEST(Bf16, ResultsAreRoundedOnce) {
  struct Case {
    const char* name;
    std::function<Var(Inputs)> f;
    std::vector<Shape> shapes;
  };
  const std::vector<Case> cases = {
      {"silu", [](Inputs x) { return silu(x[0]); }, {{1000}}},
      {"add", [](Inputs x) { return add(x[0], x[1]); }, {{70, 50}, {70, 50}}},
      {"a row to all", [](Inputs x) { return mul(x[0], x[1]); }, {{7, 333}, {333}}},
      {"a column to all", [](Inputs x) { return sub(x[0], x[1]); }, {{7, 333}, {7, 1}}},
      {"short rows", [](Inputs x) { return multiply_add(x[0], x[1], x[2]); }, {{40, 9, 5}, {40, 1, 5}, {9, 1}}},
      {"a scalar to all", [](Inputs x) { return div(x[0], x[1]); }, {{3, 5}, {}}},
      {"chain_step", [](Inputs x) { return chain_step(0.5, x[0], 2, x[1], 0.3, x[2]); }, {{300}, {300}, {300}}},
      {"sum", [](Inputs x) { return sum(x[0], 1); }, {{4, 300, 7}}},
      {"permute", [](Inputs x) { return permute(x[0], {2, 0, 1}); }, {{5, 6, 7}}},
      {"concat", [](Inputs x) { return concat({&x[0], &x[1]}, 1); }, {{5, 6}, {5, 3}}},
      {"narrow", [](Inputs x) { return narrow(x[0], 1, 1, 3); }, {{5, 6}}},
      {"pad", [](Inputs x) { return pad(x[0], 1, 0, 2, 3); }, {{2, 4, 3, 2}}},
      {"broadcast_to", [](Inputs x) { return broadcast_to(x[0], {3, 4, 5}); }, {{4, 1}}},
      {"matmul", [](Inputs x) { return matmul(x[0], x[1], true, false); }, {{40, 30}, {40, 50}}},
      {"linear", [](Inputs x) { return linear(x[0], x[1], x[2], Activation::gelu_tanh); }, {{33, 20}, {24, 20}, {24}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], x[2], {1, 1, 1, 1, 1}); }, {{2, 8, 8, 16}, {16, 3, 3, 16}, {16}}},
      {"softmax", [](Inputs x) { return softmax(x[0]); }, {{30, 17}}},
      {"layer_norm", [](Inputs x) { return layer_norm(x[0], 1e-5); }, {{30, 17}}},
      {"group_norm", [](Inputs x) { return group_norm(x[0], x[1], x[2], 4, 1e-5, Activation::silu); }, {{2, 5, 5, 8}, {8}, {8}}},
      {"attention", [](Inputs x) { return attention(x[0], 2); }, {{2, 19, 48}}},
      {"upsample_nearest", [](Inputs x) { return upsample_nearest(x[0], 2); }, {{2, 3, 4, 5}}},
      {"average_pool", [](Inputs x) { return average_pool(x[0], 2); }, {{2, 6, 4, 5}}},
      {"dropout", [](Inputs x) { return dropout(x[0], 0.3, 5, 1, 2); }, {{3, 70}}},
      {"gather_rows", [](Inputs x) { return gather_rows(x[0], index3); }, {{4, 11}}},
  };
  for (const Case& c : cases) {
    std::vector<Var> narrow_in, wide_in;
    for (const Shape& shape : c.shapes) {
      narrow_in.emplace_back(random(shape, static_cast<unsigned>(narrow_in.size() + 1)).to(DType::bf16));
      wide_in.emplace_back(narrow_in.back().value().to(DType::f32));
    }
    EXPECT_TRUE(same_bits(c.f(narrow_in).value(), c.f(wide_in).value().to(DType::bf16))) << c.name;
  }
}

// A bf16 number does not grow beyond 256 by adding ones: 257 is none.
TEST(Bf16, SumsAreF32) {
  const Tensor ones = Tensor::full({4096, 2}, 1, DType::bf16);
  EXPECT_EQ(ones.bytes(), 2 * 8192);
  EXPECT_EQ(sum(ones).value().item(), 8192);
  EXPECT_EQ(sum(ones, 0).value().to_doubles(), (std::vector<double>{4096, 4096}));
  EXPECT_EQ(matmul(ones, ones, true, false).value().to_doubles(), (std::vector<double>(4, 4096)));
  const Tensor rows = Tensor::full({1024, 2}, 1, DType::bf16), index = Tensor::full({1024}, 1, DType::i32);
  EXPECT_EQ(scatter_rows(rows, index, 2).value().to_doubles(), (std::vector<double>{0, 0, 1024, 1024}));
}

TEST(Bf16, FillsAndZerosAndWhatIsNoNumber) {
  EXPECT_EQ(Tensor::full({3}, 1.0 / 3, DType::bf16).to_doubles(), (std::vector<double>(3, rounding::to_bf16(1.0f / 3))));
  const Tensor t = random({3}, 1).to(DType::bf16).clone();
  t.fill(-2);
  EXPECT_EQ(t.to_doubles(), (std::vector<double>(3, -2)));
  const double infinity = std::numeric_limits<double>::infinity();
  const auto found = add(Tensor::full({2}, infinity, DType::bf16), Tensor::from(std::vector<double>{1, -infinity}, {2}).to(DType::bf16))
                         .value()
                         .to_doubles();
  EXPECT_EQ(found[0], infinity);
  EXPECT_TRUE(std::isnan(found[1]));
}

TEST(Bf16, CastsRoundAndTheirCotangentsAreCastBack) {
  Tape tape;
  const Var x = tape.watch(random({50}, 1)), half = cast(x, DType::bf16);
  EXPECT_TRUE(same_bits(half.value(), x.value().to(DType::bf16)));
  EXPECT_EQ(cast(x, DType::f32).node(), x.node());  // itself
  const Tensor g = random({50}, 2).to(DType::bf16);
  const Tensor dx = tape.vjp(half, g, {&x, 1})[0];
  EXPECT_TRUE(same_bits(dx, g.to(DType::f32)));
  // d/dx of <2 x g, 1>, where 2 x g was recorded by a sweep through the cast.
  const std::vector<Var> recorded = tape.recorded_vjp(square(half), Var(g), {&x, 1});
  EXPECT_LE(relative(tape.vjp(sum(recorded[0]), x), affine(Var(g), 2, 0).value()), 0x1p-7);
  EXPECT_THROW(cast(Tensor::zeros({2}, DType::i32), DType::bf16), Error);
  EXPECT_THROW(cast(x, DType::i32), Error);
  EXPECT_THROW(add(x, half), Error);  // types do not mix
}

// What is bf16 stays so in a tape that rounds f32 activations.
TEST(Bf16, TapesThatRoundActivationsLeaveItAsItIs) {
  const memory::TagScope activations(memory::Tag::activations);
  const KeptTypeScope keeping(DType::bf16);
  Tape tape;
  const Var x = tape.watch(random({64}, 1)), half = cast(x, DType::bf16), y = cast(square(half), DType::f32), z = mul(y, y);
  const Tensor g = tape.vjp(z, Tensor::full({64}, 1), {&x, 1})[0];
  const auto values = half.value().to_doubles(), found = g.to_doubles();
  for (std::size_t i = 0; i < values.size(); ++i)  // 4 x^3 of three roundings, each on its way doubled at most
    EXPECT_NEAR(found[i], 4 * std::pow(values[i], 3), 0x1p-6 * std::abs(found[i])) << i;
}

TEST(Bf16, BitsDoNotDependOnThreads) {
  const auto run = [](int count) {
    set_threads(count);
    const Tensor x = random({4, 16, 16, 32}, 1).to(DType::bf16), w = random({32, 3, 3, 32}, 2).to(DType::bf16);
    Tape tape;
    const Var vx = tape.watch(x), vw = tape.watch(w), wrt[] = {vx, vw};
    const Var image = silu(conv2d(vx, vw, Var(), {1, 1, 1, 1, 1}));
    const Var tokens = reshape(image, {4, 256, 32});
    const Var y = attention(concat({&tokens, &tokens, &tokens}, 2), 2);
    auto all = tape.vjp(y, random(y.shape(), 3).to(DType::bf16), wrt);
    all.push_back(y.value());
    set_threads(1);
    return all;
  };
  const auto one = run(1), three = run(3);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(same_bits(one[i], three[i])) << i;
}

TEST(Bf16, OthersRefuseItInWords) {
  const Tensor half = random({2, 3}, 1).to(DType::bf16);
  try {
    random_normal(half, 1, Stream::user, 0, 0);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("bf16; expected f32 or f64"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace costate
