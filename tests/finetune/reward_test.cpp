// Rewards: what becomes of values that are not numbers, the kinds and their gradients, and what a plan is told.
#include <costate/autograd/check.h>
#include <costate/finetune/reward.h>
#include <costate/nn/init.h>
#include <costate/tensor/memory.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

Tensor rows(const std::vector<float>& v, std::int64_t dim = 1) {
  return Tensor::from(v, {static_cast<std::int64_t>(v.size()) / dim, dim});
}
std::string words_of(const auto& f, Fault fault) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), fault) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// 10 x with gradient 10, but NaN for x = 3, a gradient without a number for x = 4, and an exception for a batch with x = 5.
Reward moody(Reward::Policy policy, int* calls = nullptr) {
  Reward r = callback_reward("moody", [calls](auto x, auto n, auto value, auto gradient) {
    if (calls) ++*calls;
    for (std::int64_t i = 0; i < n; ++i) {
      if (x[i] == 5) throw std::runtime_error("five");
      value[i] = x[i] == 3 ? nan : 10 * x[i];
      gradient[i] = x[i] == 4 ? nan : 10.0f;
    }
  });
  r.on_failure = policy, r.clip_low = -20, r.clip_high = 35;
  return r;
}

TEST(Reward, StopsAtValuesThatAreNoNumbers) {
  const Reward r = moody(Reward::Policy::stop);
  EXPECT_TRUE(contains(words_of(
                           [&] {
                             r.scores(rows({1, 3, 4}), true);
                           },
                           Fault::numerical),
                       "reward 'moody': the value or gradient of 2 of 3 samples is not finite"));
  EXPECT_TRUE(contains(words_of([&] { r.scores(rows({1, 3, 4}), false); }, Fault::numerical), "the value of 1 of 3 samples"));
  EXPECT_THROW(r.scores(rows({1, 5}), true), std::runtime_error);
  const Reward::Scores s = r.scores(rows({1, 2}), true);
  EXPECT_EQ(s.value.to_doubles(), (Values{10, 20}));
  EXPECT_EQ(s.gradient.to_doubles(), (Values{10, 10}));
  EXPECT_TRUE(s.valid.empty());
  EXPECT_EQ(s.failed, 0);
  EXPECT_FALSE(r.scores(rows({1, 2}), false).gradient.defined());
}

TEST(Reward, SkipsRowsThatFail) {
  int calls = 0;
  const Reward r = moody(Reward::Policy::skip, &calls);
  const Reward::Scores s = r.scores(rows({1, 3, 4, 2}), true);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(s.value.to_doubles(), (Values{10, 0, 0, 20}));
  EXPECT_EQ(s.gradient.to_doubles(), (Values{10, 0, 0, 10}));
  EXPECT_EQ(s.valid, (std::vector<std::uint8_t>{1, 0, 0, 1}));
  EXPECT_EQ(s.failed, 2);
  // The batch throws: once for all, then row by row.
  calls = 0;
  const Reward::Scores t = r.scores(rows({1, 5, 3, 2}), true);
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(t.value.to_doubles(), (Values{10, 0, 0, 20}));
  EXPECT_EQ(t.gradient.to_doubles(), (Values{10, 0, 0, 10}));
  EXPECT_EQ(t.valid, (std::vector<std::uint8_t>{1, 0, 0, 1}));
  // Values alone do not look at gradients.
  EXPECT_EQ(r.scores(rows({1, 4}), false).failed, 0);
  EXPECT_TRUE(r.scores(rows({1, 4}), false).valid.empty());
  // One row may fail; all of several are a reward that does not work.
  EXPECT_EQ(r.scores(rows({5}), true).valid, std::vector<std::uint8_t>{0});
  EXPECT_THROW(r.scores(rows({5, 5}), true), std::runtime_error);
  EXPECT_TRUE(contains(words_of([&] { r.scores(rows({3, 3}), true); }, Fault::numerical), "2 of 2"));
  calls = 0;
  EXPECT_THROW(r.scores(rows({5, 5, 5, 5, 1, 1, 1}), true), std::runtime_error);
  EXPECT_EQ(calls, 5) << "the batch, and four rows that throw";
}

TEST(Reward, ClipsIntoItsBounds) {
  const Reward r = moody(Reward::Policy::clip);
  const Reward::Scores s = r.scores(rows({1, 3, 4, 9, -3, 5}), true);
  EXPECT_EQ(s.value.to_doubles(), (Values{10, -20, 35, 35, -20, -20}));
  EXPECT_EQ(s.gradient.to_doubles(), (Values{10, 0, 0, 0, 0, 0}));
  EXPECT_TRUE(s.valid.empty());
  EXPECT_EQ(s.failed, 3);
  Reward infinite = black_box_reward("infinite", [](auto x, auto n, auto value) {
    for (std::int64_t i = 0; i < n; ++i) value[i] = 1 / x[i];
  });
  infinite.on_failure = Reward::Policy::clip, infinite.clip_low = -7, infinite.clip_high = 8;
  EXPECT_EQ(infinite.scores(rows({0.0f, -0.0f, 1}), false).value.to_doubles(), (Values{8, -7, 1}));
  infinite.clip_low = 9;
  EXPECT_TRUE(contains(words_of([&] { infinite.scores(rows({1}), false); }, Fault::argument), "[9, 8]"));
}

TEST(Reward, ErrorsOfTheCallStopUnderEveryPolicy) {
  Reward r;
  r.name = "wrong";
  r.on_failure = Reward::Policy::skip;
  EXPECT_FALSE(r.defined());
  EXPECT_TRUE(contains(words_of([&] { r.scores(rows({1, 2}), false); }, Fault::argument), "reward 'wrong' is empty"));
  r.black_box = [](const Tensor& x) { return x; };  // (2, 1) instead of (2,)
  EXPECT_TRUE(contains(words_of(
                           [&] {
                             r.scores(rows({1, 2}), false);
                           },
                           Fault::argument),
                       "reward 'wrong': the value has shape"));
}

TEST(Reward, ABlackBoxHasValuesAndNoGradient) {
  const Reward r = black_box_reward("box", [](auto x, auto n, auto value) {
    for (std::int64_t i = 0; i < n; ++i) value[i] = x[2 * i] - x[2 * i + 1];
  });
  EXPECT_TRUE(r.defined());
  EXPECT_FALSE(r.differentiable());
  EXPECT_EQ(r(rows({1, 2, 5, 3}, 2)).to_doubles(), (Values{-1, 2}));
  EXPECT_EQ(r(rows({1, 2}, 2).to(DType::f64)).dtype(), DType::f64);
  for (const auto& f : {std::function<void()>([&] {
                          r.value_and_gradient(rows({1, 2}, 2));
                        }),
                        {[&] {
                          r.scores(rows({1, 2}, 2), true);
                        }}}) {
    const std::string words = words_of(f, Fault::argument);
    EXPECT_TRUE(contains(words, "'box' is a black box") && contains(words, "objectives without reward gradients")) << words;
  }
}

struct Kind {
  const char* name;
  Reward reward;
  Shape shape;  // of two rows
};
std::vector<Kind> kinds() {
  const IsotropicMixture a{{0, 1, 1, 0}, {0.5, 0.8}, {1, 3}}, b{{0.2, 0.1}, {2}, {1}};
  const Reward linear = linear_reward({1, -2}), quadratic = quadratic_reward({0.5, 0.1}, {2, 0.3, 0.3, 1}, {1, 2});
  nn::Init init(3, DType::f64);
  const nn::Classifier classifier = nn::make_classifier(2, 6, 2, 4, init);
  DivergenceTiltOptions options{.temperature = 2};
  return {
      {"linear", linear, {2, 2}},
      {"quadratic", quadratic, {2, 2}},
      {"log_density", log_density_reward(a, 2), {2, 2}},
      {"log_density_ratio", log_density_ratio_reward(a, b, 2), {2, 2}},
      {"classifier", classifier_reward(classifier, {1}), {2, 2}},
      {"any_of_two", classifier_reward(classifier, {1, 3}), {2, 2}},
      {"brightness", brightness_reward(2), {2, 3, 2, 2}},
      {"left_right", symmetry_reward(MirrorAxis::left_right), {2, 2, 5, 2}},
      {"up_down", symmetry_reward(MirrorAxis::up_down, 3), {2, 4, 3, 1}},
      {"total_variation", total_variation_reward(1, 0.5), {2, 3, 4, 2}},
      {"total_variation_of_a_row", total_variation_reward(-1, 0.5), {2, 1, 4, 1}},
      {"mean", ensemble_reward({linear, quadratic}, EnsembleRule::mean), {2, 2}},
      {"minimum", ensemble_reward({linear, quadratic}, EnsembleRule::minimum), {2, 2}},
      {"lower_bound", ensemble_reward({linear, quadratic, log_density_reward(b, 2)}, EnsembleRule::lower_bound, 0.7), {2, 2}},
      {"bump", bump_reward({0.3, 0.4}, 0.6, 5), {2, 2}},
      {"proxy", proxy_reward(quadratic, {0.3, 0.4}, 0.6, 5), {2, 2}},
      {"sum", sum_reward({{2, linear}, {-0.5, quadratic}}), {2, 2}},
      {"pearson",
       f_divergence_reward(quadratic, divergence_tilt(f_divergence("pearson"), Values{0, 1, 1.5}, options), 3),
       {2, 2}}};
}

// Samples without symmetry, the same for every kind.
Tensor sample_of(const Shape& shape) {
  std::vector<double> x(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = std::sin(1.7 * static_cast<double>(i) + 0.4) + 0.05 * static_cast<double>(i);
  return Tensor::from(x, shape);
}

TEST(Reward, GradientsOfEveryKindAreThoseOfDifferences) {
  for (const Kind& k : kinds()) {
    const Tensor x = sample_of(k.shape);
    const std::string words = check_gradients([&](std::span<const Var> in) { return k.reward.value(in[0]); }, {&x, 1});
    EXPECT_EQ(words, "") << k.name;
    // Rows are scored on their own: the gradient that objectives take is that of each.
    const Reward::ValueAndGradient both = k.reward.value_and_gradient(x), second = k.reward.value_and_gradient(x.slice(1, 1));
    EXPECT_EQ(both.value.slice(1, 1).to_doubles(), second.value.to_doubles()) << k.name;
    EXPECT_EQ(both.gradient.slice(1, 1).to_doubles(), second.gradient.to_doubles()) << k.name;
  }
}

// A plan runs on the meta device and must ask for the same memory: of differentiable rewards, of black boxes, which it must not
// call, and under every policy as long as nothing fails.
TEST(Reward, PlansAskForTheSameMemory) {
  std::vector<Kind> all = kinds();
  for (Kind& k : all)
    if (std::string(k.name).find("classifier") != std::string::npos || std::string(k.name) == "any_of_two")
      k.reward = {};  // of f64
  bool called = false;
  all.push_back({"black_box", black_box_reward("box", [&](auto, auto, auto) { called = true; }), {2, 3}});
  all.push_back({"command", subprocess_reward({.command = {"/nowhere/there-is-no-such-program"}, .gradient = true}), {2, 3}});
  for (const Kind& k : all) {
    if (!k.reward.defined()) continue;
    for (const bool gradient : {false, true}) {
      if (gradient && !k.reward.differentiable()) continue;
      for (const auto policy : {Reward::Policy::stop, Reward::Policy::skip, Reward::Policy::clip}) {
        Reward r = k.reward;
        r.on_failure = policy, r.clip_low = -1e9, r.clip_high = 1e9;
        memory::Usage peak[2];
        for (const Device device : {Device::cpu, Device::meta}) {
          called = false;
          if (device == Device::cpu && std::string(k.name) == "command") continue;
          const Tensor x =
              device == Device::meta ? Tensor::empty(k.shape, DType::f32, device) : sample_of(k.shape).to(DType::f32);
          const memory::PeakScope scope;
          const Reward::Scores s = r.scores(x, gradient);
          EXPECT_EQ(s.value.shape(), (Shape{2})) << k.name;
          EXPECT_EQ(s.failed, 0);
          EXPECT_EQ(gradient, s.gradient.defined()) << k.name;
          peak[device == Device::meta] = scope.peak();
          EXPECT_TRUE(device == Device::cpu || !called);
        }
        if (std::string(k.name) != "command") {
          EXPECT_EQ(peak[0].total, peak[1].total) << k.name << " " << gradient;
        }
      }
    }
  }
}

TEST(Reward, PicturesByHand) {
  // A picture of 2 x 3 pixels and its three mirror images.
  const Tensor x = Tensor::from(std::vector<double>{1, 2, 4, 0, 3, 5}, {1, 2, 3, 1});
  EXPECT_DOUBLE_EQ(brightness_reward()(x).item(), 2.5);
  EXPECT_DOUBLE_EQ(brightness_reward(-2)(x).item(), -5);
  // Columns 0 and 2 change places: differences 3, 0, 3 and 5, 0, 5; rows: 1, 1, 1, twice.
  EXPECT_DOUBLE_EQ(symmetry_reward(MirrorAxis::left_right)(x).item(), -(9 + 9 + 25 + 25) / 6.0);
  EXPECT_DOUBLE_EQ(symmetry_reward(MirrorAxis::up_down)(x).item(), -1.0);
  // Neighbours: |1| + |2| + |3| + |2| to the right, 1 + 1 + 1 below; eps takes at most eps from each of the seven.
  EXPECT_NEAR(total_variation_reward(1, 1e-9)(x).item(), -11 / 6.0, 7e-9);
  const Tensor same = Tensor::full({1, 4, 4, 3}, 0.3, DType::f64);
  for (const Reward& r :
       {symmetry_reward(MirrorAxis::left_right), symmetry_reward(MirrorAxis::up_down), total_variation_reward()}) {
    EXPECT_EQ(r(same).item(), 0) << r.name;
    EXPECT_EQ(r.value_and_gradient(same).gradient.to_doubles(), Values(48, 0.0)) << r.name;
  }
  EXPECT_TRUE(contains(words_of([&] { brightness_reward()(rows({1, 2})); }, Fault::argument), "expected pictures"));
  EXPECT_TRUE(contains(words_of([&] { total_variation_reward()(Tensor::zeros({2, 1, 1, 3})); }, Fault::argument), "one pixel"));
  EXPECT_THROW(brightness_reward(0), Error);
  EXPECT_THROW(total_variation_reward(1, 0), Error);
}

TEST(Reward, LogDensityIsNormalised) {
  // exp r integrates to one: a sum over a fine grid in one dimension, whose error is below rounding for Gaussians.
  const Reward r = log_density_reward({{-1, 2}, {0.3, 1.2}, {2, 1}}, 1);
  std::vector<double> grid;
  for (double x = -14; x <= 16; x += 0.01) grid.push_back(x);
  double mass = 0, mean = 0;
  const Values logs = r(Tensor::from(grid, {static_cast<std::int64_t>(grid.size()), 1})).to_doubles();
  for (std::size_t i = 0; i < grid.size(); ++i) mass += 0.01 * std::exp(logs[i]), mean += 0.01 * grid[i] * std::exp(logs[i]);
  EXPECT_NEAR(mass, 1, 1e-12);
  EXPECT_NEAR(mean, 0, 1e-12);  // 2/3 (-1) + 1/3 2
}

TEST(Reward, EnsemblesByHand) {
  const auto constant = [](double c) { return Reward{"constant", [c](const Var& x) { return linear_reward({c}).value(x); }}; };
  const Tensor x = Tensor::from(std::vector<double>{1, 2}, {2, 1});
  const std::vector<Reward> members{constant(1), constant(2), constant(6)};
  EXPECT_EQ(ensemble_reward(members, EnsembleRule::mean)(x).to_doubles(), (Values{3, 6}));
  EXPECT_EQ(ensemble_reward(members, EnsembleRule::minimum)(x).to_doubles(), (Values{1, 2}));
  // Deviation sqrt((4 + 1 + 9)/3).
  EXPECT_NEAR(ensemble_reward(members, EnsembleRule::lower_bound, 2)(x).to_doubles()[0], 3 - 2 * std::sqrt(14 / 3.0), 1e-6);
  // Where all agree the deviation is zero, and the gradient that of one of them.
  const Reward same = ensemble_reward({constant(4), constant(4)}, EnsembleRule::lower_bound, 10);
  EXPECT_NEAR(same(x).to_doubles()[0], 4, 2e-5);  // 10 times the smoothing, 1e-6
  EXPECT_EQ(same.value_and_gradient(x).gradient.to_doubles(), (Values{4, 4}));
  const Reward box = black_box_reward("box", [](auto in, auto n, auto value) { std::copy_n(in.begin(), n, value.begin()); });
  const Reward mixed = ensemble_reward({constant(3), box}, EnsembleRule::mean);
  EXPECT_FALSE(mixed.differentiable());
  EXPECT_EQ(mixed(x).to_doubles(), (Values{2, 4}));
  EXPECT_THROW(ensemble_reward({constant(1)}, EnsembleRule::mean), Error);
  EXPECT_THROW(ensemble_reward(members, EnsembleRule::lower_bound, -1), Error);
  EXPECT_THROW(ensemble_reward({constant(1), {}}, EnsembleRule::mean), Error);
}

TEST(Reward, SumsAreLinear) {
  const Reward box = black_box_reward("box", [](auto in, auto n, auto value) { std::copy_n(in.begin(), n, value.begin()); });
  const Tensor x = rows({1, 2});
  const Reward differentiable = sum_reward({{2, linear_reward({3})}, {-1, bump_reward({0}, 1, 1)}});
  EXPECT_TRUE(differentiable.differentiable());
  EXPECT_NEAR(differentiable(x).to_doubles()[1], 12 - std::exp(-2.0), 1e-6);
  const Reward mixed = sum_reward({{2, linear_reward({3})}, {10, box}});
  EXPECT_FALSE(mixed.differentiable());
  EXPECT_EQ(mixed(x).to_doubles(), (Values{16, 32}));
  EXPECT_EQ(mixed.name, "2 linear + 10 box");
  EXPECT_THROW(sum_reward({}), Error);
  EXPECT_THROW(sum_reward({{nan, box}}), Error);
  EXPECT_THROW(bump_reward({0}, 0, 1), Error);
}

// Raising a proxy too far: under the laws p exp(lambda r_proxy)/Z, by quadrature, the proxy rises with lambda without end. The
// gold reward rises with it at first and falls, below what it was under the base, when the bump is reached.
TEST(Reward, TheGoldRewardFallsWhereTheProxyIsRaisedTooFar) {
  const Reward gold = quadratic_reward({1}, {1}), proxy = proxy_reward(gold, {-4}, 0.3, 15);
  std::vector<double> grid;
  for (double x = -10; x <= 10; x += 0.01) grid.push_back(x);
  const Tensor x = Tensor::from(grid, {static_cast<std::int64_t>(grid.size()), 1});
  const Values g = gold(x).to_doubles(), p = proxy(x).to_doubles();
  EXPECT_EQ(proxy.name, "quadratic with a bump");
  const auto tilted = [&](double lambda) {
    double z = 0, mean_gold = 0, mean_proxy = 0;
    for (std::size_t i = 0; i < grid.size(); ++i) {
      const double w = std::exp(-grid[i] * grid[i] / 2 + lambda * p[i]);
      z += w, mean_gold += w * g[i], mean_proxy += w * p[i];
    }
    return std::pair{mean_gold / z, mean_proxy / z};
  };
  double before = tilted(0).second, best = tilted(0).first;
  for (const double lambda : {0.5, 1.0, 2.0, 4.0, 8.0, 16.0}) {
    const auto [mean_gold, mean_proxy] = tilted(lambda);
    EXPECT_GT(mean_proxy, before) << lambda;
    before = mean_proxy, best = std::max(best, mean_gold);
  }
  EXPECT_GT(best, tilted(0).first + 0.3);
  EXPECT_GT(tilted(1).first, tilted(0.5).first);
  EXPECT_LT(tilted(16).first, tilted(0).first - 5);
}

}  // namespace
}  // namespace costate::finetune
