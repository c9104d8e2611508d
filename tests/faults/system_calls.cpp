#include "faults/system_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "faults/disk.h"

namespace costate::faults {
namespace {

struct State {
  explicit State(std::string f) : folder(std::move(f)), disk(folder) {}
  std::string folder;
  Plan plan;
  std::vector<Record> calls;
  std::map<int, std::string> open;  // descriptors below the folder
  Disk disk;
  bool power = false;
  std::recursive_mutex mutex;
};
thread_local State* own = nullptr;  // of this thread
State* everyone = nullptr;          // of all threads
thread_local bool asking = false;   // a plan's own calls are not watched

State* active() { return asking ? nullptr : own ? own : everyone; }

bool below(const State& s, const std::string& path) { return path == s.folder || path.starts_with(s.folder + "/"); }

std::string absolute(const char* path) {
  if (path[0] == '/') return path;
  char folder[4096];
  const auto n = syscall(SYS_getcwd, folder, sizeof folder);
  return n > 0 ? std::string(folder) + "/" + path : path;
}

// A watched call: the state it belongs to, held until the call is over.
class Watched {
 public:
  Watched(Call call, const char* path) : Watched(call, [&](State& s) {
    const std::string whole = absolute(path);
    return below(s, whole) ? whole : std::string();
  }) {}
  Watched(Call call, int fd) : Watched(call, [&](State& s) {
    const auto found = s.open.find(fd);
    return found == s.open.end() ? std::string() : found->second;
  }) {}
  ~Watched() {
    if (state_) state_->mutex.unlock();
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  explicit operator bool() const { return state_ != nullptr; }
  State* operator->() const { return state_; }
  bool refused() const { return state_ && verdict_.reason != 0; }
  std::size_t most(std::size_t n) const { return state_ ? std::min(n, verdict_.most) : n; }
  ssize_t counted(ssize_t n) {
    if (state_ && n > 0) state_->calls.back().bytes = static_cast<std::size_t>(n);
    return n;
  }
  const std::string& path() const { return state_->calls.back().path; }
  // The disk's own calls are not watched.
  template <class Body>
  void on_disk(const Body& body) {
    if (!state_ || !state_->power) return;
    const int reason = errno;
    asking = true;
    body(state_->disk, path());
    asking = false;
    errno = reason;
  }
  // Ends the process where the plan says so, `n` bytes of a write having been made.
  void die_if_planned() {
    if (!state_ || verdict_.dies == Death::none) return;
    asking = true;
    if (verdict_.dies != Death::killed) state_->disk.lose_power(verdict_.dies == Death::power);
    syscall(SYS_exit_group, 137);
  }

 private:
  template <class PathOf>
  Watched(Call call, const PathOf& path_of) {
    State* s = active();
    if (!s) return;
    s->mutex.lock();
    const std::string path = path_of(*s);
    if (path.empty()) {
      s->mutex.unlock();
      return;
    }
    state_ = s;
    asking = true;
    verdict_ = s->plan ? s->plan(call, s->calls.size()) : Verdict{};
    asking = false;
    s->calls.push_back({call, path});
    if (call != Call::write && call != Call::pwrite) die_if_planned();
    if (verdict_.reason) errno = verdict_.reason;
  }
  State* state_ = nullptr;
  Verdict verdict_;
};

}  // namespace

const char* name(Call call) {
  static constexpr const char* names[] = {"open",  "read",   "pread",  "write", "pwrite", "fsync",
                                          "close", "rename", "unlink", "mkdir", "rmdir"};
  return names[static_cast<int>(call)];
}

Scope::Scope(std::string folder, Plan plan, bool power, Threads threads) : threads_(threads) {
  auto* state = new State(std::move(folder));
  state->plan = std::move(plan), state->power = power;
  (threads == Threads::all ? everyone : own) = state;
}
Scope::~Scope() { delete std::exchange(threads_ == Threads::all ? everyone : own, nullptr); }
const std::vector<Record>& Scope::calls() const { return (threads_ == Threads::all ? everyone : own)->calls; }

}  // namespace costate::faults

// These take the place of the C library's, for the library under test too.
using namespace costate::faults;

namespace {
int open_at(const char* path, int flags, mode_t mode) {
  Watched w(Call::open, path);
  if (w.refused()) return -1;
  const bool there = !w || !(flags & O_CREAT) || syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
  const auto fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
  if (w && fd >= 0) {
    w->open[fd] = w.path();
    if (!there) w.on_disk([](Disk& d, const std::string& p) { d.made(p); });
  }
  return fd;
}

int remove_file(const char* path) {
  Watched w(Call::unlink, path);
  if (w.refused()) return -1;
  w.on_disk([](Disk& d, const std::string& p) { d.keep(p); });
  const auto result = static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
  if (result == 0) w.on_disk([](Disk& d, const std::string& p) { d.removed(p); });
  return result;
}
int remove_folder(const char* path) {
  Watched w(Call::rmdir, path);
  if (w.refused()) return -1;
  const auto result = static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR));
  if (result == 0) w.on_disk([](Disk& d, const std::string& p) { d.removed_folder(p); });
  return result;
}

// The path of a name in an open folder.
std::string path_at(int folder, const char* name) {
  if (folder == AT_FDCWD || name[0] == '/') return name;
  char path[4096];
  const auto n = syscall(SYS_readlinkat, AT_FDCWD, ("/proc/self/fd/" + std::to_string(folder)).c_str(), path, sizeof path);
  return std::string(path, n > 0 ? static_cast<std::size_t>(n) : 0) + "/" + name;
}
// What open was called with behind its flags.
mode_t mode_of(int flags, va_list list) {
  return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : mode_t{0};
}
}  // namespace

extern "C" int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return open_at(path, flags, mode);
}
extern "C" int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return open_at(path, flags, mode);
}

extern "C" ssize_t read(int fd, void* out, size_t n) {
  Watched w(Call::read, fd);
  return w.refused() ? -1 : w.counted(syscall(SYS_read, fd, out, w.most(n)));
}

extern "C" ssize_t pread(int fd, void* out, size_t n, off_t offset) {
  Watched w(Call::pread, fd);
  return w.refused() ? -1 : w.counted(syscall(SYS_pread64, fd, out, w.most(n), offset));
}

// A process that dies in a write has written as much as the plan allows.
extern "C" ssize_t write(int fd, const void* bytes, size_t n) {
  Watched w(Call::write, fd);
  if (w.refused()) return -1;
  const ssize_t written = w.counted(syscall(SYS_write, fd, bytes, w.most(n)));
  w.die_if_planned();
  return written;
}

extern "C" ssize_t pwrite(int fd, const void* bytes, size_t n, off_t offset) {
  Watched w(Call::pwrite, fd);
  if (w.refused()) return -1;
  const ssize_t written = w.counted(syscall(SYS_pwrite64, fd, bytes, w.most(n), offset));
  w.die_if_planned();
  return written;
}

// The C library's own opens a file without our knowledge.
extern "C" int mkostemp(char* path, int flags) {
  static std::atomic<unsigned> serial{0};
  const std::size_t length = std::strlen(path);
  for (;;) {
    std::snprintf(path + length - 6, 7, "%06u", serial.fetch_add(1) % 1000000);
    const int fd = open_at(path, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
}

extern "C" int fsync(int fd) {
  Watched w(Call::fsync, fd);
  if (w.refused()) return -1;
  const auto result = static_cast<int>(syscall(SYS_fsync, fd));
  if (result == 0) w.on_disk([](Disk& d, const std::string& p) { d.flushed(p); });
  return result;
}

// A close that fails has closed all the same, as on Linux.
extern "C" int close(int fd) {
  Watched w(Call::close, fd);
  const int reason = errno;
  if (w) w->open.erase(fd);
  const auto result = static_cast<int>(syscall(SYS_close, fd));
  if (!w.refused()) return result;
  errno = reason;
  return -1;
}

extern "C" int rename(const char* from, const char* to) noexcept {
  Watched w(Call::rename, to);
  if (w.refused()) return -1;
  w.on_disk([&](Disk& d, const std::string& p) { d.keep(p); });
  const auto result = static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
  if (result == 0) w.on_disk([&](Disk& d, const std::string& p) { d.renamed(absolute(from), p); });
  return result;
}

extern "C" int unlink(const char* path) noexcept { return remove_file(path); }
extern "C" int rmdir(const char* path) noexcept { return remove_folder(path); }
extern "C" int remove(const char* path) noexcept {
  const int result = remove_file(path);
  return result != 0 && errno == EISDIR ? remove_folder(path) : result;
}
extern "C" int unlinkat(int folder, const char* name, int flags) noexcept {
  const std::string path = path_at(folder, name);
  return flags & AT_REMOVEDIR ? remove_folder(path.c_str()) : remove_file(path.c_str());
}

extern "C" int mkdir(const char* path, mode_t mode) noexcept {
  Watched w(Call::mkdir, path);
  if (w.refused()) return -1;
  const auto result = static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
  if (result == 0) w.on_disk([](Disk& d, const std::string& p) { d.made(p); });
  return result;
}

