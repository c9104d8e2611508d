// Matrix products against loops in long double, for every instruction set of this machine.
#include <costate/tensor/parallel.h>
#include <costate/tensor/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tensor/table_names.h"

namespace costate {
namespace {

template <class T>
std::vector<T> noise(std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<T> uniform(-1, 1);
  std::vector<T> x(n);
  for (T& v : x) v = uniform(generator);
  return x;
}

struct Case {
  std::int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  Activation activation = Activation::none;
  bool bias = false, derivative = false, accumulate = false, packed = false;
  std::int64_t batch = 1;
  bool repeat_a = false, repeat_b = false;
  bool scaled = false, summed = false, bf16 = false;

  std::string text() const {
    std::string s = std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k);
    if (transpose_a) s += ", a transposed";
    if (transpose_b) s += ", b transposed";
    if (packed) s += ", packed";
    if (bias) s += ", bias";
    if (derivative) s += ", derivative";
    if (accumulate) s += ", accumulate";
    if (scaled) s += ", a scaled";
    if (summed) s += ", rows summed";
    if (bf16) s += ", bf16";
    if (batch > 1) s += ", batch " + std::to_string(batch);
    return s + ", activation " + std::to_string(static_cast<int>(activation));
  }
};

template <class T>
struct Operands {
  std::vector<T> a, b, bias, c0, scale;
  explicit Operands(const Case& x)
      : a(noise<T>((x.repeat_a ? 1 : x.batch) * x.m * x.k, 1)),
        b(noise<T>((x.repeat_b ? 1 : x.batch) * x.k * x.n, 2)),
        bias(noise<T>(x.n, 3)),
        c0(noise<T>(x.batch * x.m * x.n, 4)),
        scale(noise<T>(x.scaled ? a.size() : 0, 5)) {}
};

template <class T>
struct Result {
  std::vector<T> c, derivative, sums;
  bool operator==(const Result& o) const {
    return std::memcmp(c.data(), o.c.data(), c.size() * sizeof(T)) == 0 &&
           std::memcmp(sums.data(), o.sums.data(), sums.size() * sizeof(T)) == 0 &&
           std::memcmp(derivative.data(), o.derivative.data(), derivative.size() * sizeof(T)) == 0;
  }
};

// The rows first .. first + x.m of a, whose first row is row 0.
template <class T>
Result<T> product(const Kernels& table, const Case& x, const Operands<T>& in, std::int64_t first = 0) {
  constexpr T guard = T(1234.5);
  const std::int64_t size = x.batch * x.m * x.n;
  Result<T> out{in.c0, std::vector<T>(x.derivative ? size + 3 : 3, guard), std::vector<T>(x.summed ? x.m + 3 : 3, guard)};
  out.c.resize(size + 3, guard);
  for (int i = 0; i < 3; ++i) out.c[size + i] = guard;
  std::vector<std::byte> packed;
  MatmulCall call{};
  call.dtype = dtype_of<T>;
  call.transpose_a = x.transpose_a, call.transpose_b = x.transpose_b;
  call.m = x.m, call.n = x.n, call.k = x.k, call.batch = x.batch;
  call.stride_a = x.repeat_a ? 0 : x.m * x.k, call.stride_b = x.repeat_b ? 0 : x.k * x.n;
  call.a = in.a.data() + first * x.k, call.b = in.b.data(), call.c = out.c.data();
  call.accumulate = x.accumulate, call.activation = x.activation;
  if (x.bias) call.bias = in.bias.data();
  if (x.derivative) call.derivative = out.derivative.data();
  call.precision = x.bf16 ? Precision::bf16_products : Precision::f32;
  if (x.scaled) call.scaled = true, call.scale_a = in.scale.data() + first * x.k;
  if (x.summed) call.summed = true, call.row_sums = out.sums.data();
  if (x.packed) {
    const std::int64_t bytes = table.packed_bytes(call.dtype, call.precision, x.n, x.k);
    if (bytes > 0) {
      packed.resize(bytes + 16, std::byte{0x5a});
      table.pack_b(call.dtype, call.precision, x.transpose_b, x.n, x.k, call.b, packed.data());
      for (int i = 0; i < 16; ++i)
        EXPECT_EQ(packed[bytes + i], std::byte{0x5a}) << "pack_b wrote past its size";
      call.packed = true, call.packed_b = packed.data();
    }
  }
  // The workspace is as large as asked for, aligned to a cache line, and neither cleared nor passed over.
  const std::int64_t bytes = table.matmul_workspace(call);
  std::vector<std::byte> workspace(bytes + 128, std::byte{0x7f});
  std::byte* aligned = workspace.data() + (64 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 64) % 64;
  call.workspace = aligned;
  table.matmul(call);
  for (std::byte* p = aligned + bytes; p != workspace.data() + workspace.size(); ++p)
    EXPECT_EQ(*p, std::byte{0x7f}) << "wrote past the workspace";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(out.sums[out.sums.size() - 1 - i], guard) << "wrote past the sums";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(out.c[size + i], guard) << "wrote past c";
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(out.derivative[out.derivative.size() - 1 - i], guard) << "wrote past the derivative";
  return out;
}

long double activate(Activation activation, long double z) {
  if (activation == Activation::silu) return z / (1 + std::exp(-z));
  if (activation == Activation::relu) return std::max(z, 0.0L);
  if (activation == Activation::gelu_tanh)
    return 0.5L * z * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846L) * (z + 0.044715L * z * z * z)));
  return z;
}

template <class T>
void compare(const Kernels& table, const Case& x) {
  SCOPED_TRACE(std::string(table.name) + (sizeof(T) == 4 ? ", f32, " : ", f64, ") + x.text());
  const Operands<T> in(x);
  const Result<T> out = product(table, x, in);
  const long double eps = sizeof(T) == 4 ? 0x1p-24L : 0x1p-53L;
  for (std::int64_t s = 0; s < x.batch; ++s)
    for (std::int64_t i = 0; i < x.m; ++i)
      for (std::int64_t j = 0; j < x.n; ++j) {
        const T* a = in.a.data() + (x.repeat_a ? 0 : s * x.m * x.k);
        const T* b = in.b.data() + (x.repeat_b ? 0 : s * x.k * x.n);
        const std::int64_t at = (s * x.m + i) * x.n + j;
        const T* scale = in.scale.empty() ? nullptr : in.scale.data() + (a - in.a.data());
        long double z = 0, size = 1, sum = 0, sum_size = 1;
        for (std::int64_t q = 0; q < x.k; ++q) {
          const std::int64_t place = x.transpose_a ? q * x.m + i : i * x.k + q;
          // The product with `scale` is rounded to T before it is summed or multiplied.
          const T row = x.scaled ? static_cast<T>(a[place] * scale[place]) : a[place];
          const long double term =
              static_cast<long double>(row) * (x.transpose_b ? b[j * x.k + q] : b[q * x.n + j]);
          z += term, size += std::abs(term);
          sum += row, sum_size += std::abs(static_cast<long double>(row));
        }
        if (x.accumulate) z += in.c0[at], size += 1;
        if (x.bias) z += in.bias[j], size += 1;
        // A sum of k terms in any order errs by at most about k eps times the sum of sizes, in practice by
        // sqrt(k); the activations have slopes below 1.2 and errors of a few eps max(1, |z|) of their own.
        // bf16: each operand is rounded with a relative error of at most 2^-8, so that each term errs by at
        // most 2 2^-8 + 2^-16 of its size and the sum by that of the sum of sizes.
        const long double rounding = x.bf16 && sizeof(T) == 4 ? (0x1p-7L + 0x1p-16L) * size : 0;
        const long double tolerance = rounding + eps * size * (4 + 2 * std::sqrt(static_cast<long double>(x.k)));
        if (x.summed && j == 0) {
          ASSERT_NEAR(out.sums[i], sum, eps * sum_size * (4 + 2 * std::sqrt(static_cast<long double>(x.k))))
              << "sum of row " << i;
        }
        ASSERT_NEAR(out.c[at], activate(x.activation, z), 1.2L * tolerance + 12 * eps * std::abs(z))
            << "row " << i << ", column " << j << ", product " << s;
        if (!x.derivative) continue;
        const long double h = 1e-6L;
        // relu has a jump at 0 that the tolerance of z may cross.
        if (x.activation == Activation::relu && std::abs(z) < tolerance) continue;
        const long double slope =
            x.activation == Activation::relu
                ? (z > 0 ? 1 : 0)
                : (activate(x.activation, z + h) - activate(x.activation, z - h)) / (2 * h);
        // Central differences in long double: error h^2 f''' + 1e-19/h, below 1e-11 here.
        ASSERT_NEAR(out.derivative[at], slope,
                    2 * tolerance + 24 * eps * std::max(1.0L, std::abs(z)) + 1e-11L)
            << "derivative, row " << i << ", column " << j;
      }
}

const Activation activations[] = {Activation::none, Activation::silu, Activation::gelu_tanh,
                                  Activation::relu};

class Matmul : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (GetParam() >= static_cast<int>(cpu_tables().size())) GTEST_SKIP() << "not on this machine";
    table_ = cpu_tables()[GetParam()];
  }
  void TearDown() override { set_threads(1); }
  bool invariant() const { return std::string(table_->name).find("baseline") == std::string::npos; }
  const Kernels* table_ = nullptr;
};

TEST_P(Matmul, RaggedShapesInAllOrientations) {
  const std::int64_t sizes[][3] = {
      {1, 1, 1},   {4, 4, 4},    {2, 2, 3},     {7, 3, 64},    {15, 2, 257},   {33, 1, 130}, {9, 4, 70},
      {1, 64, 64}, {14, 32, 16}, {15, 33, 17},  {28, 64, 31},  {29, 96, 5},    {5, 17, 40},  {13, 31, 3},
      {64, 64, 3}, {64, 65, 64}, {100, 48, 63}, {3, 130, 600}, {20, 40, 1030}, {6, 16, 1},   {61, 8, 33}};
  for (const auto& s : sizes)
    for (int bits = 0; bits < 8; ++bits) {
      Case x{s[0], s[1], s[2]};
      x.transpose_a = bits & 1, x.transpose_b = bits & 2, x.packed = bits & 4;
      compare<float>(*table_, x);
      compare<double>(*table_, x);
      if (HasFatalFailure()) return;
    }
}

TEST_P(Matmul, Epilogues) {
  const std::int64_t sizes[][3] = {{17, 35, 20}, {14, 32, 64},   {9, 2, 100},
                                   {9, 3, 5},    {21, 70, 1100}, {3, 8, 7}};
  for (const auto& s : sizes)
    for (Activation activation : activations)
      for (int bits = 0; bits < 16; ++bits) {
        Case x{s[0], s[1], s[2]};
        x.activation = activation, x.transpose_b = true;
        x.bias = bits & 1, x.derivative = bits & 2, x.accumulate = bits & 4, x.packed = bits & 8;
        compare<float>(*table_, x);
        compare<double>(*table_, x);
        if (HasFatalFailure()) return;
      }
}

TEST_P(Matmul, ScaledAndSummedAndBf16) {
  const std::int64_t sizes[][3] = {{1, 1, 1},    {4, 4, 4},   {7, 3, 65},   {15, 2, 257}, {14, 32, 16}, {15, 33, 17},
                                   {29, 96, 5},  {64, 64, 3}, {64, 65, 64}, {3, 130, 600}, {20, 40, 1100}, {6, 16, 1},
                                   {61, 8, 33}, {130, 33, 40}, {12, 20, 5000}};
  for (const auto& s : sizes)
    for (int bits = 0; bits < 64; ++bits) {
      Case x{s[0], s[1], s[2]};
      x.transpose_a = bits & 1, x.transpose_b = bits & 2, x.packed = bits & 4;
      x.scaled = bits & 8, x.bf16 = bits & 16, x.summed = bits & 32;
      if (x.summed && !x.transpose_a) continue;
      if (x.k == 5000 && (bits & 7) != 1) continue;  // in pieces along k: large, and for this orientation alone
      x.bias = x.derivative = x.scaled && !x.summed, x.accumulate = bits & 2;
      if (x.bias) x.activation = Activation::silu;
      compare<float>(*table_, x);
      if (bits & 16) continue;
      compare<double>(*table_, x);
      if (HasFatalFailure()) return;
    }
}

// Rounding is what bf16 costs, and no more. A number in the binade of 2^e is rounded by an error uniform within
// 2^(e - 8); for numbers uniform on [-1, 1] that has the mean square 2^-16 / 3 sum_j 2^-j 2^-2j = 2^-16 / 21. A term a b
// with a and b of mean square 1/3 errs by 2 / 3 of that, and k terms by k times as much.
TEST_P(Matmul, Bf16ErrsAsRoundingDoes) {
  Case x{96, 80, 512};
  const Operands<float> in(x);
  const Result<float> exact = product(*table_, x, in);
  x.bf16 = true;
  const Result<float> coarse = product(*table_, x, in);
  double squares = 0;
  for (std::int64_t i = 0; i < x.m * x.n; ++i) squares += std::pow(static_cast<double>(coarse.c[i]) - exact.c[i], 2);
  const double typical = std::sqrt(squares / static_cast<double>(x.m * x.n));
  const double expected = 0x1p-8 * std::sqrt(512 * 2 / 63.0);
  // Entries of a row or a column share roundings: the 7680 of them tell as much as some 170 (their rows and columns), whose
  // root mean square errs by 1 / sqrt(2 170), 5 %; three standard errors.
  EXPECT_NEAR(typical, expected, 0.15 * expected);
}

TEST_P(Matmul, Batches) {
  for (int bits = 0; bits < 32; ++bits) {
    Case x{11, 19, 23};
    x.batch = 5;
    x.transpose_a = bits & 1, x.transpose_b = bits & 2, x.repeat_a = bits & 4, x.repeat_b = bits & 8;
    if (bits & 16) x.bias = x.derivative = x.accumulate = true, x.activation = Activation::silu;
    compare<float>(*table_, x);
    compare<double>(*table_, x);
    x.bf16 = true, x.scaled = bits & 16;
    compare<float>(*table_, x);
    if (HasFatalFailure()) return;
  }
  Case packed{6, 40, 33};
  packed.batch = 3, packed.repeat_b = true, packed.packed = true, packed.repeat_a = true;
  compare<float>(*table_, packed);
}

TEST_P(Matmul, WithoutTermsTheSumIsZeroAndTheEpilogueStillRuns) {
  for (std::int64_t n : {2, 33}) {
    Case x{5, n, 0};
    compare<float>(*table_, x);
    x.bias = x.derivative = true, x.activation = Activation::silu;
    compare<float>(*table_, x);
    x.accumulate = true;
    compare<double>(*table_, x);
  }
}

TEST_P(Matmul, WithoutRowsNothingIsWritten) {
  Case x{0, 5, 7};
  compare<float>(*table_, x);
  x.m = 3, x.n = 0;
  compare<float>(*table_, x);
}

// Large enough that threads are used: rows in one place, panels in another, batches in a third.
TEST_P(Matmul, BitsDoNotDependOnTheNumberOfThreads) {
  std::vector<Case> cases(13);
  cases[0] = {300, 100, 129};
  cases[1] = {40, 700, 130};
  cases[2] = {65, 333, 1100};
  cases[3] = {20000, 2, 128};
  cases[4] = {33, 47, 65};
  cases[4].batch = 40;
  cases[5] = {130, 514, 512};
  cases[5].transpose_a = true;
  cases[6] = {260, 256, 512};
  cases[7] = {300, 260, 1100};
  cases[7].transpose_a = cases[7].scaled = cases[7].summed = true;
  cases[8] = {20, 33, 9000};  // in pieces along k
  cases[8].transpose_a = cases[8].summed = cases[8].accumulate = true;
  for (int i = 9; i < 13; ++i) cases[i] = cases[(const int[]){1, 2, 7, 8}[i - 9]], cases[i].bf16 = true;
  for (Case& x : cases)
    for (bool packed : {false, true}) {
      x.packed = packed && x.batch == 1, x.transpose_b = !x.summed;
      x.bias = x.derivative = true, x.activation = Activation::silu;
      SCOPED_TRACE(x.text());
      const Operands<float> in(x);
      set_threads(1);
      const Result<float> one = product(*table_, x, in);
      for (int n : {2, 3, 5}) {
        set_threads(n);
        EXPECT_TRUE(product(*table_, x, in) == one) << n << " threads";
      }
    }
}

// The rows of a large product, computed a few at a time; packing must not change them either.
TEST_P(Matmul, ARowDoesNotDependOnTheOthers) {
  if (!invariant()) GTEST_SKIP() << "Eigen does not promise it";
  const std::int64_t sizes[][3] = {{90, 64, 64},   {41, 10, 20}, {50, 2, 200},
                                   {40, 70, 1030}, {35, 4, 4},   {200, 257, 64}};
  for (const auto& s : sizes)
    for (int bits = 0; bits < 4; ++bits) {
      Case x{s[0], s[1], s[2]};
      x.transpose_b = bits & 1, x.bias = x.derivative = true, x.activation = Activation::gelu_tanh;
      const Operands<float> in(x);
      const Result<float> all = product(*table_, x, in);
      for (std::int64_t rows : {1, 2, 5, 13, 29}) {
        Case part = x;
        part.m = rows, part.packed = bits & 2;
        for (std::int64_t first = 0; first + rows <= x.m; first += 11) {
          Operands<float> few = in;
          few.c0.resize(rows * x.n);
          const Result<float> some = product(*table_, part, few, first);
          ASSERT_EQ(0, std::memcmp(some.c.data(), all.c.data() + first * x.n, rows * x.n * sizeof(float)))
              << x.text() << ", rows " << first << " and " << rows - 1 << " more";
          ASSERT_EQ(0, std::memcmp(some.derivative.data(), all.derivative.data() + first * x.n,
                                   rows * x.n * sizeof(float)))
              << "derivative of " << x.text() << ", rows " << first << " and " << rows - 1 << " more";
        }
      }
    }
}

TEST_P(Matmul, NotANumberStaysInItsRow) {
  Case x{20, 40, 30};
  x.bias = true, x.activation = Activation::relu;
  Operands<float> in(x);
  in.a[3 * x.k + 5] = std::nanf("");
  const Result<float> out = product(*table_, x, in);
  for (std::int64_t i = 0; i < x.m; ++i)
    for (std::int64_t j = 0; j < x.n; ++j) EXPECT_EQ(std::isnan(out.c[i * x.n + j]), i == 3);
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, Matmul, testing::Range(0, 3), name_of_place);

}  // namespace
}  // namespace costate
