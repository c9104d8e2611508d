// The matrix product of one instruction set. MatmulCall (tensor/kernels.h) is the contract.
//
// A result depends on the call alone, never on the number of threads. With AVX2 and AVX-512 a row of c does
// not depend on how many rows there are either: the order of summation, and which of the methods below is
// taken, follow from n and k alone. (The baseline is Eigen, which does not promise that.)
#include "table.h"

#if defined(__AVX2__) && defined(__FMA__)
#include "gemm_product.h"
#include "gemm_thin.h"
#else
#include "gemm_eigen.h"
#endif

namespace costate::cpu::COSTATE_ISA {

#if defined(__AVX2__) && defined(__FMA__)
namespace {

constexpr std::int64_t threads_from =
    2000000;  // multiply-adds: below, waking threads costs more than it saves

// One product of the batch.
template <class T>
void product(const MatmulCall& call) {
  const std::int64_t m = call.m, n = call.n, k = call.k, work = m * n * k;
  const bool threads = work >= threads_from;
  const T* b = static_cast<const T*>(call.b);
  const T* packed = static_cast<const T*>(call.packed_b);
  alignas(64) T small[1024];
  static thread_local Scratch scratch;
  if (is_thin<T>(n, k)) {
    if (!packed) {
      const std::int64_t size = n * thin_stride<T>(k);
      T* const own = size <= 1024 ? small : scratch.get<T>(size);
      pack_thin(call.transpose_b, n, k, b, own);
      packed = own;
    }
    return thin_product(call, packed, threads);
  }
  // A few rows do not repay a copy of b when its rows can be read in place.
  const bool in_rows = !packed && !call.transpose_b && n % tile_columns<T> == 0 && m <= 2 * tile_rows;
  if (!packed && !in_rows) {
    const Packing<T> packing(n, k);
    T* const own = packing.size() <= 1024 ? small : scratch.get<T>(packing.size());
    const auto pack = [&](std::int64_t panel) { packing.pack(call.transpose_b, panel, b, own); };
    if (threads)
      parallel(packing.panels, pack);
    else
      for (std::int64_t panel = 0; panel < packing.panels; ++panel) pack(panel);
    packed = own;
  }
  const Product<T> p{call.transpose_a,
                     m,
                     n,
                     k,
                     static_cast<const T*>(call.a),
                     in_rows ? b : packed,
                     in_rows,
                     static_cast<T*>(call.c),
                     call.accumulate,
                     static_cast<const T*>(call.bias),
                     call.activation,
                     static_cast<T*>(call.derivative)};
  p.run(threads);
}

template <class T>
void all_products(MatmulCall call) {
  if (call.m <= 0 || call.n <= 0 || call.batch <= 0) return;
  if (call.batch > 1 && call.stride_b == 0 && !call.transpose_a && call.stride_a == call.m * call.k)
    call.m *= call.batch, call.batch = 1;  // one product with more rows
  if (call.batch == 1) return product<T>(call);
  const std::int64_t work = call.m * call.n * call.k;
  const auto one = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      MatmulCall item = call;
      item.batch = 1;
      item.a = static_cast<const T*>(call.a) + i * call.stride_a;
      item.b = static_cast<const T*>(call.b) + i * call.stride_b;
      if (call.stride_b != 0) item.packed_b = nullptr;
      item.c = static_cast<T*>(call.c) + i * call.m * call.n;
      if (call.derivative) item.derivative = static_cast<T*>(call.derivative) + i * call.m * call.n;
      product<T>(item);
    }
  };
  // Many small products: whole ones to each thread. A few large ones: the threads share each.
  if (work * call.batch < threads_from || work >= 8 * threads_from)
    one(0, call.batch);
  else
    parallel_for(call.batch, 1 + 250000 / (work + 1), one);
}

}  // namespace

void matmul(const MatmulCall& call) {
  if (call.dtype == DType::f32)
    all_products<float>(call);
  else
    all_products<double>(call);
}
std::int64_t packed_bytes(DType dtype, std::int64_t n, std::int64_t k) {
  if (dtype == DType::f32)
    return 4 * (is_thin<float>(n, k) ? n * thin_stride<float>(k) : Packing<float>(n, k).size());
  return 8 * (is_thin<double>(n, k) ? n * thin_stride<double>(k) : Packing<double>(n, k).size());
}
void pack_b(DType dtype, bool transpose_b, std::int64_t n, std::int64_t k, const void* b, void* packed) {
  const auto pack = [&]<class T>(T* out) {
    if (is_thin<T>(n, k)) return pack_thin(transpose_b, n, k, static_cast<const T*>(b), out);
    const Packing<T> packing(n, k);
    for (std::int64_t i = 0; i < packing.panels; ++i)
      packing.pack(transpose_b, i, static_cast<const T*>(b), out);
  };
  if (dtype == DType::f32)
    pack(static_cast<float*>(packed));
  else
    pack(static_cast<double*>(packed));
}

#else

void matmul(const MatmulCall& call) {
  if (call.dtype == DType::f32)
    EigenProduct<float>{call}.all();
  else
    EigenProduct<double>{call}.all();
}
std::int64_t packed_bytes(DType, std::int64_t, std::int64_t) { return 0; }
void pack_b(DType, bool, std::int64_t, std::int64_t, const void*, void*) {}

#endif

}  // namespace costate::cpu::COSTATE_ISA
