// The emulator as a device: memory that the host can read only through copies, and launches that run at once.
//
// COSTATE_EMULATED_MEMORY in the environment says how many bytes the device has (default 2^30).
#include "../runtime.h"

#include <sys/mman.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

namespace costate::cuda::runtime {
namespace {

// Addresses of the device, without access but while a kernel or a copy runs: a host that follows a device's pointer is
// stopped by the processor.
struct Memory {
  static constexpr std::int64_t addresses = std::int64_t{1} << 34;
  std::recursive_mutex mutex;
  std::byte* begin;
  std::int64_t used = 0, live = 0, limit = std::int64_t{1} << 30;
  int open = 0;
  std::multimap<std::int64_t, std::byte*> given;
  std::map<std::byte*, std::int64_t> sizes;

  Memory() {
    begin = static_cast<std::byte*>(
        mmap(nullptr, static_cast<std::size_t>(addresses), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (const char* s = std::getenv("COSTATE_EMULATED_MEMORY"); s && *s) limit = std::atoll(s);
  }
  void protect(int access) {
    if (used) mprotect(begin, static_cast<std::size_t>(used), access);
  }
};
Memory& memory() {
  static Memory& m = *new Memory;
  return m;
}

struct Access {
  std::lock_guard<std::recursive_mutex> lock{memory().mutex};
  Access() {
    if (memory().open++ == 0) memory().protect(PROT_READ | PROT_WRITE);
  }
  ~Access() {
    if (--memory().open == 0) memory().protect(PROT_NONE);
  }
};

}  // namespace

std::string versions() { return "the emulator, which runs the kernels on the host"; }
int device_count() { return 1; }
void properties(int, DeviceProperties& out) {
  std::snprintf(out.name, sizeof out.name, "emulated device");
  out.major = 9, out.minor = 0, out.multiprocessors = multiprocessors();
  out.memory = memory().limit, out.free_memory = memory().limit - memory().live;
}
void open(int) {}
int multiprocessors() { return 2; }

void* take_memory(std::int64_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (m.live + bytes > m.limit) return nullptr;
  constexpr std::int64_t page = 4096;
  const std::int64_t size = (bytes + page - 1) / page * page;
  std::byte* data = nullptr;
  if (const auto found = m.given.find(size); found != m.given.end()) {
    data = found->second;
    m.given.erase(found);
  } else if (m.used + size <= Memory::addresses) {
    data = m.begin + m.used, m.used += size;
  }
  if (!data) return nullptr;
  m.live += size, m.sizes[data] = size;
  // Never written means NaN.
  const Access access;
  std::memset(data, 0xff, static_cast<std::size_t>(size));
  return data;
}
void give_memory(void* data) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.sizes.find(static_cast<std::byte*>(data));
  m.live -= found->second;
  // Its pages go back to the system: what protection costs grows with the pages in use.
  madvise(data, static_cast<std::size_t>(found->second), MADV_DONTNEED);
  m.given.emplace(found->second, found->first);
  m.sizes.erase(found);
}

void upload(const void* host, void* data, std::int64_t bytes) {
  const Access access;
  std::memcpy(data, host, static_cast<std::size_t>(bytes));
}
void download(const void* data, void* host, std::int64_t bytes) {
  const Access access;
  std::memcpy(host, data, static_cast<std::size_t>(bytes));
}
namespace {

// What is under way when calls are recorded instead of done.
std::unique_ptr<Recorded> under_way;

}  // namespace

struct Recorded {
  std::vector<std::function<void()>> calls;
};
bool recording() { return under_way != nullptr; }
void begin_recording() { under_way = std::make_unique<Recorded>(); }
Recorded* end_recording(bool keep) {
  std::unique_ptr<Recorded> done = std::move(under_way);
  return keep ? done.release() : nullptr;
}
void launch_recorded(Recorded* work) {
  count_launch();
  const Access access;
  for (const auto& call : work->calls) call();
}
void forget(Recorded* work) { delete work; }

namespace {

void now_or_later(std::function<void()> call) {
  if (under_way)
    under_way->calls.push_back(std::move(call));
  else
    call();
}

}  // namespace

void copy(const void* from, void* to, std::int64_t bytes) {
  count_launch();
  now_or_later([=] {
    const Access access;
    std::memmove(to, from, static_cast<std::size_t>(bytes));
  });
}
void clear(void* data, std::int64_t bytes) {
  count_launch();
  now_or_later([=] {
    const Access access;
    std::memset(data, 0, static_cast<std::size_t>(bytes));
  });
}
void synchronise() {}

// A device does these copies at some time between their start and their finish; here at the one that
// COSTATE_EMULATED_COPIES names, early or late. Late shows a source that is written, or a target that is read, in between.
namespace {

struct Copies {
  std::mutex mutex;
  std::int64_t started = 0, done = 0;
  std::vector<std::function<void()>> waiting;  // of numbers done + 1, done + 2, ...
};
Copies& copies() {
  static Copies& c = *new Copies;
  return c;
}

}  // namespace

void* pin(std::int64_t bytes) { return std::malloc(static_cast<std::size_t>(bytes)); }
void unpin(void* data) {
  finish_copy(copies().started);
  std::free(data);
}
std::int64_t start_copy(const void* from, void* to, std::int64_t bytes) {
  count_launch();
  Copies& c = copies();
  std::int64_t number = 0;
  {
    const std::lock_guard lock(c.mutex);
    c.waiting.push_back([=] {
      const Access access;
      std::memcpy(to, from, static_cast<std::size_t>(bytes));
    });
    number = ++c.started;
  }
  if (const char* when = std::getenv("COSTATE_EMULATED_COPIES"); when && std::string(when) == "early") finish_copy(number);
  return number;
}
void finish_copy(std::int64_t number) {
  Copies& c = copies();
  const std::lock_guard lock(c.mutex);
  for (; c.done < number; ++c.done) {
    c.waiting.front()();
    c.waiting.erase(c.waiting.begin());
  }
}

void launch(void (*body)(void*), std::shared_ptr<void> call, dim3 grid, dim3 block, std::size_t dynamic_bytes,
            const char* name) {
  now_or_later([=] {
    const Access access;
    emulator::run(body, call.get(), grid, block, dynamic_bytes, name);
  });
}

}  // namespace costate::cuda::runtime
