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

enum class PathFamily {
  linear,     // alpha = t, beta = 1 - t (flow matching, optimal transport path)
  vp_linear,  // alpha = exp(-beta_min s/2 - (beta_max - beta_min) s^2/4), s = 1 - t, alpha^2 + beta^2 = 1
              // (Song et al., arXiv 2011.13456, eq. 33, with time reversed); alpha(0) is small but not zero
  vp_cosine,  // alpha = sin(pi t/2), beta = cos(pi t/2)
  vp_table,   // alpha^2 of a table over the timesteps of a discrete diffusion model (diffusion.h), log alpha
             // piecewise linear between them, alpha^2 + beta^2 = 1; alpha(0) is small but not zero
};

// alpha^2 ("alpha bar") at timesteps 0..T-1, data first; see diffusion.h for the usual ones.
struct AlphaTable {
  std::string description;
  std::vector<double> alpha2;  // decreasing, in (0, 1)
};

// The path at one time. At the ends of [0, 1] some entries are infinite, as IEEE numbers, never NaN:
//   t = 0 on linear and vp_cosine: kappa = eta = memoryless_sigma = inf (alpha = 0);
//   t = 1 on vp_linear and vp_table: beta_dot = -inf and wronskian = inf (beta ~ sqrt(beta_min (1 - t))).
// The combination beta_beta_dot is finite everywhere.
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
  double beta_min = 0.1;  // vp_linear only: noising rate at the data end (per unit time), > 0
  double beta_max = 20;   // vp_linear only: noising rate at the noise end, >= beta_min
  std::shared_ptr<const AlphaTable> table{};  // vp_table only

  // Throws Error(argument) for t outside [0, 1] and for parameters outside their range.
  PathPoint at(double t) const;

  double alpha(double t) const { return at(t).alpha; }
  double beta(double t) const { return at(t).beta; }
  double kappa(double t) const { return at(t).kappa; }
  double eta(double t) const { return at(t).eta; }
  double memoryless_sigma(double t) const { return at(t).memoryless_sigma; }

  // "linear", "vp_cosine" or "vp_linear(beta_min=0.1, beta_max=20)", or the table's own.
  std::string description() const;
};

// Equal families, and equal parameters where the family has any.
bool operator==(const Schedule& a, const Schedule& b);

std::string_view name(PathFamily family);
// The family called "linear", "vp_linear", "vp_cosine" or "vp_table"; any other word is an Error(argument)
// with a suggestion.
PathFamily path_family(std::string_view name);

// The K+1 times 0, 1/K, ..., 1 (the ends exactly). Throws unless K >= 1.
std::vector<double> uniform_grid(int steps);

}  // namespace costate::sde
