// Every differentiable operation. Operands are Vars (Tensors convert: they are constants) of one element type and device;
// shapes broadcast by NumPy's rule where that is said. All throw Error(Fault::argument) with one sentence that names the op
// and the shapes. Second order: everything here unless stated; fused forms have first order only and say so when asked.
// Operands may be bf16: an op then computes in f32 and rounds its result, and its rule does the same with cotangents; the
// numbers that rules keep of sums over an operand (means, reciprocal deviations) are f32.
#pragma once
#include <costate/autograd/tape.h>
#include <costate/tensor/kernels.h>
#include <initializer_list>

namespace costate {

enum class Pointwise : int;

// ---------------------------------------------------------------------------------------------- pointwise
// Any row of pointwise.def; operands broadcast. The functions below are its rows under their names.
Var pointwise(Pointwise op, std::initializer_list<const Var*> operands, std::initializer_list<double> parameters = {});

Var neg(const Var& x);
Var exp(const Var& x);
Var log(const Var& x);
Var sqrt(const Var& x);
Var square(const Var& x);
Var reciprocal(const Var& x);
Var sin(const Var& x);
Var cos(const Var& x);
Var tanh(const Var& x);
Var sigmoid(const Var& x);
Var silu(const Var& x);       // x sigmoid(x)
Var gelu_tanh(const Var& x);  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
Var gelu_erf(const Var& x);   // x/2 (1 + erf(x / sqrt 2))
Var relu(const Var& x);
Var softplus(const Var& x);   // log(1 + e^x)
Var abs(const Var& x);
Var affine(const Var& x, double scale, double shift);  // scale x + shift
Var power(const Var& x, double exponent);
Var clamp(const Var& x, double low, double high);
Var add(const Var& x, const Var& y);
Var sub(const Var& x, const Var& y);
Var mul(const Var& x, const Var& y);
Var div(const Var& x, const Var& y);
Var maximum(const Var& x, const Var& y);
Var minimum(const Var& x, const Var& y);
Var axpby(double a, const Var& x, double b, const Var& y);        // a x + b y
Var multiply_add(const Var& x, const Var& y, const Var& z);       // x y + z
// One step of a Gaussian chain: a x + c prediction + std noise.
Var chain_step(double a, const Var& x, double c, const Var& prediction, double std, const Var& noise);
// The residual of adjoint matching at one step: weight (prediction - base) + scale costate.
Var matching_residual(double weight, const Var& prediction, const Var& base, double scale, const Var& costate);

inline Var operator-(const Var& x) { return neg(x); }
inline Var operator+(const Var& x, const Var& y) { return add(x, y); }
inline Var operator-(const Var& x, const Var& y) { return sub(x, y); }
inline Var operator*(const Var& x, const Var& y) { return mul(x, y); }
inline Var operator/(const Var& x, const Var& y) { return div(x, y); }
inline Var operator*(double s, const Var& x) { return affine(x, s, 0.0); }
inline Var operator*(const Var& x, double s) { return affine(x, s, 0.0); }
inline Var operator+(const Var& x, double s) { return affine(x, 1.0, s); }
inline Var operator-(const Var& x, double s) { return affine(x, 1.0, -s); }

// x with elements of another floating type; the cotangent is cast back. x itself where it is of that type already.
Var cast(const Var& x, DType type);

// ---------------------------------------------------------------------------------------------- reductions
Var sum(const Var& x);                                      // of all elements, a scalar
Var sum(const Var& x, int axis, bool keep_axis = false);
Var mean(const Var& x);
Var mean(const Var& x, int axis, bool keep_axis = false);
Var sum_to(const Var& x, const Shape& shape);               // the transpose of broadcast_to
Var broadcast_to(const Var& x, const Shape& shape);

// ---------------------------------------------------------------------------------------------- layout
Var reshape(const Var& x, const Shape& shape);              // a view
Var reshape(const Var& x, std::initializer_list<std::int64_t> extents);  // one extent may be -1
Var permute(const Var& x, std::initializer_list<int> axes); // axis i of the result is axes[i] of x
Var transpose(const Var& x);                                // of a matrix
Var concat(std::initializer_list<const Var*> parts, int axis);
Var narrow(const Var& x, int axis, std::int64_t first, std::int64_t count);  // along axis 0 a view

// ---------------------------------------------------------------------------------------------- products
// op(a) op(b) of matrices (m, k) (k, n), or of stacks of matrices (batch, m, k) (batch, k, n).
Var matmul(const Var& a, const Var& b, bool transpose_a = false, bool transpose_b = false);
// activation(x weight^T + bias): x (..., in), weight (out, in), bias (out) or undefined. With an activation, which is
// computed in the product's last pass together with its derivative, first order only: write silu(linear(...)) to
// differentiate twice.
Var linear(const Var& x, const Var& weight, const Var& bias, Activation activation = Activation::none);

// ---------------------------------------------------------------------------------------------- rows
Var softmax(const Var& x);      // over the last axis
Var log_softmax(const Var& x);  // over the last axis
// (x - mean) / sqrt(variance + eps) over the last axis, without scale and shift.
Var layer_norm(const Var& x, double eps);
// Group norm (Wu and He 2018) of x (n, ..., c) over all axes between and the channels of each of `groups` groups, with what
// follows it in one pass: activation((gamma xhat + beta) (1 + scale) + shift), gamma, beta (c), scale, shift (n, c), each of
// which may be undefined. Saved are x, and the mean and reciprocal deviation of each group. With an activation first order
// only: write silu(group_norm(...)) to differentiate twice.
Var group_norm(const Var& x, const Var& gamma, const Var& beta, int groups, double eps,
               Activation activation = Activation::none, const Var& scale = {}, const Var& shift = {});
// xhat (1 + scale) + shift, xhat as of layer_norm: x (n, t, d), scale and shift (n, d), both defined (Peebles and Xie 2023,
// adaLN). Saved are x, and the mean and reciprocal deviation of each row.
Var modulated_layer_norm(const Var& x, const Var& scale, const Var& shift, double eps);
// softmax(q k^T / sqrt(width)) v in each of `heads` heads: q (n, queries, d), k and v (n, keys, d), d = heads width, where head
// i owns the channels i width to (i + 1) width. Saved are q, k, v, the result, and the logarithm of each row's sum of
// exponentials (n, heads, queries); the scores are computed again by the sweep. First order only: compose it from matmul and
// softmax to differentiate twice.
Var attention(const Var& q, const Var& k, const Var& v, int heads);
// The same with q, k and v as the thirds of the last axis of one tensor: (n, tokens, 3 d) -> (n, tokens, d).
Var attention(const Var& qkv, int heads);
// x / (1 - probability) where its element is kept, else 0; kept with 1 - probability, 0 <= probability < 1. The mask is a
// function of (seed, first_sample + index along axis 0, step, element within the sample), see random.h: the same for any split
// of the batch, and never stored. Layers that must differ take different seeds.
Var dropout(const Var& x, double probability, std::uint64_t seed, std::uint64_t first_sample, std::uint32_t step);
// table[index]: table (n, width), index (rows) of i32 -> (rows, width). Throws when an index is outside 0..n-1.
Var gather_rows(const Var& table, const Tensor& index);
// The transpose: rows (r, width) added into a (n, width) matrix of zeros.
Var scatter_rows(const Var& rows, const Tensor& index, std::int64_t n);

// ---------------------------------------------------------------------------------------------- images
// Images are (n, height, width, channels).
// Zeros are added around x as said, then filters are applied at every stride-th pixel of both axes; with groups, filter o
// sees the (o groups / out)-th of `groups` equal parts of the channels. The cross-correlation that the field calls convolution:
//   y[b, p, q, o] = bias[o] + sum_{i, j, k} x[b, stride p + i - top, stride q + j - left, g in/groups + k] w[o, i, j, k]
struct Conv2d {
  int stride = 1;
  int top = 0, bottom = 0, left = 0, right = 0;
  int groups = 1;
};
// x (n, h, w, in), weight (out, kh, kw, in/groups), bias (out,) or undefined
// -> (n, (h + top + bottom - kh) / stride + 1, (w + left + right - kw) / stride + 1, out), rounded down.
// In f32, filters of 3 x 3 with stride 1 may go through Winograd's F(4x4, 3x3), see tensor/cpu/isa/conv_winograd.h for
// its error; COSTATE_WINOGRAD=0 in the environment turns that off.
Var conv2d(const Var& x, const Var& weight, const Var& bias, const Conv2d& o);
Var upsample_nearest(const Var& x, int factor);  // every pixel becomes factor x factor pixels
// The mean over squares of window x window pixels; what fills no square at the bottom and the right is left out.
Var average_pool(const Var& x, int window);
Var pad(const Var& x, int top, int bottom, int left, int right);  // with zeros

// ---------------------------------------------------------------------------------------------- in place
// For gradients and states that one owner accumulates: never recorded.
void add_in_place(const Tensor& sum, const Tensor& term);
void scale_in_place(const Tensor& x, double factor);
void lerp_in_place(const Tensor& x, const Tensor& towards, double weight);  // x += weight (towards - x)

}  // namespace costate
