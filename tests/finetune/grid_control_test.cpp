#include <costate/finetune/problem/grid_control.h>
#include <costate/finetune/problem/linear_quadratic_chain.h>
#include <costate/sde/diffusion.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace costate::finetune {
namespace {

sde::Chain ddpm(int steps) {
  const sde::Schedule schedule = sde::diffusion_schedule(sde::BetaLaw::linear, 1000);
  return sde::ddpm(schedule, sde::uniform_grid(steps), sde::DdpmVariance::fixed_small, sde::Parametrisation::x1);
}

std::shared_ptr<const GaussianMixture> two_modes(double variance = 0.25) {
  return std::make_shared<const GaussianMixture>(1, std::vector<double>{1, 1}, std::vector<double>{-2, 2},
                                                 std::vector<double>{variance, variance});
}

GridControl two_mode_problem(int steps, const GridControlOptions& options = {}) {
  const sde::Chain chain = ddpm(steps);
  return GridControl(chain, mixture_prediction(two_modes(), chain), [](double x) { return 0.5 * x; }, options);
}

// Two modes N(-2, 1/4) and N(2, 1/4), r = x/2, the DDPM sampler of 1000 linear betas in T steps: the numbers of an
// independent dynamic programme. The optimum of the fixed widths has fewer samples in the right mode than the tilt of the
// sampler's own law, and J < log Z, both by O(1/T): learned models are to be compared with the former.
TEST(GridControl, TwoModesReferenceTable) {
  struct Row {
    int steps;
    double tuned, tilt, objective, log_z, gap, kappa;
  };
  for (const Row& row :
       {Row{10, 0.8168, 0.8638, 0.3580, 0.4014, 0.0434, 0.329}, Row{20, 0.8424, 0.8736, 0.3996, 0.4320, 0.0324, 0.283},
        Row{50, 0.8629, 0.8782, 0.4333, 0.4505, 0.0172, 0.198}, Row{100, 0.8713, 0.8795, 0.4477, 0.4573, 0.0096, 0.135},
        Row{200, 0.8759, 0.8802, 0.4558, 0.4610, 0.0051, 0.084}}) {
    const GridControl g = two_mode_problem(row.steps);
    EXPECT_NEAR(g.tuned().terminal.probability_above(0), row.tuned, 1.5e-4) << row.steps;
    EXPECT_NEAR(g.tilt().probability_above(0), row.tilt, 1.5e-4) << row.steps;
    EXPECT_NEAR(g.tuned().objective, row.objective, 1e-4) << row.steps;
    EXPECT_NEAR(g.log_z(), row.log_z, 1e-4) << row.steps;
    EXPECT_NEAR(g.log_z() - g.tuned().objective, row.gap, 1e-4) << row.steps;
    EXPECT_NEAR(g.max_kappa(), row.kappa, 6e-4) << row.steps;
    // J backwards and J forwards: V_0 averaged over N(0, 1), against the laws of the states under the shifts.
    double value = 0;
    for (int i = -800; i <= 800; ++i)
      value += 0.01 * std::exp(-i * i * 0.5e-4) / std::sqrt(2 * std::numbers::pi) * g.value(0, i * 0.01);
    EXPECT_NEAR(g.tuned().objective, value, 1e-7) << row.steps;
  }
}

// Gaussian data and a quadratic reward, where every number is known in closed form: whatever the penalty is part of, for
// every window of steps and for samplers that remember their noise.
TEST(GridControl, LinearQuadraticChainsInClosedForm) {
  const auto data = std::make_shared<const GaussianMixture>(1, std::vector<double>{1}, std::vector<double>{0.5},
                                                            std::vector<double>{0.8});
  const sde::Schedule vp = sde::diffusion_schedule(sde::BetaLaw::linear, 1000), linear;
  const sde::Chain chains[] = {ddpm(20), sde::ddim(vp, sde::uniform_grid(20), 0.6, sde::Parametrisation::epsilon),
                               sde::euler_maruyama(linear, sde::uniform_grid(20)),
                               sde::flow_sde(linear, sde::uniform_grid(20), 0.7)};
  for (const sde::Chain& chain : chains)
    for (const KlPenalty penalty : {KlPenalty::in_return, KlPenalty::in_loss})
      for (int first : {0, 8}) {
        const double curvature = 0.7, centre = 1.5, temperature = 0.8;
        const LinearQuadraticChain exact(chain, {0.5, 0.8}, {curvature, centre, 0}, {temperature, penalty, first});
        const GridControl g(chain, mixture_prediction(data, chain),
                            [&](double x) { return -curvature * (x - centre) * (x - centre) / 2; },
                            {temperature, penalty, first, {0, 1}, {-12, 12, 1200}});
        EXPECT_NEAR(g.tuned().terminal.mean, exact.tuned().terminal.mean, 1e-8) << chain.description << first;
        EXPECT_NEAR(g.tuned().terminal.variance, exact.tuned().terminal.variance, 1e-7) << chain.description << first;
        EXPECT_NEAR(g.tuned().path_kl, exact.tuned().path_kl, 1e-8) << chain.description << first;
        EXPECT_NEAR(g.tuned().objective, exact.tuned().objective, 1e-7) << chain.description << first;
        EXPECT_NEAR(g.base().terminal.variance, exact.base().terminal.variance, 1e-7) << chain.description;
        EXPECT_NEAR(g.log_z(), exact.log_z(), 1e-7) << chain.description;
        EXPECT_NEAR(g.tilt().mean, exact.tilt().mean, 1e-7) << chain.description;
        const auto& step = exact.steps()[9];
        EXPECT_NEAR(g.shift(9, 0.3), step.gain * 0.3 + step.shift, 1e-8) << chain.description << first;
      }
}

// Bellman's equation at random places, by a search over d that knows nothing of slopes.
TEST(GridControl, ShiftsAreTheBestOnes) {
  const sde::Chain chain = ddpm(10);
  const auto predict = mixture_prediction(two_modes(), chain);
  const GridControl g(chain, predict, [](double x) { return std::sin(2 * x) + 0.3 * x; });
  for (int k : {1, 4, 7})
    for (double x : {-1.7, -0.2, 0.9}) {
      const auto i = static_cast<std::size_t>(k);
      double p;
      predict(chain.t[i], {&x, 1}, {&p, 1});
      const double m = chain.A[i] * x + chain.C[i] * p, s = chain.std[i];
      const auto worth = [&](double d) {
        double sum = 0;
        for (int j = -400; j <= 400; ++j)
          sum += 0.02 * std::exp(-j * j * 2e-4) / std::sqrt(2 * std::numbers::pi) * g.value(k + 1, m + d + s * j * 0.02);
        return sum - d * d / (2 * s * s);
      };
      double best = -1e9, at = 0;
      for (double d = -1; d <= 1; d += 2e-3)
        if (const double w = worth(d); w > best) best = w, at = d;
      EXPECT_NEAR(g.value(k, x), best, 1e-5) << k << " " << x;  // the search is within 1e-3 of the maximum, a parabola
      EXPECT_NEAR(g.shift(k, x), at, 1.1e-3) << k << " " << x;
    }
}

// Windows: once the modes have separated their weights cannot move any more, while the reward within them still rises.
TEST(GridControl, LateWindowsKeepTheModes) {
  GridControlOptions late;
  late.first_step = 40;
  const GridControl all = two_mode_problem(50), window = two_mode_problem(50, late);
  const double base = all.base().terminal.probability_above(0);
  EXPECT_NEAR(base, 0.5, 1e-9);
  EXPECT_GT(all.tuned().terminal.probability_above(0), 0.85);
  EXPECT_LT(window.tuned().terminal.probability_above(0), 0.51);
  EXPECT_GT(window.tuned().reward, window.base().reward + 0.02);
  EXPECT_LT(window.tuned().objective, all.tuned().objective);
}

// A penalty in the loss settles at another law, with a smaller J.
TEST(GridControl, PenaltyInTheLossIsNotTheOptimum) {
  GridControlOptions in_loss;
  in_loss.penalty = KlPenalty::in_loss;
  const GridControl best = two_mode_problem(50), other = two_mode_problem(50, in_loss);
  EXPECT_LT(other.tuned().objective, best.tuned().objective - 1e-3);
  EXPECT_LT(best.tuned().objective, best.log_z());
}

// Refining the grid by two divides the error by 2^4.
TEST(GridControl, FourthOrderInTheGrid) {
  const auto objective = [](int cells) {
    GridControlOptions o;
    o.grid.cells = cells;
    return two_mode_problem(10, o).tuned().objective;
  };
  const double a = objective(400), b = objective(800), c = objective(1600);
  EXPECT_GT(std::abs((a - b) / (b - c)), 8);
  EXPECT_LT(std::abs(b - c), 1e-5);
}

TEST(GridControl, Refusals) {
  const sde::Chain chain = ddpm(10);
  const auto predict = mixture_prediction(two_modes(), chain);
  const auto message = [&](const std::function<double(double)>& reward, const GridControlOptions& options) {
    try {
      const GridControl g(chain, predict, reward, options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const auto linear = [](double x) { return x; };
  EXPECT_NE(message([](double x) { return 3 * x * x; }, {0.5}).find("kappa"), std::string::npos);
  EXPECT_NE(message(linear, {0.0}), "");
  EXPECT_NE(message(linear, {1, KlPenalty::in_return, 11}), "");
  EXPECT_NE(message(linear, {1, KlPenalty::in_return, 0, {0, 0}}), "");
  EXPECT_NE(message(linear, {1, KlPenalty::in_return, 0, {0, 1}, {-2, 2, 400}}).find("wider"), std::string::npos);
  EXPECT_NE(message([](double x) { return std::log(x); }, {}).find("not finite"), std::string::npos);
  EXPECT_THROW(mixture_prediction(nullptr, chain), Error);
}

}  // namespace
}  // namespace costate::finetune
