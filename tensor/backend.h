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
