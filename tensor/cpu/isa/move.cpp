// Moving, filling and converting values.
#include <costate/tensor/parallel.h>
#include <costate/tensor/rounding.h>

#include <cstring>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
void copy_typed(const Loop& loop, const T* in, T* out) {
  if (loop.numel == 0) return;
  if (loop.rank == 0) {
    *out = *in;
    return;
  }
  const int last = loop.rank - 1;
  const std::int64_t inner = loop.extent[last], rows = loop.numel / inner;
  const std::int64_t from = loop.stride[0][last], to = loop.stride[1][last];
  const std::int64_t rows_per_task = inner > (1 << 14) ? 1 : (1 << 14) / inner;
  parallel_for(rows, rows_per_task, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t index[Shape::max_rank] = {}, source = 0, target = 0;
    for (std::int64_t axis = last - 1, rest = begin; axis >= 0; --axis) {
      index[axis] = rest % loop.extent[axis];
      rest /= loop.extent[axis];
      source += index[axis] * loop.stride[0][axis];
      target += index[axis] * loop.stride[1][axis];
    }
    for (std::int64_t row = begin; row < end; ++row) {
      const T* s = in + source;
      T* t = out + target;
      if (from == 1 && to == 1) {
        if (inner * sizeof(T) >= 64) std::memcpy(t, s, static_cast<std::size_t>(inner) * sizeof(T));
        else
          for (std::int64_t i = 0; i < inner; ++i) t[i] = s[i];
      } else {
        for (std::int64_t i = 0; i < inner; ++i) t[i * to] = s[i * from];
      }
      for (int axis = last - 1; axis >= 0; --axis) {
        source += loop.stride[0][axis], target += loop.stride[1][axis];
        if (++index[axis] < loop.extent[axis]) break;
        source -= loop.extent[axis] * loop.stride[0][axis], target -= loop.extent[axis] * loop.stride[1][axis];
        index[axis] = 0;
      }
    }
  });
}

template <class From, class To>
void cast_typed(std::int64_t n, const void* in, void* out) {
  const From* s = static_cast<const From*>(in);
  To* t = static_cast<To*>(out);
  for (std::int64_t i = 0; i < n; ++i) t[i] = static_cast<To>(s[i]);
}

}  // namespace

void copy(const Loop& loop, std::int64_t item, const void* in, void* out) {
  if (item == 2) copy_typed(loop, static_cast<const std::uint16_t*>(in), static_cast<std::uint16_t*>(out));
  else if (item == 4) copy_typed(loop, static_cast<const std::uint32_t*>(in), static_cast<std::uint32_t*>(out));
  else copy_typed(loop, static_cast<const std::uint64_t*>(in), static_cast<std::uint64_t*>(out));
}

void fill(DType dtype, std::int64_t n, double value, void* out) {
  const auto typed = [&](auto v) {
    auto* t = static_cast<decltype(v)*>(out);
    for (std::int64_t i = 0; i < n; ++i) t[i] = v;
  };
  if (dtype == DType::f32) typed(static_cast<float>(value));
  else if (dtype == DType::f64) typed(value);
  else if (dtype == DType::bf16) typed(rounding::bf16_bits(static_cast<float>(value)));
  else typed(static_cast<std::int32_t>(value));
}

void cast(DType from, DType to, std::int64_t n, const void* in, void* out) {
  if (to == DType::bf16) {
    const auto* s = static_cast<const float*>(in);
    auto* t = static_cast<std::uint16_t*>(out);
    for (std::int64_t i = 0; i < n; ++i) t[i] = rounding::bf16_bits(s[i]);
    return;
  }
  if (from == DType::bf16) {
    const auto* s = static_cast<const std::uint16_t*>(in);
    auto* t = static_cast<float*>(out);
    for (std::int64_t i = 0; i < n; ++i) t[i] = rounding::from_bf16_bits(s[i]);
    return;
  }
  using Function = void (*)(std::int64_t, const void*, void*);
  static constexpr Function table[3][3] = {
      {cast_typed<float, float>, cast_typed<float, double>, cast_typed<float, std::int32_t>},
      {cast_typed<double, float>, cast_typed<double, double>, cast_typed<double, std::int32_t>},
      {cast_typed<std::int32_t, float>, cast_typed<std::int32_t, double>, cast_typed<std::int32_t, std::int32_t>}};
  table[static_cast<int>(from)][static_cast<int>(to)](n, in, out);
}

}  // namespace costate::cpu::COSTATE_ISA
