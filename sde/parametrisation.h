// What a network predicts from x_t, and how the five usual choices turn into each other. With
// x_t = alpha x_1 + beta x_0 (schedule.h), D = alpha' beta - beta' alpha and posterior means given x_t:
//   velocity  v   = alpha' E[x_1] + beta' E[x_0]
//   epsilon   eps = E[x_0]                       (the noise)
//   x1        x1  = E[x_1]                       (the denoised data: "x0" in the DDPM literature)
//   score     s   = grad log p_t = -eps/beta
//   v-prediction      = alpha E[x_0] - beta E[x_1]   (Salimans and Ho, arXiv 2202.00512; where alpha^2 +
//   beta^2 = 1
//                       it is -v/D: the velocity along the angle of the path, towards the noise)
// All are affine in one another: x1 = (beta v - beta' x)/D, eps = (alpha' x - alpha v)/D, v = kappa x + eta
// s. Reference: arXiv 2409.08861, Section 3 and eq. 229.
#pragma once
#include <costate/sde/schedule.h>

#include <string_view>

namespace costate::sde {

enum class Parametrisation { velocity, epsilon, x1, score, v_prediction };

// The map (x, prediction) -> x_coefficient * x + prediction_coefficient * prediction, element by element.
struct Affine {
  double x = 0, prediction = 0;
};

// The map that computes `to` from x_t and a prediction of kind `from`. Where the path has no finite map (from
// epsilon or score at alpha = 0, to score at beta = 0, ...) an Error(argument) says which end is singular and
// why.
Affine conversion(Parametrisation from, Parametrisation to, const PathPoint& point);
Affine conversion(Parametrisation from, Parametrisation to, const Schedule& schedule, double t);

// The map `outer` after `inner`: outer.x x + outer.prediction (inner.x x + inner.prediction prediction).
Affine compose(const Affine& outer, const Affine& inner);

std::string_view name(Parametrisation prediction);
// "velocity", "epsilon", "x1", "score" or "v_prediction"; any other word is an Error(argument) with a
// suggestion.
Parametrisation parametrisation(std::string_view name);

}  // namespace costate::sde
