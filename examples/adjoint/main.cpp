// The gradient of a long trajectory with few kept states: the same bits as with all of them.
#include <costate/finetune/network_field.h>
#include <costate/nn/mlp.h>
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain_process.h>

#include <cstdio>

using namespace costate;

int main() {
  nn::Init init(1);
  const nn::Network network(nn::make_velocity_mlp({.dim = 2, .hidden = 32, .depth = 2}, init));
  const sde::ParametricField field = finetune::parametric_field_of(network);
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(200));
  const sde::NoiseKey key{7, 0};
  const Tensor x0 = sde::initial_noise({2}, 64, key), labels;

  const sde::Process process = sde::chain_process(field, chain, labels, key);
  const auto terminal = [](const Tensor& x) { return x.clone(); };  // of the cost |x|^2/2
  sde::AdjointOptions options;
  options.method = sde::AdjointMethod::binomial;
  options.slots = 8;
  const sde::Gradient g = sde::gradient(process, x0, terminal, options);
  const sde::Gradient stored = sde::gradient(process, x0, terminal);
  const bool same = g.initial.to_doubles() == stored.initial.to_doubles();
  std::printf("8 states: %lld evaluations, %lld steps again; 200 states: %lld; %s gradient\n",
              static_cast<long long>(g.work.evaluations), static_cast<long long>(g.work.recomputed),
              static_cast<long long>(stored.work.evaluations), same ? "the same" : "another");
  return same ? 0 : 1;
}
