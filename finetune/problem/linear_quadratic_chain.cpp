#include <costate/finetune/problem/linear_quadratic_chain.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

using Value = LinearQuadraticChain::Value;

double expectation(const Value& v, const GaussianMoments& x) {
  return v.Q * (x.variance + x.mean * x.mean) / 2 + v.b * x.mean + v.c;
}

// The tilt of a Gaussian law by e^{v/a}: log of the normaliser, and the tilted law with its KL divergence.
struct Tilt {
  GaussianMoments law;
  double log_z, kl;
};
Tilt tilted(const Value& v, const GaussianMoments& p, double a) {
  const double precision = 1 / p.variance - v.Q / a, linear = p.mean / p.variance + v.b / a;
  const GaussianMoments law{linear / precision, 1 / precision};
  const double log_z = (linear * linear / precision - p.mean * p.mean / p.variance) / 2 + v.c / a -
                       std::log(p.variance * precision) / 2;
  return {law, log_z, expectation(v, law) / a - log_z};
}

}  // namespace

LinearQuadraticChain::LinearQuadraticChain(const sde::Chain& chain, GaussianMoments data, ScalarQuadraticReward reward,
                                           LinearQuadraticOptions options)
    : reward_(reward), options_(options) {
  sde::require_one_step(chain, "LinearQuadraticChain");
  const double a = options.temperature;
  require(a > 0 && std::isfinite(a), "LinearQuadraticChain: the temperature is ", a, ", expected a positive number");
  require(data.variance > 0 && std::isfinite(data.variance) && std::isfinite(data.mean),
          "LinearQuadraticChain: the data has mean ", data.mean, " and variance ", data.variance,
          ", expected finite numbers and a positive variance");
  require(std::isfinite(reward.curvature) && std::isfinite(reward.centre) && std::isfinite(reward.slope),
          "LinearQuadraticChain: the reward has a coefficient that is not finite");
  require(options.first_step >= 0 && options.first_step <= chain.steps(), "LinearQuadraticChain: the first tuned step is ",
          options.first_step, ", expected 0 to ", chain.steps());
  const bool in_return = options.penalty == KlPenalty::in_return;
  require(in_return || !options.initial_law,
          "LinearQuadraticChain: the initial law is tuned with the penalty in the return only, whose value it is tilted by");
  require(options.first_step == 0 || !options.initial_law,
          "LinearQuadraticChain: the initial law is not tuned when the first steps are the base's");

  const std::size_t K = static_cast<std::size_t>(chain.steps());
  steps_.resize(K), values_.resize(K + 1);
  values_[K] = {-reward.curvature, reward.curvature * reward.centre + reward.slope,
                -reward.curvature * reward.centre * reward.centre / 2};
  for (std::size_t k = K; k-- > 0;) {
    const sde::AffineModel model =
        sde::gaussian_prediction(chain.prediction, chain.schedule.at(chain.t[k]), data.mean, data.variance);
    const bool controlled = static_cast<int>(k) >= options.first_step && chain.std[k] > 0;
    const Value next = values_[k + 1];
    Step& step = steps_[k];
    step = {chain.A[k] + chain.C[k] * model.slope, chain.C[k] * model.intercept, chain.std[k], 0};
    const double variance = step.s * step.s;
    if (controlled) {
      step.kappa = variance * next.Q / a;
      require(step.kappa < 1, "LinearQuadraticChain: at step ", static_cast<std::int64_t>(k), " kappa = s^2 Q/a is ",
              step.kappa, ", and from 1 on the value is infinite; raise the temperature ", a);
      const double response = variance / a / (1 - step.kappa);
      step.gain = response * next.Q * step.J, step.shift = response * (next.Q * step.h + next.b);
    }
    // The tuned step is M x + m + s e.
    const double M = step.J + step.gain, m = step.h + step.shift;
    Value& v = values_[k];
    v = {next.Q * M * M, M * (next.Q * m + next.b), next.c + next.Q * (m * m + variance) / 2 + next.b * m};
    if (in_return && controlled) {
      v.Q -= a * step.gain * step.gain / variance, v.b -= a * step.gain * step.shift / variance;
      v.c -= a * step.shift * step.shift / (2 * variance);
    }
  }
  base_ = outcome(false), tuned_ = outcome(true);
  const double total = 1 / base_.terminal.variance - values_[K].Q / a;
  require(total > 0, "LinearQuadraticChain: exp(reward/temperature) is not integrable under the chain's law of variance ",
          base_.terminal.variance, " with curvature ", reward.curvature, " and temperature ", a);
  const Tilt t = tilted(values_[K], base_.terminal, a);
  tilt_ = t.law, log_z_ = t.log_z, tilt_kl_ = t.kl;
}

LinearQuadraticChain::Outcome LinearQuadraticChain::outcome(bool tuned) const {
  Outcome o;
  const double a = options_.temperature;
  if (tuned && options_.initial_law) {
    require(values_[0].Q < a, "LinearQuadraticChain: the value at the noise has curvature ", values_[0].Q,
            ", which exp(value/temperature) cannot be integrated with; raise the temperature ", a);
    const Tilt t = tilted(values_[0], {0, 1}, a);
    o.initial = t.law, o.initial_kl = t.kl;
  }
  GaussianMoments x = o.initial;
  for (const Step& step : steps_) {
    const double gain = tuned ? step.gain : 0, shift = tuned ? step.shift : 0, variance = step.s * step.s;
    if (variance > 0) {
      const double mean = gain * x.mean + shift;
      o.path_kl += (mean * mean + gain * gain * x.variance) / (2 * variance);
    }
    const double M = step.J + gain;
    x = {M * x.mean + step.h + shift, M * M * x.variance + variance};
  }
  o.terminal = x;
  o.reward = expectation(values_.back(), x);
  o.objective = o.reward - a * (o.path_kl + o.initial_kl);
  return o;
}

double LinearQuadraticChain::max_kappa() const {
  double largest = 0;
  for (const Step& step : steps_) largest = std::max(largest, step.kappa);
  return largest;
}

double StationaryOrnsteinUhlenbeck::correlation() const { return std::exp(-horizon / 2); }
double StationaryOrnsteinUhlenbeck::initial_value(double x) const {
  const double rho = correlation();
  return b * rho * x + b * b * (1 - rho * rho) / (2 * temperature);
}
double StationaryOrnsteinUhlenbeck::control(double t) const {
  require(t >= 0 && t <= horizon, "StationaryOrnsteinUhlenbeck: the time ", t, " is outside 0 to ", horizon);
  return b / temperature * std::exp(-(horizon - t) / 2);
}
GaussianMoments StationaryOrnsteinUhlenbeck::initial() const { return {b * correlation() / temperature, 1}; }
GaussianMoments StationaryOrnsteinUhlenbeck::terminal(bool tuned_initial) const {
  const double rho = correlation();
  return {b / temperature * (tuned_initial ? 1 : 1 - rho * rho), 1};
}
double StationaryOrnsteinUhlenbeck::initial_kl() const {
  const double shift = b * correlation() / temperature;
  return shift * shift / 2;
}
double StationaryOrnsteinUhlenbeck::path_kl() const {
  const double rho = correlation();
  return b * b * (1 - rho * rho) / (2 * temperature * temperature);
}

}  // namespace costate::finetune
