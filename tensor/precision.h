// The arithmetic of matrix products, chosen by scope.
//
// f32 is the default. Within PrecisionScope(Precision::bf16_products) products of f32 operands round both operands to
// bf16 and add in f32: an entry of a product of k terms errs by about 2^-9 sqrt(k) times the typical term (2^-8 k times the
// largest, at worst). What is recorded in the scope is differentiated in the same arithmetic, wherever the sweep runs.
// Tensors stay f32. Processors without AVX512-BF16 compute the same in f32 from rounded operands, and more slowly.
#pragma once
#include <costate/tensor/kernels.h>

namespace costate {

Precision current_precision();  // of the calling thread; `parallel` hands it to its workers

class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  Precision outer_;
};

}  // namespace costate
