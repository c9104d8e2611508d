// Operands of bf16 for kernels that do not take them (Kernels::takes_bf16): f32 copies for the time of the op, whose result is
// rounded. They are tensors like all others, which the ledger and the plan of a run see. For ops, inside the library.
#pragma once
#include <costate/tensor/tensor.h>

namespace costate::detail {

inline bool widens(const Tensor& x) { return x.defined() && x.dtype() == DType::bf16 && !kernels(x).takes_bf16; }

// x as the kernels of its device take it.
inline Tensor widened(const Tensor& x) { return widens(x) ? x.to(DType::f32) : x; }

}  // namespace costate::detail
