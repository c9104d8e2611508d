#include <costate/finetune/network_field.h>

#include <costate/autograd/ops.h>

namespace costate::finetune {

sde::Field guided(sde::Field field, double w) {
  if (w == 0) return field;
  return [field = std::move(field), w](const Var& x, const Var& t, const Tensor& labels) {
    const Var conditional = field(x, t, labels);
    return labels.defined() ? axpby(1 + w, conditional, -w, field(x, t, Tensor())) : conditional;
  };
}

}  // namespace costate::finetune
