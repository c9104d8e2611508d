// How the builders of chains (chain.h, diffusion.h, edm.h, exponential.h) fill their tables.
#pragma once
#include <costate/sde/chain.h>
#include <costate/tensor/error.h>

#include <cmath>

namespace costate::sde {

// The variance beta^2 - (alpha beta'/alpha')^2 of the noising process q(x_t | x_{t'}), as a product: the
// difference of squares would lose the digits of a short step twice.
inline double noising_variance(const PathPoint& p, const PathPoint& next) {
  const double m = p.alpha / next.alpha * next.beta;
  return (p.beta - m) * (p.beta + m);
}

// At least two times, increasing, within [0, 1].
void check_grid(const std::vector<double>& t);
// The chain's line for reports, which begins with the name of its step.
std::string describe(const char* step, const Chain& chain);

// Fills a chain from step_of(point, next point, h) -> {A, C, std}.
struct Coefficients {
  double A, C, std;
};
template <class StepOf>
Chain build_chain(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction, NoiseLaw noise,
                  Step step, const char* what, const StepOf& step_of) {
  check_grid(t);
  Chain chain{schedule, noise, step, prediction, t, {}, {}, {}, {}};
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const Coefficients c = step_of(schedule.at(t[k]), schedule.at(t[k + 1]), t[k + 1] - t[k]);
    require(std::isfinite(c.A) && std::isfinite(c.C) && std::isfinite(c.std), "sde::Chain: the ", what,
            " is singular at t = ", t[k], " on the ", schedule.description(),
            " path; give an offset or a grid that starts above 0");
    chain.A.push_back(c.A), chain.C.push_back(c.C), chain.std.push_back(c.std);
  }
  chain.description = describe(what, chain);
  return chain;
}

}  // namespace costate::sde
