// Convolutions against plain loops in double precision, for every instruction set of this machine: all
// passes, with and without packed weights, over strides, paddings, groups and ragged channel counts.
#include <costate/tensor/parallel.h>
#include <costate/tensor/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tensor/table_names.h"

namespace costate {
namespace {

using Pass = ConvShape::Pass;
constexpr Pass passes[] = {Pass::forward, Pass::data_gradient, Pass::weight_gradient};

struct Case {
  std::int64_t n, height, width, channels, out, kernel_height, kernel_width;
  std::int64_t stride = 1, top = 0, bottom = 0, left = 0, right = 0, groups = 1;

  ConvShape shape(Pass pass, DType dtype, bool winograd = true) const {
    ConvShape s;
    s.dtype = dtype, s.pass = pass, s.winograd = winograd;
    s.n = n, s.height = height, s.width = width, s.channels = channels;
    s.out_height = (height + top + bottom - kernel_height) / stride + 1;
    s.out_width = (width + left + right - kernel_width) / stride + 1;
    s.out_channels = out, s.kernel_height = kernel_height, s.kernel_width = kernel_width;
    s.stride = stride, s.top = top, s.left = left, s.groups = groups;
    return s;
  }
  std::string text() const {
    std::string s = std::to_string(n) + " x " + std::to_string(height) + " x " + std::to_string(width) +
                    " x " + std::to_string(channels) + " -> " + std::to_string(out) + ", filter " +
                    std::to_string(kernel_height) + " x " + std::to_string(kernel_width) + ", stride " +
                    std::to_string(stride) + ", padding";
    for (std::int64_t p : {top, bottom, left, right}) s += ' ', s += std::to_string(p);
    return s + ", groups " + std::to_string(groups);
  }
};

struct Sizes {
  std::int64_t x, y, w;
  explicit Sizes(const ConvShape& s)
      : x(s.n * s.height * s.width * s.channels),
        y(s.n * s.out_height * s.out_width * s.out_channels),
        w(s.out_channels * s.kernel_height * s.kernel_width * (s.channels / s.groups)) {}
  std::int64_t of(Pass pass) const { return pass == Pass::forward ? y : pass == Pass::data_gradient ? x : w; }
};

// NaN around every array: a kernel that reads too far meets it, one that writes too far is seen.
template <class T>
struct Guarded {
  static constexpr std::int64_t margin = 64;
  std::vector<T> memory;
  std::int64_t size;
  explicit Guarded(std::int64_t n) : memory(n + 2 * margin, std::numeric_limits<T>::quiet_NaN()), size(n) {}
  Guarded(std::int64_t n, unsigned seed) : Guarded(n) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<T> uniform(-1, 1);
    for (std::int64_t i = 0; i < n; ++i) data()[i] = uniform(generator);
  }
  T* data() { return memory.data() + margin; }
  const T* data() const { return memory.data() + margin; }
  bool intact() const {
    for (std::int64_t i = 0; i < margin; ++i)
      if (!std::isnan(memory[i]) || !std::isnan(memory[margin + size + i])) return false;
    return true;
  }
};

template <class T>
struct Operands {
  Guarded<T> x, y, w, bias;
  explicit Operands(const Case& c) : Operands(Sizes(c.shape(Pass::forward, dtype_of<T>)), c.out) {}
  Operands(const Sizes& s, std::int64_t out) : x(s.x, 1), y(s.y, 2), w(s.w, 3), bias(out, 4) {}
};

// Visits every term of the sums: f(index into x, into y, into w).
template <class F>
void each_term(const ConvShape& s, const F& f) {
  const std::int64_t in_group = s.channels / s.groups, out_group = s.out_channels / s.groups;
  for (std::int64_t b = 0; b < s.n; ++b)
    for (std::int64_t p = 0; p < s.out_height; ++p)
      for (std::int64_t q = 0; q < s.out_width; ++q)
        for (std::int64_t i = 0; i < s.kernel_height; ++i)
          for (std::int64_t j = 0; j < s.kernel_width; ++j) {
            const std::int64_t row = s.stride * p + i - s.top, column = s.stride * q + j - s.left;
            if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
            for (std::int64_t o = 0; o < s.out_channels; ++o)
              for (std::int64_t k = 0; k < in_group; ++k)
                f(((b * s.height + row) * s.width + column) * s.channels + o / out_group * in_group + k,
                  ((b * s.out_height + p) * s.out_width + q) * s.out_channels + o,
                  ((o * s.kernel_height + i) * s.kernel_width + j) * in_group + k);
          }
}

template <class T>
std::vector<T> compute(const Kernels& table, const ConvShape& s, const Operands<T>& in, bool packed,
                       bool bias) {
  Guarded<T> out(Sizes(s).of(s.pass));
  ConvCall call;
  call.shape = s;
  if (s.pass != Pass::data_gradient) call.x = in.x.data();
  if (s.pass != Pass::forward) call.y = in.y.data();
  if (s.pass != Pass::weight_gradient) call.weight = in.w.data();
  if (bias) call.bias = in.bias.data();
  call.out = out.data();
  constexpr std::int64_t tail = 64;
  const auto block = [](std::int64_t bytes) {
    void* p = ::operator new(static_cast<std::size_t>(bytes + tail), std::align_val_t(64));
    std::memset(p, 0x7f, static_cast<std::size_t>(bytes + tail));  // as f32 and f64 not a number, nearly
    return std::unique_ptr<std::byte, void (*)(std::byte*)>(
        static_cast<std::byte*>(p), [](std::byte* q) { ::operator delete(q, std::align_val_t(64)); });
  };
  const auto untouched = [](const std::byte* end) {
    return std::all_of(end, end + tail, [](std::byte b) { return b == std::byte{0x7f}; });
  };
  const std::int64_t packed_bytes =
      packed && s.pass != Pass::weight_gradient ? table.conv_packed_bytes(s) : 0;
  const auto layout = block(packed_bytes);
  if (packed_bytes) {
    table.conv_pack(s, in.w.data(), layout.get());
    EXPECT_TRUE(untouched(layout.get() + packed_bytes)) << "conv_pack wrote past its size";
    call.packed = layout.get();
  }
  const std::int64_t bytes = table.conv_workspace(s, packed_bytes > 0);
  const auto workspace = block(bytes);
  call.workspace = bytes ? workspace.get() : nullptr;
  table.conv(call);
  EXPECT_TRUE(untouched(workspace.get() + bytes)) << "conv wrote past its workspace";
  EXPECT_TRUE(out.intact()) << "conv wrote past its result";
  return {out.data(), out.data() + out.size};
}

// winograd: the tolerance is that of the transformed arithmetic, see conv_winograd.h.
template <class T>
void compare(const Kernels& table, const Case& c, Pass pass, bool packed, bool bias, bool winograd) {
  const ConvShape s = c.shape(pass, dtype_of<T>, winograd);
  SCOPED_TRACE(std::string(table.name) + (sizeof(T) == 4 ? ", f32, " : ", f64, ") + c.text() + ", pass " +
               std::to_string(static_cast<int>(pass)) + (packed ? ", packed" : "") + (bias ? ", bias" : "") +
               (winograd ? "" : ", without Winograd"));
  const Operands<T> in(c);
  const std::vector<T> out = compute(table, s, in, packed, bias);
  std::vector<double> sum(out.size()), size(out.size(), 1.0), terms(out.size());
  if (bias)
    for (std::size_t i = 0; i < sum.size(); ++i)
      sum[i] = in.bias.data()[i % c.out], size[i] += std::abs(sum[i]);
  each_term(s, [&](std::int64_t x, std::int64_t y, std::int64_t w) {
    const std::int64_t at = pass == Pass::forward ? y : pass == Pass::data_gradient ? x : w;
    const double term = pass == Pass::forward         ? double(in.x.data()[x]) * in.w.data()[w]
                        : pass == Pass::data_gradient ? double(in.y.data()[y]) * in.w.data()[w]
                                                      : double(in.x.data()[x]) * in.y.data()[y];
    sum[at] += term, size[at] += std::abs(term), terms[at] += 1;
  });
  const double eps = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;
  double largest = 0;
  for (const double v : sum) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < out.size(); ++i) {
    // A sum of k terms in any order errs by at most about k eps times the sum of sizes, in practice by
    // sqrt(k). In f64 the reference errs as much again. Winograd's transforms lose at most five bits of the
    // largest result.
    double tolerance = 2 * eps * size[i] * (4 + 2 * std::sqrt(terms[i]));
    if (winograd && sizeof(T) == 4) tolerance += 32 * eps * std::max(largest, 1.0);
    ASSERT_NEAR(out[i], sum[i], tolerance) << "element " << i;
  }
}

const Case cases[] = {
    {1, 1, 1, 1, 1, 1, 1},
    {2, 5, 4, 3, 5, 3, 3, 1, 1, 1, 1, 1},
    {2, 5, 6, 3, 5, 3, 3},
    {2, 8, 6, 4, 7, 3, 3, 2, 1, 1, 1, 1},     // stride 2
    {1, 7, 9, 6, 4, 3, 3, 2, 0, 1, 0, 1},     // as diffusers pads its downsampler
    {1, 9, 7, 2, 3, 3, 2, 3, 2, 0, 1, 1},     // stride 3, non-square
    {2, 4, 5, 6, 4, 1, 1},                    // 1 x 1
    {2, 5, 4, 5, 6, 1, 1, 2},                 // 1 x 1, stride 2: some pixels are never read
    {1, 6, 6, 8, 6, 3, 3, 1, 1, 1, 1, 1, 2},  // groups
    {2, 5, 5, 6, 6, 3, 3, 1, 1, 1, 1, 1, 6},  // a group a channel
    {1, 6, 5, 4, 8, 3, 3, 2, 1, 0, 0, 1, 4},  // two filters a channel
    {1, 10, 9, 3, 4, 7, 7, 1, 3, 3, 3, 3},    // 7 x 7
    {2, 8, 8, 3, 10, 4, 4, 4},                // patches
    {1, 3, 3, 2, 2, 2, 2, 1, 4, 3, 3, 4},     // padding wider than the filter
    {1, 2, 9, 5, 3, 2, 5, 1, 0, 0, 2, 2},
    {3, 7, 7, 40, 33, 3, 3, 1, 1, 1, 1, 1},  // ragged vectors
    {2, 9, 13, 17, 50, 3, 3, 1, 1, 1, 1, 1},
    {1, 14, 14, 64, 48, 3, 3, 1, 1, 1, 1, 1},
    {1, 13, 6, 32, 32, 3, 3, 1, 0, 0, 0, 0},
    {1, 6, 11, 32, 64, 3, 3, 1, 2, 1, 0, 2},
    {2, 6, 6, 32, 32, 3, 3, 1, 1, 1, 1, 1, 2},
    {1, 8, 8, 64, 1, 3, 3, 1, 1, 1, 1, 1},  // the last layer of a network, and the first
    {1, 8, 8, 1, 64, 3, 3, 1, 1, 1, 1, 1},
    {1, 8, 8, 70, 3, 3, 3, 1, 1, 1, 1, 1},
    {1, 9, 9, 48, 64, 3, 3, 2, 1, 1, 1, 1},
    {2, 4, 4, 80, 40, 1, 1},
    {1, 5, 5, 600, 20, 3, 3, 1, 1, 1, 1, 1},
    {1, 3, 2, 1050, 7, 2, 2, 1, 1, 0, 0, 1},  // more channels, and more taps, than go in one pass
    {1, 20, 21, 2, 3, 18, 19, 2, 3, 4, 5, 1},
    {1, 4, 5, 2, 1050, 3, 3, 1, 1, 1, 1, 1},
    {3, 9, 8, 3, 50, 3, 3, 1, 1, 1, 1, 1},  // few channels
    {2, 11, 9, 4, 33, 3, 2, 3, 1, 0, 2, 1},
    {40, 6, 6, 2, 100, 5, 5, 1, 2, 2, 2, 2},
    {2, 30, 29, 24, 40, 3, 3, 1, 1, 1, 1, 1},  // several blocks of Winograd's tiles
};

class Conv : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (GetParam() >= static_cast<int>(cpu_tables().size())) GTEST_SKIP() << "not on this machine";
    table_ = cpu_tables()[GetParam()];
  }
  void TearDown() override { set_threads(1); }
  const Kernels* table_ = nullptr;
};

TEST_P(Conv, AgreesWithLoops) {
  for (const Case& c : cases)
    for (const Pass pass : passes)
      for (int bits = 0; bits < 4; ++bits) {
        const bool packed = bits & 1, winograd = bits & 2,
                   bias = pass == Pass::forward && (packed != winograd);
        if (packed && pass == Pass::weight_gradient) continue;
        compare<float>(*table_, c, pass, packed, bias, winograd);
        if (!winograd) compare<double>(*table_, c, pass, packed, bias, winograd);
        if (HasFatalFailure()) return;
      }
}

// Large enough for the threads to share every pass; the bits must not tell.
TEST_P(Conv, BitsDoNotDependOnTheNumberOfThreads) {
  const Case large[] = {
      {5, 14, 14, 64, 64, 3, 3, 1, 1, 1, 1, 1}, {2, 30, 29, 24, 40, 3, 3, 1, 1, 1, 1, 1},
      {3, 15, 14, 64, 96, 3, 3, 2, 1, 1, 1, 1}, {2, 20, 20, 1, 64, 3, 3, 1, 1, 1, 1, 1},
      {2, 20, 20, 64, 1, 3, 3, 1, 1, 1, 1, 1},  {4, 12, 12, 64, 64, 3, 3, 1, 1, 1, 1, 1, 4}};
  for (const Case& c : large) {
    const Operands<float> in(c);
    for (const Pass pass : passes)
      for (int bits = 0; bits < 4; ++bits) {
        const ConvShape s = c.shape(pass, DType::f32, bits & 1);
        set_threads(1);
        const auto one = compute(*table_, s, in, bits & 2, pass == Pass::forward);
        for (const int n : {2, 3, 5}) {
          set_threads(n);
          const auto many = compute(*table_, s, in, bits & 2, pass == Pass::forward);
          EXPECT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0)
              << c.text() << ", pass " << static_cast<int>(pass) << ", " << n << " threads";
        }
      }
  }
}

// Where Winograd's method is taken its rounding shows, and the switch turns it off.
TEST_P(Conv, WinogradCanBeTurnedOff) {
  if (std::string(table_->name).find("baseline") != std::string::npos) GTEST_SKIP() << "has no Winograd";
  const Case c{3, 13, 12, 32, 48, 3, 3, 1, 1, 1, 1, 1};
  const Operands<float> in(c);
  for (const Pass pass : passes) {
    const ConvShape with = c.shape(pass, DType::f32, true), without = c.shape(pass, DType::f32, false);
    EXPECT_NE(compute(*table_, with, in, true, false), compute(*table_, without, in, true, false));
    EXPECT_GT(table_->conv_workspace(with, true), 0);
    EXPECT_EQ(table_->conv_workspace(without, true), 0);  // 32 channels: the direct kernels need none
    if (pass == Pass::weight_gradient) continue;
    EXPECT_GT(table_->conv_packed_bytes(with), table_->conv_packed_bytes(without));
    EXPECT_EQ(compute(*table_, with, in, true, false),
              compute(*table_, with, in, false, false));  // packed or not
  }
}

TEST_P(Conv, NotANumberStaysWhereItBelongs) {
  const Case c{2, 9, 8, 32, 32, 3, 3, 1, 1, 1, 1, 1};
  Operands<float> in(c);
  const ConvShape s = c.shape(Pass::forward, DType::f32, false);
  const std::int64_t row = 4, column = 5;
  in.x.data()[((s.height + row) * s.width + column) * s.channels + 7] = std::nanf("");
  const auto out = compute(*table_, s, in, true, false);
  for (std::int64_t b = 0; b < s.n; ++b)
    for (std::int64_t p = 0; p < s.out_height; ++p)
      for (std::int64_t q = 0; q < s.out_width; ++q)
        for (std::int64_t o = 0; o < s.out_channels; ++o)
          EXPECT_EQ(std::isnan(out[((b * s.out_height + p) * s.out_width + q) * s.out_channels + o]),
                    b == 1 && std::abs(p - row) <= 1 && std::abs(q - column) <= 1);
}

TEST_P(Conv, UpsamplingAndPooling) {
  const std::int64_t n = 2, h = 3, w = 5, c = 7;
  for (const std::int64_t f : {1, 2, 3}) {
    const Guarded<float> small(n * h * w * c, 1), large(n * h * w * c * f * f, 2);
    Guarded<float> up(large.size), down(small.size);
    table_->upsample(DType::f32, n, h, w, c, f, 0.5, small.data(), up.data());
    table_->pool(DType::f32, n, h, w, c, f, 0.5, large.data(), down.data());
    EXPECT_TRUE(up.intact() && down.intact());
    std::vector<double> sum(small.size);
    for (std::int64_t b = 0; b < n; ++b)
      for (std::int64_t y = 0; y < f * h; ++y)
        for (std::int64_t x = 0; x < f * w; ++x)
          for (std::int64_t k = 0; k < c; ++k) {
            const std::int64_t from = ((b * h + y / f) * w + x / f) * c + k,
                               to = ((b * f * h + y) * f * w + x) * c + k;
            EXPECT_EQ(up.data()[to], 0.5f * small.data()[from]);
            sum[from] += 0.5 * large.data()[to];
          }
    for (std::int64_t i = 0; i < small.size; ++i)
      EXPECT_NEAR(down.data()[i], sum[i], 1e-6);  // nine terms of at most 1/2
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, Conv, testing::Range(0, 3), name_of_place);

}  // namespace
}  // namespace costate
