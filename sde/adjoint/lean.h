// The lean adjoint, the costate of adjoint matching (arXiv 2409.08861, eqs. 38-39; its discrete form):
//   a_K = grad g,   a_k = A_k a_{k+1} + C_k (d base/dx)^T a_{k+1},
// with the frozen base along the states of the tuned model.
#pragma once
#include <costate/sde/step.h>

namespace costate::sde {

// Along states x_0..x_{K-1} (given by `state(k)`), from a_K. `visit(k, prediction_k, a_next, a)` is called for k = K-1..0
// with the base prediction at x_k, a_{k+1} and a_k. One network graph is alive at a time.
void lean_adjoint(const Field& base, const Chain& chain, const std::function<Tensor(int k)>& state, const Tensor& labels,
                  Tensor terminal,
                  const std::function<void(int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a)>& visit);

}  // namespace costate::sde
