#include <costate/tensor/backend.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/tensor.h>

#include <dlfcn.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <vector>

namespace costate {
namespace {

constexpr const char* plugin_name = "libcostate_cuda.so";

[[noreturn]] void fail_for_plugin(Fault fault, const char* text) { throw Error(fault, text); }
constexpr Host host{backend_version, fail_for_plugin};

// Where a plugin may lie: what the environment names, or beside the program or library that holds this code, or in the
// library folder next to it.
std::vector<std::filesystem::path> candidates() {
  if (const char* named = std::getenv("COSTATE_CUDA_PLUGIN"); named && *named) return {named};
  std::vector<std::filesystem::path> paths;
  std::error_code ignored;
  const auto beside = [&](const std::filesystem::path& file) {
    const std::filesystem::path folder = file.parent_path();
    paths.push_back(folder / plugin_name);
    paths.push_back(folder / ".." / "lib" / plugin_name);
#ifdef COSTATE_LIBRARY_FOLDER
    paths.push_back(folder / ".." / COSTATE_LIBRARY_FOLDER / plugin_name);
#endif
  };
  Dl_info here;
  static const char mark = 0;
  if (dladdr(&mark, &here) && here.dli_fname) beside(std::filesystem::absolute(here.dli_fname, ignored));
  beside(std::filesystem::read_symlink("/proc/self/exe", ignored));
  return paths;
}

LoadedBackend load() {
  LoadedBackend loaded;
  void* library = nullptr;
  for (const std::filesystem::path& path : candidates()) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) {
      loaded.path = path.string();
      continue;
    }
    loaded.path = path.lexically_normal().string();
    library = dlopen(loaded.path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const char* why = dlerror();
      loaded.problem =
          sentence({"the CUDA backend ", loaded.path, " could not be loaded: ", why ? why : "no reason was given"});
      return loaded;
    }
    break;
  }
  if (!library) {
    loaded.problem =
        std::getenv("COSTATE_CUDA_PLUGIN")
            ? sentence({"COSTATE_CUDA_PLUGIN names ", loaded.path, ", which does not exist"})
            : sentence({"no CUDA backend: ", plugin_name,
                        " lies neither beside the program nor in the lib folder next to it; it is built where CMake "
                        "finds nvcc (COSTATE_CUDA=ON requires it), and COSTATE_CUDA_PLUGIN may name the file"});
    loaded.path.clear();
    return loaded;
  }
  const auto entry = reinterpret_cast<BackendEntry>(dlsym(library, "costate_backend"));
  const Backend* backend = entry ? entry(&host) : nullptr;
  if (!backend || backend->version != backend_version) {
    loaded.problem = sentence({"the CUDA backend ", loaded.path, " was built for another version of Costate (its interface is ",
                               backend ? std::to_string(backend->version) : "unknown", ", expected ", backend_version, ")"});
    return loaded;
  }
  loaded.backend = backend;
  return loaded;
}

// The backend once a device of it is open: what every kernel call reads.
constinit std::atomic<const Backend*> open_backend{nullptr};
int open_index = -1;

const Backend& open_device(Device device) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (const Backend* backend = open_backend.load(std::memory_order_relaxed)) {
    require(device.index == open_index, device, ": this process computes on cuda:", open_index,
            " already; a process uses one CUDA device");
    return *backend;
  }
  const LoadedBackend& loaded = cuda_backend();
  if (!loaded.backend) fail(Fault::runtime, {device, ": ", loaded.problem});
  const int count = loaded.backend->device_count();
  if (device.index >= count)
    fail(Fault::runtime, {device, ": there is no such device; this machine has ", count, ", counted from cuda:0"});
  loaded.backend->open(device.index);
  open_index = device.index;
  open_backend.store(loaded.backend, std::memory_order_release);
  log(Severity::note, {device, ": ", loaded.backend->libraries(), ", by ", loaded.path});
  return *loaded.backend;
}

}  // namespace

const LoadedBackend& cuda_backend() {
  static const LoadedBackend loaded = load();
  return loaded;
}

const Backend& backend_of(Device device) {
  require(device.kind == DeviceKind::cuda, "backend: the ", device, " needs none");
  const Backend* backend = open_backend.load(std::memory_order_acquire);
  if (backend && device.index == open_index) return *backend;
  return open_device(device);
}

void synchronise(Device device) {
  if (device.kind == DeviceKind::cuda) backend_of(device).synchronise();
}

Device device_named(std::string_view text, std::string_view key) {
  if (text == "cpu") return Device::cpu;
  if (text == "meta") return Device::meta;
  constexpr std::string_view prefix = "cuda:";
  if (text == "cuda") return Device::cuda(0);
  if (text.substr(0, prefix.size()) == prefix) {
    const std::string_view digits = text.substr(prefix.size());
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc() && end == digits.data() + digits.size() && index >= 0 && index < 256) return Device::cuda(index);
  }
  fail(Fault::argument, {key, ": '", text, "' is no device; expected cpu, meta, or cuda:0 and so on"});
}

namespace detail {

const Kernels& table_beyond_cpu(Device device) {
  return device.kind == DeviceKind::meta ? meta_table : *backend_of(device).kernels;
}

void trim_backend() {
  if (const Backend* backend = open_backend.load(std::memory_order_acquire)) backend->trim();
}

}  // namespace detail
}  // namespace costate
