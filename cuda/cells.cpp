#include "cells.h"

#include <atomic>
#include <string>

#include "pool.h"
#include "runtime.h"
#include "table.h"

namespace costate::cuda::cells {
namespace {

struct Cells {
  std::uint64_t sample_shift;
  std::uint64_t unused;
  WrongIndex wrong;
};
Cells* there = nullptr;  // in the device's memory
std::atomic<bool> expected{false};

}  // namespace

void open() {
  if (there) return;
  there = static_cast<Cells*>(pool::take(sizeof(Cells)));
  if (!there) fail(Fault::memory, "cuda: the device has no memory left");
  runtime::clear(there, sizeof(Cells));
}

const std::uint64_t* sample_shift() { return &there->sample_shift; }
void set_sample_shift(std::uint64_t shift) { write_bytes(&shift, &there->sample_shift, sizeof shift); }

WrongIndex* wrong_index() { return &there->wrong; }
void expect_wrong_index() { expected.store(true, std::memory_order_relaxed); }

void check_indices() {
  if (!expected.exchange(false, std::memory_order_relaxed)) return;
  WrongIndex found{};
  runtime::download(&there->wrong, &found, sizeof found);
  if (found.op == 0) return;
  runtime::clear(&there->wrong, sizeof found);
  fail(Fault::argument, std::string(found.op == 1 ? "gather_rows" : "scatter_rows") + ": index " + std::to_string(found.index) +
                            " is outside 0 to " + std::to_string(found.extent - 1) +
                            " (the device met it in an earlier call and left the row out)");
}

}  // namespace costate::cuda::cells
