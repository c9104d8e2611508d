// System calls on files with their reasons as sentences: what file.h and folder.h are made of.
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace costate::detail {

// Throws Error(Fault::io): "cannot write 'path': No space left on device".
[[noreturn]] void fail_io(std::string_view what, const std::string& path, int reason);

// An open file, closed when it goes.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int close();  // 0 or the reason
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Throws Fault::argument for an empty path and for one with a zero byte, which would silently name another file.
void check_path(std::string_view what, const std::string& path);
int open_to_read(const std::string& path);    // throws Fault::io
int flush(int fd);                            // fsync, again when it is interrupted; 0 or -1 with errno
// All bytes, however many the system takes at a time. `path` is that of sentences.
void write_all(int fd, std::span<const std::byte> bytes, const std::string& path);
// The folder that a path's name is in; "." where the path has none.
std::string folder_of(const std::string& path);
// A name is safe only once its folder is on the disk. File systems that cannot flush a folder say EINVAL, and are believed;
// throws Fault::io on behalf of `path` for any other reason.
void flush_folder(const std::string& folder, const std::string& path);
// A name beside `path` that no other call of any process on this machine makes: PATH.partial-PID-N.
std::string sibling_of(const std::string& path);

}  // namespace costate::detail
