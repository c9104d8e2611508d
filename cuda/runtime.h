// What the backend asks of the driver: memory, copies, launches, in the order of one stream. Two implementations: the CUDA
// runtime (device/runtime.cu) and the emulator (emulator/runtime.cpp).
//
// Everything of a process goes to one stream, whichever thread asks: what was freed may be given to the next one who asks
// without waiting, because kernels of the one run before kernels of the other.
#pragma once
#include <costate/tensor/backend.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "language.h"

namespace costate::cuda {

// Throws costate::Error in the program that loaded the plugin.
[[noreturn]] void fail(Fault fault, const std::string& sentence);

namespace runtime {

std::string versions();
int device_count();  // throws where there is no driver or no device
void properties(int device, DeviceProperties& out);
void open(int device);
int multiprocessors();  // of the open device

// What is asked of the driver at a time, or more. The emulator, whose memory is protected page by page, takes little.
#ifdef __CUDACC__
constexpr std::int64_t segment_bytes = std::int64_t{32} << 20;
#else
constexpr std::int64_t segment_bytes = std::int64_t{1} << 20;
#endif
void* take_memory(std::int64_t bytes);  // from the driver, aligned to 256; null when it has no more
void give_memory(void* data);           // waits for the stream

void upload(const void* host, void* data, std::int64_t bytes);    // the host's bytes may change when it returns
void download(const void* data, void* host, std::int64_t bytes);  // waits
void copy(const void* from, void* to, std::int64_t bytes);
void clear(void* data, std::int64_t bytes);  // to zero bytes
void synchronise();

// Copies beside the kernels, see tensor/backend.h.
void* pin(std::int64_t bytes);
void unpin(void* data);
std::int64_t start_copy(const void* from, void* to, std::int64_t bytes);
void finish_copy(std::int64_t number);

// Between begin and end what is launched, copied or cleared is recorded instead of done. end: null unless `keep`.
struct Recorded;
bool recording();
void begin_recording();
Recorded* end_recording(bool keep);
void launch_recorded(Recorded* work);  // again as it was recorded, at once
void forget(Recorded* work);

// Kernels, copies and graphs that the host has launched.
inline std::atomic<std::int64_t> launches{0};
inline void count_launch() { launches.fetch_add(1, std::memory_order_relaxed); }

#ifdef __CUDACC__
cudaStream_t stream();
void check_launch(cudaError_t error, const char* kernel);
cudaError_t allow_shared(const void* kernel, std::size_t bytes);  // more than the 48 KiB that need no permission
#else
// `call` is kept by what records it.
void launch(void (*body)(void*), std::shared_ptr<void> call, dim3 grid, dim3 block, std::size_t dynamic_bytes,
            const char* name);
#endif

}  // namespace runtime

// kernel(arguments...) over a grid of blocks.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_bytes,
            Arguments&&... arguments) {
  runtime::count_launch();
#ifdef __CUDACC__
  if (dynamic_bytes > (48u << 10))
    runtime::check_launch(runtime::allow_shared(reinterpret_cast<const void*>(kernel), dynamic_bytes), name);
  kernel<<<grid, block, dynamic_bytes, runtime::stream()>>>(static_cast<Parameters>(arguments)...);
  runtime::check_launch(cudaGetLastError(), name);
#else
  using Call = emulator::Call<Parameters...>;
  auto call = std::make_shared<Call>(Call{kernel, {static_cast<Parameters>(arguments)...}});
  runtime::launch(&Call::body, std::move(call), grid, block, dynamic_bytes, name);
#endif
}

}  // namespace costate::cuda
