#include <costate/sde/sampler.h>
#include <costate/tensor/hooks.h>

namespace costate::sde {

Tensor rollout(const Field& field, const Chain& chain, Tensor x, const Tensor& labels, const NoiseKey& key,
               const StepVisitor& visit) {
  Previous previous;
  for (int k = 0; k < chain.steps(); ++k) {
    const Tensor prediction = field(Var(x), Var(step_time(chain, k, x)), labels).value();
    require(prediction.shape() == x.shape(), "rollout: the field maps shape ", x.shape(), " to ", prediction.shape());
    if (visit) visit(k, x, prediction);
    Tensor next = advance(chain, k, x, prediction, key, previous);
    if (chain.multistep()) previous = {x, prediction};
    x = std::move(next);
  }
  return x;
}

Tensor sample(const Field& field, const Chain& chain, const Shape& shape, std::int64_t count, const Tensor& labels,
              const NoiseKey& key, DType dtype, Device device) {
  require(count >= 1, "sample: ", count, " samples were asked for");
  require(!labels.defined() || (labels.rank() == 1 && labels.extent(0) == count), "sample: labels of shape ",
          labels.shape(), " for ", count, " samples");
  const Tensor out = Tensor::empty(shape.with_front(count), dtype, device);
  ProgressReport report("sample", count);
  each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const NoiseKey own = key.from(first);
    const Tensor x0 = initial_noise(shape, rows, own, dtype, device);
    out.slice(first, rows).copy_from(rollout(field, chain, x0, rows_of(labels, first, rows), own));
    report.add(rows);
  });
  return out;
}

}  // namespace costate::sde
