// AdamW, schedules, clipping and averages against their formulas in plain double precision.
#include "nn_support.h"

#include <costate/nn/optim.h>

#include <cmath>

namespace costate::nn {
namespace {

using std::vector;

// The formula of optim.h, written once more.
struct Reference {
  AdamWOptions o;
  vector<double> p, m, v;
  int n = 0;
  void step(const vector<double>& g, double lr, double scale) {
    m.resize(p.size(), 0.0), v.resize(p.size(), 0.0);
    ++n;
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double gi = g[i] * scale;
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * gi;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * gi * gi;
      const double m_hat = m[i] / (1 - std::pow(o.beta1, n)), v_hat = v[i] / (1 - std::pow(o.beta2, n));
      p[i] = (1 - lr * o.weight_decay) * p[i] - lr * m_hat / (std::sqrt(v_hat) + o.eps);
    }
  }
};

void follow(const AdamWOptions& o, DType dtype, double tolerance) {
  AdamW adamw(o);
  Tensor a = random_tensor({5, 7}, 1, dtype), b = random_tensor({}, 2, dtype);
  Reference ra{o, a.to_doubles(), {}, {}}, rb{o, b.to_doubles(), {}, {}};
  for (std::uint32_t n = 0; n < 20; ++n) {
    const Tensor ga = random_tensor({5, 7}, 10 + n, dtype), gb = random_tensor({}, 50 + n, dtype);
    const double lr = 0.01 + 0.001 * n, scale = n % 3 == 0 ? 0.25 : 1;
    Tensor* const p[] = {&a, &b};
    const Tensor g[] = {ga, gb};
    adamw.step(p, g, lr, scale);
    ra.step(ga.to_doubles(), lr, scale), rb.step(gb.to_doubles(), lr, scale);
    const auto got = a.to_doubles();
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], ra.p[i], tolerance) << "step " << n;
    ASSERT_NEAR(b.item(), rb.p[0], tolerance);
  }
  EXPECT_EQ(adamw.steps(), 20);
  const auto m = adamw.first_moments()[0].to_doubles(), v = adamw.second_moments()[0].to_doubles();
  for (std::size_t i = 0; i < m.size(); ++i) {
    EXPECT_NEAR(m[i], ra.m[i], tolerance);
    EXPECT_NEAR(v[i], ra.v[i], tolerance);
  }
}

TEST(AdamW, FollowsItsFormula) {
  const AdamWOptions plain, decayed{.lr = 1, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.3},
      momentless{.lr = 1, .beta1 = 0, .beta2 = 0, .eps = 1e-3, .weight_decay = 0};
  for (const AdamWOptions& o : {plain, decayed, momentless}) {
    follow(o, DType::f64, 1e-14);  // twenty updates of a few roundings each of numbers near 1
    follow(o, DType::f32, 2e-6);   // the same in single precision, 6e-8 each
  }
}

TEST(AdamW, FirstUpdateIsTheLearningRateWhateverTheGradient) {
  // Bias correction makes m = g and v = g^2 of the first update: p moves by lr g / (|g| + eps).
  for (const double g : {1e-3, 7.0, -400.0}) {
    AdamW adamw;
    Tensor p = Tensor::full({1}, 2, DType::f64);
    Tensor* const handle[] = {&p};
    adamw.step(handle, vector<Tensor>{Tensor::full({1}, g, DType::f64)}, 0.1);
    EXPECT_NEAR(p.item(), 2 - 0.1 * g / (std::abs(g) + 1e-8), 1e-14);
  }
}

TEST(AdamW, WeightDecayIsDecoupled) {
  // A gradient of zero leaves pure decay, p (1 - lr wd)^n.
  AdamW adamw({.lr = 1, .weight_decay = 0.1});
  Tensor p = Tensor::full({3}, 2, DType::f64);
  Tensor* const handle[] = {&p};
  for (int i = 0; i < 5; ++i) adamw.step(handle, vector<Tensor>{Tensor::zeros({3}, DType::f64)}, 0.5);
  for (const double v : p.to_doubles()) EXPECT_NEAR(v, 2 * std::pow(0.95, 5), 1e-14);
}

TEST(AdamW, GradientScaleMultipliesGradients) {
  Tensor a = random_tensor({9}, 1), b = a.clone();
  const Tensor g = random_tensor({9}, 2);
  const Tensor half = Tensor::from(
      [&] {
        auto v = g.to_doubles();
        for (double& x : v) x *= 0.5;
        return v;
      }(),
      {9});
  AdamW first, second;
  Tensor *const pa[] = {&a}, *const pb[] = {&b};
  for (int i = 0; i < 3; ++i)
    first.step(pa, vector<Tensor>{g}, 0.1, 0.5), second.step(pb, vector<Tensor>{half}, 0.1);
  EXPECT_TRUE(same_bits(a, b));
}

TEST(AdamW, ResumesBitForBitAndCopiesAreIndependent) {
  Tensor p = random_tensor({40}, 1, DType::f32);
  Tensor* const handle[] = {&p};
  const auto gradient = [](std::uint32_t n) {
    return vector<Tensor>{random_tensor({40}, 10 + n, DType::f32)};
  };
  AdamW adamw({.lr = 1, .weight_decay = 0.01});
  for (std::uint32_t n = 0; n < 4; ++n) adamw.step(handle, gradient(n), 0.01);
  Tensor q = p;
  Tensor* const other[] = {&q};
  AdamW copy = adamw, restored({.lr = 1, .weight_decay = 0.01});
  Tensor r = p.clone();
  Tensor* const third[] = {&r};
  restored.restore(adamw.steps(), {adamw.first_moments()[0].clone()}, {adamw.second_moments()[0].clone()});
  for (std::uint32_t n = 4; n < 8; ++n) adamw.step(handle, gradient(n), 0.01);
  // The steps above must not have touched what the copy holds.
  for (std::uint32_t n = 4; n < 8; ++n)
    copy.step(other, gradient(n), 0.01), restored.step(third, gradient(n), 0.01);
  EXPECT_TRUE(same_bits(p, q));
  EXPECT_TRUE(same_bits(p, r));
}

TEST(AdamW, RefusesWhatDoesNotFitAndChangesNothing) {
  AdamW adamw;
  Tensor a = random_tensor({3}, 1), b = random_tensor({2}, 2);
  const Tensor a0 = a.clone(), b0 = b.clone(), good = random_tensor({3}, 3);
  Tensor* const p[] = {&a, &b};
  expect_error(Fault::argument, "1 gradients for 2 parameters",
               [&] { adamw.step(p, vector<Tensor>{good}, 0.1); });
  expect_error(Fault::argument, "gradient 1 is f64 of shape (3,)", [&] {
    adamw.step(p, vector<Tensor>{good, good}, 0.1);
  });
  expect_error(Fault::argument, "gradient 1 is f32", [&] {
    adamw.step(p, vector<Tensor>{good, Tensor::zeros({2})}, 0.1);
  });
  expect_error(Fault::argument, "undefined", [&] { adamw.step(p, vector<Tensor>{good, Tensor()}, 0.1); });
  expect_error(Fault::argument, "meta", [&] {
    adamw.step(p, vector<Tensor>{good, Tensor::zeros({2}, DType::f64, Device::meta)}, 0.1);
  });
  EXPECT_EQ(adamw.steps(), 0);
  EXPECT_TRUE(same_bits(a, a0) && same_bits(b, b0));
  adamw.restore(1, {good}, {good});
  expect_error(Fault::argument, "state is for 1", [&] { adamw.step(p, vector<Tensor>{good, b0}, 0.1); });
  Tensor* const second[] = {&b};
  expect_error(Fault::argument, "moments of parameter 0",
               [&] { adamw.step(second, vector<Tensor>{b0}, 0.1); });
  EXPECT_TRUE(same_bits(b, b0));
  expect_error(Fault::argument, "second moments", [&] { adamw.restore(1, {good}, {}); });
  expect_error(Fault::argument, "beta1 1", [] { AdamW({.beta1 = 1}); });
  expect_error(Fault::argument, "weight_decay -1", [] { AdamW({.weight_decay = -1}); });
  expect_error(Fault::argument, "eps", [] { AdamW({.eps = std::nan("")}); });
}

TEST(LearningRate, ConstantAfterLinearWarmUp) {
  LearningRate lr;
  lr.peak = 0.5;
  EXPECT_EQ(lr(0), 0.5);
  EXPECT_EQ(lr(1000000), 0.5);
  lr.warmup = 4;
  const double expected[] = {0.125, 0.25, 0.375, 0.5, 0.5, 0.5};
  for (int n = 0; n < 6; ++n) EXPECT_EQ(lr(n), expected[n]) << n;
}

TEST(LearningRate, CosineFallsFromThePeakToTheEnd) {
  LearningRate lr;
  lr.peak = 2, lr.warmup = 10, lr.total = 110, lr.final = 0.1, lr.decay = LearningRate::Decay::cosine;
  EXPECT_EQ(lr(9), 2);
  EXPECT_EQ(lr(10), 2);
  EXPECT_NEAR(lr(60), 2 * (1 + 0.1) / 2, 1e-15);                           // half way
  EXPECT_NEAR(lr(35), 2 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2), 1e-14);  // a quarter: cos(pi / 4)
  EXPECT_NEAR(lr(110), 0.2, 1e-15);
  EXPECT_NEAR(lr(5000), 0.2, 1e-15);
  for (int n = 10; n < 110; ++n) EXPECT_GT(lr(n), lr(n + 1)) << n;
  lr.total = 10;  // nothing is left to decay over
  EXPECT_EQ(lr(50), 2);
}

TEST(Clipping, ScalesTheNormOfAllGradientsTogether) {
  const vector<Tensor> g = {Tensor::full({1}, 3), Tensor::full({1}, -4)};
  EXPECT_EQ(gradient_norm(g), 5);
  EXPECT_EQ(gradient_norm(vector<Tensor>{}), 0);
  // 1000 values of 0.1f: the sum of squares is taken in double precision, where 0.1f^2 * 1000 is exact to
  // 1e-13.
  EXPECT_NEAR(gradient_norm(vector<Tensor>{Tensor::full({10, 100}, 0.1)}), 0.1f * std::sqrt(1000.0), 1e-12);
  EXPECT_EQ(clip_factor(5, 1), 0.2);
  EXPECT_EQ(clip_factor(5, 5), 1);
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_EQ(clip_factor(5, 0), 1);  // 0: no clipping
  expect_error(Fault::argument, "undefined", [] { gradient_norm(vector<Tensor>{Tensor()}); });
}

TEST(Ema, FollowsItsFormula) {
  for (const bool warmup : {false, true}) {
    Ema ema(0.9, warmup);
    vector<double> expected;
    for (int n = 0; n < 200; ++n) {
      const Tensor p = random_tensor({6}, 100 + static_cast<std::uint32_t>(n));
      const auto v = p.to_doubles();
      ema.update(vector<Tensor>{p});
      if (n == 0) {
        expected = v;
        EXPECT_FALSE(ema.average()[0].shares_storage_with(p));
      } else {
        const double decay = warmup ? std::min(0.9, (1.0 + n) / (10.0 + n)) : 0.9;
        for (std::size_t i = 0; i < v.size(); ++i) expected[i] += (1 - decay) * (v[i] - expected[i]);
      }
      const auto got = ema.average()[0].to_doubles();
      for (std::size_t i = 0; i < v.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-13) << n;
    }
    EXPECT_EQ(ema.updates(), 200);
  }
}

TEST(Ema, ResumesBitForBitAndKeepsHandedOutAverages) {
  const auto p = [](std::uint32_t n) { return vector<Tensor>{random_tensor({6}, n, DType::f32)}; };
  Ema ema(0.99, true);
  for (std::uint32_t n = 0; n < 5; ++n) ema.update(p(n));
  const Tensor held = ema.average()[0], before = held.clone();
  Ema restored(0.99, true);
  restored.restore(ema.updates(), {held.clone()});
  for (std::uint32_t n = 5; n < 9; ++n) ema.update(p(n)), restored.update(p(n));
  EXPECT_TRUE(same_bits(ema.average()[0], restored.average()[0]));
  EXPECT_TRUE(same_bits(held, before));
  expect_error(Fault::argument, "2 parameters", [&] { ema.update(vector<Tensor>{held, held}); });
  expect_error(Fault::argument, "(7,)",
               [&] { ema.update(vector<Tensor>{random_tensor({7}, 1, DType::f32)}); });
  expect_error(Fault::argument, "decay 1", [] { Ema(1, true); });
  Ema off;
  off.update(p(1));
  EXPECT_TRUE(off.average().empty());
}

}  // namespace
}  // namespace costate::nn
