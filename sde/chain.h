// Every sampler as a Gaussian chain: with x_0 ~ N(0, I) and a network prediction,
//   mean_k(x) = A_k x + C_k prediction(x, t_k),   x_{k+1} = mean_k(x_k) + std_k e_k,   e_k ~ N(0, I),
// for k = 0..K-1.
// Objectives read (x_k, mean shift, std_k, e_k) and never learn which sampler they tune: for two predictions
// on the same chain the mean shift is d_k = C_k (tuned - base), the discrete control d_k/std_k (no further
// factor of the step), and the lean adjoint recursion a_k = A_k a_{k+1} + C_k (d prediction/d x)^T a_{k+1}.
// Multistep methods (exponential.h) add B_k x_{k-1} + D_k prediction(x_{k-1}, t_{k-1}) to the mean of step k > 0.
// The underlying stochastic differential equation is dX = [v + (sigma^2/2) s] dt + sigma dB with s the score,
// i.e. dX = [kappa X + (sigma^2/2 + eta) s] dt + sigma dB: arXiv 2409.08861, eqs. 10-11, 40, 219, 236.
#pragma once
#include <costate/sde/grid.h>
#include <costate/sde/parametrisation.h>
#include <costate/sde/schedule.h>

#include <limits>
#include <string>
#include <vector>

namespace costate::sde {

// How much noise the stochastic sampler of Karras et al. (arXiv 2206.00364, Algorithm 2) puts back, in its letters; S_tmin
// and S_tmax bound the levels sigma = beta/alpha (the noise of x_1 + sigma x_0) at which it does.
struct Churn {
  double S_churn = 0, S_tmin = 0, S_tmax = std::numeric_limits<double>::infinity(), S_noise = 1;
  bool operator==(const Churn&) const = default;
};

// sigma(t) of the sampled equation.
struct NoiseLaw {
  enum class Kind {
    scaled,    // sigma^2 = value * 2 eta: 1 is the memoryless law, 0 the ordinary differential equation
    constant,  // sigma = value
    churned,   // what `churn` puts back at the levels of the grid; value is S_churn
  };
  Kind kind = Kind::scaled;
  double value = 1;
  Churn churn{};  // churned only

  // X_0 and X_1 independent in continuous time on a path with alpha(0) = 0: sigma^2 = c 2 eta with any c > 0
  // (Proposition 1: alpha(t') exp(-int (sigma^2 - 2 eta)/(2 beta^2)) ~ alpha(t')^c must vanish at the noise
  // end). Where alpha(0) > 0 that bounds the correlation from below. Any other sigma(t): memory.h.
  bool memoryless() const { return kind == Kind::scaled && value > 0; }
  // sigma^2 = 2 eta exactly (Theorem 1): what is tuned under this law may be sampled with any other.
  bool convertible() const;
  std::string description() const;
};
// Equal to rounding: a^2/2 and eta^2 may be the same number on paper.
bool operator==(const NoiseLaw& a, const NoiseLaw& b);

// How Euler-Maruyama avoids kappa(0) = sigma(0) = infinity, in terms of the local step h = t_{k+1} - t_k.
enum class Offset {
  none,         // kappa = alpha'/alpha and sigma as they are; refused where alpha(t_k) = 0
  denominator,  // alpha in the denominators of kappa and eta is replaced by alpha + h alpha'
  both,         // and beta in eta by beta - h beta' as well
};
// alpha + h alpha' and beta - h beta' are the path's tangents one step ahead and one step back. On the linear
// path they are t + h and 1 - t + h, so that `both` is the paper's kappa = 1/(t + h), sigma^2 = 2 (1 - t +
// h)/(t + h) (eq. 236). The extra beta only gives the control some leeway in the last steps; `denominator` is
// closer to the base marginals.

// What one step is a discretisation of.
enum class Step : std::uint8_t {
  exact,           // the transition law itself, given the prediction
  euler_maruyama,  // x + h drift(x, t_k) + sqrt(h) sigma(t_k) e; without noise, Euler's step
  exponential,     // the part linear in x exactly, the estimate of x_1 by a polynomial in log(alpha/beta)
};

// One sampler: K steps, tables in double precision, to be rounded once by who applies them.
struct Chain {
  Schedule schedule;
  NoiseLaw noise;
  Step step = Step::exact;
  Parametrisation prediction = Parametrisation::velocity;  // of the network that C_k multiplies
  // (K+1): the times at which the network is asked, and the last one; increasing, t[0] that of the noise. (A churned chain
  // may step back once, where churning sets in.)
  std::vector<double> t;
  std::vector<double> A, C, std;                           // (K) each; std[k] >= 0
  std::string description;                                 // one line for reports
  // Multistep methods: (K) each, of x_{k-1} and of its prediction, 0 at k = 0; empty for methods of one step. B is 0
  // throughout when the network predicts what the method extrapolates.
  std::vector<double> B{}, D{};

  int steps() const { return static_cast<int>(A.size()); }
  bool memoryless() const { return noise.memoryless(); }
  bool convertible() const { return noise.convertible(); }
  bool multistep() const { return !D.empty(); }
};

// Throws Error(argument) for a multistep chain, on behalf of `what`, which reads A, C and std alone.
void require_one_step(const Chain& chain, const char* what);

// The builders below take a grid of K+1 >= 2 strictly increasing times in [0, 1] (uniform_grid(K) for
// instance; a grid that starts above 0 is allowed and still starts from N(0, I)). They throw Error(argument)
// for another grid and where `prediction` is singular at a grid time (epsilon and score at alpha = 0: use
// velocity or x1, a vp_linear path, or a grid that starts above 0).

// The reversal of the noising process q(x_{t_k} | x_{t_{k+1}}) with the data replaced by its estimate: with
// ' for t_{k+1} and q = beta^2 - (alpha/alpha')^2 beta'^2,
//   mean = (alpha/alpha')(beta'^2/beta^2) x + (alpha' q/beta^2) x1,   std^2 = beta'^2 q/beta^2.
// The DDPM ancestral step on any path: no singularity, mean and std free of x_0 at t = 0 when alpha(0) = 0,
// and std = 0 in the step that reaches t = 1, where there is no control.
Chain exact_memoryless(const Schedule& schedule, const std::vector<double>& t,
                       Parametrisation prediction = Parametrisation::velocity);

// Euler-Maruyama for sigma^2 = c 2 eta, c > 0:  mean = x + h [v + c (v - kappa x)],  std^2 = h c 2 eta, with
// kappa and eta offset as `offset` says. c = 1 is the paper's sampler, mean = x + h (2 v - kappa x).
Chain euler_maruyama(const Schedule& schedule, const std::vector<double>& t, Offset offset = Offset::both,
                     Parametrisation prediction = Parametrisation::velocity, double c = 1);

// Euler-Maruyama for constant sigma > 0: mean = x + h [v + (sigma^2/2) s], std^2 = h sigma^2. Nothing is
// singular at t = 0 (the score of pure noise is -x), so that no offset is taken.
Chain euler_maruyama_constant(const Schedule& schedule, const std::vector<double>& t, double sigma,
                              Parametrisation prediction = Parametrisation::velocity);

// The probability-flow equation dX = v dt by Euler steps: std = 0.
Chain euler_ode(const Schedule& schedule, const std::vector<double>& t,
                Parametrisation prediction = Parametrisation::velocity);

// Flow-GRPO's sampler (Liu et al., arXiv 2505.05470): Euler-Maruyama for sigma^2 = a^2 eta, which on the linear path is
// a^2 (1 - t)/t; where alpha(t_0) = 0 the first step takes the alpha of t_1 in the denominator of eta, and nothing else
// is offset. a = sqrt(2) is the memoryless law; the paper's code has a = 0.7. Throws unless a > 0 (0: euler_ode).
Chain flow_sde(const Schedule& schedule, const std::vector<double>& t, double a = 0.7,
               Parametrisation prediction = Parametrisation::velocity);

// The noiseless estimate of x_1 from (x, prediction) at time t_{K-1}: x + (1 - t) v on the linear path.
// Rewards that dislike noise take their terminal gradient there (arXiv 2409.08861, Appendix G.1).
Affine denoised_endpoint(const Chain& chain);

// The law of X_K when the data is N(mean, variance) in one dimension and the network is exact: the prediction
// is then affine in x and the chain a linear recursion, carried out without sampling.
struct GaussianLaw {
  double mean, variance;
  double correlation;  // of X_0 and X_K
};
GaussianLaw gaussian_law(const Chain& chain, double mean, double variance);

// The exact prediction x -> slope x + intercept for data N(mean, variance) at a point of the path.
struct AffineModel {
  double slope, intercept;
};
AffineModel gaussian_prediction(Parametrisation prediction, const PathPoint& point, double mean,
                                double variance);

// Correlation of X_0 and X_K that this chain leaves when the data is N(0, variance): 0 for a perfectly
// memoryless one. A reward tilt through a chain with correlation rho on Gaussian data loses the share rho^2
// of the mean shift.
double residual_correlation(const Chain& chain, double variance = 1);

// The same in continuous time for constant sigma on the linear path: exp(-int_0^1 sigma^2/(2 var_t) dt) with
// var_t = t^2 variance + (1-t)^2, which is exp(-pi sigma^2/(4 sqrt(variance))).
double constant_sigma_correlation(double sigma, double variance = 1);

// Whether a model tuned under `trained` may be sampled with `other`, and why (one sentence in both cases).
// Same path and same prediction are needed always; another noise law only if the trained one is convertible
// (Theorem 1), and if it keeps the marginals (churning with S_noise != 1 does not). The step and the grid may be any.
struct Verdict {
  bool valid;
  std::string sentence;
  explicit operator bool() const { return valid; }
};
Verdict may_sample_with(const Chain& trained, const Chain& other);

}  // namespace costate::sde
