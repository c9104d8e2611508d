// Strong orders of convergence, measured. Every solver runs on coarsenings of one Brownian path; the error is the root mean
// square of X_K - X(1), against the solution of the same path.
//
// The slope of log(error) against log(h) is a least-squares fit over four step sizes, its standard error that of the jackknife
// over 20 batches of paths. Expected is that all of slope +- 3 standard errors lies within 0.15 of the order that the
// solver's row states: what is left of the next power of h at these steps is smaller than that.
#include <gtest/gtest.h>

#include "sde/problems.h"

namespace costate::sde {
namespace {

constexpr std::size_t kBatches = 20;

struct Slope {
  double value, error;
};

// squares[level][batch]: sums of squared errors.
Slope jackknife(const std::vector<std::array<double, kBatches>>& squares) {
  const auto without = [&](std::size_t left_out) {
    std::vector<double> errors;
    for (const auto& level : squares) {
      double total = 0;
      for (std::size_t b = 0; b < kBatches; ++b)
        if (b != left_out) total += level[b];
      errors.push_back(std::sqrt(total));
    }
    return slope_of(errors);
  };
  std::array<double, kBatches> left{};
  double mean = 0, spread = 0;
  for (std::size_t b = 0; b < kBatches; ++b) mean += (left[b] = without(b)) / kBatches;
  for (const double v : left) spread += (v - mean) * (v - mean);
  return {without(kBatches), std::sqrt(spread * (kBatches - 1) / kBatches)};
}

// Over 32, 64, 128 and 256 steps.
class Measurement {
 public:
  explicit Measurement(const Problem& problem)
      : p_(problem), x0_(Tensor::full(problem.shape, problem.x0, DType::f64)),
        path_(uniform_grid(256 * problem.refine), {1, 0}), exact_(problem.exact(x0_, path_)) {}
  Slope slope(const Solver& s) const {
    std::vector<std::array<double, kBatches>> squares;
    for (const int steps : {32, 64, 128, 256}) {
      const auto x = solve(p_.sde, s, uniform_grid(steps), x0_, {}, path_).to_doubles(), y = exact_.to_doubles();
      squares.push_back({});
      for (std::size_t i = 0; i < x.size(); ++i) squares.back()[i * kBatches / x.size()] += (x[i] - y[i]) * (x[i] - y[i]);
    }
    return jackknife(squares);
  }
  void expect(std::string_view name, double order) const {
    const Slope s = slope(solver(name));
    EXPECT_LE(std::abs(s.value - order) + 3 * s.error, 0.15)
        << name << " on " << p_.name << ": order " << s.value << " +- " << s.error << ", expected " << order;
  }

 private:
  Problem p_;
  Tensor x0_;
  BrownianPath path_;
  Tensor exact_;
};

TEST(StrongOrder, AdditiveNoiseOnLinearDrift) {
  for (const Problem& p : {ornstein_uhlenbeck(), shear()}) {
    const Measurement m(p);
    for (const std::string_view s : {"euler_maruyama", "heun", "reversible_heun"}) m.expect(s, solver(s).strong_order_additive);
    // What keeps SRA1 at 3/2 is the second derivative of the drift; on a linear drift with constant noise a step is wrong by
    // O(h^{5/2}) with mean zero, which adds up to order 2.
    m.expect("sra1", 2);
  }
}

TEST(StrongOrder, AdditiveNoiseInADoubleWell) {
  const Measurement cubic(double_well(true)), lipschitz(double_well(false));
  for (const std::string_view s : {"euler_maruyama", "heun", "sra1"}) cubic.expect(s, solver(s).strong_order_additive);
  // A state far out in the cubic well leaves the reversible method's region of stability, a piece of the imaginary axis.
  lipschitz.expect("reversible_heun", solver("reversible_heun").strong_order_additive);
}

TEST(StrongOrder, DiagonalNoise) {
  const Measurement ito(geometric(Calculus::ito)), stratonovich(geometric(Calculus::stratonovich));
  for (const std::string_view s : {"euler_maruyama", "milstein"}) ito.expect(s, solver(s).strong_order_diagonal);
  const Measurement curved(hyperbolic());
  for (const std::string_view s : {"heun", "reversible_heun"}) {
    stratonovich.expect(s, solver(s).strong_order_diagonal);
    curved.expect(s, solver(s).strong_order_diagonal);
  }
}

// Of one another: without noise in the state Milstein's method is Euler and Maruyama's.
TEST(StrongOrder, MilsteinOnAdditiveNoiseIsEulerMaruyama) {
  const Problem p = ornstein_uhlenbeck();
  const Tensor x0 = Tensor::full(p.shape, p.x0, DType::f64);
  const BrownianPath path(uniform_grid(8), {1, 0});
  const auto end = [&](std::string_view name) { return solve(p.sde, solver(name), uniform_grid(8), x0, {}, path).to_doubles(); };
  EXPECT_EQ(end("milstein"), end("euler_maruyama"));
}

}  // namespace
}  // namespace costate::sde
