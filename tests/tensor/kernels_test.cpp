// Every table of the cpu against plain loops in double precision, and the same bits for 1, 2 and 3 threads.
#include <costate/tensor/loop.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/pointwise.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/table_names.h"

namespace costate {

namespace {

constexpr std::int64_t sizes[] = {0, 1, 31, 257, 70'000};

template <class T>
std::vector<T> noise(std::int64_t n, std::uint32_t step) {
  const Tensor t = Tensor::empty({1, n}, dtype_of<T>);
  random_normal(t, 3, Stream::user, 0, step);
  const auto v = t.values<T>();
  return {v.begin(), v.end()};
}

// Runs a kernel under 1, 2 and 3 threads: the results must be one.
template <class Run>
auto same_for_all_threads(const Run& run) {
  set_threads(1);
  const auto first = run();
  for (const int n : {2, 3}) {
    set_threads(n);
    EXPECT_EQ(run(), first) << n << " threads";
  }
  set_threads(1);
  return first;
}

template <class T>
void near(const std::vector<T>& a, const std::vector<double>& b, double tolerance, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance * std::max(1.0, std::abs(b[i]))) << what << " " << i;
}

// The sum of n elements, and five standard errors of it in float. An addition with the result S is off by at most u |S|,
// u = 2^-24, by half an ulp; taken as uniform and independent, the errors have the variance u^2 / 3 sum S^2, with S over
// all partial sums of the kernel's order: whole columns one after the other (one lane), rows in sixteen interleaved lanes
// that are combined pairwise. For standard normal terms that is about u n / 2.4 and u n / 10.
std::pair<double, double> sum_in_lanes(const std::vector<float>& x, std::size_t lanes, std::int64_t first, std::int64_t stride,
                                       std::int64_t n) {
  std::vector<double> part(lanes);
  double squares = 0;
  const auto add = [&](std::size_t lane, double v) { part[lane] += v, squares += part[lane] * part[lane]; };
  for (std::int64_t j = 0; j < n; ++j)
    add(static_cast<std::size_t>(j) % lanes, x[static_cast<std::size_t>(first + j * stride)]);
  for (std::size_t width = lanes / 2; width > 0; width /= 2)
    for (std::size_t l = 0; l < width; ++l) add(l, part[l + width]);
  return {part[0], 5 * 0x1p-24 * std::sqrt(squares / 3)};
}

class EveryTable : public testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& k = *GetParam();
};

TEST_P(EveryTable, FillAndCast) {
  for (const std::int64_t n : sizes) {
    const auto count = static_cast<std::size_t>(n);
    std::vector<float> f(count + 1, -7.f);
    k.fill(DType::f32, n, 1.25, f.data());
    EXPECT_EQ(f[count], -7.f);
    std::vector<std::int32_t> i(count);
    std::vector<double> d(count);
    k.cast(DType::f32, DType::i32, n, f.data(), i.data());
    k.cast(DType::f32, DType::f64, n, f.data(), d.data());
    EXPECT_EQ(i, std::vector<std::int32_t>(count, 1));
    EXPECT_EQ(d, std::vector<double>(count, 1.25));
  }
}

TEST_P(EveryTable, CopyTransposes) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 5}, {257, 31}, {300, 400}}) {
    const auto x = noise<float>(rows * columns, 1);
    const auto y = same_for_all_threads([&, rows = rows, columns = columns] {
      std::vector<float> out(x.size());
      k.copy(copy_loop({columns, rows}, std::array<std::int64_t, 6>{1, columns}, std::array<std::int64_t, 6>{rows, 1}), 4,
             x.data(), out.data());
      return out;
    });
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        ASSERT_EQ(y[static_cast<std::size_t>(j * rows + i)], x[static_cast<std::size_t>(i * columns + j)]);
  }
}

TEST_P(EveryTable, Sums) {
  for (const std::int64_t n : sizes)
    for (const auto& [outer, inner] : {std::pair{1, 1}, {3, 1}, {1, 3}, {2, 5}}) {
      if (n == 70'000 && outer * inner > 3) continue;
      const auto x = noise<float>(outer * n * inner, 2);
      const auto s = same_for_all_threads([&, outer = outer, inner = inner] {
        std::vector<float> out(static_cast<std::size_t>(outer * inner), -1.f);
        k.sum(DType::f32, outer, n, inner, x.data(), out.data());
        return out;
      });
      for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t i = 0; i < inner; ++i) {
          const auto [expected, tolerance] = sum_in_lanes(x, inner == 1 ? 16 : 1, o * n * inner + i, inner, n);
          ASSERT_NEAR(s[static_cast<std::size_t>(o * inner + i)], expected, tolerance) << n;
        }
      double squares = 0;
      for (const float v : x) squares += double{v} * v;
      const auto half = static_cast<std::int64_t>(x.size()) / 2;
      const Elements pieces[] = {{x.data(), half}, {x.data() + half, outer * n * inner - half}};
      double found = -1;
      k.sum_squares(DType::f32, 2, pieces, &found);
      EXPECT_NEAR(found, squares, 1e-12 * (squares + 1));
    }
}

TEST_P(EveryTable, Rows) {
  for (const std::int64_t n : {1, 31, 257, 70'000}) {
    const std::int64_t rows = n > 1000 ? 2 : 40;
    const auto count = static_cast<std::size_t>(rows * n);
    const auto x = noise<double>(rows * n, 3), g = noise<double>(rows * n, 4);
    const auto run = [&](auto kernel) {
      return same_for_all_threads([&] {
        std::vector<double> out(count);
        kernel(out.data());
        return out;
      });
    };
    std::vector<double> rstd(static_cast<std::size_t>(rows));
    const auto p = run([&](double* out) { k.softmax(DType::f64, false, rows, n, x.data(), out); });
    const auto l = run([&](double* out) { k.softmax(DType::f64, true, rows, n, x.data(), out); });
    const auto dp = run([&](double* out) { k.softmax_vjp(DType::f64, false, rows, n, p.data(), g.data(), out); });
    const auto dl = run([&](double* out) { k.softmax_vjp(DType::f64, true, rows, n, l.data(), g.data(), out); });
    const auto y = run([&](double* out) { k.layer_norm(DType::f64, rows, n, 1e-3, x.data(), out, rstd.data()); });
    const auto dy = run([&](double* out) { k.layer_norm_vjp(DType::f64, rows, n, y.data(), rstd.data(), g.data(), out); });
    std::vector<double> ep(count), el(count), edp(count), edl(count), ey(count), edy(count);
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(r * n + i); };
      const double size = static_cast<double>(n);
      double z = 0, mean = 0, variance = 0, gp = 0, sum_g = 0;
      for (std::int64_t i = 0; i < n; ++i) z += std::exp(x[at(i)]), mean += x[at(i)] / size, sum_g += g[at(i)];
      for (std::int64_t i = 0; i < n; ++i) {
        ep[at(i)] = std::exp(x[at(i)]) / z, el[at(i)] = x[at(i)] - std::log(z);
        gp += g[at(i)] * ep[at(i)], variance += (x[at(i)] - mean) * (x[at(i)] - mean) / size;
      }
      const double scale = 1 / std::sqrt(variance + 1e-3);
      double gy = 0;
      for (std::int64_t i = 0; i < n; ++i) ey[at(i)] = (x[at(i)] - mean) * scale, gy += g[at(i)] * ey[at(i)] / size;
      for (std::int64_t i = 0; i < n; ++i) {
        edp[at(i)] = ep[at(i)] * (g[at(i)] - gp), edl[at(i)] = g[at(i)] - ep[at(i)] * sum_g;
        edy[at(i)] = scale * (g[at(i)] - sum_g / size - ey[at(i)] * gy);
      }
    }
    // Double precision throughout: rounding grows with the length of rows, and stays far below this.
    near(p, ep, 1e-11, "softmax"), near(l, el, 1e-11, "log softmax"), near(dp, edp, 1e-11, "softmax vjp");
    near(dl, edl, 1e-11, "log softmax vjp"), near(y, ey, 1e-11, "layer norm"), near(dy, edy, 1e-10, "layer norm vjp");
  }
}

TEST_P(EveryTable, GatherAndScatter) {
  for (const std::int64_t rows : {0, 1, 31, 257, 5000}) {
    const auto table = noise<float>(7 * 20, 5), in = noise<float>(rows * 20, 6);
    std::vector<std::int32_t> index(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<std::int32_t>(i * i % 7);
    const auto picked = same_for_all_threads([&] {
      std::vector<float> out(in.size());
      k.gather_rows(DType::f32, rows, 20, 7, index.data(), table.data(), out.data());
      return out;
    });
    std::vector<float> added(7 * 20), expected(7 * 20);
    k.scatter_add_rows(DType::f32, rows, 20, 7, index.data(), in.data(), added.data());
    for (std::size_t r = 0; r < index.size(); ++r)
      for (std::size_t c = 0; c < 20; ++c) {
        const auto to = static_cast<std::size_t>(index[r]) * 20 + c;
        ASSERT_EQ(picked[r * 20 + c], table[to]);
        expected[to] += in[r * 20 + c];
      }
    EXPECT_EQ(added, expected);  // added in order: the same bits
  }
}

// Two tensors in one call: the second one's average follows by 1/4. The norm of the gradients is twice the limit, so that
// clipping halves them.
TEST_P(EveryTable, AdamW) {
  const AdamWRates rates{0.9, 0.99, 1e-8};
  for (const std::int64_t n : sizes) {
    const auto g = noise<double>(n, 7), m0 = noise<double>(n, 8), p0 = noise<double>(n, 9), a0 = noise<double>(n, 10);
    double squares = 0;
    for (const double x : g) squares += 2 * x * x;
    const AdamWNow now{1e-2 / 0.1, 1 / 0.01, 1 - 1e-3, 0.5, std::sqrt(squares) / 2, 0.25};
    const auto run = [&](const double* of_squares, const double* check) {
      return same_for_all_threads([&] {
        std::vector<double> all;
        auto m = m0, v = std::vector<double>(m0.size(), 0.25), w = p0, m2 = m, v2 = v, w2 = w, average = a0;
        const Optimised pieces[] = {{n, g.data(), m.data(), v.data(), w.data(), nullptr},
                                    {n, g.data(), m2.data(), v2.data(), w2.data(), average.data()}};
        k.adamw(DType::f64, 2, pieces, rates, &now, of_squares, check);
        for (const auto* part : {&w, &w2, &average}) all.insert(all.end(), part->begin(), part->end());
        return all;
      });
    };
    const auto found = run(&squares, nullptr), unclipped = run(nullptr, nullptr);
    std::vector<double> expected(found.size());
    for (const double scale : {0.25, 0.5}) {
      for (std::size_t i = 0; i < g.size(); ++i) {
        const double gi = scale * g[i], m = 0.9 * m0[i] + 0.1 * gi, v = 0.99 * 0.25 + 0.01 * gi * gi;
        expected[i] = expected[g.size() + i] = p0[i] * (1 - 1e-3) - 1e-2 * (m / 0.1) / (std::sqrt(v / 0.01) + 1e-8);
        expected[2 * g.size() + i] = a0[i] + 0.25 * (expected[i] - a0[i]);
      }
      near(scale == 0.25 ? found : unclipped, expected, 1e-12, "adamw");
    }
    // A number that is not finite leaves everything as it was.
    const double infinite = std::numeric_limits<double>::infinity(), nan = std::nan("");
    for (const auto& kept : {run(&infinite, nullptr), run(&nan, nullptr), run(&squares, &nan)})
      for (std::size_t i = 0; i < g.size(); ++i) {
        ASSERT_EQ(kept[i], p0[i]);
        ASSERT_EQ(kept[2 * g.size() + i], a0[i]);
      }
  }
}

// The noise is not stored, and the bits are those of noise and row one after the other.
TEST_P(EveryTable, AStepOfAChainWithItsNoise) {
  const double c[3] = {0.7, -0.3, 0.2};
  for (const std::int64_t n : {1, 7, 1001}) {
    const auto x = noise<float>(3 * n, 11), prediction = noise<float>(3 * n, 12);
    const auto found = same_for_all_threads([&] {
      std::vector<float> out(x.size());
      k.noisy_step(DType::f32, c, 5, 0, 9, 4, 3, n, x.data(), prediction.data(), out.data());
      return out;
    });
    std::vector<float> e(x.size()), expected(x.size());
    k.random(DType::f32, true, 5, 0, 9, 4, 3, n, e.data());
    PointwiseCall call{};
    call.op = static_cast<int>(Pointwise::chain_step), call.dtype = DType::f32, call.operands = 3, call.parameters = c;
    call.in[0] = x.data(), call.in[1] = prediction.data(), call.in[2] = e.data(), call.out = expected.data();
    call.loop.numel = 3 * n;
    k.pointwise(call);
    EXPECT_EQ(found, expected);
  }
}

TEST_P(EveryTable, TheLossOfValueGradientRegression) {
  for (const std::int64_t n : {1, 7, 1001})
    for (const double limit : {0.0, 0.8 * static_cast<double>(n)}) {
      const std::int64_t rows = 5;
      const auto prediction = noise<double>(rows * n, 13), base = noise<double>(rows * n, 14), costate = noise<double>(rows * n, 15),
                 weight = noise<double>(rows, 16), shift = noise<double>(rows, 17);
      std::vector<double> w(static_cast<std::size_t>(rows), 0.5);
      MatchingCall call{DType::f64, rows, n, prediction.data(), base.data(), costate.data(), weight.data(), shift.data()};
      call.row_weight = w.data(), call.factor = 0.3, call.limit = limit;
      std::vector<double> gradient(prediction.size()), expected(prediction.size());
      const auto numbers = same_for_all_threads([&] {
        std::vector<double> out(static_cast<std::size_t>(3 * rows));
        k.matching(call, out.data(), gradient.data());
        return out;
      });
      for (std::size_t row = 0; row < w.size(); ++row) {
        double squares = 0, control = 0;
        for (std::size_t i = row * static_cast<std::size_t>(n); i < (row + 1) * static_cast<std::size_t>(n); ++i) {
          const double u = weight[row] * (prediction[i] - base[i]), r = u + shift[row] * costate[i];
          squares += r * r, control += u * u;
          expected[i] = 0.3 * 0.5 * 2 * r * weight[row];
        }
        const bool cut = limit > 0 && squares >= limit;
        if (cut)
          for (std::size_t i = row * static_cast<std::size_t>(n); i < (row + 1) * static_cast<std::size_t>(n); ++i) expected[i] = 0;
        EXPECT_NEAR(numbers[3 * row], 0.15 * (cut ? limit : squares), 1e-12 * (1 + squares));
        EXPECT_NEAR(numbers[3 * row + 1], control, 1e-12 * (1 + control));
        EXPECT_EQ(numbers[3 * row + 2], cut ? 1 : 0);
      }
      near(gradient, expected, 1e-12, "matching");
    }
}

TEST_P(EveryTable, PointwiseLoops) {
  const Shape shapes[][2] = {{{1}, {1}},          {{31}, {31}},     {{257}, {257}},    {{70'000}, {70'000}}, {{70'000}, {}},
                             {{300, 257}, {257}}, {{300, 1}, {257}}, {{5000, 7}, {7}}, {{5000, 7}, {5000, 1}}, {{4, 1, 31}, {5, 1}},
                             {{2, 3, 1, 5}, {3, 40, 5}}};
  for (const auto& [a, b] : shapes) {
    const Shape out_shape = broadcast(a, b, "test");
    const Shape* operands[] = {&a, &b};
    const auto x = noise<float>(a.numel(), 10), y = noise<float>(b.numel(), 11);
    const auto out = same_for_all_threads([&] {
      std::vector<float> result(static_cast<std::size_t>(out_shape.numel()));
      PointwiseCall call;
      call.op = static_cast<int>(Pointwise::axpby), call.variant = 0, call.dtype = DType::f32, call.operands = 2;
      const double parameters[4] = {2, 0.5};  // exact products: one rounding, fused or not
      call.parameters = parameters;
      call.in[0] = x.data(), call.in[1] = y.data(), call.out = result.data();
      call.loop = pointwise_loop(out_shape, operands);
      k.pointwise(call);
      return result;
    });
    const auto sa = strides(a), sb = strides(b);
    for (std::int64_t i = 0; i < out_shape.numel(); ++i) {
      std::int64_t rest = i, at_a = 0, at_b = 0;
      for (int axis = out_shape.rank() - 1; axis >= 0; --axis) {
        const std::int64_t c = rest % out_shape[axis];
        rest /= out_shape[axis];
        const int ia = axis - (out_shape.rank() - a.rank()), ib = axis - (out_shape.rank() - b.rank());
        if (ia >= 0 && a[ia] != 1) at_a += c * sa[static_cast<std::size_t>(ia)];
        if (ib >= 0 && b[ib] != 1) at_b += c * sb[static_cast<std::size_t>(ib)];
      }
      ASSERT_EQ(out[static_cast<std::size_t>(i)], 2 * x[static_cast<std::size_t>(at_a)] + 0.5f * y[static_cast<std::size_t>(at_b)])
          << to_string(a) << to_string(b) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, EveryTable, testing::ValuesIn(cpu_tables().begin(), cpu_tables().end()), name_of_table);

}  // namespace
}  // namespace costate
