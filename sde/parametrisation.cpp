#include <costate/sde/parametrisation.h>
#include <costate/sde/words.h>

#include <array>
#include <cmath>
#include <string>

namespace costate::sde {

namespace {

constexpr std::array<std::string_view, 5> kNames = {"velocity", "epsilon", "x1", "score", "v_prediction"};

double norm2(const PathPoint& p) { return p.alpha * p.alpha + p.beta * p.beta; }

Affine from_velocity(Parametrisation to, const PathPoint& p) {
  const double d = p.wronskian;
  if (to == Parametrisation::v_prediction) return {(p.alpha * p.alpha_dot + p.beta_beta_dot) / d, -norm2(p) / d};
  if (to == Parametrisation::x1) return {-p.beta_dot / d, p.beta / d};
  if (to == Parametrisation::epsilon) return {p.alpha_dot / d, -p.alpha / d};
  return {-p.alpha_dot / (d * p.beta), p.alpha / (d * p.beta)};
}

Affine from_epsilon(Parametrisation to, const PathPoint& p) {
  if (to == Parametrisation::x1) return {1 / p.alpha, -p.beta / p.alpha};
  if (to == Parametrisation::score) return {0, -1 / p.beta};
  if (to == Parametrisation::v_prediction) return {-p.beta / p.alpha, norm2(p) / p.alpha};
  return {p.kappa, -p.wronskian / p.alpha};
}

Affine from_x1(Parametrisation to, const PathPoint& p) {
  if (to == Parametrisation::epsilon) return {1 / p.beta, -p.alpha / p.beta};
  if (to == Parametrisation::score) return {-1 / (p.beta * p.beta), p.alpha / (p.beta * p.beta)};
  if (to == Parametrisation::v_prediction) return {p.alpha / p.beta, -norm2(p) / p.beta};
  return {p.beta_dot / p.beta, p.wronskian / p.beta};
}

Affine from_score(Parametrisation to, const PathPoint& p) {
  if (to == Parametrisation::epsilon) return {0, -p.beta};
  if (to == Parametrisation::x1) return {1 / p.alpha, p.beta * p.beta / p.alpha};
  if (to == Parametrisation::v_prediction) return {-p.beta / p.alpha, -norm2(p) * p.beta / p.alpha};
  return {p.kappa, p.eta};
}

Affine from_v_prediction(Parametrisation to, const PathPoint& p) {
  const double n = norm2(p);
  if (to == Parametrisation::x1) return {p.alpha / n, -p.beta / n};
  if (to == Parametrisation::epsilon) return {p.beta / n, p.alpha / n};
  if (to == Parametrisation::score) return {-1 / n, -p.alpha / (n * p.beta)};
  return {(p.alpha * p.alpha_dot + p.beta_beta_dot) / n, -p.wronskian / n};
}

}  // namespace

Affine conversion(Parametrisation from, Parametrisation to, const PathPoint& p) {
  if (from == to) return {0, 1};
  Affine map;
  switch (from) {
    case Parametrisation::velocity:
      map = from_velocity(to, p);
      break;
    case Parametrisation::epsilon:
      map = from_epsilon(to, p);
      break;
    case Parametrisation::x1:
      map = from_x1(to, p);
      break;
    case Parametrisation::score:
      map = from_score(to, p);
      break;
    case Parametrisation::v_prediction:
      map = from_v_prediction(to, p);
      break;
  }
  if (!std::isfinite(map.x) || !std::isfinite(map.prediction)) {
    const std::string why = p.alpha == 0 && (p.wronskian > 0 || from != Parametrisation::velocity)
                                ? "alpha(t) = 0: x_t is pure noise"
                            : p.beta == 0 ? "beta(t) = 0: x_t is pure data"
                                          : "the path stands still and its velocity says nothing of x_1";
    fail(Fault::argument, {"sde::conversion: ", name(to), " is not an affine function of x and ", name(from),
                           " at t = ", p.t, ", where ", why});
  }
  return map;
}

Affine conversion(Parametrisation from, Parametrisation to, const Schedule& schedule, double t) {
  return conversion(from, to, schedule.at(t));
}

Affine compose(const Affine& outer, const Affine& inner) {
  return {outer.x + outer.prediction * inner.x, outer.prediction * inner.prediction};
}

std::string_view name(Parametrisation prediction) { return kNames[static_cast<std::size_t>(prediction)]; }

Parametrisation parametrisation(std::string_view word) {
  return static_cast<Parametrisation>(word_index(word, kNames, "a parametrisation"));
}

}  // namespace costate::sde
