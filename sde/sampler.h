// Running a chain forwards.
#pragma once
#include <costate/sde/step.h>
#include <costate/tensor/parallel.h>

namespace costate::sde {

// One chunk of rows on the calling thread, from x_0 to x_K. `visit(k, x_k, prediction_k)` is called before every step
// k = 0..K-1, if given.
using StepVisitor = std::function<void(int k, const Tensor& x, const Tensor& prediction)>;
Tensor rollout(const Field& field, const Chain& chain, Tensor x0, const Tensor& labels, const NoiseKey& key,
               const StepVisitor& visit = nullptr);

// `count` samples of the given shape: chunks of rows in parallel. labels (count,) or undefined.
Tensor sample(const Field& field, const Chain& chain, const Shape& shape, std::int64_t count, const Tensor& labels,
              const NoiseKey& key, DType dtype = DType::f32, Device device = Device::cpu);

// Calls body(first_row, rows) for the chunks of a batch, in parallel.
template <class Body>
void each_chunk(std::int64_t batch, const Body& body) {
  parallel_for(batch, chunk_rows(batch), [&](std::int64_t begin, std::int64_t end) { body(begin, end - begin); });
}
// Rows first..first+count of labels, or undefined if they are.
inline Tensor rows_of(const Tensor& labels, std::int64_t first, std::int64_t count) {
  return labels.defined() ? labels.slice(first, count) : Tensor();
}

}  // namespace costate::sde
