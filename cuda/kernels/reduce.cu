// Reductions. What is too long for one block is cut by the extents into parts, whose sums are added in a second pass: the
// order never depends on the device.
#include "../table.h"
#include "pieces.h"

namespace costate::cuda {
namespace {

constexpr std::int64_t part_length = 1 << 14;  // elements that one block adds up
constexpr int columns = 32, lanes = 8;         // of the block that adds columns

// out[row, part] = the sum of a part of a row.
template <class T, class Out>
__global__ void __launch_bounds__(block_threads)
    sum_rows(std::int64_t rows, std::int64_t n, std::int64_t parts, std::int64_t length, const T* in, Out* out) {
  const Team<block_threads> team;
  for (std::int64_t task = blockIdx.x; task < rows * parts; task += gridDim.x) {
    const std::int64_t row = task / parts, begin = task % parts * length, end = begin + length < n ? begin + length : n;
    Wide<T> s = 0;
    for (std::int64_t i = begin + team.thread; i < end; i += block_threads) s += in[row * n + i];
    s = team.sum(s);
    if (team.thread == 0) out[task] = s;
  }
}

template <class T, class Out>
__global__ void __launch_bounds__(block_threads) sum_short_rows(std::int64_t rows, std::int64_t n, const T* in, Out* out) {
  const Team<warp> team;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (block_threads / warp) + threadIdx.x / warp;
  if (row >= rows) return;
  Wide<T> s = 0;
  for (std::int64_t i = team.thread; i < n; i += warp) s += in[row * n + i];
  s = team.sum(s);
  if (team.thread == 0) out[row] = s;
}

// out[outer, part, column] = the sum over a part of the middle axis.
template <class T, class Out>
__global__ void __launch_bounds__(columns* lanes) sum_columns(std::int64_t outer, std::int64_t n, std::int64_t inner,
                                                              std::int64_t parts, std::int64_t length, const T* in, Out* out) {
  COSTATE_SHARED(Wide<T>, partial, [lanes][columns]);
  const int column = static_cast<int>(threadIdx.x) % columns, lane = static_cast<int>(threadIdx.x) / columns;
  const std::int64_t strips = (inner + columns - 1) / columns;
  for (std::int64_t task = blockIdx.x; task < outer * parts * strips; task += gridDim.x) {
    const std::int64_t strip = task % strips, part = task / strips % parts, o = task / (strips * parts);
    const std::int64_t c = strip * columns + column, begin = part * length, end = begin + length < n ? begin + length : n;
    Wide<T> s = 0;
    if (c < inner)
      for (std::int64_t i = begin + lane; i < end; i += lanes) s += in[(o * n + i) * inner + c];
    partial[lane][column] = s;
    __syncthreads();
    if (lane == 0 && c < inner) {
      for (int l = 1; l < lanes; ++l) s += partial[l][column];
      out[(o * parts + part) * inner + c] = s;
    }
    __syncthreads();
  }
}

// out[part] = the sum of squares of a part of a piece, in double precision.
template <class T>
__global__ void __launch_bounds__(block_threads) add_squares(const __grid_constant__ Pieces<Elements> list, double* out) {
  const Team<block_threads> team;
  for (std::int64_t part = blockIdx.x; part < list.first[list.count]; part += gridDim.x) {
    const int which = list.of_chunk(part);
    const Elements& of = list.entry[which];
    const T* const in = static_cast<const T*>(of.data);
    const std::int64_t begin = (part - list.first[which]) * part_length,
                       end = begin + part_length < of.n ? begin + part_length : of.n;
    double s = 0;
    for (std::int64_t i = begin + team.thread; i < end; i += block_threads)
      s += static_cast<double>(in[i]) * static_cast<double>(in[i]);
    s = team.sum(s);
    if (team.thread == 0) out[part] = s;
  }
}

dim3 blocks_for(std::int64_t tasks) { return dim3(static_cast<unsigned>(tasks < (1 << 20) ? tasks : 1 << 20)); }

// Partial sums are kept as they were added.
template <class T, class Out>
void sum_rows_in_parts(std::int64_t rows, std::int64_t n, const T* in, Out* out) {
  using W = Wide<T>;
  if (n <= 512) {
    launch("sum of short rows", sum_short_rows<T, Out>, dim3(static_cast<unsigned>((rows + 7) / 8)), dim3(block_threads), 0,
           rows, n, in, out);
    return;
  }
  const std::int64_t parts = (n + part_length - 1) / part_length;
  if (parts == 1) {
    launch("sum of rows", sum_rows<T, Out>, blocks_for(rows), dim3(block_threads), 0, rows, n, parts, part_length, in, out);
    return;
  }
  const pool::Scratch scratch(rows * parts * static_cast<std::int64_t>(sizeof(W)));
  launch("sum of parts of rows", sum_rows<T, W>, blocks_for(rows * parts), dim3(block_threads), 0, rows, n, parts, part_length,
         in, scratch.as<W>());
  sum_rows_in_parts(rows, parts, static_cast<const W*>(scratch.as<W>()), out);
}

template <class T, class Out>
void sum_columns_in_parts(std::int64_t outer, std::int64_t n, std::int64_t inner, const T* in, Out* out) {
  using W = Wide<T>;
  const std::int64_t length = 1024, parts = (n + length - 1) / length, strips = (inner + columns - 1) / columns;
  if (parts <= 1) {
    launch("sum of columns", sum_columns<T, Out>, blocks_for(outer * strips), dim3(columns * lanes), 0, outer, n, inner,
           std::int64_t{1}, n, in, out);
    return;
  }
  const pool::Scratch scratch(outer * parts * inner * static_cast<std::int64_t>(sizeof(W)));
  launch("sum of parts of columns", sum_columns<T, W>, blocks_for(outer * parts * strips), dim3(columns * lanes), 0, outer, n,
         inner, parts, length, in, scratch.as<W>());
  sum_columns_in_parts(outer, parts, inner, static_cast<const W*>(scratch.as<W>()), out);
}

}  // namespace

void sum(DType dtype, std::int64_t outer, std::int64_t n, std::int64_t inner, const void* in, void* out) {
  if (outer * inner == 0) return;
  if (n == 0) return fill(dtype, outer * inner, 0.0, out);
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    if (inner == 1)
      sum_rows_in_parts(outer, n, static_cast<const T*>(in), static_cast<T*>(out));
    else
      sum_columns_in_parts(outer, n, inner, static_cast<const T*>(in), static_cast<T*>(out));
  });
}

void sum_squares(DType dtype, std::int64_t pieces, const Elements* piece, double* out) {
  std::int64_t parts = 0;
  for (std::int64_t i = 0; i < pieces; ++i) parts += (piece[i].n + part_length - 1) / part_length;
  if (parts == 0) return runtime::clear(out, 8);
  const pool::Scratch scratch(parts > 1 ? parts * 8 : 0);
  double* const partial = parts > 1 ? scratch.as<double>() : out;
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    each_list(piece, pieces, part_length, [](const Elements& e) { return e.n; },
              [&](const Pieces<Elements>& list, std::int64_t before) {
                launch("sum of squares", add_squares<T>, blocks_for(list.chunks()), dim3(block_threads), 0, list,
                       partial + before);
              });
  });
  if (parts > 1) sum_rows_in_parts(1, parts, static_cast<const double*>(partial), out);
}

}  // namespace costate::cuda
