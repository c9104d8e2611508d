// The matrix product of one instruction set. MatmulCall (tensor/kernels.h) is the contract.
//
// A result depends on the call alone, never on the number of threads. With AVX2 and AVX-512 a row of c does
// not depend on how many rows there are either, unless a is transposed: the order of summation, and which of the
// methods below is taken, follow from n and k alone. (The baseline is Eigen, which does not promise that.)
#include "table.h"

#include "gemm_prepare.h"
#if defined(__AVX2__) && defined(__FMA__)
#include "gemm_product.h"
#include "gemm_split.h"
#include "gemm_thin.h"
#else
#include "gemm_eigen.h"
#endif

namespace costate::cpu::COSTATE_ISA {

#if defined(__AVX2__) && defined(__FMA__)
namespace {

#ifdef __AVX512F__
bool bf16_kernels() { return native_bf16(); }
#else
bool bf16_kernels() { return false; }
#endif

// Multiply-adds below which waking threads costs more than it saves.
constexpr std::int64_t threads_from = 2000000;
int workers_for(std::int64_t work) { return work >= threads_from ? threads() : 1; }

template <class T>
bool takes_thin(const MatmulShape& s) {
  return is_thin<T>(s.n, s.k) && !s.transpose_a && !s.summed;
}
// The layout of pack_b follows from n and k; a method that cannot read it takes b itself.
template <class T>
MatmulShape without_unreadable(MatmulShape s) {
  s.packed = s.packed && is_thin<T>(s.n, s.k) == takes_thin<T>(s);
  return s;
}

// One product, of a shape without batch.
template <class T>
std::int64_t product_bytes(const MatmulShape& given, int threads) {
  const MatmulShape s = without_unreadable<T>(given);
  if (takes_thin<T>(s))
    return s.packed ? 0 : whole_lines(s.n * thin_stride<T>(s.k) * static_cast<std::int64_t>(sizeof(T)));
#ifdef __AVX512F__
  if (rounds<T>(s)) return split_bytes<Pair>(s, threads);
#endif
  return split_bytes<T>(s, threads);
}
template <class T>
void product(MatmulCall call, int threads) {
  static_cast<MatmulShape&>(call) = without_unreadable<T>(call);
  if (takes_thin<T>(call)) {
    const T* packed = static_cast<const T*>(call.packed_b);
    if (!call.packed) {
      pack_thin(call.transpose_b, call.n, call.k, static_cast<const T*>(call.b), static_cast<T*>(call.workspace));
      packed = static_cast<const T*>(call.workspace);
    }
    return thin_product(call, packed, threads > 1);
  }
#ifdef __AVX512F__
  if (rounds<T>(call)) return split_product<Pair>(call, threads);
#endif
  split_product<T>(call, threads);
}

// A batch is one product with more rows, or products one after the other, each by all threads, or whole products to
// each thread.
struct Batch {
  MatmulShape item;
  int inner = 1, outer = 1;  // threads of a product; products at a time
  std::int64_t count;

  explicit Batch(MatmulShape s) : item(s), count(s.batch) {
    if (count > 1 && s.stride_b == 0 && !s.transpose_a && s.stride_a == s.m * s.k) item.m *= count, count = 1;
    item.batch = 1;
    const std::int64_t work = item.m * item.n * item.k;
    if (count == 1 || work >= 8 * threads_from) {
      inner = workers_for(work);
      return;
    }
    if (s.stride_b != 0) item.packed = false;
    if (work * count >= threads_from) outer = static_cast<int>(smaller(threads(), ceil_div(count, 1 + 250000 / (work + 1))));
  }
};

// Whether operands are rounded before the product, which then is f32's.
template <class T>
bool prepares(const MatmulShape& s) {
  return rounds<T>(s) && (s.precision != Precision::bf16_products || !bf16_kernels());
}

template <class T>
std::int64_t all_bytes(const MatmulShape& s) {
  if (s.m <= 0 || s.n <= 0 || s.batch <= 0) return 0;
  if (prepares<T>(s))
    return prepared_a_bytes<T>(s) + prepared_b_bytes<T>(s) + all_bytes<T>(after_preparing(s));
  const Batch batch(s);
  return batch.outer * whole_lines(product_bytes<T>(batch.item, batch.inner));
}
template <class T>
void all_products(const MatmulCall& call) {
  if (call.m <= 0 || call.n <= 0 || call.batch <= 0) return;
  if (prepares<T>(call)) return all_products<T>(prepare<T>(call));
  const Batch batch(call);
  MatmulCall item = call;
  static_cast<MatmulShape&>(item) = batch.item;
  if (batch.count == 1) return product<T>(item, batch.inner);
  const std::int64_t bytes = whole_lines(product_bytes<T>(batch.item, batch.inner));
  const auto some = [&](std::int64_t slot) {
    MatmulCall one = item;
    one.workspace = static_cast<std::byte*>(call.workspace) + slot * bytes;
    for (std::int64_t i = batch.count * slot / batch.outer; i < batch.count * (slot + 1) / batch.outer; ++i) {
      one.a = static_cast<const T*>(call.a) + i * call.stride_a;
      if (call.scaled) one.scale_a = static_cast<const T*>(call.scale_a) + i * call.stride_a;
      one.b = static_cast<const T*>(call.b) + i * call.stride_b;
      one.c = static_cast<T*>(call.c) + i * call.m * call.n;
      if (call.derivative) one.derivative = static_cast<T*>(call.derivative) + i * call.m * call.n;
      product<T>(one, batch.inner);
    }
  };
  if (batch.outer == 1) return some(0);
  parallel(batch.outer, some);
}

}  // namespace

void matmul(const MatmulCall& call) {
  if (call.dtype == DType::f32)
    all_products<float>(call);
  else
    all_products<double>(call);
}
std::int64_t matmul_workspace(const MatmulShape& shape) {
  return shape.dtype == DType::f32 ? all_bytes<float>(shape) : all_bytes<double>(shape);
}
bool multiplies_bf16() { return bf16_kernels(); }
std::int64_t packed_bytes(DType dtype, Precision precision, std::int64_t n, std::int64_t k) {
  if (dtype != DType::f32)
    return 8 * (is_thin<double>(n, k) ? n * thin_stride<double>(k) : Packing<double>(n, k).size());
  if (precision == Precision::tf32) return 0;  // rounded for every product
  if (is_thin<float>(n, k)) return 4 * n * thin_stride<float>(k);
  if (precision == Precision::bf16_products && bf16_kernels()) return 4 * Packing<Pair>(n, k).size();
  return 4 * Packing<float>(n, k).size();
}
void pack_b(DType dtype, Precision precision, bool transpose_b, std::int64_t n, std::int64_t k, const void* b,
            void* packed) {
  const auto pack = [&]<class E>(E* out) {
    const Packing<E> packing(n, k);
    for (std::int64_t i = 0; i < packing.panels; ++i)
      packing.pack(transpose_b, i, static_cast<const Sum<E>*>(b), out);
  };
  if (dtype != DType::f32) {
    if (is_thin<double>(n, k))
      return pack_thin(transpose_b, n, k, static_cast<const double*>(b), static_cast<double*>(packed));
    return pack(static_cast<double*>(packed));
  }
  const bool round = precision == Precision::bf16_products;
  if (is_thin<float>(n, k)) return pack_thin(transpose_b, n, k, static_cast<const float*>(b), static_cast<float*>(packed));
#ifdef __AVX512F__
  if (round && bf16_kernels()) return pack(static_cast<Pair*>(packed));
#endif
  auto* const out = static_cast<float*>(packed);
  pack(out);
  if (round) round_all(precision, Packing<float>(n, k).size(), out, out);
}

#else

namespace {
template <class T>
bool needs_preparing(const MatmulShape& s) {
  return s.scaled || s.summed || rounds<T>(s);
}
template <class T>
void eigen_product(const MatmulCall& call) {
  if (needs_preparing<T>(call)) return EigenProduct<T>{prepare<T>(call)}.all();
  EigenProduct<T>{call}.all();
}
template <class T>
std::int64_t eigen_bytes(const MatmulShape& s) {
  return needs_preparing<T>(s) ? prepared_a_bytes<T>(s) + prepared_b_bytes<T>(s) : 0;
}
}  // namespace

void matmul(const MatmulCall& call) {
  if (call.dtype == DType::f32)
    eigen_product<float>(call);
  else
    eigen_product<double>(call);
}
std::int64_t matmul_workspace(const MatmulShape& shape) {
  return shape.dtype == DType::f32 ? eigen_bytes<float>(shape) : eigen_bytes<double>(shape);
}
bool multiplies_bf16() { return false; }
std::int64_t packed_bytes(DType, Precision, std::int64_t, std::int64_t) { return 0; }
void pack_b(DType, Precision, bool, std::int64_t, std::int64_t, const void*, void*) {}

#endif

}  // namespace costate::cpu::COSTATE_ISA
