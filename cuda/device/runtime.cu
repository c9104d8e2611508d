// The CUDA runtime beneath the kernels: one device, one stream.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "check.h"

namespace costate::cuda::runtime {
namespace {

// Host memory that the device reads and writes directly: copies pass through two halves, one being filled while the other
// is on its way. From pageable memory the driver would copy once more, and wait.
struct Staging {
  static constexpr std::int64_t half = std::int64_t{4} << 20;
  std::byte* bytes = nullptr;
  cudaEvent_t done[2] = {};
  int next = 0;
};

struct Open {
  int device = -1;
  int multiprocessors = 0;
  cudaStream_t stream = nullptr;
  std::mutex copying;
  Staging staging;
};
// Never destroyed: tensors may outlive everything, and the driver cleans up behind a process.
Open& the_open() {
  static Open& o = *new Open;
  return o;
}

std::byte* wait_for_half(Staging& s, int which) {
  check(cudaEventSynchronize(s.done[which]), "waiting for a copy");
  return s.bytes + which * Staging::half;
}

}  // namespace

std::string versions() {
  const auto dotted = [](int v, int major, int minor) {
    return std::to_string(v / major) + "." + std::to_string(v % major / minor);
  };
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const std::size_t blas = cublasLtGetVersion(), dnn = cudnnGetVersion();
  return "CUDA " + dotted(runtime, 1000, 10) + " (driver " +
         (driver ? "for CUDA " + dotted(driver, 1000, 10) : std::string("missing")) + "), cuBLASLt " +
         dotted(static_cast<int>(blas), 10000, 100) + ", cuDNN " + dotted(static_cast<int>(dnn), 10000, 100);
}

int device_count() {
  int count = 0;
  switch (const cudaError_t error = cudaGetDeviceCount(&count)) {
    case cudaSuccess:
      return count;
    case cudaErrorNoDevice:
      return 0;
    case cudaErrorInsufficientDriver: {
      int driver = 0;
      cudaDriverGetVersion(&driver);
      fail(Fault::runtime, driver == 0 ? std::string("cuda: this machine has no NVIDIA driver")
                                       : "cuda: the NVIDIA driver is older than the CUDA runtime: " + versions());
    }
    default:
      check(error, "counting the devices");
  }
  return 0;
}

void properties(int device, DeviceProperties& out) {
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, device), "reading a device's properties");
  std::snprintf(out.name, sizeof out.name, "%.*s", static_cast<int>(sizeof out.name) - 1, p.name);
  out.major = p.major, out.minor = p.minor, out.multiprocessors = p.multiProcessorCount;
  out.memory = static_cast<std::int64_t>(p.totalGlobalMem);
  std::size_t available = 0, total = 0;
  int before = 0;
  check(cudaGetDevice(&before), "naming the current device");
  check(cudaSetDevice(device), "choosing a device");
  check(cudaMemGetInfo(&available, &total), "reading a device's free memory");
  check(cudaSetDevice(before), "choosing a device");
  out.free_memory = static_cast<std::int64_t>(available);
}

void open(int device) {
  Open& o = the_open();
  check(cudaSetDevice(device), "choosing a device");
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, device), "reading a device's properties");
  if (p.major < 8)
    fail(Fault::runtime, "cuda:" + std::to_string(device) + " is a " + p.name + " of compute capability " +
                             std::to_string(p.major) + "." + std::to_string(p.minor) + "; the kernels are for 8.0 and later");
  o.multiprocessors = p.multiProcessorCount;
  check(cudaStreamCreateWithFlags(&o.stream, cudaStreamNonBlocking), "creating a stream");
  check(cudaHostAlloc(reinterpret_cast<void**>(&o.staging.bytes), 2 * Staging::half, cudaHostAllocDefault),
        "pinning host memory");
  for (cudaEvent_t& e : o.staging.done) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "creating an event");
  o.device = device;
}

int multiprocessors() { return the_open().multiprocessors; }

// CUDA's current device is the thread's: every call that does not name the stream needs it set.
cudaStream_t stream() {
  static thread_local bool chosen = false;
  if (!chosen) {
    check(cudaSetDevice(the_open().device), "choosing a device");
    chosen = true;
  }
  return the_open().stream;
}

void check_launch(cudaError_t error, const char* kernel) { check(error, kernel); }

cudaError_t allow_shared(const void* kernel, std::size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

void* take_memory(std::int64_t bytes) {
  stream();
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (error == cudaSuccess) return data;
  cudaGetLastError();  // a refusal stays the last error otherwise, and the next launch would report it
  if (error != cudaErrorMemoryAllocation) check(error, "allocating memory");
  return nullptr;
}
void give_memory(void* data) {
  cudaStreamSynchronize(stream());
  cudaFree(data);
}

void upload(const void* host, void* data, std::int64_t bytes) {
  Open& o = the_open();
  const cudaStream_t s = stream();
  const std::lock_guard lock(o.copying);
  for (std::int64_t at = 0; at < bytes; at += Staging::half) {
    const std::int64_t n = std::min(bytes - at, Staging::half);
    const int which = o.staging.next;
    o.staging.next = 1 - which;
    std::byte* const half = wait_for_half(o.staging, which);
    std::memcpy(half, static_cast<const std::byte*>(host) + at, static_cast<std::size_t>(n));
    check(cudaMemcpyAsync(static_cast<std::byte*>(data) + at, half, static_cast<std::size_t>(n), cudaMemcpyHostToDevice, s),
          "copying to the device");
    check(cudaEventRecord(o.staging.done[which], s), "recording an event");
  }
}

void download(const void* data, void* host, std::int64_t bytes) {
  Open& o = the_open();
  const cudaStream_t s = stream();
  const std::lock_guard lock(o.copying);
  // One half arrives while the one before is copied out.
  std::int64_t waiting = 0, size[2] = {}, from[2] = {};
  const auto fetch = [&](int which) {
    std::memcpy(static_cast<std::byte*>(host) + from[which], wait_for_half(o.staging, which),
                static_cast<std::size_t>(size[which]));
    --waiting;
  };
  int which = o.staging.next;
  for (std::int64_t at = 0; at < bytes; at += Staging::half, which = 1 - which) {
    if (waiting == 2)
      fetch(which);
    else
      wait_for_half(o.staging, which);
    from[which] = at, size[which] = std::min(bytes - at, Staging::half);
    check(cudaMemcpyAsync(o.staging.bytes + which * Staging::half, static_cast<const std::byte*>(data) + at,
                          static_cast<std::size_t>(size[which]), cudaMemcpyDeviceToHost, s),
          "copying from the device");
    check(cudaEventRecord(o.staging.done[which], s), "recording an event");
    ++waiting;
  }
  if (waiting == 2) fetch(which);
  if (waiting == 1) fetch(1 - which);
}

void copy(const void* from, void* to, std::int64_t bytes) {
  count_launch();
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream()),
        "copying on the device");
}
void clear(void* data, std::int64_t bytes) {
  count_launch();
  check(cudaMemsetAsync(data, 0, static_cast<std::size_t>(bytes), stream()), "clearing memory");
}
void synchronise() { check(cudaStreamSynchronize(stream()), "waiting for the device"); }

namespace {

// The stream of the copies beside the kernels, and an event for each of the latest of them: older ones are done when those are.
struct Copies {
  static constexpr int events = 8;
  std::mutex mutex;
  cudaStream_t stream = nullptr;
  cudaEvent_t launched = nullptr, done[events] = {};
  std::int64_t started = 0;
};
Copies& copies() {
  static Copies& c = *new Copies;
  return c;
}

}  // namespace

void* pin(std::int64_t bytes) {
  stream();
  void* data = nullptr;
  if (cudaHostAlloc(&data, static_cast<std::size_t>(bytes), cudaHostAllocDefault) == cudaSuccess) return data;
  cudaGetLastError();
  return nullptr;
}
void unpin(void* data) {
  if (copies().stream) cudaStreamSynchronize(copies().stream);
  cudaFreeHost(data);
}

std::int64_t start_copy(const void* from, void* to, std::int64_t bytes) {
  count_launch();
  const cudaStream_t kernels = stream();
  Copies& c = copies();
  const std::lock_guard lock(c.mutex);
  if (!c.stream) {
    check(cudaStreamCreateWithFlags(&c.stream, cudaStreamNonBlocking), "creating a stream");
    check(cudaEventCreateWithFlags(&c.launched, cudaEventDisableTiming), "creating an event");
    for (cudaEvent_t& e : c.done) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "creating an event");
  }
  check(cudaEventRecord(c.launched, kernels), "recording an event");
  check(cudaStreamWaitEvent(c.stream, c.launched, 0), "ordering a copy behind the kernels");
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, c.stream), "copying beside the kernels");
  check(cudaEventRecord(c.done[++c.started % Copies::events], c.stream), "recording an event");
  return c.started;
}

// The event of this copy, or one of a later copy that has taken its place: the wait is long enough either way.
void finish_copy(std::int64_t number) {
  const cudaStream_t kernels = stream();
  Copies& c = copies();
  const std::lock_guard lock(c.mutex);
  if (c.stream) check(cudaStreamWaitEvent(kernels, c.done[number % Copies::events], 0), "ordering kernels behind a copy");
}

namespace {

std::atomic<bool> under_way{false};

}  // namespace

struct Recorded {
  cudaGraphExec_t graph = nullptr;
};

bool recording() { return under_way.load(std::memory_order_relaxed); }

// Relaxed: libraries may load their kernels on the way. What may not be recorded is refused before it reaches the driver.
void begin_recording() {
  check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "beginning a capture");
  under_way = true;
}

Recorded* end_recording(bool keep) {
  under_way = false;
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(stream(), &graph);
  if (!keep) {
    cudaGetLastError();
    if (graph) cudaGraphDestroy(graph);
    return nullptr;
  }
  check(error, "ending a capture");
  auto work = std::make_unique<Recorded>();
  const cudaError_t made = cudaGraphInstantiate(&work->graph, graph, 0);
  cudaGraphDestroy(graph);
  check(made, "making a graph of what was captured");
  check(cudaGraphUpload(work->graph, stream()), "bringing a graph to the device");
  return work.release();
}

void launch_recorded(Recorded* work) {
  count_launch();
  check(cudaGraphLaunch(work->graph, stream()), "launching a graph");
}

// After the launches of it that are under way.
void forget(Recorded* work) {
  cudaStreamSynchronize(stream());
  cudaGraphExecDestroy(work->graph);
  delete work;
}

}  // namespace costate::cuda::runtime
