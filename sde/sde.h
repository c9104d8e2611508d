// Stochastic differential equations dX = b(X, t) dt + sigma(X, t) dB, and those whose solutions take noise to data.
#pragma once
#include <costate/sde/field.h>
#include <costate/sde/parametrisation.h>
#include <costate/sde/schedule.h>
#include <string_view>

namespace costate::sde {

// How int sigma(X, t) dB is meant. The two differ only where sigma depends on the state: Stratonovich's equation with drift b
// is Ito's with drift b + (1/2) sigma d sigma/dx (diagonal noise).
enum class Calculus : std::uint8_t { ito, stratonovich };
std::string_view name(Calculus calculus);  // "Ito", "Stratonovich"

// sigma(x, t), by its structure.
struct Diffusion {
  enum class Kind : std::uint8_t {
    none,      // an ordinary differential equation
    additive,  // a number sigma(t) for every element: dB has the shape of x
    matrix,    // a matrix sigma(t) (dim, noise_dim) for states (rows, dim): dB is (rows, noise_dim)
    diagonal,  // sigma(x, t) of the shape of x, element by element. The strong orders of Milstein's and Heun's methods
               // hold where element i depends on no other element of the state than x_i
  } kind = Kind::none;
  std::function<double(double t)> sigma;  // additive
  std::function<Var(double t)> matrix;    // matrix; may be computed from tracked parameters
  std::int64_t noise_dim = 0;             // matrix
  Field diagonal;                         // diagonal

  static Diffusion of(std::function<double(double t)> sigma);
  static Diffusion of_matrix(std::function<Var(double t)> matrix, std::int64_t noise_dim);
  static Diffusion of_elements(Field diagonal);
};
std::string_view name(Diffusion::Kind kind);

// dX = b dt + sigma dB. `drift` maps (x, t, labels) to the shape of x; rows are independent.
struct Sde {
  Calculus calculus = Calculus::ito;
  Field drift;
  Diffusion diffusion;
};

// The shape of dB for states of this shape.
Shape noise_shape(const Sde& sde, const Shape& x);

// An equation with parameters, as ParametricField: `frozen` has them as constants; `watch` records them on a tape, appends
// them to `watched`, and returns the equation that uses these records.
struct ParametricSde {
  Sde frozen;
  std::function<Sde(Tape& tape, std::vector<Var>& watched)> watch;
};

// The probability-flow equation dX = v dt of a path, from a network's prediction. Times are of [0, 1]; where the prediction
// does not determine the drift (conversion() of epsilon or score at alpha = 0) evaluating it throws.
ParametricSde probability_flow(const ParametricField& prediction, const Schedule& schedule, Parametrisation parametrisation);

// dX = [v + (sigma^2/2) s] dt + sigma dB with the score s: the marginals of the path for every sigma(t) >= 0 (arXiv
// 2409.08861, eqs. 10-11). Where sigma(t) = 0 the score is not asked for; a solver that evaluates at t = 1, where the score
// of velocity predictions is singular, needs sigma(1) = 0, and one that evaluates at t = 0 a finite sigma(0).
ParametricSde generative_sde(const ParametricField& prediction, const Schedule& schedule, Parametrisation parametrisation,
                             std::function<double(double t)> sigma);

}  // namespace costate::sde
