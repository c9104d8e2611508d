// What one instruction set's translation units provide: compiled once per set into costate::cpu::<set>.
#pragma once
#include <costate/tensor/kernels.h>

#define COSTATE_DECLARE_ISA(isa)                                                                                     \
  namespace costate::cpu::isa {                                                                                      \
  void pointwise(const PointwiseCall&);                                                                              \
  void copy(const Loop&, std::int64_t item, const void* in, void* out);                                              \
  void fill(DType, std::int64_t n, double value, void* out);                                                         \
  void cast(DType from, DType to, std::int64_t n, const void* in, void* out);                                        \
  void sum(DType, std::int64_t outer, std::int64_t n, std::int64_t inner, const void* in, void* out);                \
  void sum_squares(DType, std::int64_t pieces, const Elements*, double* out);                                           \
  void matmul(const MatmulCall&);                                                                                    \
  std::int64_t matmul_workspace(const MatmulShape&);                                                                 \
  bool multiplies_bf16();                                                                                            \
  std::int64_t packed_bytes(DType, Precision, std::int64_t n, std::int64_t k);                                       \
  void pack_b(DType, Precision, bool transpose_b, std::int64_t n, std::int64_t k, const void* b, void* packed);      \
  void conv(const ConvCall&);                                                                                        \
  std::int64_t conv_workspace(const ConvShape&, bool packed);                                                        \
  std::int64_t conv_packed_bytes(const ConvShape&);                                                                  \
  void conv_pack(const ConvShape&, const void* weight, void* packed);                                                \
  void upsample(DType, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels,               \
                std::int64_t factor, double scale, const void* in, void* out);                                       \
  void pool(DType, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels,                   \
            std::int64_t factor, double scale, const void* in, void* out);                                           \
  void softmax(DType, bool log, std::int64_t rows, std::int64_t n, const void* in, void* out);                       \
  void softmax_vjp(DType, bool log, std::int64_t rows, std::int64_t n, const void* out, const void* cotangent,       \
                   void* dx);                                                                                        \
  void layer_norm(DType, std::int64_t rows, std::int64_t n, double eps, const void* in, void* out, void* rstd);      \
  void layer_norm_vjp(DType, std::int64_t rows, std::int64_t n, const void* out, const void* rstd,                   \
                      const void* cotangent, void* dx);                                                              \
  void group_norm(const GroupNormCall&, void* out, void* mean, void* rstd);                                          \
  void group_norm_vjp(const GroupNormCall&, const void* mean, const void* rstd, const void* cotangent, void* dx,     \
                      void* sum_h, void* sum_hx);                                                                    \
  void modulated_layer_norm(DType, std::int64_t n, std::int64_t t, std::int64_t d, double eps, const void* x,        \
                            const void* scale, const void* shift, void* out, void* mean, void* rstd);                \
  void modulated_layer_norm_vjp(DType, std::int64_t n, std::int64_t t, std::int64_t d, const void* x,                \
                                const void* scale, const void* mean, const void* rstd, const void* cotangent,        \
                                void* dx, void* dscale);                                                             \
  void attention(const AttentionCall&, void* out, void* log_sum_exp);                                                \
  void attention_vjp(const AttentionCall&, const void* out, const void* log_sum_exp, const void* cotangent,          \
                     void* dq, void* dk, void* dv);                                                                  \
  void gather_rows(DType, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index,         \
                   const void* table, void* out);                                                                    \
  void scatter_add_rows(DType, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index,    \
                        const void* in, void* out);                                                                  \
  void random(DType, bool normal, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,              \
              std::uint32_t step, std::int64_t samples, std::int64_t per_sample, void* out);                         \
  void dropout(DType, double probability, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,         \
               std::uint64_t first_sample, std::uint32_t step, std::int64_t samples, std::int64_t per_sample,        \
               const void* in, void* out);                                                                           \
  void noisy_step(DType, const double* c, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,      \
                  std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* x,                  \
                  const void* prediction, void* out);                                                                \
  void matching(const MatchingCall&, double* numbers, void* gradient);                                               \
  void adamw(DType, std::int64_t pieces, const Optimised*, const AdamWRates&, const AdamWNow*, const double* squares,\
             const double* check);                                                                                   \
  extern const Kernels kernels;                                                                                      \
  }
COSTATE_DECLARE_ISA(baseline)
#if defined(__x86_64__)
COSTATE_DECLARE_ISA(avx2)
COSTATE_DECLARE_ISA(avx512)
#endif
