// Running a chain backwards: gradients of a terminal cost g(x_K), as loops over pullback_step.
//
//   lean        a_K = grad g,  a_k = A_k a_{k+1} + C_k (d base/dx)^T a_{k+1}: the costate of adjoint matching (arXiv
//               2409.08861, eqs. 38-39; its discrete form), with the frozen base along the tuned model's states.
//   store_all   the discrete adjoint of the sampled chain, all states kept.
//   segments    the same from every s-th state; the others are computed again (memory K/s + s states; the classical
//               choice is s = sqrt K). Equal to store_all bit for bit.
#pragma once
#include <costate/sde/sampler.h>

namespace costate::sde {

// What a computation did: evaluations of the field, pullbacks through it, and how many of the evaluations were repeats.
struct Work {
  std::int64_t evaluations = 0, pullbacks = 0, recomputed = 0;
};

// The lean adjoint along states x_0..x_{K-1} (given by `state(k)`), from a_K. `visit(k, prediction_k, a_next, a)` is called
// for k = K-1..0 with the base prediction at x_k, a_{k+1} and a_k. One network graph is alive at a time.
void lean_adjoint(const Field& base, const Chain& chain, const std::function<Tensor(int k)>& state, const Tensor& labels,
                  Tensor terminal,
                  const std::function<void(int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a)>& visit);

struct AdjointOptions {
  enum class Method : std::uint8_t { store_all, segments } method = Method::store_all;
  int segment = 0;  // steps from one stored state to the next; 0: the integer nearest to sqrt K
};

struct ChainGradient {
  Tensor x;                        // x_K
  Tensor initial;                  // dg/dx_0
  std::vector<Tensor> parameters;  // dg/dtheta, in the order in which they were watched
  Work work;
};
// `terminal` maps x_K to grad g(x_K). The rows of one call stay on the calling thread.
ChainGradient chain_gradient(const ParametricField& field, const Chain& chain, const Tensor& x0, const Tensor& labels,
                             const NoiseKey& key, const std::function<Tensor(const Tensor& x)>& terminal,
                             const AdjointOptions& options = {});

}  // namespace costate::sde
