// The probability path that noise takes to data: x_t = alpha(t) x_1 + beta(t) x_0 with x_0 ~ N(0, I), x_1 ~
// data, t = 0 noise and t = 1 data. Everything a sampler needs to know about the path is a function of alpha
// and beta:
//   kappa = alpha'/alpha,   eta = beta (kappa beta - beta'),   memoryless sigma = sqrt(2 eta).
// Every sigma(t) in dX = [kappa X + (sigma^2/2 + eta) grad log p_t(X)] dt + sigma dB gives the same marginals
// p_t; only sigma^2 = 2 eta also makes the fine-tuned drift the velocity of the tilted law. Reference:
// Domingo-Enrich, Drozdzal, Karrer, Chen, "Adjoint Matching" (arXiv 2409.08861), Table 1, eqs. 10-11.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace costate::sde {

// s = 1 - t is the time of the noising process. The paths vp_* have alpha^2 + beta^2 = 1; four of them are given by a
// noising rate b(s) >= 0, log alpha = -1/2 int_0^s b (Song et al., arXiv 2011.13456, eqs. 11 and 33), from beta_min at
// the data to beta_max at the noise; they are what the discrete tables of diffusion.h tend to when beta_min = T beta_start,
// beta_max = T beta_end and T grows.
enum class PathFamily {
  linear,            // alpha = t, beta = 1 - t (flow matching, optimal transport path)
  power,             // alpha = t^power, beta = 1 - t^power, power >= 1: the linear path at another speed (the "polynomial
                     // convex" scheduler of Lipman et al., arXiv 2412.06264)
  vp_linear,         // b linear in s; alpha(0) is small but not zero, here and where else b is finite
  vp_scaled_linear,  // sqrt(b) linear in s (latent diffusion)
  vp_sigmoid,        // b = beta_min + (beta_max - beta_min) sigmoid(12 s - 6)
  vp_squaredcos,     // alpha = cos(u pi/2)/cos(u_0 pi/2), u = (s + 0.008)/1.008 (Nichol and Dhariwal, arXiv 2102.09672,
                     // eq. 17, where alpha bar is the square)
  vp_cosine,         // alpha = sin(pi t/2), beta = cos(pi t/2)
  vp_table,          // alpha^2 of a table over the timesteps of a discrete diffusion model (diffusion.h), log alpha
                     // piecewise linear between them; alpha(0) is small but not zero
  edm,               // the variance-exploding process x_1 + sigma x_0 of Karras et al. (arXiv 2206.00364), divided by
                     // sqrt(1 + sigma^2) so that it starts from N(0, I): alpha = 1/sqrt(1 + sigma^2), beta = sigma alpha,
                     // sigma = sigma_max (1 - t)^rho, which makes the uniform grid that paper's eq. 5 with sigma_min = 0;
                     // alpha(0) is small but not zero. Its own x is ours times sqrt(1 + sigma^2) (edm.h)
};

// alpha^2 ("alpha bar") at timesteps 0..T-1, data first; see diffusion.h for the usual ones.
struct AlphaTable {
  std::string description;
  std::vector<double> alpha2;  // decreasing, in (0, 1)
};

// The path at one time. At the ends of [0, 1] some entries are infinite, as IEEE numbers, never NaN:
//   t = 0 where alpha(0) = 0 (linear, power, vp_cosine, vp_squaredcos): kappa = inf and eta = memoryless_sigma = inf;
//   t = 1 on every vp_ path but vp_cosine: beta_dot = -inf and wronskian = inf (beta ~ sqrt(1 - t)).
// The wronskian is 0, so that the velocity says nothing of x_1, at t = 0 on power with power > 1 and at t = 1 on edm with
// rho > 1. The combination beta_beta_dot is finite everywhere.
struct PathPoint {
  double t;
  double alpha, beta;          // signal and noise coefficients
  double alpha_dot, beta_dot;  // time derivatives
  double beta_beta_dot;        // beta beta' = (beta^2)'/2
  double wronskian;         // alpha' beta - beta' alpha > 0: the determinant of (x_1, x_0) -> (x_t, velocity)
  double kappa;             // alpha'/alpha
  double eta;               // beta (kappa beta - beta') = beta wronskian/alpha
  double memoryless_sigma;  // sqrt(2 eta)
};

// A path family with its parameters: a value, compared by value.
struct Schedule {
  PathFamily family = PathFamily::linear;
  double beta_min = 0.1;  // vp_linear, vp_scaled_linear, vp_sigmoid: noising rate at the data end (per unit time), > 0
  double beta_max = 20;   // the same: noising rate at the noise end, >= beta_min
  std::shared_ptr<const AlphaTable> table{};  // vp_table only
  double power = 2;                           // power only: >= 1
  double sigma_max = 80;                      // edm only: sigma at t = 0, > 0
  double rho = 7;                             // edm only: >= 1

  // Throws Error(argument) for t outside [0, 1] and for parameters outside their range.
  PathPoint at(double t) const;

  double alpha(double t) const { return at(t).alpha; }
  double beta(double t) const { return at(t).beta; }
  double kappa(double t) const { return at(t).kappa; }
  double eta(double t) const { return at(t).eta; }
  double memoryless_sigma(double t) const { return at(t).memoryless_sigma; }

  // "linear", "vp_linear(beta_min=0.1, beta_max=20)", or the table's own.
  std::string description() const;
};

// Equal families, and equal parameters where the family has any.
bool operator==(const Schedule& a, const Schedule& b);

std::string_view name(PathFamily family);
// The family of this name; any other word is an Error(argument) with a suggestion.
PathFamily path_family(std::string_view name);

// alpha^2 + beta^2 = 1 at every time: all families but linear and power.
bool preserves_variance(const Schedule& schedule);

// lambda = log(alpha/beta), half the logarithm of the signal-to-noise ratio, which increases with t from -inf (where
// alpha(0) = 0) to inf: the clock of exponential integrators (Lu et al., arXiv 2206.00927).
double log_snr(const PathPoint& point);
// The time at which it is `lambda`, to rounding of t; throws Error(argument) below lambda(0). inf is t = 1.
double time_of_log_snr(const Schedule& schedule, double lambda);

}  // namespace costate::sde
