// Kernels over rows: softmax, layer norm, gather. A warp takes a short row, a block a long one.
#include "../cells.h"
#include "../table.h"
#include "grid.h"

namespace costate::cuda {
namespace {

template <int width>
__device__ __forceinline__ std::int64_t row_of_team() {
  return static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
}

template <int width, bool log, class T>
__global__ void __launch_bounds__(block_threads) softmax_rows(std::int64_t rows, std::int64_t n, const T* in, T* out) {
  const Team<width> team;
  const std::int64_t row = row_of_team<width>();
  if (row >= rows) return;
  using W = Wide<T>;
  const T* const x = in + row * n;
  T* const y = out + row * n;
  W top = x[0];
  for (std::int64_t i = team.thread; i < n; i += width) top = Larger{}(top, W(x[i]));
  top = team.reduce(top, Larger{});
  W sum = 0;
  for (std::int64_t i = team.thread; i < n; i += width) sum += scalar::exp(x[i] - top);
  sum = team.sum(sum);
  const W shift = top + scalar::log(sum), scale = W(1) / sum;
  for (std::int64_t i = team.thread; i < n; i += width) y[i] = log ? x[i] - shift : scalar::exp(x[i] - top) * scale;
}

// softmax: dx = y (g - <y, g>); log softmax: dx = g - exp(y) sum(g).
template <int width, bool log, class T>
__global__ void __launch_bounds__(block_threads)
    softmax_rows_vjp(std::int64_t rows, std::int64_t n, const T* out, const T* cotangent, T* dx) {
  const Team<width> team;
  const std::int64_t row = row_of_team<width>();
  if (row >= rows) return;
  const T *const y = out + row * n, *const g = cotangent + row * n;
  using W = Wide<T>;
  W s = 0;
  for (std::int64_t i = team.thread; i < n; i += width) s += log ? W(g[i]) : y[i] * g[i];
  s = team.sum(s);
  for (std::int64_t i = team.thread; i < n; i += width)
    dx[row * n + i] = log ? g[i] - scalar::exp(W(y[i])) * s : y[i] * (g[i] - s);
}

template <int width, class T>
__global__ void __launch_bounds__(block_threads)
    normalise_rows(std::int64_t rows, std::int64_t n, Wide<T> eps, const T* in, T* out, Wide<T>* rstd) {
  using W = Wide<T>;
  const Team<width> team;
  const std::int64_t row = row_of_team<width>();
  if (row >= rows) return;
  const T* const x = in + row * n;
  W sum = 0, squares = 0;
  for (std::int64_t i = team.thread; i < n; i += width) sum += x[i];
  const W mean = team.sum(sum) / static_cast<W>(n);
  for (std::int64_t i = team.thread; i < n; i += width) squares += (x[i] - mean) * (x[i] - mean);
  const W scale = W(1) / scalar::sqrt(team.sum(squares) / static_cast<W>(n) + eps);
  if (team.thread == 0) rstd[row] = scale;
  for (std::int64_t i = team.thread; i < n; i += width) out[row * n + i] = (x[i] - mean) * scale;
}

// dx = rstd (g - mean(g) - y mean(g y))
template <int width, class T>
__global__ void __launch_bounds__(block_threads)
    normalise_rows_vjp(std::int64_t rows, std::int64_t n, const T* out, const Wide<T>* rstd, const T* cotangent, T* dx) {
  using W = Wide<T>;
  const Team<width> team;
  const std::int64_t row = row_of_team<width>();
  if (row >= rows) return;
  const T *const y = out + row * n, *const g = cotangent + row * n;
  W sum = 0, slope = 0;
  for (std::int64_t i = team.thread; i < n; i += width) sum += g[i], slope += g[i] * y[i];
  sum = team.sum(sum) / static_cast<W>(n), slope = team.sum(slope) / static_cast<W>(n);
  for (std::int64_t i = team.thread; i < n; i += width) dx[row * n + i] = rstd[row] * (g[i] - sum - y[i] * slope);
}

// The index of a row, or -1 when it is outside the table, which is told of once the host reads something.
__device__ __forceinline__ std::int64_t index_of(const std::int32_t* index, std::int64_t row, std::int64_t extent, int op,
                                                 cells::WrongIndex* wrong) {
  const std::int32_t i = index[row];
  if (i >= 0 && i < extent) return i;
  wrong->index = i, wrong->extent = extent, wrong->op = op;
  return -1;
}

template <class T>
__global__ void __launch_bounds__(block_threads) gather(std::int64_t rows, std::int64_t n, std::int64_t extent,
                                                        const std::int32_t* index, const T* table, T* out,
                                                        cells::WrongIndex* wrong) {
  for (std::int64_t e = first_task(); e < rows * n; e += task_stride()) {
    const std::int64_t i = index_of(index, e / n, extent, 1, wrong);
    out[e] = i < 0 ? T(0.0f) : table[i * n + e % n];
  }
}

// A thread a column, which adds its rows one after the other: their order, and the bits, are the cpu's.
template <class T>
__global__ void __launch_bounds__(warp) scatter_add(std::int64_t rows, std::int64_t n, std::int64_t extent,
                                                    const std::int32_t* index, const T* in, T* out, cells::WrongIndex* wrong) {
  for (std::int64_t c = first_task(); c < n; c += task_stride())
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t i = index_of(index, r, extent, 2, wrong);
      if (i >= 0) out[i * n + c] += in[r * n + c];
    }
}

dim3 grid_of_teams(std::int64_t rows, int per_block) { return dim3(static_cast<unsigned>((rows + per_block - 1) / per_block)); }

}  // namespace

void softmax(DType dtype, bool log, std::int64_t rows, std::int64_t n, const void* in, void* out) {
  if (rows * n == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    with_team(n, [&]<int width>(Team<width>*, int per_block) {
      launch("softmax", log ? softmax_rows<width, true, T> : softmax_rows<width, false, T>, grid_of_teams(rows, per_block),
             dim3(block_threads), 0, rows, n, static_cast<const T*>(in), static_cast<T*>(out));
    });
  });
}

void softmax_vjp(DType dtype, bool log, std::int64_t rows, std::int64_t n, const void* out, const void* cotangent, void* dx) {
  if (rows * n == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    with_team(n, [&]<int width>(Team<width>*, int per_block) {
      launch("softmax vjp", log ? softmax_rows_vjp<width, true, T> : softmax_rows_vjp<width, false, T>,
             grid_of_teams(rows, per_block), dim3(block_threads), 0, rows, n, static_cast<const T*>(out),
             static_cast<const T*>(cotangent), static_cast<T*>(dx));
    });
  });
}

void layer_norm(DType dtype, std::int64_t rows, std::int64_t n, double eps, const void* in, void* out, void* rstd) {
  if (rows * n == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    with_team(n, [&]<int width>(Team<width>*, int per_block) {
      launch("layer norm", normalise_rows<width, T>, grid_of_teams(rows, per_block), dim3(block_threads), 0, rows, n,
             static_cast<Wide<T>>(eps), static_cast<const T*>(in), static_cast<T*>(out), static_cast<Wide<T>*>(rstd));
    });
  });
}

void layer_norm_vjp(DType dtype, std::int64_t rows, std::int64_t n, const void* out, const void* rstd, const void* cotangent,
                    void* dx) {
  if (rows * n == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    with_team(n, [&]<int width>(Team<width>*, int per_block) {
      launch("layer norm vjp", normalise_rows_vjp<width, T>, grid_of_teams(rows, per_block), dim3(block_threads), 0, rows, n,
             static_cast<const T*>(out), static_cast<const Wide<T>*>(rstd), static_cast<const T*>(cotangent), static_cast<T*>(dx));
    });
  });
}

void gather_rows(DType dtype, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index,
                 const void* table, void* out) {
  if (rows * n == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("gather", gather<T>, grid_for(rows * n), dim3(block_threads), 0, rows, n, extent, index,
           static_cast<const T*>(table), static_cast<T*>(out), cells::wrong_index());
  });
  cells::expect_wrong_index();
}

void scatter_add_rows(DType dtype, std::int64_t rows, std::int64_t n, std::int64_t extent, const std::int32_t* index,
                      const void* in, void* out) {
  if (rows * n == 0) return;
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("scatter", scatter_add<T>, dim3(static_cast<unsigned>((n + warp - 1) / warp)), dim3(warp), 0, rows, n, extent,
           index, static_cast<const T*>(in), static_cast<T*>(out), cells::wrong_index());
  });
  cells::expect_wrong_index();
}

}  // namespace costate::cuda
