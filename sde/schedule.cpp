#include <costate/sde/schedule.h>
#include <costate/tensor/error.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace costate::sde {

namespace {

constexpr std::array<std::string_view, 3> kFamilies = {"linear", "vp_linear", "vp_cosine"};

PathPoint linear_point(double t) {
  PathPoint p{};
  p.alpha = t, p.beta = 1 - t;
  p.alpha_dot = 1, p.beta_dot = -1;
  p.beta_beta_dot = -p.beta;
  p.wronskian = 1;
  p.kappa = 1 / t;
  p.eta = p.beta / t;
  return p;
}

// For every variance-preserving path beta beta' = -alpha alpha', hence eta = kappa (alpha^2 + beta^2) =
// kappa.
PathPoint vp_cosine_point(double t) {
  constexpr double half_pi = std::numbers::pi / 2;
  PathPoint p{};
  p.alpha = std::sin(half_pi * t), p.beta = std::sin(half_pi * (1 - t));  // sin, so that beta(1) is exactly 0
  p.alpha_dot = half_pi * p.beta, p.beta_dot = -half_pi * p.alpha;
  p.beta_beta_dot = p.beta * p.beta_dot;
  p.wronskian = half_pi;
  p.kappa = p.eta = half_pi * p.beta / p.alpha;
  return p;
}

PathPoint vp_linear_point(double t, double beta_min, double beta_max) {
  const double s = 1 - t, log_alpha = -s * (beta_min / 2 + (beta_max - beta_min) * s / 4);
  PathPoint p{};
  p.kappa = p.eta = (beta_min + (beta_max - beta_min) * s) / 2;
  p.alpha = std::exp(log_alpha), p.beta = std::sqrt(-std::expm1(2 * log_alpha));
  p.alpha_dot = p.kappa * p.alpha;
  p.beta_beta_dot = -p.alpha * p.alpha_dot;
  p.beta_dot = p.beta_beta_dot / p.beta;
  p.wronskian = p.kappa * p.alpha / p.beta;
  return p;
}

}  // namespace

PathPoint Schedule::at(double t) const {
  require(t >= 0 && t <= 1, "sde::Schedule: time ", t, " is outside [0, 1] (0 is noise, 1 is data)");
  PathPoint p{};
  switch (family) {
    case PathFamily::linear:
      p = linear_point(t);
      break;
    case PathFamily::vp_cosine:
      p = vp_cosine_point(t);
      break;
    case PathFamily::vp_linear:
      require(beta_min > 0 && beta_max >= beta_min && std::isfinite(beta_max),
              "sde::Schedule: the vp_linear path needs 0 < beta_min <= beta_max, but beta_min is ", beta_min,
              " and beta_max is ", beta_max);
      p = vp_linear_point(t, beta_min, beta_max);
      break;
  }
  p.t = t;
  p.memoryless_sigma = std::sqrt(2 * p.eta);
  return p;
}

std::string Schedule::description() const {
  if (family != PathFamily::vp_linear) return std::string(name(family));
  return sentence({"vp_linear(beta_min=", beta_min, ", beta_max=", beta_max, ")"});
}

bool operator==(const Schedule& a, const Schedule& b) {
  if (a.family != b.family) return false;
  return a.family != PathFamily::vp_linear || (a.beta_min == b.beta_min && a.beta_max == b.beta_max);
}

std::string_view name(PathFamily family) { return kFamilies[static_cast<std::size_t>(family)]; }

PathFamily path_family(std::string_view word) {
  for (std::size_t i = 0; i < kFamilies.size(); ++i)
    if (kFamilies[i] == word) return static_cast<PathFamily>(i);
  const std::string near = nearest_of(word, kFamilies);
  fail(Fault::argument,
       {"\"", word, "\" is not a path family; the families are linear, vp_linear and vp_cosine",
        near.empty() ? std::string() : "; did you mean \"" + near + "\"?"});
}

std::vector<double> uniform_grid(int steps) {
  require(steps >= 1, "sde::uniform_grid: the number of steps is ", steps, ", but at least 1 is needed");
  std::vector<double> t(static_cast<std::size_t>(steps) + 1);
  for (int k = 0; k <= steps; ++k) t[static_cast<std::size_t>(k)] = static_cast<double>(k) / steps;
  return t;
}

}  // namespace costate::sde
