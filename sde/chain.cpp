#include <costate/sde/chain_builder.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace costate::sde {

void check_grid(const std::vector<double>& t) {
  require(t.size() >= 2, "sde::Chain: the time grid has ", t.size(), " times, but one step needs 2");
  for (std::size_t k = 0; k < t.size(); ++k) {
    require(t[k] >= 0 && t[k] <= 1, "sde::Chain: time ", k, " of the grid is ", t[k], ", outside [0, 1]");
    require(k == 0 || t[k] > t[k - 1], "sde::Chain: the time grid must increase, but time ", k, " is ", t[k],
            " after ", t[k - (k > 0)]);
  }
}

std::string describe(const char* step, const Chain& chain) {
  return sentence({step, ", ", chain.noise.description(), ", ", chain.schedule.description(), " path, ",
                   chain.steps(), " steps, ", name(chain.prediction), " prediction"});
}

namespace {
bool same(double a, double b) { return std::abs(a - b) <= 1e-12 * std::max(std::abs(a), std::abs(b)); }
}  // namespace

bool NoiseLaw::convertible() const { return kind == Kind::scaled && same(value, 1); }

std::string NoiseLaw::description() const {
  if (kind == Kind::constant) return sentence({"sigma = ", value});
  if (kind == Kind::churned && value > 0)
    return sentence({"S_churn = ", churn.S_churn, " for sigma in [", churn.S_tmin, ", ", churn.S_tmax,
                     "], S_noise = ", churn.S_noise});
  if (value == 0) return "sigma = 0";
  if (convertible()) return "sigma^2 = 2 eta";
  return sentence({"sigma^2 = ", value, " * 2 eta"});
}

bool operator==(const NoiseLaw& a, const NoiseLaw& b) {
  if (a.value == 0 && b.value == 0) return true;  // sigma = 0 is one law under all names
  return same(a.value, b.value) && a.kind == b.kind && (a.kind != NoiseLaw::Kind::churned || a.churn == b.churn);
}

void require_one_step(const Chain& chain, const char* what) {
  require(!chain.multistep(), what, ": the chain '", chain.description,
          "' is a multistep method, whose step also depends on the state and the prediction before; a chain of single "
          "steps is expected");
}

Chain exact_memoryless(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  return build_chain(
      schedule, t, prediction, NoiseLaw{}, Step::exact, "exact memoryless step",
      [&](const PathPoint& p, const PathPoint& next, double) {
        const double beta2 = p.beta * p.beta, q = noising_variance(p, next);
        const Affine mean{p.alpha / next.alpha * next.beta * next.beta / beta2, next.alpha * q / beta2};
        const Affine in_prediction = compose(mean, conversion(prediction, Parametrisation::x1, p));
        return Coefficients{in_prediction.x, in_prediction.prediction, next.beta * std::sqrt(q) / p.beta};
      });
}

Chain euler_maruyama(const Schedule& schedule, const std::vector<double>& t, Offset offset, Parametrisation prediction,
                     double c) {
  require(c > 0 && std::isfinite(c), "sde::euler_maruyama: sigma^2 = c * 2 eta needs c > 0, but c is ", c,
          "; for sigma = 0 take euler_ode");
  return build_chain(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, c}, Step::euler_maruyama,
                     "Euler-Maruyama step", [&](const PathPoint& p, const PathPoint&, double h) {
                       const double alpha = offset == Offset::none ? p.alpha : p.alpha + h * p.alpha_dot;
                       const double beta = offset == Offset::both ? p.beta - h * p.beta_dot : p.beta;
                       const double kappa = p.alpha_dot / alpha, eta = beta * p.wronskian / alpha;
                       const Affine mean{1 - h * c * kappa, h * (1 + c)};
                       const Affine in_prediction = compose(mean, conversion(prediction, Parametrisation::velocity, p));
                       return Coefficients{in_prediction.x, in_prediction.prediction, std::sqrt(h * c * 2 * eta)};
                     });
}

Chain euler_maruyama_constant(const Schedule& schedule, const std::vector<double>& t, double sigma,
                              Parametrisation prediction) {
  require(sigma > 0 && std::isfinite(sigma), "sde::euler_maruyama_constant: sigma must be positive, but it is ", sigma,
          "; for sigma = 0 take euler_ode");
  return build_chain(
      schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::constant, sigma}, Step::euler_maruyama, "Euler-Maruyama step",
      [&](const PathPoint& p, const PathPoint&, double h) {
        const Affine v = conversion(prediction, Parametrisation::velocity, p);
        const Affine s = conversion(prediction, Parametrisation::score, p);
        const double half = sigma * sigma / 2;
        return Coefficients{1 + h * (v.x + half * s.x), h * (v.prediction + half * s.prediction), std::sqrt(h) * sigma};
      });
}

Chain flow_sde(const Schedule& schedule, const std::vector<double>& t, double a, Parametrisation prediction) {
  require(a > 0 && std::isfinite(a), "sde::flow_sde: a must be positive, but it is ", a,
          "; for sigma = 0 take euler_ode");
  return build_chain(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, a * a / 2}, Step::euler_maruyama,
                     "flow SDE step", [&](const PathPoint& p, const PathPoint& next, double h) {
                       const double variance = a * a * p.beta * p.wronskian / (p.alpha == 0 ? next.alpha : p.alpha);
                       const Affine v = conversion(prediction, Parametrisation::velocity, p);
                       const Affine s = conversion(prediction, Parametrisation::score, p);
                       return Coefficients{1 + h * (v.x + variance / 2 * s.x),
                                           h * (v.prediction + variance / 2 * s.prediction), std::sqrt(h * variance)};
                     });
}

Chain euler_ode(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  return build_chain(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, 0}, Step::euler_maruyama, "Euler step",
               [&](const PathPoint& p, const PathPoint&, double h) {
                 const Affine v = conversion(prediction, Parametrisation::velocity, p);
                 return Coefficients{1 + h * v.x, h * v.prediction, 0.0};
               });
}

Affine denoised_endpoint(const Chain& chain) {
  return conversion(chain.prediction, Parametrisation::x1, chain.schedule, chain.t[chain.t.size() - 2]);
}

// All four posterior means from x_t = alpha x_1 + beta x_0 with x_1 ~ N(mean, variance), without a division
// by alpha or beta: with total = alpha^2 variance + beta^2 and r = (x - alpha mean)/total, E[x_1] = mean +
// alpha variance r, E[x_0] = beta r, v = alpha' mean + (alpha alpha' variance + beta beta') r, s = -r.
AffineModel gaussian_prediction(Parametrisation prediction, const PathPoint& p, double mean,
                                double variance) {
  require(variance > 0, "sde::gaussian_prediction: the data variance must be positive, but it is ", variance);
  const double total = p.alpha * p.alpha * variance + p.beta * p.beta;
  double slope = 0, constant = 0;
  switch (prediction) {
    case Parametrisation::x1:
      slope = p.alpha * variance / total, constant = mean;
      break;
    case Parametrisation::epsilon:
      slope = p.beta / total;
      break;
    case Parametrisation::score:
      slope = -1 / total;
      break;
    case Parametrisation::v_prediction:
      slope = p.alpha * p.beta * (1 - variance) / total, constant = -p.beta * mean;
      break;
    case Parametrisation::velocity:
      slope = (p.alpha * p.alpha_dot * variance + p.beta_beta_dot) / total, constant = p.alpha_dot * mean;
      break;
  }
  return {slope, constant - slope * p.alpha * mean};
}

GaussianLaw gaussian_law(const Chain& chain, double mean, double variance) {
  // Of (X_k, X_{k-1}): means, variances, their covariance, and their covariances with X_0.
  struct Moments {
    double mean = 0, variance = 0, initial = 0;
  } now{0, 1, 1}, before;
  double both = 0;
  AffineModel previous{0, 0};
  for (std::size_t k = 0; k < chain.A.size(); ++k) {
    const AffineModel model =
        gaussian_prediction(chain.prediction, chain.schedule.at(chain.t[k]), mean, variance);
    const double a = chain.A[k] + chain.C[k] * model.slope;
    double b = 0, constant = chain.C[k] * model.intercept;
    if (chain.multistep())
      b = chain.B[k] + chain.D[k] * previous.slope, constant += chain.D[k] * previous.intercept;
    const Moments next{a * now.mean + b * before.mean + constant,
                       a * a * now.variance + b * (2 * a * both + b * before.variance) + chain.std[k] * chain.std[k],
                       a * now.initial + b * before.initial};
    both = a * now.variance + b * both;
    before = now, now = next, previous = model;
  }
  return {now.mean, now.variance, now.initial / std::sqrt(now.variance)};
}

double residual_correlation(const Chain& chain, double variance) {
  return gaussian_law(chain, 0, variance).correlation;
}

double constant_sigma_correlation(double sigma, double variance) {
  return std::exp(-std::numbers::pi * sigma * sigma / (4 * std::sqrt(variance)));
}

Verdict may_sample_with(const Chain& trained, const Chain& other) {
  const auto verdict = [](bool valid, std::initializer_list<Piece> pieces) {
    return Verdict{valid, sentence(pieces)};
  };
  if (!(trained.schedule == other.schedule))
    return verdict(false, {"The model was tuned on the ", trained.schedule.description(),
                           " path and cannot be sampled on the ", other.schedule.description(),
                           " path: its time and scale mean something else there."});
  if (trained.prediction != other.prediction)
    return verdict(false,
                   {"The model predicts ", name(trained.prediction), ", but this sampler's tables multiply ",
                    name(other.prediction), ": build the sampler for ", name(trained.prediction), "."});
  if (trained.noise == other.noise)
    return verdict(true, {"Training and sampling use the same noise, ", trained.noise.description(), "."});
  if (other.noise.kind == NoiseLaw::Kind::churned && other.noise.churn.S_noise != 1)
    return verdict(false,
                   {"The sampler puts back ", other.noise.churn.S_noise,
                    " times the noise that its next step takes away, which keeps no marginals: expected S_noise = 1."});
  if (trained.convertible())
    return verdict(true, {"The model was tuned with sigma^2 = 2 eta, so that its prediction is that of the tilted law ",
                          "and any noise samples it (Theorem 1), ", other.noise.description(), " included."});
  if (trained.memoryless())
    return verdict(
        false, {"The model was tuned with ", trained.noise.description(),
                ", which is memoryless but does not convert: only sigma^2 = 2 eta lets another noise (here ",
                other.noise.description(), ") sample the same tilted law (Theorem 1)."});
  return verdict(false,
                 {"The model was tuned with ", trained.noise.description(),
                  " and is a drift correction for that noise only; ", "sampling it with ",
                  other.noise.description(), " has another law (Theorem 1: only sigma^2 = 2 eta converts)."});
}

}  // namespace costate::sde
