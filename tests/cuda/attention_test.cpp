// Attention of bf16 heads on tensor cores, against softmax(q k^T) v and its derivatives in f64: within what roundings allow.
#include <costate/tensor/kernels.h>

#include <array>

#include "on_device.h"

namespace costate {
namespace {

struct Case {
  std::int64_t n, heads, queries, keys, width, pad;  // pad: elements between the end of a row and the next one
  std::int64_t row() const { return heads * width + pad; }
  std::string name() const {
    return std::to_string(queries) + " queries, " + std::to_string(keys) + " keys, " + std::to_string(heads) + " heads of " +
           std::to_string(width) + ", rows " + std::to_string(row()) + " apart";
  }
};

// Rows of q and of k, and what the kernels are given. Gaps between rows are NaN.
struct Operands {
  Tensor q, k, v, cotangent;

  explicit Operands(const Case& c) {
    const auto rows = [&](std::int64_t count, std::uint32_t step) {
      std::vector<double> x = noise({c.n, count, c.row()}, DType::f32, Device::cpu, step).to_doubles();
      for (std::size_t i = 0; i < x.size(); ++i)
        if (static_cast<std::int64_t>(i) % c.row() >= c.heads * c.width) x[i] = std::numeric_limits<double>::quiet_NaN();
      return Tensor::from(x, {c.n, count, c.row()}).to(DType::bf16);
    };
    q = rows(c.queries, 1), k = rows(c.keys, 2), v = rows(c.keys, 3);
    cotangent = noise({c.n, c.queries, c.heads * c.width}, DType::f32, Device::cpu, 4).to(DType::bf16);
  }
};

// A result, what it may err by at most, and the standard deviation of its error when roundings are independent: relative errors
// of bf16 are 2^-8 at most and 2^-9.3 in the root mean square.
struct Expected {
  std::vector<double> value, bound, deviation;

  explicit Expected(std::size_t size) : value(size), bound(size), deviation(size) {}
  // rounded: sum of |terms| whose factor was rounded to bf16, squares: of their squares; exact: what f32 errs by.
  void put(std::size_t at, double sum, double rounded, double squares, double exact) {
    value[at] = sum, bound[at] = 0x1p-8 * (rounded + (1 + 0x1p-8) * std::abs(sum)) + exact;
    deviation[at] = std::exp2(-9.3) * std::sqrt(squares + sum * sum) + exact;
  }
};

// Sums in f32 of n terms err by n 2^-24 of the sum of their absolute values; a score of 8 or less, of 128 products, by 2^-14,
// and so its exponential. What tensor cores cut off instead of rounding is in the room that is left.
constexpr double of_exponential = 0x1p-13, of_sum = 0x1p-16;

struct Reference {
  Expected out, log_sum_exp, dq, dk, dv;
  Tensor rounded_out, rounded_log;  // what the sweep is given

  Reference(const Case& c, const Operands& x)
      : out(size(c.n * c.queries * c.heads * c.width)),
        log_sum_exp(size(c.n * c.heads * c.queries)),
        dq(size(c.n * c.queries * c.row())),
        dk(size(c.n * c.keys * c.row())),
        dv(size(c.n * c.keys * c.row())) {
    const auto q = x.q.to_doubles(), k = x.k.to_doubles(), v = x.v.to_doubles(), g = x.cotangent.to_doubles();
    const double scale = 1 / std::sqrt(static_cast<double>(c.width));
    const auto at = [&](std::int64_t sample, std::int64_t count, std::int64_t r, std::int64_t head, std::int64_t row) {
      return size((sample * count + r) * row + head * c.width);
    };
    const auto each_head = [&](auto body) {
      for (std::int64_t sample = 0; sample < c.n; ++sample)
        for (std::int64_t head = 0; head < c.heads; ++head) body(sample, head);
    };
    const auto dot = [&](const std::vector<double>& a, std::size_t i, const std::vector<double>& b, std::size_t j,
                         bool absolute) {
      double s = 0;
      for (std::int64_t d = 0; d < c.width; ++d) {
        const double term = a[i + size(d)] * b[j + size(d)];
        s += absolute ? std::abs(term) : term;
      }
      return s;
    };
    each_head([&](std::int64_t sample, std::int64_t head) {
      for (std::int64_t i = 0; i < c.queries; ++i) {
        std::vector<double> p(size(c.keys));
        double sum = 0;
        for (std::int64_t j = 0; j < c.keys; ++j)
          sum += p[size(j)] =
              std::exp(scale * dot(q, at(sample, c.queries, i, head, c.row()), k, at(sample, c.keys, j, head, c.row()), false));
        const std::size_t here = size((sample * c.heads + head) * c.queries + i);
        log_sum_exp.put(here, std::log(sum), 0, 0, 0);
        log_sum_exp.bound[here] = log_sum_exp.deviation[here] = of_exponential;
        for (std::int64_t d = 0; d < c.width; ++d) {
          double value = 0, absolute = 0, squares = 0;
          for (std::int64_t j = 0; j < c.keys; ++j) {
            const double term = p[size(j)] / sum * v[at(sample, c.keys, j, head, c.row()) + size(d)];
            value += term, absolute += std::abs(term), squares += term * term;
          }
          out.put(at(sample, c.queries, i, head, c.heads * c.width) + size(d), value, absolute, squares,
                  of_exponential * absolute);
        }
      }
    });
    rounded_out = Tensor::from(out.value, x.cotangent.shape()).to(DType::bf16);
    rounded_log = Tensor::from(log_sum_exp.value, {c.n, c.heads, c.queries}).to(DType::f32);
    const auto o = rounded_out.to_doubles(), log = rounded_log.to_doubles();
    each_head([&](std::int64_t sample, std::int64_t head) {
      // p, ds and the room that f32 takes of ds, of every query and key.
      std::vector<double> p(size(c.queries * c.keys)), ds(p), room(p);
      for (std::int64_t i = 0; i < c.queries; ++i)
        for (std::int64_t j = 0; j < c.keys; ++j) {
          const std::size_t e = size(i * c.keys + j), iq = at(sample, c.queries, i, head, c.row()),
                            ig = at(sample, c.queries, i, head, c.heads * c.width), jk = at(sample, c.keys, j, head, c.row());
          p[e] = std::exp(scale * dot(q, iq, k, jk, false) - log[size((sample * c.heads + head) * c.queries + i)]);
          ds[e] = p[e] * (dot(g, ig, v, jk, false) - dot(g, ig, o, ig, false));
          room[e] = of_exponential * std::abs(ds[e]) + of_sum * p[e] * (dot(g, ig, v, jk, true) + dot(g, ig, o, ig, true));
        }
      // sum over i (or j) of weight(i, j) factor
      const auto fill = [&](Expected& to, std::int64_t rows, std::int64_t others, auto index, const std::vector<double>& weight,
                            const std::vector<double>& weight_room, const std::vector<double>& factor, std::int64_t row,
                            double by) {
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t d = 0; d < c.width; ++d) {
            double value = 0, absolute = 0, squares = 0, exact = 0;
            for (std::int64_t other = 0; other < others; ++other) {
              const double f = by * factor[at(sample, others, other, head, row) + size(d)];
              const std::size_t e = index(r, other);
              const double term = weight[e] * f;
              value += term, absolute += std::abs(term), squares += term * term, exact += weight_room[e] * std::abs(f);
            }
            to.put(at(sample, rows, r, head, c.row()) + size(d), value, absolute, squares, exact + of_sum * absolute);
          }
      };
      std::vector<double> of_p(p);
      for (double& r : of_p) r *= of_exponential;
      const auto by_query = [&](std::int64_t r, std::int64_t other) { return size(r * c.keys + other); };
      const auto by_key = [&](std::int64_t r, std::int64_t other) { return size(other * c.keys + r); };
      fill(dq, c.queries, c.keys, by_query, ds, room, k, c.row(), scale);
      fill(dk, c.keys, c.queries, by_key, ds, room, q, c.row(), scale);
      fill(dv, c.keys, c.queries, by_key, p, of_p, g, c.heads * c.width, 1);
    });
  }

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
};

// Every element within its bound, and all together no worse than independent roundings make them: the mean square of
// error/deviation of n elements is 1 at most, with a standard error of about sqrt(2/n) (errors that share a rounding are more
// alike: four of those). Gaps between rows are left as they were.
void expect_within(const Tensor& found, const Expected& expected, const Case& c, const std::string& what) {
  const std::vector<double> x = found.to_doubles();
  ASSERT_EQ(x.size(), expected.value.size()) << what;
  const bool gaps = found.rank() == 3 && found.extent(2) == c.row() && what[0] == 'd';
  double squares = 0;
  std::size_t n = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (gaps && static_cast<std::int64_t>(i) % c.row() >= c.heads * c.width) {
      ASSERT_TRUE(std::isnan(x[i])) << what << " wrote between rows, at element " << i << "; " << c.name();
      continue;
    }
    const double error = std::abs(x[i] - expected.value[i]);
    ASSERT_TRUE(error <= expected.bound[i]) << what << ", element " << i << " is " << x[i] << ", expected " << expected.value[i]
                                            << " within " << expected.bound[i] << "; " << c.name();
    squares += error * error / (expected.deviation[i] * expected.deviation[i]), ++n;
  }
  EXPECT_LT(squares / static_cast<double>(n), 1 + 4 * std::sqrt(2.0 / static_cast<double>(n))) << what << "; " << c.name();
}

AttentionCall call_of(const Case& c, const Tensor& q, const Tensor& k, const Tensor& v) {
  AttentionCall call{};
  call.dtype = DType::bf16, call.n = c.n, call.heads = c.heads, call.queries = c.queries, call.keys = c.keys;
  call.width = c.width, call.row_q = call.row_k = call.row_v = c.row();
  call.q = q.raw(), call.k = k.raw(), call.v = v.raw();
  return call;
}

// out and log_sum_exp, dq, dk and dv on the device; each of the five null where `wanted` does not say.
std::vector<Tensor> results(const Case& c, const Operands& x, const Reference& r, const std::array<bool, 5>& wanted) {
  const Device d = device();
  const Tensor q = x.q.to(d), k = x.k.to(d), v = x.v.to(d), g = x.cotangent.to(d), o = r.rounded_out.to(d),
               log = r.rounded_log.to(d);
  const Tensor out = unwritten(x.cotangent.shape(), DType::bf16, d), sums = unwritten({c.n, c.heads, c.queries}, DType::f32, d),
               dq = unwritten(x.q.shape(), DType::bf16, d), dk = unwritten(x.k.shape(), DType::bf16, d),
               dv = unwritten(x.k.shape(), DType::bf16, d);
  const auto place = [&](int i, const Tensor& t) { return wanted[static_cast<std::size_t>(i)] ? t.raw_mutable() : nullptr; };
  const AttentionCall call = call_of(c, q, k, v);
  if (wanted[0]) kernels(d).attention(call, out.raw_mutable(), place(1, sums));
  kernels(d).attention_vjp(call, o.raw(), log.raw(), g.raw(), place(2, dq), place(3, dk), place(4, dv));
  return {out, sums, dq, dk, dv};
}

void expect_right(const Case& c) {
  const Operands x(c);
  const Reference r(c, x);
  const std::vector<Tensor> found = in_every_order([&] { return results(c, x, r, {true, true, true, true, true}); });
  expect_within(found[0], r.out, c, "out");
  expect_within(found[1], r.log_sum_exp, c, "log_sum_exp");
  expect_within(found[2], r.dq, c, "dq");
  expect_within(found[3], r.dk, c, "dk");
  expect_within(found[4], r.dv, c, "dv");
}

// Every width of the kernels' rows, filled and not, with numbers of rows that end in and between the pieces that a lane, a warp
// and a block have.
TEST(CudaAttention, OfBf16HeadsInTensorCores) {
  constexpr std::array<std::int64_t, 8> rows{1, 15, 16, 17, 63, 64, 65, 130};
  std::size_t i = 0;
  for (const std::int64_t width : {1, 8, 16, 24, 32, 48, 64, 72, 80, 96, 104, 128})
    for (int repeat = 0; repeat < 2; ++repeat, ++i) expect_right({1, 1, rows[i % 8], rows[(3 * i + i / 8) % 8], width, 0});
}

// Three tiles of queries and of keys: what is on its way while another is used.
TEST(CudaAttention, OfBf16HeadsInSeveralTiles) {
  for (const std::int64_t width : {16, 32, 64, 72, 96, 128}) expect_right({1, 1, 129, 190, width, 0});
}

TEST(CudaAttention, OfSamplesHeadsAndRowsThatLieApart) {
  expect_right({2, 3, 20, 33, 16, 3 * 2 * 16});  // thirds of one tensor: 16 bytes at a time
  expect_right({2, 2, 33, 20, 72, 8});
  expect_right({2, 2, 17, 18, 40, 4});  // rows that no 16 bytes can be read from
  expect_right({1, 3, 18, 17, 33, 1});  // nor two numbers be written
  expect_right({1, 2, 70, 70, 20, 0});
}

TEST(CudaAttention, WhatIsNotWantedChangesNothing) {
  for (const std::int64_t width : {40, 128}) {
    const Case c{1, 2, 20, 70, width, 0};
    const Operands x(c);
    const Reference r(c, x);
    const std::vector<Tensor> all = results(c, x, r, {true, true, true, true, true});
    for (const char* digits : {"11111", "10100", "11010", "00001", "10000"}) {
      std::array<bool, 5> wanted;
      for (std::size_t i = 0; i < 5; ++i) wanted[i] = digits[i] == '1';
      const std::vector<Tensor> some = results(c, x, r, wanted);
      for (std::size_t i = 0; i < 5; ++i) {
        const std::vector<double> found = some[i].to_doubles();
        if (wanted[i])
          EXPECT_EQ(found, all[i].to_doubles()) << "result " << i;
        else
          EXPECT_TRUE(std::all_of(found.begin(), found.end(), [](double v) { return std::isnan(v); })) << "result " << i;
      }
    }
  }
}

// The maximum of a row comes late, is shared, and is far from the rest: the sums before it shrink to nothing or not at all.
TEST(CudaAttention, OfLargeScores) {
  const Case c{1, 1, 3, 200, 16, 0};
  std::vector<float> q(3 * 16, 0.0f), k(200 * 16, 0.0f), v(200 * 16);
  q[0] = 64, q[16] = -64, q[32] = 0;
  for (std::size_t j = 0; j < 200; ++j) k[16 * j] = j == 150 || j == 190 ? 16 : j == 3 ? -16 : 0, v[16 * j] = float(j % 128);
  const Device d = device();
  const auto given = [&](const std::vector<float>& x, std::int64_t count) {
    return Tensor::from(x, {1, count, 16}).to(DType::bf16).to(d);
  };
  const Tensor of_q = given(q, 3), of_k = given(k, 200), of_v = given(v, 200), out = unwritten({1, 3, 16}, DType::bf16, d),
               sums = unwritten({1, 1, 3}, DType::f32, d);
  kernels(d).attention(call_of(c, of_q, of_k, of_v), out.raw_mutable(), sums.raw_mutable());
  const std::vector<double> o = out.to_doubles(), s = sums.to_doubles();
  EXPECT_EQ(o[0], 42);  // of keys 150 and 190, whose score is 256: the mean of 22 and 62
  EXPECT_EQ(o[16], 3);  // of key 3 alone
  EXPECT_NEAR(s[0], 256 + std::log(2.0), 1e-4);
  EXPECT_NEAR(s[1], 256, 1e-4);
  EXPECT_NEAR(s[2], std::log(200.0), 1e-5);
}

TEST(CudaAttention, NaNsComeThrough) {
  const Case c{1, 1, 20, 70, 16, 0};
  const Operands x(c);
  std::vector<double> of_k = x.k.to_doubles();
  of_k[16 * 65] = std::numeric_limits<double>::quiet_NaN();  // in the second tile
  const Device d = device();
  const Tensor q = x.q.to(d), k = Tensor::from(of_k, {1, 70, 16}).to(DType::bf16).to(d), v = x.v.to(d),
               out = Tensor::zeros({1, 20, 16}, DType::bf16, d), sums = Tensor::zeros({1, 1, 20}, DType::f32, d);
  kernels(d).attention(call_of(c, q, k, v), out.raw_mutable(), sums.raw_mutable());
  for (const Tensor& t : {out, sums})
    for (const double found : t.to_doubles()) EXPECT_TRUE(std::isnan(found));
}

// All scores are -128: what the sweep takes for scores of keys beyond the end, 0, has an exponential that overflows.
TEST(CudaAttention, OfScoresFarBelowZero) {
  const Case c{1, 1, 2, 70, 16, 0};
  std::vector<float> q(2 * 16, 0.0f), k(70 * 16, 0.0f);
  q[0] = q[16] = -512;
  for (std::size_t j = 0; j < 70; ++j) k[16 * j] = 1;
  const Device d = device();
  const Tensor of_q = Tensor::from(q, {1, 2, 16}).to(DType::bf16).to(d),
               of_k = Tensor::from(k, {1, 70, 16}).to(DType::bf16).to(d),
               of_v = noise({1, 70, 16}, DType::f32, Device::cpu, 1).to(DType::bf16).to(d),
               g = noise({1, 2, 16}, DType::f32, Device::cpu, 2).to(DType::bf16).to(d),
               out = unwritten({1, 2, 16}, DType::bf16, d), sums = unwritten({1, 1, 2}, DType::f32, d),
               dq = unwritten({1, 2, 16}, DType::bf16, d);
  const AttentionCall call = call_of(c, of_q, of_k, of_v);
  kernels(d).attention(call, out.raw_mutable(), sums.raw_mutable());
  kernels(d).attention_vjp(call, out.raw(), sums.raw(), g.raw(), dq.raw_mutable(), nullptr, nullptr);
  for (const double s : sums.to_doubles()) EXPECT_NEAR(s, -128 + std::log(70.0), 1e-4);
  // Keys are alike: 1/4 of the sum of ds, which is that of 70 roundings of numbers of about 4/70 and of one of `out`.
  for (const double x : dq.to_doubles()) EXPECT_LT(std::abs(x), 0.02);
}

}  // namespace
}  // namespace costate
