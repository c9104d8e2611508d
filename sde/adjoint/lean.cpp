#include <costate/sde/adjoint/lean.h>

namespace costate::sde {

void lean_adjoint(const Field& base, const Chain& chain, const std::function<Tensor(int k)>& state, const Tensor& labels,
                  Tensor a,
                  const std::function<void(int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a)>& visit) {
  for (int k = chain.steps() - 1; k >= 0; --k) {
    Pullback p = pullback_step(base, chain, k, state(k), labels, a);
    visit(k, p.prediction, a, p.costate);
    a = std::move(p.costate);
  }
}

}  // namespace costate::sde
