// Forward sensitivity: the tangents dx_k/dtheta_i are carried along, one for each number of the parameters.
#include <costate/autograd/ops.h>
#include <costate/sde/adjoint/methods.h>
#include <costate/tensor/error.h>

#include <numeric>

namespace costate::sde::detail {

Gradient forward(const Process& process, const Tensor& x0, const Terminal& terminal) {
  Gradient result;
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(process.parameter_numbers()));
  std::iota(numbers.begin(), numbers.end(), 0);
  std::vector<Tensor> tangents;
  for (std::size_t i = 0; i < numbers.size(); ++i) tangents.push_back(Tensor::zeros(x0.shape(), x0.dtype(), x0.device()));
  State state = process.start(x0);
  count(result.work, process.start_work);
  for (int k = 0; k < process.steps; ++k) {
    try {
      tangents = process.push(k, state[0], tangents, numbers);
    } catch (const Error& e) {  // of an op without second derivatives
      fail(e.fault(), {"forward: tangents are swept through the recorded pullback, but ", e.what(),
                       "; or take the adjoint binomial, which sweeps once"});
    }
    for (const Tensor& t : tangents) t.storage().charge_to(memory::Tag::trajectory);
    state = process.step(k, state);
    // A tangent costs one sweep through the recorded pullback.
    count(result.work, process.step_work), count(result.work, process.pullback_work);
    result.work.pullbacks += static_cast<std::int64_t>(tangents.size()) * process.pullback_work.pullbacks;
  }
  result.x = state[0];
  const Var a(terminal(state[0]));
  std::size_t next = 0;
  for (const Shape& shape : process.parameter_shapes) {
    const Tensor g = Tensor::empty({shape.numel()}, x0.dtype(), x0.device());
    for (std::int64_t i = 0; i < shape.numel(); ++i)
      g.slice(i, 1).copy_from(reshape(sum(a * Var(tangents[next++])), {1}).value());
    result.parameters.push_back(g.reshape(shape));
  }
  return result;
}

}  // namespace costate::sde::detail
