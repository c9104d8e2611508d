// The kernel table: everything a device must be able to compute, as plain functions over pointers and extents.
//
// Kernels take contiguous row-major arrays, never allocate and never synchronise; shapes are checked before they are
// called. There is one table a device: cpu (tensor/cpu/), meta (the table that computes nothing), and that of a plugin
// (tensor/backend.h, cuda/), whose kernels run in the order in which they were called, while the host goes on.
#pragma once
#include <costate/tensor/shape.h>
#include <cstdint>

namespace costate {

// An element loop over `rank` axes of extents `extent`, with a stride in elements for every operand: 0 repeats.
struct Loop {
  static constexpr int max_operands = 8;
  int rank = 0;
  std::int64_t numel = 0;
  std::int64_t extent[Shape::max_rank];  // set up to `rank`, and for as many operands as there are: a contiguous call
  std::int64_t stride[max_operands][Shape::max_rank];  // of a few elements should not pay for clearing them
  bool contiguous = true;  // every operand is walked like the result: the axes can be ignored
};

struct PointwiseCall {
  int op;                           // row of pointwise.def
  int variant;                      // 0: the function; then its partial derivatives, see pointwise.h
  DType dtype;
  int operands;
  const void* in[Loop::max_operands];
  void* out;                        // may be one of `in` when that operand is walked like the result
  const double* parameters;         // constants of the row, at most 4
  Loop loop;
};

enum class Activation : std::uint8_t { none, silu, gelu_tanh, relu };
constexpr int activation_count = 4;

// The arithmetic of f32 products. bf16_products: both operands are rounded to bf16 (8 significant bits, relative error
// 2^-8 at most), products and sums are f32; convolutions are not touched. tf32: both operands, those of convolutions too, are
// rounded to 11 significant bits (2^-11). Results and everything else stay f32. f64 products are never rounded.
enum class Precision : std::uint8_t { f32, bf16_products, tf32 };
constexpr int precision_count = 3;

// What the workspace of a product follows from.
struct MatmulShape {
  DType dtype;
  bool transpose_a = false, transpose_b = false;  // a is (k x m) resp. b is (n x k) in memory
  bool packed = false, scaled = false, summed = false;  // packed_b, scale_a, row_sums are given
  Precision precision = Precision::f32;
  std::int64_t m, n, k;
  std::int64_t batch = 1;                   // independent products, each operand contiguous
  std::int64_t stride_a = 0, stride_b = 0;  // elements from one product to the next; 0 repeats the operand
};
// c (m x n) = op(a) op(b), or += when `accumulate`; then, if given, + bias along n, then the activation, whose derivative
// at the pre-activation is written to `derivative` when that is not null.
struct MatmulCall : MatmulShape {
  const void* a;
  const void* b;
  const void* packed_b = nullptr;  // b in the layout of pack_b for this precision
  const void* scale_a = nullptr;   // laid out like a, which is multiplied by it first, element by element
  void* row_sums = nullptr;        // (m): the sums of the rows of op(a), scaled, not rounded; one product, a transposed
  void* c;
  bool accumulate = false;
  const void* bias = nullptr;
  Activation activation = Activation::none;
  void* derivative = nullptr;
  void* workspace = nullptr;  // of matmul_workspace bytes, aligned to 64
};

// Normalisation of (n, spatial, channels) over space and the channels of each group, out = activation(y) of
// y = (gamma xhat + beta) (1 + scale) + shift; gamma, beta (channels), scale, shift (n, channels); null ones are 1, 0, 0, 0.
struct GroupNormCall {
  DType dtype;
  std::int64_t n, spatial, channels, groups;  // groups divides channels
  double eps;
  Activation activation = Activation::none;
  const void* x;
  const void* gamma = nullptr;
  const void* beta = nullptr;
  const void* scale = nullptr;
  const void* shift = nullptr;
};

// softmax(q k^T / sqrt(width)) v in each head; q, the result and its cotangent have `queries` rows a sample, k and v `keys`.
// A row holds heads * width elements, head by head; rows of q, k, v (and of dq, dk, dv) are `row_*` elements apart.
struct AttentionCall {
  DType dtype;
  std::int64_t n, heads, queries, keys, width;
  std::int64_t row_q, row_k, row_v;
  const void* q;
  const void* k;
  const void* v;
};

// A convolution of images x (n, height, width, channels) with filters w (out_channels, kernel_height, kernel_width,
// channels / groups), and its two transposes:
//   y[b, p, q, o] = bias[o] + sum_{i, j, k} x[b, stride p + i - top, stride q + j - left, g channels / groups + k] w[o, i, j, k]
// where g = o groups / out_channels and what lies outside the image is 0.
struct ConvShape {
  enum class Pass : std::uint8_t { forward, data_gradient, weight_gradient };  // y of x and w; x of y and w; w of x and y
  DType dtype = DType::f32;
  Pass pass = Pass::forward;
  Precision precision = Precision::f32;  // f32 or tf32
  bool winograd = true;  // whether Winograd's method may be used where it is faster
  std::int64_t n = 0, height = 0, width = 0, channels = 0;
  std::int64_t out_height = 0, out_width = 0, out_channels = 0;
  std::int64_t kernel_height = 1, kernel_width = 1, stride = 1, top = 0, left = 0, groups = 1;
};
struct ConvCall {
  ConvShape shape;
  const void* x = nullptr;       // the pass reads two of x, y and weight and writes the third to `out`
  const void* y = nullptr;
  const void* weight = nullptr;
  const void* packed = nullptr;  // the weight in the layout of conv_pack for this pass, or null
  const void* bias = nullptr;    // forward only; (out_channels) or null
  void* out = nullptr;
  void* workspace = nullptr;     // of conv_workspace bytes, aligned to 64
};

// Some of the numbers that a kernel reads together: `n` elements.
struct Elements {
  const void* data;
  std::int64_t n;
};

// What an optimiser updates in one of its tensors, of n elements each; see nn/optim.h for the formulas.
struct Optimised {
  std::int64_t n;
  const void* gradient;
  void *m, *v, *parameter;
  void* average;  // of the parameters; null: none
};
struct AdamWRates {
  double beta1, beta2, eps;
};
// What changes from update to update, where the device computes: read when the kernel runs.
struct AdamWNow {
  double step;   // lr / (1 - beta1^n)
  double root;   // 1 / (1 - beta2^n)
  double keep;   // 1 - lr weight_decay
  double scale;  // of the gradients, besides the clipping
  double limit;  // of the gradients' norm; 0: none
  double average_weight;  // average += weight (parameter - average)
};

// The loss of value-gradient regression over rows of n elements: with r = weight[row] (prediction - base) + shift[row] costate,
//   loss = factor sum_rows w[row] min(limit, |r|^2),
// its gradient by the prediction, and what is watched besides.
struct MatchingCall {
  DType dtype;
  std::int64_t rows, n;
  const void* prediction;
  const void* base;
  const void* costate;
  const void* weight;                // (rows)
  const void* shift;                 // (rows)
  const void* row_weight = nullptr;  // w (rows); null: ones
  double factor = 1, limit = 0;      // limit 0: none
};

struct Kernels {
  const char* name;  // "cpu (avx512)", "meta"

  // Whether calls of bf16 may be made: operands and results are bf16, and everything between is f32, as are mean, rstd,
  // log_sum_exp, sum_h and sum_hx. Where it is false (the cpu, for which ops widen operands), pointwise, copy, fill, cast and
  // gather_rows take bf16 all the same. Nowhere do sum_squares, scatter_add_rows, random, noisy_step, matching and adamw.
  bool takes_bf16;

  void (*pointwise)(const PointwiseCall&);

  // out[i] = in[i] over a loop whose operand 0 is the source and operand 1 the destination: broadcasting, transposing,
  // concatenating and slicing are all this. Elements have `item` bytes (2, 4 or 8).
  void (*copy)(const Loop&, std::int64_t item, const void* in, void* out);
  void (*fill)(DType, std::int64_t n, double value, void* out);
  // bf16 from and to f32 only; rounding of rounding.h.
  void (*cast)(DType from, DType to, std::int64_t n, const void* in, void* out);

  // The sum over the middle axis, (outer, n, inner) -> (outer, inner), in an order that depends on the extents alone.
  void (*sum)(DType, std::int64_t outer, std::int64_t n, std::int64_t inner, const void* in, void* out);
  // The sum of the squares of all pieces in double precision, to *out where the device computes, in an order that depends on
  // their lengths alone.
  void (*sum_squares)(DType, std::int64_t pieces, const Elements*, double* out);

  void (*matmul)(const MatmulCall&);
  // Bytes that `matmul` wants to work in; they may depend on the number of threads, the result does not.
  std::int64_t (*matmul_workspace)(const MatmulShape&);
  // Whether the processor multiplies bf16; where it does not, operands are rounded and multiplied in f32.
  bool (*multiplies_bf16)();
  // The size in bytes of b (k x n, or n x k when transposed) in the layout that `matmul` reads fastest; 0: none is
  // offered for this shape.
  std::int64_t (*packed_bytes)(DType, Precision, std::int64_t n, std::int64_t k);
  void (*pack_b)(DType, Precision, bool transpose_b, std::int64_t n, std::int64_t k, const void* b, void* packed);

  void (*conv)(const ConvCall&);
  // Bytes that `conv` wants to work in; they may depend on the number of threads, the result does not.
  std::int64_t (*conv_workspace)(const ConvShape&, bool packed);
  // As packed_bytes and pack_b, for the weight of a forward pass or a data gradient. Shapes with equal pass and size of
  // one weight have the same layout.
  std::int64_t (*conv_packed_bytes)(const ConvShape&);
  void (*conv_pack)(const ConvShape&, const void* weight, void* packed);

  // Between images a (n, height, width, channels) and b (n, factor height, factor width, channels). upsample: every pixel of
  // a becomes a square of pixels of b of `scale` times its value. pool, the transpose: every square becomes `scale` times
  // its sum.
  void (*upsample)(DType, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels,
                   std::int64_t factor, double scale, const void* in, void* out);
  void (*pool)(DType, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t factor,
               double scale, const void* in, void* out);

  // Rows of length n. log: logarithms of the probabilities.
  void (*softmax)(DType, bool log, std::int64_t rows, std::int64_t n, const void* in, void* out);
  void (*softmax_vjp)(DType, bool log, std::int64_t rows, std::int64_t n, const void* out, const void* cotangent, void* dx);
  // out = (x - mean) * rstd over rows of length n; mean and rstd (rows) are written too.
  void (*layer_norm)(DType, std::int64_t rows, std::int64_t n, double eps, const void* in, void* out, void* rstd);
  // dx of the normalisation, from its result and rstd.
  void (*layer_norm_vjp)(DType, std::int64_t rows, std::int64_t n, const void* out, const void* rstd, const void* cotangent, void* dx);

  // mean and rstd (n, groups) are written unless null.
  void (*group_norm)(const GroupNormCall&, void* out, void* mean, void* rstd);
  // dx, and for every sample and channel the sums over space of h and of h xhat, h = activation'(y) cotangent: sum_h,
  // sum_hx (n, channels), from which the gradients of gamma, beta, scale, shift follow. Each may be null: not wanted.
  void (*group_norm_vjp)(const GroupNormCall&, const void* mean, const void* rstd, const void* cotangent, void* dx, void* sum_h,
                         void* sum_hx);
  // out = xhat (1 + scale) + shift of rows (n, t, d), scale, shift (n, d); mean and rstd (n, t) are written unless null.
  void (*modulated_layer_norm)(DType, std::int64_t n, std::int64_t t, std::int64_t d, double eps, const void* x,
                               const void* scale, const void* shift, void* out, void* mean, void* rstd);
  // dx, dscale; null: not wanted. (dshift is the sum of the cotangent over t.)
  void (*modulated_layer_norm_vjp)(DType, std::int64_t n, std::int64_t t, std::int64_t d, const void* x, const void* scale,
                                   const void* mean, const void* rstd, const void* cotangent, void* dx, void* dscale);

  // out (n, queries, heads width); log_sum_exp (n, heads, queries) of the scores is written unless null.
  void (*attention)(const AttentionCall&, void* out, void* log_sum_exp);
  // dq, dk, dv; null: not wanted.
  void (*attention_vjp)(const AttentionCall&, const void* out, const void* log_sum_exp, const void* cotangent, void* dq,
                        void* dk, void* dv);

  // out[i, :] = table[index[i], :]; and its transpose, out[index[i], :] += in[i, :], in order of i. `extent`: rows of the
  // table resp. of out; the cpu's kernels trust the index, a device's leave out what is outside and tell of it when the host
  // next reads.
  void (*gather_rows)(DType, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index,
                      const void* table, void* out);
  void (*scatter_add_rows)(DType, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index,
                           const void* in, void* out);

  // Noise of random.h for samples first_sample.. of `per_sample` elements each.
  void (*random)(DType, bool normal, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,
                 std::uint32_t step, std::int64_t samples, std::int64_t per_sample, void* out);

  // out = in / (1 - probability) where the random word of the element is at least `threshold`, else 0.
  void (*dropout)(DType, double probability, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
                  std::uint64_t first_sample, std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* in,
                  void* out);

  // out = c[0] x + c[1] prediction + c[2] e with the normal noise e of `random`, which is not stored: the bits of
  // the row chain_step of pointwise.def. `out` may be neither operand.
  void (*noisy_step)(DType, const double* c, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,
                     std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* x, const void* prediction,
                     void* out);

  // numbers (rows, 3), f64: the row's part of the loss, |weight (prediction - base)|^2, and whether the limit cut it;
  // gradient like prediction.
  void (*matching)(const MatchingCall&, double* numbers, void* gradient);

  // One AdamW update in place of all pieces, then their averages. `now` and `squares` are where the device computes: with
  // `squares`, the sum of the squares of all gradients, scale becomes scale min(1, limit/sqrt(squares)), and when that sum or
  // *check is not finite nothing is changed. Either may be null: no clipping, no check.
  void (*adamw)(DType, std::int64_t pieces, const Optimised*, const AdamWRates&, const AdamWNow* now, const double* squares,
                const double* check);
};

}  // namespace costate
