// Moving, filling and converting values.
#include "../table.h"
#include "grid.h"

namespace costate::cuda {
namespace {

struct CopyArguments {
  std::int64_t n;
  int rank;
  std::int64_t extent[Shape::max_rank], from[Shape::max_rank], to[Shape::max_rank];
};

template <class T>
__global__ void __launch_bounds__(block_threads) copy_strided(CopyArguments a, const T* in, T* out) {
  for (std::int64_t e = first_task(); e < a.n; e += task_stride()) {
    std::int64_t source = 0, target = 0, rest = e;
    for (int axis = a.rank - 1; axis >= 0; --axis) {
      const std::int64_t c = rest % a.extent[axis];
      rest /= a.extent[axis];
      source += c * a.from[axis], target += c * a.to[axis];
    }
    out[target] = in[source];
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads) fill_all(std::int64_t n, T value, T* out) {
  for (std::int64_t e = first_task(); e < n; e += task_stride()) out[e] = value;
}

template <class From, class To>
__global__ void __launch_bounds__(block_threads) cast_all(std::int64_t n, const From* in, To* out) {
  for (std::int64_t e = first_task(); e < n; e += task_stride()) out[e] = static_cast<To>(in[e]);
}

template <class From, class To>
void cast_typed(std::int64_t n, const void* in, void* out) {
  launch("cast", cast_all<From, To>, grid_for(n), dim3(block_threads), 0, n, static_cast<const From*>(in),
         static_cast<To*>(out));
}

}  // namespace

void copy(const Loop& loop, std::int64_t item, const void* in, void* out) {
  if (loop.numel == 0) return;
  if (loop.contiguous) return runtime::copy(in, out, loop.numel * item);
  CopyArguments a{};
  a.n = loop.numel, a.rank = loop.rank;
  for (int axis = 0; axis < loop.rank; ++axis)
    a.extent[axis] = loop.extent[axis], a.from[axis] = loop.stride[0][axis], a.to[axis] = loop.stride[1][axis];
  if (item == 2)
    launch("copy", copy_strided<std::uint16_t>, grid_for(a.n), dim3(block_threads), 0, a, static_cast<const std::uint16_t*>(in),
           static_cast<std::uint16_t*>(out));
  else if (item == 4)
    launch("copy", copy_strided<std::uint32_t>, grid_for(a.n), dim3(block_threads), 0, a, static_cast<const std::uint32_t*>(in),
           static_cast<std::uint32_t*>(out));
  else
    launch("copy", copy_strided<std::uint64_t>, grid_for(a.n), dim3(block_threads), 0, a, static_cast<const std::uint64_t*>(in),
           static_cast<std::uint64_t*>(out));
}

void fill(DType dtype, std::int64_t n, double value, void* out) {
  if (n == 0) return;
  const auto typed = [&](auto v) {
    using T = decltype(v);
    launch("fill", fill_all<T>, grid_for(n), dim3(block_threads), 0, n, v, static_cast<T*>(out));
  };
  if (dtype == DType::f32)
    typed(static_cast<float>(value));
  else if (dtype == DType::f64)
    typed(value);
  else if (dtype == DType::bf16)
    typed(Bf16(static_cast<float>(value)));
  else
    typed(static_cast<std::int32_t>(value));
}

void cast(DType from, DType to, std::int64_t n, const void* in, void* out) {
  if (n == 0) return;
  if (to == DType::bf16) return cast_typed<float, Bf16>(n, in, out);
  if (from == DType::bf16) return cast_typed<Bf16, float>(n, in, out);
  using Function = void (*)(std::int64_t, const void*, void*);
  static constexpr Function table[3][3] = {
      {cast_typed<float, float>, cast_typed<float, double>, cast_typed<float, std::int32_t>},
      {cast_typed<double, float>, cast_typed<double, double>, cast_typed<double, std::int32_t>},
      {cast_typed<std::int32_t, float>, cast_typed<std::int32_t, double>, cast_typed<std::int32_t, std::int32_t>}};
  table[static_cast<int>(from)][static_cast<int>(to)](n, in, out);
}

}  // namespace costate::cuda
