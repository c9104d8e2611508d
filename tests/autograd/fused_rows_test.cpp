// Fused ops against the same composed of simpler ones: values, every gradient, what is saved, and that nothing is computed
// for operands that no one asks about.
#include <costate/autograd/ops.h>
#include <costate/tensor/memory.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate {
namespace {

Tensor noise(const Shape& shape, std::uint32_t step, DType dtype) {
  Tensor t = Tensor::empty({1, shape.numel()}, dtype);
  random_normal(t, 5, Stream::user, 0, step);
  return t.reshape(shape);
}

using Function = std::function<Var(std::span<const Var>)>;

// Value and gradients of <c, f(x)>, c random.
std::vector<Tensor> sweep(const Function& f, std::span<const Tensor> inputs) {
  Tape tape;
  std::vector<Var> vars;
  for (const Tensor& t : inputs) vars.push_back(tape.watch(t));
  const Var y = f(vars);
  std::vector<Tensor> all{y.value()};
  for (Tensor& g : tape.vjp(y, noise(y.shape(), 99, y.dtype()), vars)) all.push_back(std::move(g));
  return all;
}

// While it stands, tensors of the cpu are computed by another of its tables.
class Table {
 public:
  explicit Table(const Kernels* table) : before_(detail::cpu_table.exchange(table)) {}
  ~Table() { detail::cpu_table.store(before_); }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

 private:
  const Kernels* before_;
};

double largest_of(const std::vector<double>& values) {
  double largest = 0.2;  // what is exactly 0 is the difference of numbers near 1
  for (const double v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

// On every table of the cpu and for 1 to 3 threads: the fused form equals the composed one in f64 to 1e-11 of the largest
// element, and in f32 to 3e-6 of it (sums of some hundred products are rounded in another order); threads change no bit.
void expect_equal(const char* what, const Function& fused, const Function& composed, std::span<const Shape> shapes) {
  std::vector<Tensor> inputs, single;
  for (const Shape& s : shapes) inputs.push_back(noise(s, static_cast<std::uint32_t>(inputs.size()), DType::f64));
  for (const Tensor& t : inputs) single.push_back(t.to(DType::f32));
  const auto expected = sweep(composed, inputs);
  for (const Kernels* table : cpu_tables())
    for (const auto& [operands, tolerance] : {std::pair{inputs, 1e-11}, {single, 3e-6}}) {
      const Table chosen(table);
      std::vector<std::vector<double>> first;
      for (const int n : {1, 2, 3}) {
        set_threads(n);
        std::vector<std::vector<double>> results;
        for (const Tensor& t : sweep(fused, operands)) results.push_back(t.to_doubles());
        if (n == 1) first = results;
        EXPECT_EQ(results, first) << what << ", " << table->name << ", " << n << " threads";
      }
      set_threads(1);
      for (std::size_t k = 0; k < expected.size(); ++k) {
        const auto e = expected[k].to_doubles();
        ASSERT_EQ(first[k].size(), e.size());
        const double bound = tolerance * largest_of(e);
        for (std::size_t i = 0; i < e.size(); ++i)
          ASSERT_NEAR(first[k][i], e[i], bound)
              << what << ", " << table->name << ", " << name(operands[0].dtype()) << ", output " << k << ", element " << i;
      }
    }
}

Var activate(const Var& z, Activation a) {
  return a == Activation::silu ? silu(z) : a == Activation::gelu_tanh ? gelu_tanh(z) : a == Activation::relu ? relu(z) : z;
}

// xhat of (n, ..., c) in groups, by permutation and layer_norm.
Var normalised(const Var& x, int groups, double eps) {
  const std::int64_t n = x.extent(0), c = x.extent(-1), spatial = x.numel() / (n * c), width = c / groups;
  const Var split = permute(reshape(x, {n, spatial, groups, width}), {0, 2, 1, 3});
  const Var y = reshape(layer_norm(reshape(split, {n, groups, spatial * width}), eps), {n, groups, spatial, width});
  return reshape(permute(y, {0, 2, 1, 3}), x.shape());
}

struct Image {
  Shape shape;
  int groups;
};
// Widths of groups below, at and above a vector; strips of several groups; channels that are no multiple of anything.
const Image images[] = {{{2, 3, 3, 8}, 4},   {{3, 4, 4, 6}, 3},    {{2, 7, 7, 64}, 32},  {{1, 16, 16, 32}, 8},
                        {{2, 5, 5, 35}, 5},  {{1, 1, 1, 16}, 2},   {{2, 9, 9, 128}, 2},  {{1, 40, 40, 96}, 12},
                        {{9, 2, 2, 17}, 1},  {{2, 30, 20}, 20}};

TEST(GroupNorm, EqualsTheComposedForm) {
  for (const Image& image : images)
    for (const Activation a : {Activation::none, Activation::silu, Activation::gelu_tanh, Activation::relu}) {
      const std::int64_t n = image.shape[0], c = image.shape[-1];
      const auto wide = [&](const Var& v) {
        Shape s{n};
        std::vector<std::int64_t> e(static_cast<std::size_t>(image.shape.rank()), 1);
        e.front() = n, e.back() = c;
        return reshape(v, Shape(e));
      };
      const Shape shapes[] = {image.shape, {c}, {c}, {n, c}, {n, c}};
      expect_equal(
          "group_norm", [&](auto x) { return group_norm(x[0], x[1], x[2], image.groups, 1e-3, a, x[3], x[4]); },
          [&](auto x) {
            const Var y = multiply_add(normalised(x[0], image.groups, 1e-3), x[1], x[2]);
            return activate(multiply_add(y, affine(wide(x[3]), 1, 1), wide(x[4])), a);
          },
          shapes);
      const Shape plain[] = {image.shape};
      expect_equal(
          "group_norm", [&](auto x) { return group_norm(x[0], {}, {}, image.groups, 1e-3, a); },
          [&](auto x) { return activate(normalised(x[0], image.groups, 1e-3), a); }, plain);
    }
}

TEST(GroupNorm, LargeMeansDoNotCancel) {
  // x = 1000 + noise: the deviation is known to 1000 2^-24 = 6e-5 only, the rest must not lose more than another such.
  Tensor x = noise({1, 16, 16, 8}, 0, DType::f32);
  for (float& v : x.mutate<float>()) v += 1000.f;
  const auto a = group_norm(x, {}, {}, 2, 1e-5).value().to_doubles();
  const auto b = group_norm(x.to(DType::f64), {}, {}, 2, 1e-5).value().to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1.2e-4);
}

TEST(GroupNorm, OfAConstantIsBeta) {
  const Tensor x = Tensor::full({2, 4, 4, 6}, 0.1), beta = Tensor::full({6}, 0.25);
  for (const double v : group_norm(x, {}, beta, 3, 1e-5).value().to_doubles()) EXPECT_NEAR(v, 0.25, 1e-4);
}

TEST(ModulatedLayerNorm, EqualsTheComposedForm) {
  for (const Shape& s : {Shape{2, 3, 8}, {1, 1, 1}, {3, 5, 35}, {2, 49, 384}, {1, 200, 96}}) {
    const Shape shapes[] = {s, {s[0], s[2]}, {s[0], s[2]}};
    expect_equal(
        "modulated_layer_norm", [](auto x) { return modulated_layer_norm(x[0], x[1], x[2], 1e-3); },
        [&](auto x) {
          const Shape wide{s[0], 1, s[2]};
          return multiply_add(layer_norm(x[0], 1e-3), affine(reshape(x[1], wide), 1, 1), reshape(x[2], wide));
        },
        shapes);
  }
}

Var composed_attention(const Var& q, const Var& k, const Var& v, int heads) {
  const auto split = [&](const Var& x) {
    const std::int64_t n = x.extent(0), t = x.extent(1), d = x.extent(2) / heads;
    return reshape(permute(reshape(x, {n, t, heads, d}), {0, 2, 1, 3}), {n * heads, t, d});
  };
  const std::int64_t n = q.extent(0), t = q.extent(1), d = q.extent(2) / heads;
  const Var p = softmax(affine(matmul(split(q), split(k), false, true), 1 / std::sqrt(static_cast<double>(d)), 0));
  return reshape(permute(reshape(matmul(p, split(v)), {n, heads, t, d}), {0, 2, 1, 3}), {n, t, heads * d});
}

TEST(Attention, EqualsTheComposedForm) {
  struct Size {
    std::int64_t n, queries, keys;
    int heads;
    std::int64_t width;
  };
  const Size sizes[] = {{2, 3, 3, 2, 4},   {1, 1, 1, 1, 1},    {2, 16, 16, 6, 64}, {1, 49, 49, 3, 32},  {2, 196, 196, 2, 16},
                        {1, 64, 64, 1, 256}, {2, 5, 77, 2, 20},  {1, 130, 33, 2, 48}, {3, 17, 70, 1, 7},  {1, 300, 300, 1, 64},
                        {1, 13, 600, 1, 40}};
  for (const Size& s : sizes) {
    const Shape shapes[] = {{s.n, s.queries, s.heads * s.width}, {s.n, s.keys, s.heads * s.width}, {s.n, s.keys, s.heads * s.width}};
    expect_equal("attention", [&](auto x) { return attention(x[0], x[1], x[2], s.heads); },
                 [&](auto x) { return composed_attention(x[0], x[1], x[2], s.heads); }, shapes);
  }
}

TEST(Attention, WeightsAreExponentialsToAFewUlp) {
  // Scores 0, -1.3, -2.6, ..., -81.9: with v the unit matrix the result is the row of weights. Errors in units of 2^-23: 1.1
  // of the exponential, 0.5 each of the sum, its reciprocal and the product.
  constexpr int n = 64;
  std::vector<float> q(n), k(n * n), v(n * n);
  q[0] = 8;  // = sqrt(width)
  double sum = 0;
  for (std::size_t j = 0; j < n; ++j) {
    k[j * n] = -1.3f * static_cast<float>(j), v[j * n + j] = 1;
    sum += std::exp(static_cast<double>(k[j * n]));
  }
  for (const Kernels* table : cpu_tables()) {
    const Table chosen(table);
    const Var y = attention(Tensor::from(q, {1, 1, n}), Tensor::from(k, {1, n, n}), Tensor::from(v, {1, n, n}), 1);
    for (std::size_t j = 0; j < n; ++j) {
      const double score = k[j * n], exact = std::exp(score) / sum, error = std::abs(y.value().values<float>()[j] - exact) / exact;
      EXPECT_LT(error, 0x1p-23 * 3) << table->name << ", score " << score;
    }
  }
}

TEST(Attention, LargeScoresStayFinite) {
  // Scores of some 10^4: a softmax that picks one key.
  Tensor q = noise({1, 20, 16}, 0, DType::f32), v = noise({1, 20, 16}, 1, DType::f32);
  for (float& x : q.mutate<float>()) x *= 100.f;
  Tape tape;
  const Var x = tape.watch(q);
  const Var y = attention(x, x, v, 1);
  const auto d = tape.vjp(y, Tensor::full(y.shape(), 1), {&x, 1})[0].to_doubles();
  for (const double e : y.value().to_doubles()) EXPECT_TRUE(std::isfinite(e));
  for (const double e : d) EXPECT_TRUE(std::isfinite(e));
}

TEST(Dropout, KeepsTheRightShareAndItsMean) {
  const std::int64_t n = 40'000;
  const Tensor x = Tensor::full({4, n / 4}, 1);
  for (const double p : {0.1, 0.5, 0.9}) {
    double kept = 0;
    for (const double v : dropout(x, p, 3, 0, 0).value().to_doubles()) {
      EXPECT_TRUE(v == 0 || std::abs(v - 1 / (1 - p)) < 1e-6);
      kept += v != 0;
    }
    // A binomial count; four standard errors.
    EXPECT_NEAR(kept / n, 1 - p, 4 * std::sqrt(p * (1 - p) / n));
  }
}

TEST(Dropout, IsAFunctionOfItsCounterAlone) {
  const Tensor x = noise({6, 37}, 0, DType::f32);
  const auto whole = dropout(x, 0.3, 1, 10, 4).value().to_doubles();
  for (const int n : {2, 3}) {
    set_threads(n);
    EXPECT_EQ(dropout(x, 0.3, 1, 10, 4).value().to_doubles(), whole);
  }
  set_threads(1);
  auto split = dropout(x.slice(0, 2), 0.3, 1, 10, 4).value().to_doubles();
  for (const double v : dropout(x.slice(2, 4), 0.3, 1, 12, 4).value().to_doubles()) split.push_back(v);
  EXPECT_EQ(split, whole);
  EXPECT_NE(dropout(x, 0.3, 2, 10, 4).value().to_doubles(), whole);
  EXPECT_NE(dropout(x, 0.3, 1, 11, 4).value().to_doubles(), whole);
  EXPECT_NE(dropout(x, 0.3, 1, 10, 5).value().to_doubles(), whole);
}

TEST(Dropout, OfProbabilityZeroIsTheIdentityAndRecordsNothing) {
  Tape tape;
  const Var x = tape.watch(noise({2, 3}, 0, DType::f32));
  const auto records = tape.size();
  EXPECT_TRUE(dropout(x, 0, 1, 0, 0).value().shares_storage_with(x.value()));
  EXPECT_EQ(tape.size(), records);
}

// The bits of a sample, values and gradients, must not depend on the batch that it is part of: a batch of five against a
// batch of one.
TEST(FusedRows, ASampleDoesNotDependOnTheOthers) {
  const auto one_of_five = [](const char* what, const Function& f, const Shape& shape, std::size_t operands) {
    std::vector<Tensor> five, one;
    for (std::size_t i = 0; i < operands; ++i) {
      five.push_back(noise(shape, static_cast<std::uint32_t>(i), DType::f32));
      one.push_back(five.back().slice(3, 1));
    }
    const auto run = [&](const std::vector<Tensor>& inputs) {
      Tape tape;
      std::vector<Var> vars;
      for (const Tensor& t : inputs) vars.push_back(tape.watch(t));
      const Var y = f(vars);
      std::vector<Tensor> all = tape.vjp(y, inputs[0], vars);
      all.push_back(y.value());
      return all;
    };
    for (const Kernels* table : cpu_tables()) {
      const Table chosen(table);
      const auto a = run(five), b = run(one);
      for (std::size_t k = 0; k < a.size(); ++k)
        EXPECT_EQ(a[k].slice(3, 1).to_doubles(), b[k].to_doubles()) << what << ", " << table->name << ", result " << k;
    }
  };
  for (const Shape& shape : {Shape{5, 9, 9, 64}, {5, 6, 6, 70}, {5, 20, 20, 256}})
    one_of_five("group_norm", [](auto x) { return group_norm(x[0], {}, {}, 2, 1e-5, Activation::silu); }, shape, 1);
  for (const Shape& shape : {Shape{5, 49, 64}, {5, 130, 66}})
    one_of_five("attention", [](auto x) { return attention(x[0], x[1], x[2], 2); }, shape, 3);
  one_of_five("modulated_layer_norm",
              [](auto x) { return modulated_layer_norm(x[0], sum(x[0], 1), sum(x[0], 1), 1e-5); }, {5, 7, 70}, 1);
}

// Bytes that an op allocates and keeps beside its result, and the peak of its sweep with respect to x. Exact: the ledger
// rounds up to 64.
struct Bytes {
  std::int64_t saved, swept;
  bool operator==(const Bytes&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Bytes& b) { return out << b.saved << " saved, " << b.swept << " in the sweep"; }
template <class F>
Bytes bytes_of(Tape& tape, const Var& x, const F& f) {
  const auto start = memory::live().total;
  const Var y = f(x);
  const auto saved = memory::live().total - start - y.value().bytes();
  const Tensor g = Tensor::full(y.shape(), 1);
  const auto before = memory::live().total;
  const memory::PeakScope scope;
  const Tensor d = tape.vjp(y, g, {&x, 1})[0];
  return {saved, scope.peak().total - before};
}

TEST(FusedRows, AnInputGradientThroughFrozenWeightsCostsTheInputGradient) {
  const Tensor image = noise({2, 8, 8, 16}, 0, DType::f32), tokens = noise({2, 8, 16}, 1, DType::f32),
               row = noise({2, 16}, 2, DType::f32), weight = Tensor::full({16}, 1.5);
  const std::int64_t moments = 2 * 64;  // of 2 x 4 groups, of 2 x 8 rows: 32 resp. 64 bytes each
  Tape tape;
  const Var x = tape.watch(image), t = tape.watch(tokens);
  const auto normed = [&](const Var& v) { return group_norm(v, weight, weight, 4, 1e-5, Activation::silu, row, row); };
  EXPECT_EQ(bytes_of(tape, x, normed), (Bytes{moments, image.bytes()}));
  const auto modulated = [&](const Var& v) { return modulated_layer_norm(v, row, row, 1e-5); };
  EXPECT_EQ(bytes_of(tape, t, modulated), (Bytes{moments, tokens.bytes()}));
  // The result is kept as an operand of the sweep; the sums of 2 x 4 x 8 rows are 256 bytes. Only dq is asked for.
  const Tensor k = noise({2, 8, 16}, 3, DType::f32);
  EXPECT_EQ(bytes_of(tape, t, [&](const Var& v) { return attention(v, k, k, 4); }), (Bytes{256, tokens.bytes()}));
  EXPECT_EQ(bytes_of(tape, x, [](const Var& v) { return dropout(v, 0.5, 1, 0, 0); }), (Bytes{0, image.bytes()}));
}

}  // namespace
}  // namespace costate
