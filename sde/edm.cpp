#include <costate/sde/chain_builder.h>
#include <costate/sde/edm.h>

#include <algorithm>
#include <numbers>

namespace costate::sde {

EdmPreconditioning edm_preconditioning(double sigma, double sigma_data) {
  require(sigma >= 0 && std::isfinite(sigma) && sigma_data > 0 && std::isfinite(sigma_data),
          "sde::edm_preconditioning: sigma is ", sigma, " and sigma_data ", sigma_data,
          ", expected sigma >= 0 and sigma_data > 0");
  const double norm = std::hypot(sigma, sigma_data);
  return {sigma_data * sigma_data / (norm * norm), sigma * sigma_data / norm, 1 / norm, std::log(sigma) / 4};
}

Affine edm_x1(const PathPoint& p, double sigma_data) {
  require(p.alpha > 0, "sde::edm_x1: alpha(t) = 0 at t = ", p.t, ": x_t is pure noise, of no finite level");
  const EdmPreconditioning c = edm_preconditioning(p.beta / p.alpha, sigma_data);
  return {c.c_skip / p.alpha, c.c_out};
}

Chain churned(const Schedule& schedule, const std::vector<double>& t, const Churn& churn, Parametrisation prediction) {
  require(churn.S_churn >= 0 && std::isfinite(churn.S_churn) && churn.S_tmin >= 0 && churn.S_tmax >= churn.S_tmin &&
              churn.S_noise >= 0 && std::isfinite(churn.S_noise),
          "sde::churned: S_churn is ", churn.S_churn, ", S_tmin ", churn.S_tmin, ", S_tmax ", churn.S_tmax,
          ", S_noise ", churn.S_noise, "; expected none below 0 and S_tmin <= S_tmax");
  check_grid(t);
  require(schedule.alpha(t[0]) > 0, "sde::churned: alpha is 0 at t = ", t[0], " on the ", schedule.description(),
          " path, where the level sigma = beta/alpha is infinite; give a grid that starts above 0, the karras one for "
          "instance");
  const std::size_t steps = t.size() - 1;
  const double gamma = std::min(churn.S_churn / static_cast<double>(steps), std::numbers::sqrt2 - 1);
  Chain chain{
      schedule, {NoiseLaw::Kind::churned, churn.S_churn, churn}, Step::exponential, prediction, {t[0]}, {}, {}, {}, {}};
  PathPoint raised = schedule.at(t[0]);
  for (std::size_t k = 0; k < steps; ++k) {
    const PathPoint next = schedule.at(t[k + 1]);
    const double level = next.beta / next.alpha, ratio = level * raised.alpha / raised.beta;
    const bool raise = gamma > 0 && k + 1 < steps && level >= churn.S_tmin && level <= churn.S_tmax;
    PathPoint next_raised = next;
    if (raise) {
      const double wanted = (1 + gamma) * level;
      const PathPoint noise = schedule.at(0);
      require(wanted * noise.alpha <= noise.beta, "sde::churned: level ", k + 1, ", sigma = ", level,
              ", would be raised to ", wanted, ", but the ", schedule.description(), " path starts at ",
              noise.beta / noise.alpha, "; lower S_tmax");
      next_raised = schedule.at(time_of_log_snr(schedule, -std::log(wanted)));
    }
    // In the variable x/alpha: x' = ratio x + (1 - ratio) x1, then the noise.
    const Affine mean{next_raised.alpha * ratio / raised.alpha, next_raised.alpha * (1 - ratio)};
    const Affine in_prediction = compose(mean, conversion(prediction, Parametrisation::x1, raised));
    chain.A.push_back(in_prediction.x), chain.C.push_back(in_prediction.prediction);
    chain.std.push_back(raise ? churn.S_noise * next_raised.alpha * level * std::sqrt(gamma * (2 + gamma)) : 0.0);
    chain.t.push_back(next_raised.t);
    raised = next_raised;
  }
  chain.description = describe("churned Euler step", chain);
  return chain;
}

}  // namespace costate::sde
