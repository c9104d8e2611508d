// Devices beyond the cpu: a backend is a shared library that is loaded when its device is first named. One program then runs
// on machines with and without a driver; where the backend cannot be had, the first use throws a sentence that says why.
//
// The interface is one exported C function, `costate_backend`, and two structs of function pointers. The backend calls
// `Host::fail` to throw. Kernels and copies run in the order in which they were called, on one stream; `upload` may be
// followed by changes of the host's bytes; `download` waits.
//
// A process computes on one device of a backend, the first that it names; ranks of a distributed run each take their own.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/storage.h>
#include <cstdint>
#include <string>

namespace costate {

struct DeviceProperties {
  char name[128] = {};
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::int64_t memory = 0, free_memory = 0;  // bytes
};

struct Host {
  std::int32_t version = 0;                                   // backend_version of the library
  void (*fail)(Fault fault, const char* sentence) = nullptr;  // throws Error
};

struct Backend {
  std::int32_t version = 0;
  const Kernels* kernels = nullptr;
  const char* (*libraries)() = nullptr;  // what it is built on, "CUDA 13.0, cuBLASLt 13.1, cuDNN 9.19"
  int (*device_count)() = nullptr;       // throws, in words, where there is no driver or no device
  void (*properties)(int device, DeviceProperties* out) = nullptr;
  void (*open)(int device) = nullptr;  // before anything below; throws when another device is open

  void* (*allocate)(std::int64_t bytes) = nullptr;  // aligned to 256; null when the device has no more
  void (*release)(void* data) = nullptr;            // throws nothing
  void (*trim)() = nullptr;                         // what the backend's cache holds goes back to the driver
  void (*upload)(const void* host, void* data, std::int64_t bytes) = nullptr;
  void (*download)(const void* data, void* host, std::int64_t bytes) = nullptr;
  void (*copy)(const void* from, void* to, std::int64_t bytes) = nullptr;
  void (*synchronise)() = nullptr;

  std::int64_t (*launches)() = nullptr;  // kernels, copies and graphs that the host has launched so far

  // Recorded work; tensor/graph.h is the use of it. A graph has memory of its own, which stays where it is until free_graph.
  void* (*make_graph)() = nullptr;
  void (*free_graph)(void* graph) = nullptr;
  void (*use_graph_memory)(void* graph) = nullptr;  // for what is allocated from now on; null: the common memory again
  // Between the two kernels and copies are recorded instead of run. Reading, waiting, growing memory throw: see the refusal.
  void (*begin_capture)(void* graph) = nullptr;
  void (*end_capture)(void* graph, bool keep) = nullptr;
  const char* (*capture_refusal)() = nullptr;  // why the last capture failed; "": it did not
  // `sample_shift` is added to the numbers of all samples of noise.
  void (*launch_graph)(void* graph, std::uint64_t sample_shift) = nullptr;

  // Memory of the host that copies reach beside the kernels; null when the system has no more. unpin waits
  // for none: what is pinned next may be that memory, for copies that come later.
  void* (*pin)(std::int64_t bytes) = nullptr;
  void (*unpin)(void* data) = nullptr;
  // A copy between the device and pinned memory, after the kernels that were launched before it and beside those that are
  // launched after it; copies run one after the other. Kernels launched after finish_copy of the number that start_copy gave
  // run when it is done; until then its source may not be written or freed, and its target not be read.
  std::int64_t (*start_copy)(const void* from, void* to, std::int64_t bytes) = nullptr;
  void (*finish_copy)(std::int64_t number) = nullptr;
};
// Changed with any of the structs above or of kernels.h.
constexpr std::int32_t backend_version = 2;
using BackendEntry = const Backend* (*)(const Host*);

// The backend of a device, loaded and opened on first use. Throws Error(Fault::runtime) with the reason when there is none:
// no plugin beside the program, a library that the plugin needs, no driver, no such device.
const Backend& backend_of(Device device);

// The backend whose devices are called cuda:i, loaded but not opened, or null and the reason. COSTATE_CUDA_PLUGIN in the
// environment names another file than libcostate_cuda.so beside the program.
struct LoadedBackend {
  const Backend* backend = nullptr;
  std::string path;     // of the plugin
  std::string problem;  // why there is none, a sentence
};
const LoadedBackend& cuda_backend();

// Waits until the device has done what it was told; returns at once on the cpu and on meta.
void synchronise(Device device);

// "cpu", "meta" or "cuda:0"; anything else throws, naming `key`.
Device device_named(std::string_view text, std::string_view key);

namespace detail {
void trim_backend();
}

}  // namespace costate
