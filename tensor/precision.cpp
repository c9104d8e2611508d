#include <costate/tensor/precision.h>
#include <utility>

namespace costate {
namespace {
constinit thread_local Precision precision_here = Precision::f32;
constinit thread_local DType kept_here = DType::f32;
DType checked(DType type) {
  require(type == DType::f32 || type == DType::bf16, "KeptTypeScope: activations are kept in f32 or bf16, not in ", type);
  return type;
}
}  // namespace

DType current_kept_type() { return kept_here; }
KeptTypeScope::KeptTypeScope(DType type) : outer_(std::exchange(kept_here, checked(type))) {}
KeptTypeScope::~KeptTypeScope() { kept_here = outer_; }

Precision current_precision() { return precision_here; }
PrecisionScope::PrecisionScope(Precision precision) : outer_(std::exchange(precision_here, precision)) {}
PrecisionScope::~PrecisionScope() { precision_here = outer_; }

}  // namespace costate
