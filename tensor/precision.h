// The arithmetic of matrix products, and what tapes keep, chosen by scope.
//
// f32 is the default. Within PrecisionScope(Precision::bf16_products) products of f32 operands round both operands to
// bf16, whose relative error is at most 2^-8, and add in f32: an entry errs by at most 2^-7 of the sum of its terms' sizes,
// in practice by about 2^-9 sqrt(k) times a typical term of k (the roundings are independent). Narrow products (n <= 4) stay
// in f32. What is recorded in the scope is differentiated in the same arithmetic, wherever the sweep runs. Tensors stay f32.
// Processors without AVX512-BF16 compute the same in f32 from rounded operands, more slowly: Kernels::multiplies_bf16 tells.
//
// Within PrecisionScope(Precision::tf32) products and convolutions of f32 operands are those of tensor cores: operands are
// rounded to TF32, whose relative error is at most 2^-11, an eighth of bf16's, and sums are f32. CUDA devices are faster that
// way; the cpu rounds and computes in f32, for what a device will answer to be tested. Here ties round away from zero
// (rounding.h); a library of a device may cut the low bits off instead, an error of 2^-10 at most. Attention stays in f32.
#pragma once
#include <costate/tensor/kernels.h>

namespace costate {

Precision current_precision();  // of the calling thread; `parallel` hands it to its workers

// The type in which tapes keep f32 activations for their sweep: f32, or bf16, half the bytes. Results are those of f32; a
// gradient is computed from values that err by 2^-8 at most (rounding.h), independently, and so errs by about half that of its
// terms in quadrature. Parameters, data, and what statistics a rule needs exactly are kept as they are; so are the inputs of
// blocks that are computed again (nn/recompute.h). A value that several records keep is kept once.
DType current_kept_type();  // of the calling thread; `parallel` hands it to its workers

class KeptTypeScope {
 public:
  explicit KeptTypeScope(DType type);  // throws unless f32 or bf16
  ~KeptTypeScope();
  KeptTypeScope(const KeptTypeScope&) = delete;
  KeptTypeScope& operator=(const KeptTypeScope&) = delete;

 private:
  DType outer_;
};

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
