// Convolution filters between their order in memory, (out, height, width, in), and in files, (out, in,
// height, width).
#pragma once
#include <costate/autograd/ops.h>

namespace costate::nn {

inline Shape shape_in_file(const Shape& s) { return s.rank() == 4 ? Shape{s[0], s[3], s[1], s[2]} : s; }
inline Tensor filters_to_file(const Tensor& t) { return permute(Var(t), {0, 3, 1, 2}).value(); }
inline Tensor filters_from_file(const Tensor& t) { return permute(Var(t), {0, 2, 3, 1}).value(); }

}  // namespace costate::nn
