// Exponential integrators of the probability-flow equation: with lambda = log(alpha/beta),
//   x(t') = (beta'/beta) x(t) + beta' int_lambda^lambda' e^l E[x_1 | x(l)] dl
// is exact, and the estimate of x_1 is what is approximated: Lu et al., DPM-Solver++ (arXiv 2211.01095), eq. 9. The part
// linear in x, which is stiff towards the data, costs nothing.
#pragma once
#include <costate/sde/chain.h>

namespace costate::sde {

// x_1 constant over a step, first order: x' = (beta'/beta) x + (alpha' - alpha beta'/beta) x1. DPM-Solver++(1); also DDIM
// with eta = 0, and Euler's step in the variable x/alpha against the time beta/alpha. Singular nowhere for x1 and velocity.
Chain exponential(const Schedule& schedule, const std::vector<double>& t,
                  Parametrisation prediction = Parametrisation::velocity);

// DPM-Solver++(2M) (arXiv 2211.01095, Algorithm 2), second order, one evaluation a step: x_1 linear in lambda through the
// last two estimates. With h = lambda' - lambda and r = (previous h)/h,
//   x' = (beta'/beta) x + (alpha' - alpha beta'/beta) [(1 + 1/(2r)) x1_k - 1/(2r) x1_{k-1}].
// The step after a start at alpha = 0 (r = inf), the first step, and a step to t = 1 (r = 0: the estimate of x_1 itself)
// are of first order, and so is the last one of fewer than 15 steps if `lower_order_final`, as in that paper's code.
// A multistep chain: B_k is not 0 where x1 is not the prediction.
Chain dpmpp_2m(const Schedule& schedule, const std::vector<double>& t,
               Parametrisation prediction = Parametrisation::velocity, bool lower_order_final = true);

}  // namespace costate::sde
