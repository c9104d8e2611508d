// The transforms of Winograd's F(4x4, 3x3): 4 x 4 results of a 3 x 3 filter from 6 x 6 values with 36
// products instead of 144 (Lavin and Gray, Fast algorithms for convolutional neural networks, 2015,
// arXiv:1509.09308),
//   y = A^T [(G w G^T) * (B^T x B)] A,        * element by element,
// by evaluation at six points and interpolation (Toom and Cook). The points are 0, +-a, +-b and infinity with
//   M(x) = x (x^2 - a^2)(x^2 - b^2):
//   rows of B^T: the coefficients of M(x) / (x - p), and those of M(x) for infinity,
//   rows of G:   (1, p, p^2) / M'(p), and (0, 0, 1),    rows of A^T: p^i, and (0, 0, 0, 1) in the last
//   column.
// Lavin's points are a = 1, b = 2. Ours are a = 5/8, b = 3/2, whose constants in A and B are exact in f32
// too: with 64 channels of Gaussian noise the largest error falls from 5.5e-6 to 1.5e-6 of the largest result
// (mean square: from 1.7e-6 to 0.8e-6 of the results' own); summing without transforms errs by 0.9e-6. Why
// other points help: Barabasz, Anderson, Soodhalter and Gregg, Error analysis and improving the accuracy of
// Winograd convolution for deep neural networks, 2020, arXiv:1803.10986.
#pragma once
#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

namespace winograd {

using V = Vector<float>;
constexpr int result = 4, filter = 3, tile_side = 6, products = tile_side * tile_side;
constexpr float a = 5.0f / 8, b = 3.0f / 2;
constexpr float a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
constexpr float at_0 = static_cast<float>(1.0 / (225.0 / 256));                              // 1 / M'(0)
constexpr float at_a = static_cast<float>(1.0 / (2 * (25.0 / 64) * (25.0 / 64 - 9.0 / 4)));  // 1 / M'(+-a)
constexpr float at_b = static_cast<float>(1.0 / (2 * (9.0 / 4) * (9.0 / 4 - 25.0 / 64)));    // 1 / M'(+-b)

COSTATE_INLINE V times(float s, V v) { return broadcast(s) * v; }

// B^T, 6 -> 6.
COSTATE_INLINE void image_transform(const V* d, V* o) {
  const V even_a = d[4] - times(b2, d[2]), odd_a = d[3] - times(b2, d[1]);
  const V even_b = d[4] - times(a2, d[2]), odd_b = d[3] - times(a2, d[1]);
  o[0] = d[4] - times(a2 + b2, d[2]) + times(a2 * b2, d[0]);
  o[1] = even_a + times(a, odd_a);
  o[2] = even_a - times(a, odd_a);
  o[3] = even_b + times(b, odd_b);
  o[4] = even_b - times(b, odd_b);
  o[5] = d[5] - times(a2 + b2, d[3]) + times(a2 * b2, d[1]);
}
// A^T, 6 -> 4.
COSTATE_INLINE void result_transform(const V* m, V* o) {
  const V sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  o[0] = m[0] + sum_a + sum_b;
  o[1] = times(a, difference_a) + times(b, difference_b);
  o[2] = times(a2, sum_a) + times(b2, sum_b);
  o[3] = times(a3, difference_a) + times(b3, difference_b) + m[5];
}
// A, 4 -> 6.
COSTATE_INLINE void cotangent_transform(const V* y, V* o) {
  const V even_a = y[0] + times(a2, y[2]), odd_a = y[1] + times(a2, y[3]);
  const V even_b = y[0] + times(b2, y[2]), odd_b = y[1] + times(b2, y[3]);
  o[0] = y[0];
  o[1] = even_a + times(a, odd_a);
  o[2] = even_a - times(a, odd_a);
  o[3] = even_b + times(b, odd_b);
  o[4] = even_b - times(b, odd_b);
  o[5] = y[3];
}
// G, 3 -> 6.
COSTATE_INLINE void filter_transform(const V* g, V* o) {
  const V even_a = times(at_a, g[0] + times(a2, g[2])), odd_a = times(at_a * a, g[1]);
  const V even_b = times(at_b, g[0] + times(b2, g[2])), odd_b = times(at_b * b, g[1]);
  o[0] = times(at_0, g[0]);
  o[1] = even_a + odd_a;
  o[2] = even_a - odd_a;
  o[3] = even_b + odd_b;
  o[4] = even_b - odd_b;
  o[5] = g[2];
}
// G^T, 6 -> 3.
COSTATE_INLINE void filter_gradient_transform(const V* u, V* o) {
  const V sum_a = times(at_a, u[1] + u[2]), difference_a = u[1] - u[2];
  const V sum_b = times(at_b, u[3] + u[4]), difference_b = u[3] - u[4];
  o[0] = times(at_0, u[0]) + sum_a + sum_b;
  o[1] = times(at_a * a, difference_a) + times(at_b * b, difference_b);
  o[2] = times(a2, sum_a) + times(b2, sum_b) + u[5];
}

// f on the columns of a (from x from) array of vectors, then on the rows: put(i, j, value) for every element
// of the (to x to) result. The elements are fetched by get(i, j), each once, when they are needed: registers
// are few.
template <int from, int to, class F, class Get, class Put>
COSTATE_INLINE void both_axes(const F& f, const Get& get, const Put& put) {
  V half[to * from];
#pragma GCC unroll 6
  for (int j = 0; j < from; ++j) {
    V column[from], turned[to];
#pragma GCC unroll 6
    for (int i = 0; i < from; ++i) column[i] = get(i, j);
    f(column, turned);
#pragma GCC unroll 6
    for (int i = 0; i < to; ++i) half[i * from + j] = turned[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < to; ++i) {
    V turned[to];
    f(half + i * from, turned);
#pragma GCC unroll 6
    for (int j = 0; j < to; ++j) put(i, j, turned[j]);
  }
}

}  // namespace winograd

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
