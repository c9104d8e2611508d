#include <costate/finetune/network_field.h>

#include <costate/autograd/ops.h>

namespace costate::finetune {
namespace {

struct Guided {
  nn::Network network;
  double w;
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    const Var conditional = network(x, t, labels);
    return labels.defined() ? axpby(1 + w, conditional, -w, network(x, t, Tensor())) : conditional;
  }
  void visit(const nn::Visitor& v) { network.visit(v); }
  Guided recompute_blocks(bool on) const { return {network.recompute_blocks(on), w}; }
  Guided prepared() const { return {network.prepared(), w}; }
};

}  // namespace

sde::Field guided(sde::Field field, double w) {
  if (w == 0) return field;
  return [field = std::move(field), w](const Var& x, const Var& t, const Tensor& labels) {
    const Var conditional = field(x, t, labels);
    return labels.defined() ? axpby(1 + w, conditional, -w, field(x, t, Tensor())) : conditional;
  };
}

nn::Network guided(nn::Network network, double w) { return w == 0 ? network : Guided{std::move(network), w}; }

}  // namespace costate::finetune
