#include "faults/system_calls.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <map>

namespace costate::faults {
namespace {

struct State {
  std::string folder;
  Plan plan;
  std::vector<Record> calls;
  std::map<int, std::string> open;  // descriptors below the folder
};
thread_local State* active = nullptr;

bool below(const State& s, const std::string& path) { return path == s.folder || path.starts_with(s.folder + "/"); }

// The path of a descriptor that the plan is about, or null.
const std::string* watched(int fd) {
  if (!active) return nullptr;
  const auto found = active->open.find(fd);
  return found == active->open.end() ? nullptr : &found->second;
}

// Asks the plan; a plan's own calls are not watched. Whether the call is to be made.
bool allowed(Call call, const std::string& path, Verdict& verdict) {
  State& s = *active;
  active = nullptr;
  verdict = s.plan ? s.plan(call, s.calls.size()) : Verdict{};
  s.calls.push_back({call, path});
  active = &s;
  if (verdict.dies) syscall(SYS_exit_group, 137);
  if (verdict.reason) errno = verdict.reason;
  return verdict.reason == 0;
}

ssize_t counted(ssize_t n) {
  if (n > 0) active->calls.back().bytes = static_cast<std::size_t>(n);
  return n;
}

}  // namespace

const char* name(Call call) {
  static constexpr const char* names[] = {"open", "read", "pread", "write", "fsync", "close", "rename", "unlink"};
  return names[static_cast<int>(call)];
}

Scope::Scope(std::string folder, Plan plan) { active = new State{std::move(folder), std::move(plan), {}, {}}; }
Scope::~Scope() {
  delete active;
  active = nullptr;
}
const std::vector<Record>& Scope::calls() const { return active->calls; }

}  // namespace costate::faults

// These take the place of the C library's, for the library under test too.
using namespace costate::faults;

extern "C" int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, mode_t);
    va_end(list);
  }
  Verdict verdict;
  const bool watch = active && below(*active, path);
  if (watch && !allowed(Call::open, path, verdict)) return -1;
  const auto fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
  if (watch && fd >= 0) active->open[fd] = path;
  return fd;
}

extern "C" ssize_t read(int fd, void* out, size_t n) {
  Verdict verdict;
  const std::string* path = watched(fd);
  if (!path) return syscall(SYS_read, fd, out, n);
  if (!allowed(Call::read, *path, verdict)) return -1;
  return counted(syscall(SYS_read, fd, out, std::min(n, verdict.most)));
}

extern "C" ssize_t pread(int fd, void* out, size_t n, off_t offset) {
  Verdict verdict;
  const std::string* path = watched(fd);
  if (!path) return syscall(SYS_pread64, fd, out, n, offset);
  if (!allowed(Call::pread, *path, verdict)) return -1;
  return counted(syscall(SYS_pread64, fd, out, std::min(n, verdict.most), offset));
}

extern "C" ssize_t write(int fd, const void* bytes, size_t n) {
  Verdict verdict;
  const std::string* path = watched(fd);
  if (!path) return syscall(SYS_write, fd, bytes, n);
  if (!allowed(Call::write, *path, verdict)) return -1;
  return counted(syscall(SYS_write, fd, bytes, std::min(n, verdict.most)));
}

extern "C" int fsync(int fd) {
  Verdict verdict;
  const std::string* path = watched(fd);
  if (path && !allowed(Call::fsync, *path, verdict)) return -1;
  return static_cast<int>(syscall(SYS_fsync, fd));
}

// A close that fails has closed all the same, as on Linux.
extern "C" int close(int fd) {
  Verdict verdict;
  const std::string* path = watched(fd);
  const bool well = !path || allowed(Call::close, *path, verdict);
  if (path) active->open.erase(fd);
  const auto result = static_cast<int>(syscall(SYS_close, fd));
  if (well) return result;
  errno = verdict.reason;
  return -1;
}

extern "C" int rename(const char* from, const char* to) noexcept {
  Verdict verdict;
  if (active && below(*active, to) && !allowed(Call::rename, to, verdict)) return -1;
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

extern "C" int unlink(const char* path) noexcept {
  Verdict verdict;
  if (active && below(*active, path) && !allowed(Call::unlink, path, verdict)) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
