#include <costate/sde/chain.h>
#include <costate/sde/diffusion.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace costate::sde {

namespace {

// The variance beta^2 - (alpha beta'/alpha')^2 of the noising process q(x_t | x_{t'}), as a product: the
// difference of squares would lose the digits of a short step twice.
double noising_variance(const PathPoint& p, const PathPoint& next) {
  const double m = p.alpha / next.alpha * next.beta;
  return (p.beta - m) * (p.beta + m);
}

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

// Fills a chain from step_of(point, next point, h) -> {A, C, std}.
struct Coefficients {
  double A, C, std;
};
template <class StepOf>
Chain build(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction,
            NoiseLaw noise, Step step, const StepOf& step_of) {
  check_grid(t);
  const char* const what = step == Step::exact  ? "exact memoryless step"
                           : noise.value == 0 ? "Euler step"
                                              : "Euler-Maruyama step";
  Chain chain{schedule, noise, step, prediction, t, {}, {}, {}, {}};
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const Coefficients c = step_of(schedule.at(t[k]), schedule.at(t[k + 1]), t[k + 1] - t[k]);
    require(std::isfinite(c.A) && std::isfinite(c.C) && std::isfinite(c.std), "sde::Chain: the ", what,
            " is singular at t = ", t[k], " on the ", schedule.description(), " path; give an offset or a grid that starts above 0");
    chain.A.push_back(c.A), chain.C.push_back(c.C), chain.std.push_back(c.std);
  }
  chain.description = describe(what, chain);
  return chain;
}

}  // namespace

std::string NoiseLaw::description() const {
  if (kind == Kind::constant) return sentence({"sigma = ", value});
  if (value == 0) return "sigma = 0";
  if (value == 1) return "sigma^2 = 2 eta";
  return sentence({"sigma^2 = ", value, " * 2 eta"});
}

bool operator==(const NoiseLaw& a, const NoiseLaw& b) {
  return a.value == b.value && (a.kind == b.kind || a.value == 0);  // sigma = 0 is one law under both names
}

Chain exact_memoryless(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  return build(
      schedule, t, prediction, NoiseLaw{}, Step::exact,
      [&](const PathPoint& p, const PathPoint& next, double) {
        const double beta2 = p.beta * p.beta, q = noising_variance(p, next);
        const Affine mean{p.alpha / next.alpha * next.beta * next.beta / beta2, next.alpha * q / beta2};
        const Affine in_prediction = compose(mean, conversion(prediction, Parametrisation::x1, p));
        return Coefficients{in_prediction.x, in_prediction.prediction, next.beta * std::sqrt(q) / p.beta};
      });
}

Chain ddim(const Schedule& schedule, const std::vector<double>& t, double eta, Parametrisation prediction) {
  require(eta >= 0 && eta <= 1, "sde::ddim: eta is ", eta, ", expected 0 to 1");
  return build(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, eta * eta}, Step::exact,
               [&](const PathPoint& p, const PathPoint& next, double) {
                 const double q = noising_variance(p, next);
                 const double s = eta * next.beta * std::sqrt(q) / p.beta;
                 const double rest = std::sqrt(std::max(0.0, (next.beta - s) * (next.beta + s)));
                 const Affine x1 = conversion(prediction, Parametrisation::x1, p);
                 const Affine noise = conversion(prediction, Parametrisation::epsilon, p);
                 return Coefficients{next.alpha * x1.x + rest * noise.x,
                                     next.alpha * x1.prediction + rest * noise.prediction, s};
               });
}

Chain ddpm_fixed_large(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  require(schedule.family != PathFamily::linear,
          "sde::ddpm_fixed_large: defined on variance-preserving paths, but the path is linear");
  Chain chain = exact_memoryless(schedule, t, prediction);
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const PathPoint p = schedule.at(t[k]), next = schedule.at(t[k + 1]);
    chain.std[k] = next.beta == 0 ? 0.0 : std::sqrt(noising_variance(p, next));
  }
  chain.description = describe("DDPM step of fixed_large variance", chain);
  return chain;
}

Chain euler_maruyama(const Schedule& schedule, const std::vector<double>& t, Offset offset,
                     Parametrisation prediction, double c) {
  require(c > 0 && std::isfinite(c), "sde::euler_maruyama: sigma^2 = c * 2 eta needs c > 0, but c is ", c,
          "; for sigma = 0 take euler_ode");
  return build(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, c}, Step::euler_maruyama,
               [&](const PathPoint& p, const PathPoint&, double h) {
                 const double alpha = offset == Offset::none ? p.alpha : p.alpha + h * p.alpha_dot;
                 const double beta = offset == Offset::both ? p.beta - h * p.beta_dot : p.beta;
                 const double kappa = p.alpha_dot / alpha, eta = beta * p.wronskian / alpha;
                 const Affine mean{1 - h * c * kappa, h * (1 + c)};
                 const Affine in_prediction =
                     compose(mean, conversion(prediction, Parametrisation::velocity, p));
                 return Coefficients{in_prediction.x, in_prediction.prediction, std::sqrt(h * c * 2 * eta)};
               });
}

Chain euler_maruyama_constant(const Schedule& schedule, const std::vector<double>& t, double sigma,
                              Parametrisation prediction) {
  require(sigma > 0 && std::isfinite(sigma),
          "sde::euler_maruyama_constant: sigma must be positive, but it is ", sigma,
          "; for sigma = 0 take euler_ode");
  return build(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::constant, sigma}, Step::euler_maruyama,
               [&](const PathPoint& p, const PathPoint&, double h) {
                 const Affine v = conversion(prediction, Parametrisation::velocity, p);
                 const Affine s = conversion(prediction, Parametrisation::score, p);
                 const double half = sigma * sigma / 2;
                 return Coefficients{1 + h * (v.x + half * s.x), h * (v.prediction + half * s.prediction),
                             std::sqrt(h) * sigma};
               });
}

Chain euler_ode(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  return build(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, 0}, Step::euler_maruyama,
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
  double m = 0, v = 1, covariance = 1;  // of X_k, and of X_0 with X_k
  for (std::size_t k = 0; k < chain.A.size(); ++k) {
    const AffineModel model =
        gaussian_prediction(chain.prediction, chain.schedule.at(chain.t[k]), mean, variance);
    const double slope = chain.A[k] + chain.C[k] * model.slope;
    m = slope * m + chain.C[k] * model.intercept;
    v = slope * slope * v + chain.std[k] * chain.std[k];
    covariance *= slope;
  }
  return {m, v, covariance / std::sqrt(v)};
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
  if (trained.convertible())
    return verdict(
        true, {"The model was tuned with sigma^2 = 2 eta, so that its prediction is that of the tilted law ",
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
