#include <costate/sde/memoryless.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace costate::sde {
namespace {

// Gauss-Legendre quadrature of 8 points on [low, high].
template <class F>
double panel(const F& f, double low, double high) {
  constexpr std::array<double, 4> node{0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363},
      weight{0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763};
  const double centre = (low + high) / 2, half = (high - low) / 2;
  double sum = 0;
  for (std::size_t i = 0; i < node.size(); ++i)
    sum += weight[i] * (f(centre - half * node[i]) + f(centre + half * node[i]));
  return half * sum;
}

// int_from^to f: panels of an octave near 0, of 1/32 elsewhere.
template <class F>
double integral(const F& f, double from, double to) {
  double sum = 0;
  for (double low = from; low < to;) {
    const double high = std::min(to, low + std::min(low, 1.0 / 32));
    sum += panel(f, low, high);
    low = high;
  }
  return sum;
}

// int_0^to f for f >= 0, which may diverge.
struct Improper {
  double value;  // inf if it diverges
  double power;  // then exp(-int_t^to f) ~ t^power; inf if faster than every power
};
template <class F>
Improper integral_from_zero(const F& f, double to) {
  constexpr int octaves = 200, half = octaves / 2;
  constexpr double inf = std::numeric_limits<double>::infinity();
  std::array<double, octaves> share{};
  double sum = 0;
  for (int j = 0; j < octaves; ++j) {
    share[j] = integral(f, to * std::ldexp(1, -j - 1), to * std::ldexp(1, -j));
    if (std::isinf(share[j])) return {inf, inf};
    sum += share[j];
  }
  const double last = share[octaves - 1], ratio = last / share[octaves - 2], early = share[half] / share[half - 1];
  if (!(last > 1e-280)) return {sum, 0};
  if (ratio > 1 + 1e-9) return {inf, inf};
  if (std::abs(ratio - 1) <= 1e-9) return {inf, last / std::numbers::ln2};
  if (1 - ratio > 0.75 * (1 - early)) return {sum + last * ratio / (1 - ratio), 0};  // geometric: a power of t above -1
  const double raabe = octaves * (1 - ratio);                                        // the shares decay as 1/j^raabe
  if (raabe < 0.9) return {inf, 0};
  if (raabe > 1.1) return {sum + last * octaves / (raabe - 1), 0};
  fail(Fault::numerical,
       {"sde::memorylessness: sigma^2 is so close to 1/(t log(1/t)) at the noise end that 200 octaves of t "
        "do not show whether its integral is finite"});
}

// sigma^2/(2 (alpha^2 variance + beta^2)).
auto rate(const Schedule& schedule, const NoiseFunction& sigma, double variance) {
  return [&schedule, &sigma, variance](double t) {
    const PathPoint p = schedule.at(t);
    const double s = sigma(t);
    if (!std::isfinite(s)) fail(Fault::numerical, {"sde::memorylessness: sigma(", t, ") is ", s});
    return s * s / (2 * (p.alpha * p.alpha * variance + p.beta * p.beta));
  };
}

}  // namespace

NoiseFunction noise_function(const Schedule& schedule, const NoiseLaw& noise) {
  require(noise.kind != NoiseLaw::Kind::churned || noise.value == 0, "sde::noise_function: churning (",
          noise.description(), ") is a law of the levels of a grid, not of t");
  if (noise.kind == NoiseLaw::Kind::constant) return [sigma = noise.value](double) { return sigma; };
  const double c = noise.kind == NoiseLaw::Kind::scaled ? noise.value : 0;
  return [schedule, c](double t) { return c == 0 ? 0.0 : std::sqrt(c) * schedule.memoryless_sigma(t); };
}

Memorylessness memorylessness(const Schedule& schedule, const NoiseFunction& sigma) {
  const PathPoint noise = schedule.at(0), p = schedule.at(0.5);
  const Improper i = integral_from_zero(rate(schedule, sigma, 0), 0.5);
  const double limit = p.alpha * noise.beta / p.beta * std::exp(-i.value);
  // 1e-6: quadrature.
  const bool memoryless = limit <= noise.alpha * (1 + 1e-6);
  if (noise.alpha > 0)
    return {memoryless, limit, 0,
            sentence({"The path starts at alpha(0) = ", noise.alpha, ", and the limit of Proposition 1 is ", limit,
                      memoryless ? ", not above it: X_1 remembers no more of X_0 than with sigma^2 = 2 eta."
                                 : ", above it: X_1 remembers more of X_0 than with sigma^2 = 2 eta."})};
  if (!memoryless)
    return {false, limit, 0, sentence({"X_1 remembers X_0: the limit of Proposition 1 is ", limit, ", not 0."})};
  if (std::isinf(i.power) || i.power == 0)
    return {true, 0, i.power,
            sentence({"X_0 and X_1 are independent: the limit of Proposition 1 is 0, reached ",
                      i.power == 0 ? "slower" : "faster", " than any power of t'."})};
  return {true, 0, i.power,
          sentence({"X_0 and X_1 are independent: the limit of Proposition 1 is 0, reached as the power ",
                    std::round(i.power * 1e6) / 1e6, " of t'."})};
}

double correlation(const Schedule& schedule, const NoiseFunction& sigma, double variance, double from, double to) {
  require(variance > 0 && from >= 0 && from < to && to <= 1, "sde::correlation: variance ", variance, ", times ", from,
          " and ", to, "; expected variance > 0 and 0 <= from < to <= 1");
  const auto f = rate(schedule, sigma, variance);
  if (from > 0) return std::exp(-integral(f, from, to));
  const double middle = to / 2;
  return std::exp(-integral_from_zero(f, middle).value - integral(f, middle, to));
}

namespace {
// sigma^2 = c 2 eta without quadrature, which a table's kinks would disturb: exp(-int sigma^2/(2 beta^2)) = (y'/y)^c,
// y = alpha/beta.
Memorylessness scaled_memorylessness(const Schedule& schedule, double c) {
  const PathPoint noise = schedule.at(0), p = schedule.at(0.5);
  const double y = p.alpha / p.beta, limit = y * noise.beta * std::pow(noise.alpha / noise.beta / y, c);
  return {limit <= noise.alpha * (1 + 1e-12), limit, 0, {}};
}
}  // namespace

Memory memory_of(const Chain& chain, double variance) {
  const double left = residual_correlation(chain, variance);
  const auto on_grid = [&] {
    return sentence({" on this grid of ", chain.steps(), " steps X_0 and X_K are correlated by ", left,
                     " (data of variance ", variance, ")."});
  };
  if (chain.noise.kind == NoiseLaw::Kind::churned && chain.noise.value > 0)
    return {false, false, std::numeric_limits<double>::quiet_NaN(), left,
            "Churning (" + chain.noise.description() +
                ") puts back a finite share of the noise, so that it is never memoryless and does not convert;" +
                on_grid()};
  const Memorylessness m = chain.noise.kind == NoiseLaw::Kind::constant
                               ? memorylessness(chain.schedule, noise_function(chain.schedule, chain.noise))
                               : scaled_memorylessness(chain.schedule, chain.noise.value);
  const bool converts = chain.noise.convertible();
  const std::string law = chain.noise.description();
  return {m.memoryless, converts, m.limit, left,
          (m.memoryless
               ? law + " is memoryless and " +
                     (converts ? "converts (Theorem 1: any noise samples what is tuned under it);"
                               : "does not convert (Theorem 1: only sigma^2 = 2 eta lets another noise sample what "
                                 "is tuned under it);")
           : converts ? law + " converts (Theorem 1), but the path leaves a memory of X_0;"
                      : law + " is not memoryless (" + sentence({"the limit of Proposition 1 is ", m.limit}) +
                            ") and does not convert;") +
              on_grid()};
}

}  // namespace costate::sde
