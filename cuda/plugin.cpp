// The one function that the plugin exports; see tensor/backend.h.
#include <costate/tensor/backend.h>

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

const Backend backend = {
    backend_version,
    &kernel_table,
    libraries,
    runtime::device_count,
    [](int device, DeviceProperties* out) { runtime::properties(device, *out); },
    runtime::open,
    pool::take,
    pool::give,
    pool::trim,
    runtime::upload,
    runtime::download,
    runtime::copy,
    runtime::synchronise,
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
