#include <costate/sde/step.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/random.h>

namespace costate::sde {

Tensor step_time(const Chain& chain, int k, const Tensor& x) {
  return Tensor::full({x.extent(0)}, chain.t[k], x.dtype(), x.device());
}

Tensor initial_noise(const Shape& sample, std::int64_t rows, const NoiseKey& key, DType dtype, Device device) {
  const Tensor x = Tensor::empty(sample.with_front(rows), dtype, device);
  random_normal(x, key.seed, Stream::initial, key.first_sample, 0);
  return x;
}

Tensor step_noise(int k, const Tensor& x, const NoiseKey& key) {
  const Tensor e = Tensor::empty_like(x);
  random_normal(e, key.seed, Stream::noise, key.first_sample, static_cast<std::uint32_t>(k));
  return e;
}

Tensor advance(const Chain& chain, int k, const Tensor& x, const Tensor& prediction, const NoiseKey& key) {
  require_one_step(chain, "advance");
  check_cancelled("sampling");
  if (chain.std[k] == 0) return axpby(chain.A[k], Var(x), chain.C[k], Var(prediction)).value();
  const Tensor out = Tensor::empty_like(x);
  advance_into(out, chain, k, x, prediction, key);
  return out;
}

void advance_into(const Tensor& out, const Chain& chain, int k, const Tensor& x, const Tensor& prediction,
                  const NoiseKey& key) {
  require_one_step(chain, "advance");
  if (chain.std[k] == 0) return out.copy_from(axpby(chain.A[k], Var(x), chain.C[k], Var(prediction)).value());
  random_normal_step(out, {chain.A[k], chain.C[k], chain.std[k]}, x, prediction, key.seed, Stream::noise, key.first_sample,
                     static_cast<std::uint32_t>(k));
}

Tensor advance(const Chain& chain, int k, const Tensor& x, const Tensor& prediction, const NoiseKey& key,
               const Previous& previous) {
  if (!chain.multistep()) return advance(chain, k, x, prediction, key);
  check_cancelled("sampling");
  Tensor next = axpby(chain.A[k], Var(x), chain.C[k], Var(prediction)).value();
  if (k > 0) {  // whatever B and D are, so that every later step asks for the same memory
    next = axpby(1.0, Var(next), chain.B[k], Var(previous.x)).value();
    next = axpby(1.0, Var(next), chain.D[k], Var(previous.prediction)).value();
  }
  if (chain.std[k] != 0) next = axpby(1.0, Var(next), chain.std[k], Var(step_noise(k, x, key))).value();
  return next;
}

Pullback pullback_step(const Field& field, const Chain& chain, int k, const Tensor& x, const Tensor& labels,
                       const Tensor& costate) {
  require_one_step(chain, "pullback_step");
  check_cancelled("an adjoint");
  Tape tape;
  const Var tracked = tape.watch(x);
  const Var prediction = field(tracked, Var(step_time(chain, k, x)), labels);
  const Tensor pulled = std::move(tape).vjp(prediction, costate, {&tracked, 1})[0];
  return {prediction.value(), axpby(chain.A[k], Var(costate), chain.C[k], Var(pulled)).value()};
}

}  // namespace costate::sde
