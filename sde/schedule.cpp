#include <costate/sde/schedule.h>
#include <costate/sde/words.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace costate::sde {

namespace {

constexpr std::array<std::string_view, 9> kFamilies = {
    "linear", "power", "vp_linear", "vp_scaled_linear", "vp_sigmoid", "vp_squaredcos", "vp_cosine", "vp_table", "edm"};

bool has_rate(PathFamily f) {
  return f == PathFamily::vp_linear || f == PathFamily::vp_scaled_linear || f == PathFamily::vp_sigmoid;
}

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

// The linear path at time u = t^p: kappa = p/t, wronskian = u'.
PathPoint power_point(double t, double p) {
  PathPoint q{};
  const double before = std::pow(t, p - 1), rate = p * before;
  q.alpha = before * t, q.beta = t < 0.5 ? 1 - q.alpha : -std::expm1(p * std::log(t));  // no digits lost near the data
  q.alpha_dot = rate, q.beta_dot = -rate;
  q.beta_beta_dot = -q.beta * rate;
  q.wronskian = rate;
  q.kappa = p / t;
  q.eta = q.beta * q.kappa;
  return q;
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

// A variance-preserving path from log alpha and its derivative.
PathPoint vp_point(double log_alpha, double kappa) {
  PathPoint p{};
  p.kappa = p.eta = kappa;
  p.alpha = std::exp(log_alpha), p.beta = std::sqrt(-std::expm1(2 * log_alpha));
  p.alpha_dot = p.kappa * p.alpha;
  p.beta_beta_dot = -p.alpha * p.alpha_dot;
  p.beta_dot = p.beta_beta_dot / p.beta;
  p.wronskian = p.kappa * p.alpha / p.beta;
  return p;
}

// The paths of a noising rate b(s): log alpha = -(int_0^s b)/2 and kappa = b/2.
PathPoint vp_linear_point(double t, double low, double high) {
  const double s = 1 - t, slope = high - low;
  return vp_point(-s * (low / 2 + slope * s / 4), (low + slope * s) / 2);
}

PathPoint vp_scaled_linear_point(double t, double low, double high) {
  const double s = 1 - t, root = std::sqrt(low), slope = std::sqrt(high) - root, end = root + slope * s;
  return vp_point(-s * (low + root * slope * s + slope * slope * s * s / 3) / 2, end * end / 2);
}

PathPoint vp_sigmoid_point(double t, double low, double high) {
  const double s = 1 - t, u = 12 * s - 6;
  // int_0^s sigmoid(12 r - 6) dr = [log(1 + e^u) - log(1 + e^{-6})]/12; as one logarithm, so that it is exact near s = 0.
  const double integral = std::log1p((std::exp(u) - std::exp(-6.0)) / (1 + std::exp(-6.0))) / 12;
  return vp_point(-(low * s + (high - low) * integral) / 2, (low + (high - low) / (1 + std::exp(-u))) / 2);
}

// With c = pi/(2 * 1.008) the angle of the paper is pi/2 - c t: alpha = sin(c t)/sin(c), and beta^2 is the product
// sin(c (1 - t)) sin(c (1 + t))/sin^2(c), which keeps its digits at both ends.
PathPoint vp_squaredcos_point(double t) {
  constexpr double c = std::numbers::pi / (2 * 1.008);
  const double end = std::sin(c);
  PathPoint p{};
  p.alpha = std::sin(c * t) / end;
  p.beta = std::sqrt(std::sin(c * (1 - t)) * std::sin(c * (1 + t))) / end;
  p.alpha_dot = c * std::cos(c * t) / end;
  p.kappa = p.eta = p.alpha_dot / p.alpha;
  p.beta_beta_dot = -p.alpha * p.alpha_dot;
  p.beta_dot = p.beta_beta_dot / p.beta;
  p.wronskian = p.alpha_dot / p.beta;
  return p;
}

// With tan(phi) = sigma: alpha = cos(phi), beta = sin(phi), so that wronskian = -phi' and eta = kappa = -phi' tan(phi).
PathPoint edm_point(double t, double sigma_max, double rho) {
  const double s = 1 - t, before = sigma_max * std::pow(s, rho - 1), sigma = before * s, norm2 = 1 + sigma * sigma;
  PathPoint p{};
  p.alpha = 1 / std::sqrt(norm2), p.beta = sigma * p.alpha;
  p.wronskian = rho * before / norm2;
  p.kappa = p.eta = sigma * p.wronskian;
  p.alpha_dot = p.kappa * p.alpha, p.beta_dot = -p.wronskian * p.alpha;
  p.beta_beta_dot = p.beta * p.beta_dot;
  return p;
}

// Timestep i = T (1 - t) - 1, from T - 1 at t = 0 to -1, pure data, at t = 1. Between two of them the rate d
// log alpha/dt is constant; at a timestep it is that of the interval towards the data, which steps from there
// go through.
PathPoint vp_table_point(double t, const AlphaTable& table) {
  const auto count = static_cast<std::ptrdiff_t>(table.alpha2.size());
  const auto log_alpha = [&](std::ptrdiff_t i) {
    return i < 0 ? 0.0 : std::log(table.alpha2[static_cast<std::size_t>(i)]) / 2;
  };
  const double place = static_cast<double>(count) * (1 - t);  // i + 1: 0 at the data
  // A time that was computed as (i + 1)/T counts as that timestep.
  const double nearest_place = std::nearbyint(place);
  const bool at_timestep = std::abs(place - nearest_place) < 1e-9 * static_cast<double>(count);
  auto upper = static_cast<std::ptrdiff_t>(at_timestep ? nearest_place : std::ceil(place)) - 1;  // the noisier end
  const bool data_end = at_timestep && upper < 0;
  if (data_end) upper = 0;
  const double high = log_alpha(upper), low = log_alpha(upper - 1);
  const double share = data_end ? 0.0 : at_timestep ? 1.0 : place - static_cast<double>(upper);
  return vp_point(low + share * (high - low), (low - high) * static_cast<double>(count));
}

}  // namespace

PathPoint Schedule::at(double t) const {
  require(t >= 0 && t <= 1, "sde::Schedule: time ", t, " is outside [0, 1] (0 is noise, 1 is data)");
  require(!has_rate(family) || (beta_min > 0 && beta_max >= beta_min && std::isfinite(beta_max)), "sde::Schedule: the ",
          name(family), " path needs 0 < beta_min <= beta_max, but beta_min is ", beta_min, " and beta_max is ",
          beta_max);
  PathPoint p{};
  switch (family) {
    case PathFamily::linear:
      p = linear_point(t);
      break;
    case PathFamily::power:
      require(power >= 1 && std::isfinite(power),
              "sde::Schedule: the power path needs a power of at least 1, but it is ", power);
      p = power_point(t, power);
      break;
    case PathFamily::vp_linear:
      p = vp_linear_point(t, beta_min, beta_max);
      break;
    case PathFamily::vp_scaled_linear:
      p = vp_scaled_linear_point(t, beta_min, beta_max);
      break;
    case PathFamily::vp_sigmoid:
      p = vp_sigmoid_point(t, beta_min, beta_max);
      break;
    case PathFamily::vp_squaredcos:
      p = vp_squaredcos_point(t);
      break;
    case PathFamily::vp_cosine:
      p = vp_cosine_point(t);
      break;
    case PathFamily::vp_table:
      require(table && !table->alpha2.empty(),
              "sde::Schedule: the vp_table path has no table; take one from diffusion_schedule");
      p = vp_table_point(t, *table);
      break;
    case PathFamily::edm:
      require(sigma_max > 0 && std::isfinite(sigma_max) && rho >= 1 && std::isfinite(rho),
              "sde::Schedule: the edm path needs sigma_max > 0 and rho >= 1, but sigma_max is ", sigma_max,
              " and rho is ", rho);
      p = edm_point(t, sigma_max, rho);
      break;
  }
  p.t = t;
  p.memoryless_sigma = std::sqrt(2 * p.eta);
  return p;
}

std::string Schedule::description() const {
  if (family == PathFamily::vp_table && table) return table->description;
  if (has_rate(family)) return sentence({name(family), "(beta_min=", beta_min, ", beta_max=", beta_max, ")"});
  if (family == PathFamily::power) return sentence({"power(power=", power, ")"});
  if (family == PathFamily::edm) return sentence({"edm(sigma_max=", sigma_max, ", rho=", rho, ")"});
  return std::string(name(family));
}

bool operator==(const Schedule& a, const Schedule& b) {
  if (a.family != b.family) return false;
  if (a.family == PathFamily::vp_table)
    return a.table == b.table || (a.table && b.table && a.table->alpha2 == b.table->alpha2);
  if (a.family == PathFamily::power) return a.power == b.power;
  if (a.family == PathFamily::edm) return a.sigma_max == b.sigma_max && a.rho == b.rho;
  return !has_rate(a.family) || (a.beta_min == b.beta_min && a.beta_max == b.beta_max);
}

std::string_view name(PathFamily family) { return kFamilies[static_cast<std::size_t>(family)]; }

PathFamily path_family(std::string_view word) {
  return static_cast<PathFamily>(word_index(word, kFamilies, "a path family"));
}

bool preserves_variance(const Schedule& schedule) {
  return schedule.family != PathFamily::linear && schedule.family != PathFamily::power;
}

double log_snr(const PathPoint& p) { return std::log(p.alpha) - std::log(p.beta); }

double time_of_log_snr(const Schedule& schedule, double lambda) {
  const double first = log_snr(schedule.at(0));
  // A level that was computed from the path's own first one counts as that.
  if (std::isfinite(first) && std::abs(lambda - first) <= 1e-12 * std::abs(first)) return 0;
  require(lambda > first, "sde::time_of_log_snr: the ", schedule.description(),
          " path starts at log(alpha/beta) = ", first, ", above ", lambda);
  double low = 0, high = 1;  // bisection: monotone, and no derivative is finite at both ends
  for (double middle = 0.5; low < middle && middle < high; middle = low + (high - low) / 2)
    (log_snr(schedule.at(middle)) < lambda ? low : high) = middle;
  return high;
}

}  // namespace costate::sde
