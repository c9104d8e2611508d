// The one function that the plugin exports; see tensor/backend.h.
#include <costate/tensor/backend.h>

#include "cells.h"
#include "graph.h"
#include "pool.h"
#include "runtime.h"
#include "table.h"

namespace costate::cuda {
namespace {

const Host* host = nullptr;

const char* libraries() {
  static const std::string text = runtime::versions();
  return text.c_str();
}

// Beside its length, what makes a copy from the host one that a graph can hold: a few arguments of kernels.
constexpr std::int64_t longest_recorded = 1 << 16;

void upload(const void* from, void* data, std::int64_t bytes) {
  if (!runtime::recording()) return runtime::upload(from, data, bytes);
  if (bytes > longest_recorded) graph::refuse("a copy of more than 64 KiB from the host");
  write_bytes(from, data, bytes);
}
void download(const void* data, void* to, std::int64_t bytes) {
  graph::refuse("numbers that the host reads");
  runtime::download(data, to, bytes);
  cells::check_indices();
}
void synchronise() {
  graph::refuse("a wait of the host");
  runtime::synchronise();
  cells::check_indices();
}
std::int64_t start_copy(const void* from, void* to, std::int64_t bytes) {
  graph::refuse("copies beside the kernels");
  return runtime::start_copy(from, to, bytes);
}
void open(int device) {
  runtime::open(device);
  cells::open();
}

const Backend backend = {
    backend_version,
    &kernel_table,
    libraries,
    runtime::device_count,
    [](int device, DeviceProperties* out) { runtime::properties(device, *out); },
    open,
    pool::take,
    pool::give,
    pool::trim,
    upload,
    download,
    runtime::copy,
    synchronise,
    [] { return runtime::launches.load(std::memory_order_relaxed); },
    graph::make,
    graph::free,
    graph::use_memory,
    graph::begin,
    graph::end,
    graph::refusal,
    graph::launch,
    pool::pin,
    pool::unpin,
    start_copy,
    runtime::finish_copy,
};

}  // namespace

void fail(Fault fault, const std::string& sentence) {
  host->fail(fault, sentence.c_str());
  __builtin_unreachable();
}

}  // namespace costate::cuda

extern "C" __attribute__((visibility("default"))) const costate::Backend* costate_backend(const costate::Host* host) {
  if (host->version != costate::backend_version) return nullptr;
  costate::cuda::host = host;
  return &costate::cuda::backend;
}
