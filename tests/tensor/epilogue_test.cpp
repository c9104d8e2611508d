// The activations that the matrix product applies, on every table of the cpu: errors over the whole range of floats, limits,
// and bits that do not depend on an element's place. With one term of weight 1 the product's sum is its operand.
#include <costate/tensor/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/table_names.h"

namespace costate {
namespace {

struct Values {
  std::vector<float> y, slope;
};
// y (rows, columns) of a = rows and b = columns, one of which is ones.
Values epilogue(const Kernels& table, Activation activation, const std::vector<float>& rows, const std::vector<float>& columns) {
  Values v;
  v.y.resize(rows.size() * columns.size()), v.slope = v.y;
  MatmulCall call{};
  call.dtype = DType::f32;
  call.m = static_cast<std::int64_t>(rows.size()), call.n = static_cast<std::int64_t>(columns.size()), call.k = 1;
  call.a = rows.data(), call.b = columns.data(), call.c = v.y.data(), call.derivative = v.slope.data();
  call.activation = activation;
  const Tensor workspace = Tensor::empty({table.matmul_workspace(call) / 4});
  call.workspace = workspace.raw_mutable();
  table.matmul(call);
  return v;
}
std::vector<float> ones(std::size_t n) { return std::vector<float>(n, 1.f); }

struct Pair {
  long double y, slope;
};
Pair exact(Activation activation, long double x) {
  const auto logistic = [](long double u) { return 1 / (1 + std::exp(-u)); };
  if (activation == Activation::relu) return {std::max(x, 0.0L), x > 0 ? 1.0L : 0.0L};
  const long double c = activation == Activation::silu ? 1 : std::sqrt(8 / 3.14159265358979323846264338327950288L),
                    c3 = activation == Activation::silu ? 0 : 0.044715L * c;
  const long double s = logistic(c * x + c3 * x * x * x), left = logistic(-(c * x + c3 * x * x * x));
  return {x * s, s + x * s * left * (c + 3 * c3 * x * x)};
}

class Epilogue : public testing::TestWithParam<const Kernels*> {};

TEST_P(Epilogue, ErrorsAreWithinTheStatedOnes) {
  std::vector<float> x;
  for (int i = -200'000; i <= 200'000; ++i) x.push_back(static_cast<float>(i) * 5e-4f);
  for (std::uint32_t bits = 0; bits < 0x7f800000u; bits += 50'021)
    for (const std::uint32_t sign : {0u, 0x80000000u}) x.push_back(__builtin_bit_cast(float, bits | sign));
  for (const Activation a : {Activation::silu, Activation::gelu_tanh, Activation::relu})
    for (const bool thin : {false, true}) {  // a product of one column takes another way
      const Values v = thin ? epilogue(*GetParam(), a, x, ones(1)) : epilogue(*GetParam(), a, ones(1), x);
      double worst = 0, worst_slope = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        // Beyond 1e4, whose cube is far from overflow, both are x and 1, or 0 and 0, to the last bit.
        const auto [y, slope] = exact(a, std::clamp(x[i], -1e4f, 1e4f));
        const long double size = std::max(1.0L, std::abs(static_cast<long double>(x[i])));
        worst = std::max(worst, static_cast<double>(std::abs(v.y[i] - (x[i] > 1e4f ? x[i] : y)) / size));
        worst_slope = std::max(worst_slope, static_cast<double>(std::abs(v.slope[i] - slope) / size));
      }
      EXPECT_LT(worst, 1.5e-7) << static_cast<int>(a);
      EXPECT_LT(worst_slope, a == Activation::gelu_tanh ? 4.5e-7 : 1.5e-7) << static_cast<int>(a);
    }
}

TEST_P(Epilogue, Limits) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (const std::int64_t columns : {1, 32, 33})
    for (const Activation a : {Activation::silu, Activation::gelu_tanh, Activation::relu}) {
      const Values v = epilogue(*GetParam(), a, {inf, 1e38f, -1e38f, -inf, std::nanf("")}, ones(static_cast<std::size_t>(columns)));
      for (std::int64_t j = 0; j < columns; ++j) {
        const auto y = [&](std::int64_t i) { return v.y[static_cast<std::size_t>(i * columns + j)]; };
        const auto slope = [&](std::int64_t i) { return v.slope[static_cast<std::size_t>(i * columns + j)]; };
        EXPECT_EQ(y(0), inf);
        EXPECT_EQ(y(1), 1e38f);
        for (const int i : {0, 1}) EXPECT_EQ(slope(i), 1.f);
        for (const int i : {2, 3}) {
          EXPECT_NEAR(y(i), 0, 3e-36);
          EXPECT_NEAR(slope(i), 0, 3e-36);
        }
        EXPECT_TRUE(std::isnan(y(4)));
      }
    }
}

TEST_P(Epilogue, BitsDoNotDependOnThePlace) {
  if (std::strstr(GetParam()->name, "baseline")) GTEST_SKIP() << "Eigen does not promise it";
  std::vector<float> x;
  for (int i = -600; i <= 600; ++i) x.push_back(static_cast<float>(i) * 0.0173f);
  for (const Activation a : {Activation::silu, Activation::gelu_tanh}) {
    // As rows with equal neighbours, and as the columns of one row.
    const Values one = epilogue(*GetParam(), a, x, ones(31)), v = epilogue(*GetParam(), a, ones(1), x);
    for (std::size_t i = 0; i < x.size(); ++i)
      for (std::size_t j = 0; j < 31; ++j) {
        ASSERT_EQ(one.y[i * 31 + j], v.y[i]);
        ASSERT_EQ(one.slope[i * 31 + j], v.slope[i]);
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Epilogue, testing::ValuesIn(cpu_tables().begin(), cpu_tables().end()), name_of_table);

}  // namespace
}  // namespace costate
