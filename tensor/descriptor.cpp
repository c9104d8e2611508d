#include <costate/tensor/descriptor.h>

#include <fcntl.h>
#include <unistd.h>

#include <costate/tensor/error.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>

namespace costate::detail {

void fail_io(std::string_view what, const std::string& path, int reason) {
  fail(Fault::io, {what, " '", path, "': ", std::generic_category().message(reason)});
}

int Descriptor::close() {
  if (fd_ < 0) return 0;
  return ::close(std::exchange(fd_, -1)) == 0 ? 0 : errno;
}

void check_path(std::string_view what, const std::string& path) {
  require(!path.empty() && path.find('\0') == std::string::npos, what,
          ": a path must not be empty or hold a zero byte");
}

int open_to_read(const std::string& path) {
  int fd;
  do fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) fail_io("cannot open", path, errno);
  return fd;
}

int flush(int fd) {
  int status;
  do status = ::fsync(fd);
  while (status != 0 && errno == EINTR);
  return status;
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot write", path, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

void flush_folder(const std::string& folder, const std::string& path) {
  int fd;
  do fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  const Descriptor directory(fd);
  if (fd >= 0 && flush(fd) != 0 && errno != EINVAL) fail_io("cannot flush the folder of", path, errno);
}

std::string sibling_of(const std::string& path) {
  static std::atomic<unsigned> serial{0};
  return path + ".partial-" + std::to_string(::getpid()) + "-" + std::to_string(serial.fetch_add(1));
}

}  // namespace costate::detail
