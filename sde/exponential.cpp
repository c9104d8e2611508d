#include <costate/sde/chain_builder.h>
#include <costate/sde/exponential.h>

namespace costate::sde {
namespace {

constexpr NoiseLaw kNoNoise{NoiseLaw::Kind::scaled, 0};

// alpha' - alpha beta'/beta = alpha' (1 - e^{-h}): the weight of x_1 in a step.
double weight_of_x1(const PathPoint& p, const PathPoint& next) {
  return next.beta == 0 ? next.alpha : -next.alpha * std::expm1(log_snr(p) - log_snr(next));
}

}  // namespace

Chain exponential(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  return build_chain(schedule, t, prediction, kNoNoise, Step::exponential, "exponential step",
                     [&](const PathPoint& p, const PathPoint& next, double) {
                       const Affine mean{next.beta / p.beta, weight_of_x1(p, next)};
                       const Affine in_prediction = compose(mean, conversion(prediction, Parametrisation::x1, p));
                       return Coefficients{in_prediction.x, in_prediction.prediction, 0.0};
                     });
}

Chain dpmpp_2m(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction,
               bool lower_order_final) {
  Chain chain = exponential(schedule, t, prediction);
  const std::size_t steps = chain.A.size();
  chain.B.assign(steps, 0.0), chain.D.assign(steps, 0.0);
  for (std::size_t k = 1; k < steps; ++k) {
    const PathPoint before = schedule.at(t[k - 1]), p = schedule.at(t[k]), next = schedule.at(t[k + 1]);
    const double h = log_snr(next) - log_snr(p), previous = log_snr(p) - log_snr(before);
    if (std::isinf(h) || (lower_order_final && k + 1 == steps && steps < 15)) continue;
    const double weight = weight_of_x1(p, next) * h / (2 * previous);
    const Affine now = conversion(prediction, Parametrisation::x1, p);
    chain.A[k] += weight * now.x, chain.C[k] += weight * now.prediction;
    if (std::isinf(previous)) continue;
    const Affine then = conversion(prediction, Parametrisation::x1, before);
    chain.B[k] = -weight * then.x, chain.D[k] = -weight * then.prediction;
  }
  chain.description = describe("DPM-Solver++(2M)", chain);
  return chain;
}

}  // namespace costate::sde
