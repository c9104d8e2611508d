// What the end of a sampler remembers of its beginning. Tuning by optimal control reaches the tilted law p exp(r)/Z only
// if the base sampler has forgotten X_0 when it arrives at X_1: arXiv 2409.08861, Definition 1, Proposition 1, Theorem 1.
#pragma once
#include <costate/sde/chain.h>

#include <functional>

namespace costate::sde {

// sigma(t) of dX = [kappa X + (sigma^2/2 + eta) s] dt + sigma dB, finite for 0 < t < 1.
using NoiseFunction = std::function<double(double t)>;
// That of a law on a path; throws Error(argument) for a churned one, which is a law of the levels of a grid.
NoiseFunction noise_function(const Schedule& schedule, const NoiseLaw& noise);

// Proposition 1: with sigma^2 = 2 eta + chi, X_0 and X_1 are independent if and only if for all t in (0, 1]
//   lim_{t' -> 0} alpha(t') exp(-int_t'^t chi/(2 beta^2)) = 0.
// As eta/beta^2 = (log alpha/beta)' this is alpha(t) beta(t')/beta(t) exp(-int_t'^t sigma^2/(2 beta^2)): chi's own
// singularity cancels, and at alpha(0) = 0 the condition says that int_0 sigma^2 diverges. The integral is taken over the
// octaves [t/2^{j+1}, t/2^j], j < 200, and its convergence decided by how their shares decay (ratio test, Raabe's test
// where they decay slower than any power).
struct Memorylessness {
  // The limit is 0; on a path with alpha(0) > 0, where it cannot be: it is not above alpha(0), that of sigma^2 = 2 eta.
  bool memoryless;
  double limit;          // at t = 1/2
  double power;          // where the limit is 0, it is reached as t'^power; inf: faster than that, 0: slower
  std::string sentence;  // one, with the limit or the power of t' as which it is reached
};
// Throws Error(numerical) where sigma is not finite, and where the octaves do not decide (sigma^2 ~ 1/(t log(1/t))).
Memorylessness memorylessness(const Schedule& schedule, const NoiseFunction& sigma);

// The correlation of X_from and X_to in continuous time for data N(0, variance) on each axis: exp(-int sigma^2/(2 var_t)),
// var_t = alpha^2 variance + beta^2. For sigma^2 = c 2 eta it is (y(from)/y(to))^c with y = alpha/sqrt(var_t).
double correlation(const Schedule& schedule, const NoiseFunction& sigma, double variance = 1, double from = 0,
                   double to = 1);

// All of it for a chain.
struct Memory {
  bool memoryless;       // in continuous time (for a churned chain: never; what it puts back is finite)
  bool convertible;      // a model tuned on this chain may be sampled with any noise: sigma^2 = 2 eta
  double limit;          // of Proposition 1; 0 is memoryless (NaN for a churned chain)
  double correlation;    // of X_0 and X_K on this grid for data N(0, variance): a linear reward loses the square of it
  std::string sentence;  // one, all of this
};
Memory memory_of(const Chain& chain, double variance = 1);

}  // namespace costate::sde
