// The functions behind the backend's kernel table; tensor/kernels.h is their contract. They are in kernels/; the seam to
// libraries, cuBLASLt and cuDNN in device/, is at the end. The emulator has none and takes the kernels.
#pragma once
#include <costate/tensor/kernels.h>

namespace costate::cuda {

void pointwise(const PointwiseCall&);
void copy(const Loop&, std::int64_t item, const void* in, void* out);
void fill(DType, std::int64_t n, double value, void* out);
void cast(DType from, DType to, std::int64_t n, const void* in, void* out);
void sum(DType, std::int64_t outer, std::int64_t n, std::int64_t inner, const void* in, void* out);
void sum_squares(DType, std::int64_t pieces, const Elements*, double* out);
void matmul(const MatmulCall&);
std::int64_t matmul_workspace(const MatmulShape&);
bool multiplies_bf16();
void conv(const ConvCall&);
std::int64_t conv_workspace(const ConvShape&, bool packed);
void upsample(DType, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t factor,
              double scale, const void* in, void* out);
void pool_squares(DType, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t factor,
                  double scale, const void* in, void* out);
void softmax(DType, bool log, std::int64_t rows, std::int64_t n, const void* in, void* out);
void softmax_vjp(DType, bool log, std::int64_t rows, std::int64_t n, const void* out, const void* cotangent, void* dx);
void layer_norm(DType, std::int64_t rows, std::int64_t n, double eps, const void* in, void* out, void* rstd);
void layer_norm_vjp(DType, std::int64_t rows, std::int64_t n, const void* out, const void* rstd, const void* cotangent,
                    void* dx);
void group_norm(const GroupNormCall&, void* out, void* mean, void* rstd);
void group_norm_vjp(const GroupNormCall&, const void* mean, const void* rstd, const void* cotangent, void* dx, void* sum_h,
                    void* sum_hx);
void modulated_layer_norm(DType, std::int64_t n, std::int64_t t, std::int64_t d, double eps, const void* x, const void* scale,
                          const void* shift, void* out, void* mean, void* rstd);
void modulated_layer_norm_vjp(DType, std::int64_t n, std::int64_t t, std::int64_t d, const void* x, const void* scale,
                              const void* mean, const void* rstd, const void* cotangent, void* dx, void* dscale);
void attention(const AttentionCall&, void* out, void* log_sum_exp);
void attention_vjp(const AttentionCall&, const void* out, const void* log_sum_exp, const void* cotangent, void* dq, void* dk,
                   void* dv);
void gather_rows(DType, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index, const void* table,
                 void* out);
void scatter_add_rows(DType, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index, const void* in,
                      void* out);
void random(DType, bool normal, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample, std::uint32_t step,
            std::int64_t samples, std::int64_t per_sample, void* out);
void dropout(DType, double probability, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
             std::uint64_t first_sample, std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* in,
             void* out);
void noisy_step(DType, const double* c, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample, std::uint32_t step,
                std::int64_t samples, std::int64_t per_sample, const void* x, const void* prediction, void* out);
void matching(const MatchingCall&, double* numbers, void* gradient);
void adamw(DType, std::int64_t pieces, const Optimised*, const AdamWRates&, const AdamWNow* now, const double* squares,
           const double* check);

// Bytes of the host that travel as arguments of kernels: what a capture records of them are their values.
void write_bytes(const void* host, void* data, std::int64_t bytes);

// The products and convolutions of kernels/, for every call of the contract.
void tiled_matmul(const MatmulCall&);
void tiled_conv(const ConvCall&);
// + bias and the activation in place of (m x n) pre-activations c, and the derivative, as MatmulCall wants them.
void finish_product(const MatmulCall&);

// What libraries compute: c = op(a) op(b), or += when `accumulate`, + bias, then max(., 0) when `relu`, in f32 unless `dtype`,
// that of the result and the bias, is f64. Operands are of `dtype` too, or, with `bf16`, bf16 for f32 results; tf32: f32
// operands, which are rounded to TF32.
struct LibraryProduct {
  DType dtype;
  bool bf16, tf32, transpose_a, transpose_b, accumulate, relu;
  std::int64_t m, n, k, batch, stride_a, stride_b;  // elements from one product to the next
  const void *a, *b, *bias;
  void* c;
};
// false: the library offers nothing for this shape, and nothing was done.
bool library_product(const LibraryProduct&);
void tiled_library_product(const LibraryProduct&);  // the same by the kernels, for the emulator

// The convolution without its bias, likewise, in a workspace of that many bytes; deterministic, and without rounding of
// operands but that to TF32 where the shape's precision is that.
bool library_conv(const ConvCall&);
std::int64_t library_conv_workspace(const ConvShape&);

extern const Kernels kernel_table;

}  // namespace costate::cuda
