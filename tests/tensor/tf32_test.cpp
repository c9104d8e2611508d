// Rounding to TF32, and what products and convolutions of that precision compute: the f32 results of rounded operands.
#include <costate/tensor/rounding.h>
#include <costate/tensor/tensor.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace costate {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

TEST(Tf32, RoundsToElevenSignificantBits) {
  for (const auto& [x, rounded] : {std::pair{1.0f, 1.0f}, {1 + 0x1p-10f, 1 + 0x1p-10f}, {1 + 0x1.8p-11f, 1 + 0x1p-10f},
                                   // Ties go away from zero, whichever neighbour is even.
                                   {1 + 0x1p-11f, 1 + 0x1p-10f}, {1 + 3 * 0x1p-11f, 1 + 0x1p-9f},
                                   {-1 - 0x1p-11f, -1 - 0x1p-10f},
                                   {1 + 0x1.ffep-12f, 1.0f}, {0x1.ffep-1f, 1.0f}, {-0.0f, -0.0f},
                                   {infinity, infinity}, {-infinity, -infinity},
                                   {std::numeric_limits<float>::max(), infinity}}) {
    const float y = rounding::to_tf32(x);
    EXPECT_EQ(y, rounded) << x;
    EXPECT_EQ(std::signbit(y), std::signbit(rounded)) << x;
  }
  EXPECT_TRUE(std::isnan(rounding::to_tf32(std::nanf(""))));
  // The low bits of a NaN are cut: without a bit that stays it would become an infinity.
  EXPECT_TRUE(std::isnan(rounding::to_tf32(__builtin_bit_cast(float, 0x7f800001u))));
  EXPECT_TRUE(std::isnan(rounding::to_bf16(__builtin_bit_cast(float, 0x7f800001u))));
}

TEST(Tf32, IsTheNearest) {
  std::mt19937 generator(3);
  std::uniform_int_distribution<std::uint32_t> mantissa(0, (1u << 23) - 1), exponent(1, 253);
  for (int i = 0; i < 10000; ++i) {
    const float x = __builtin_bit_cast(float, exponent(generator) << 23 | mantissa(generator)), y = rounding::to_tf32(x);
    EXPECT_EQ(__builtin_bit_cast(std::uint32_t, y) & 0x1fffu, 0u);
    EXPECT_LE(std::abs(static_cast<double>(y) - x), 0x1p-11 * static_cast<double>(x)) << x;
  }
}

std::vector<float> drawn(std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& v : out) v = normal(generator);
  return out;
}
std::vector<float> rounded(std::vector<float> v) {
  for (float& x : v) x = rounding::to_tf32(x);
  return v;
}

struct alignas(64) Line {
  std::byte bytes[64];
};
std::vector<Line> workspace(std::int64_t bytes) { return std::vector<Line>(static_cast<std::size_t>(bytes / 64 + 1)); }

std::vector<float> product(const Kernels& table, MatmulCall call, const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> c(static_cast<std::size_t>(call.batch * call.m * call.n), std::nanf(""));
  call.dtype = DType::f32, call.a = a.data(), call.b = b.data(), call.c = c.data();
  std::vector<Line> room = workspace(table.matmul_workspace(call));
  call.workspace = room.data();
  table.matmul(call);
  return c;
}

TEST(Tf32, ProductsAreThoseOfRoundedOperands) {
  for (const Kernels* table : cpu_tables())
    for (const auto& [m, n, k, batch] : {std::array<std::int64_t, 4>{7, 33, 50, 1}, {40, 2, 96, 1}, {5, 8, 16, 3}})
      for (const bool transposed : {false, true}) {
        MatmulCall call{};
        call.m = m, call.n = n, call.k = k, call.batch = batch, call.transpose_a = call.transpose_b = transposed;
        call.stride_a = m * k, call.stride_b = n * k;
        const std::vector<float> a = drawn(batch * m * k, 1), b = drawn(batch * n * k, 2);
        const auto plain = product(*table, call, rounded(a), rounded(b)), exact = product(*table, call, a, b);
        call.precision = Precision::tf32;
        const auto found = product(*table, call, a, b);
        EXPECT_EQ(found, plain) << table->name << ", n = " << n;
        EXPECT_NE(found, exact) << table->name << ", n = " << n;
        EXPECT_EQ(table->packed_bytes(DType::f32, Precision::tf32, n, k), 0);
      }
}

std::vector<float> convolution(const Kernels& table, ConvShape s, const std::vector<float>& x, const std::vector<float>& y,
                               const std::vector<float>& w, std::size_t elements) {
  std::vector<float> out(elements, std::nanf(""));
  ConvCall call;
  call.shape = s;
  using Pass = ConvShape::Pass;
  if (s.pass != Pass::data_gradient) call.x = x.data();
  if (s.pass != Pass::forward) call.y = y.data();
  if (s.pass != Pass::weight_gradient) call.weight = w.data();
  call.out = out.data();
  std::vector<Line> room = workspace(table.conv_workspace(s, false));
  call.workspace = room.data();
  table.conv(call);
  return out;
}

TEST(Tf32, ConvolutionsAreThoseOfRoundedOperands) {
  using Pass = ConvShape::Pass;
  for (const Kernels* table : cpu_tables())
    for (const std::int64_t channels : {3, 16})  // by the direct method, and by Winograd's where there is one
      for (const Pass pass : {Pass::forward, Pass::data_gradient, Pass::weight_gradient}) {
        ConvShape s;
        s.pass = pass, s.n = 2, s.height = s.width = s.out_height = s.out_width = 16;
        s.channels = s.out_channels = channels, s.kernel_height = s.kernel_width = 3, s.top = s.left = 1;
        const std::int64_t image = s.n * s.height * s.width * channels, filters = channels * 9 * channels;
        const std::vector<float> x = drawn(image, 3), y = drawn(image, 4), w = drawn(filters, 5);
        const auto size = static_cast<std::size_t>(pass == Pass::weight_gradient ? filters : image);
        const auto plain = convolution(*table, s, rounded(x), rounded(y), rounded(w), size),
                   exact = convolution(*table, s, x, y, w, size);
        s.precision = Precision::tf32;
        const auto found = convolution(*table, s, x, y, w, size);
        EXPECT_EQ(found, plain) << table->name << ", pass " << static_cast<int>(pass);
        EXPECT_NE(found, exact) << table->name << ", pass " << static_cast<int>(pass);
        EXPECT_EQ(table->conv_packed_bytes(s), 0);
      }
}

}  // namespace
}  // namespace costate
