// A few words of the device's memory that kernels read or write beside their operands.
#pragma once
#include <cstdint>

namespace costate::cuda::cells {

void open();  // once, before any kernel

// Added to the number of every sample of noise: 0 but while a graph runs, whose samples are other ones than those of its
// capture.
const std::uint64_t* sample_shift();
void set_sample_shift(std::uint64_t shift);

// The first wrong index that a kernel met since it was last asked for: it left that row out.
struct WrongIndex {
  std::int32_t op;  // 0: none; 1: gather_rows; 2: scatter_rows
  std::int32_t index;
  std::int64_t extent;
};
WrongIndex* wrong_index();
// Kernels that write it, or graphs that may hold such, have been launched.
void expect_wrong_index();
// Throws Error(argument) when a kernel met one; waits for what expect_wrong_index told of, and for nothing otherwise.
void check_indices();

}  // namespace costate::cuda::cells
