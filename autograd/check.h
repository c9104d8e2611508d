// The gradient checker: reverse-mode derivatives against central differences, public because users' rules need it too.
#pragma once
#include <costate/autograd/tape.h>
#include <functional>
#include <string>

namespace costate {

struct GradientCheck {
  double step = 1e-6;       // of the central differences, relative to max(1, |x|); the error of the difference quotient
                            // is about step^2 |f'''| / 6 + 1e-16 |f| / step
  double tolerance = 1e-6;  // of |reverse mode - difference|, relative to max(1, largest derivative)
  std::uint64_t seed = 1;   // of the cotangent that contracts the result to a number
};

// Compares d<c, f(x)>/dx_i, c random, with central differences for every input and element, in double precision; order 2
// does the same for the gradient's own derivative, <d, gradient>, d random. Returns "" when all agree, else a sentence
// that names the input, the element and both numbers. Inputs must be f64. Also sweeps twice and demands equal bits.
std::string check_gradients(const std::function<Var(std::span<const Var>)>& f, std::span<const Tensor> inputs,
                            int order = 1, const GradientCheck& options = {});

}  // namespace costate
