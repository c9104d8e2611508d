#include <costate/tensor/precision.h>
#include <utility>

namespace costate {
namespace {
constinit thread_local Precision precision_here = Precision::f32;
}

Precision current_precision() { return precision_here; }
PrecisionScope::PrecisionScope(Precision precision) : outer_(std::exchange(precision_here, precision)) {}
PrecisionScope::~PrecisionScope() { precision_here = outer_; }

}  // namespace costate
