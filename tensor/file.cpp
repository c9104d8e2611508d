#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <costate/tensor/descriptor.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace costate {
namespace {

using detail::Descriptor;
using detail::check_path;
using detail::fail_io;
using detail::flush;
using detail::open_to_read;

struct stat examine(int fd, const std::string& path) {
  struct stat info;
  if (::fstat(fd, &info) != 0) fail_io("cannot examine", path, errno);
  if (S_ISDIR(info.st_mode)) fail_io("cannot read", path, EISDIR);
  return info;
}

// Removes the temporary sibling unless it has been renamed away. Takes no memory: there may be none left.
class Temporary {
 public:
  explicit Temporary(const std::string& path) : path_(&path) {}
  ~Temporary() {
    if (path_) ::unlink(path_->c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  void released() { path_ = nullptr; }

 private:
  const std::string* path_;
};

int open_sibling(const std::string& path, std::string& sibling) {
  for (int attempt = 0;; ++attempt) {
    sibling = detail::sibling_of(path);
    const int fd = ::open(sibling.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || (errno != EEXIST && errno != EINTR) || attempt == 100) return fd;
  }
}

}  // namespace

std::vector<std::byte> read_file(const std::string& path, std::uint64_t max_bytes) {
  check_path("read_file", path);
  const Descriptor file(open_to_read(path));
  const int fd = file.get();
  const struct stat info = examine(fd, path);
  const auto too_long = [&](const Piece& size) {
    fail(Fault::data, {"'", path, "' holds ", size, " bytes, but at most ", max_bytes, " are read"});
  };
  const std::uint64_t announced = S_ISREG(info.st_mode) ? static_cast<std::uint64_t>(info.st_size) : 0;
  if (announced > max_bytes) too_long(announced);
  std::vector<std::byte> out(static_cast<std::size_t>(announced));
  std::size_t held = 0;
  // Sizes of pipes and of files that grow meanwhile are not known: the end is where read says so.
  for (;;) {
    if (held == out.size()) {
      std::byte probe;
      const ssize_t n = ::read(fd, &probe, 1);
      if (n == 0) break;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_io("cannot read", path, errno);
      if (held == max_bytes) too_long("more");
      const std::uint64_t grown = std::max<std::uint64_t>(65536, 2 * static_cast<std::uint64_t>(held));
      out.resize(static_cast<std::size_t>(std::min(grown, max_bytes)));
      out[held++] = probe;
      continue;
    }
    const ssize_t n =
        ::read(fd, out.data() + held, std::min<std::size_t>(out.size() - held, std::size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot read", path, errno);
    if (n == 0) break;
    held += static_cast<std::size_t>(n);
  }
  out.resize(held);
  return out;
}

InputFile::InputFile(const std::string& path) : path_(path) {
  check_path("InputFile", path);
  Descriptor file(open_to_read(path));
  const struct stat info = examine(file.get(), path);
  if (!S_ISREG(info.st_mode))
    fail(Fault::io, {"cannot read '", path, "' piecewise: it is not a regular file"});
  size_ = static_cast<std::uint64_t>(info.st_size);
  descriptor_ = file.release();
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  require(offset <= size_ && out.size() <= size_ - offset, "'", path_, "': bytes ", offset, " and the ",
          out.size(), " after it were asked for of ", size_);
  while (!out.empty()) {
    const ssize_t n =
        ::pread(descriptor_, out.data(), std::min<std::size_t>(out.size(), std::size_t{1} << 30),
                static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot read", path_, errno);
    if (n == 0)
      fail(Fault::io, {"'", path_, "' was shortened while it was read: it had ", size_,
                       " bytes, now it ends at ", offset});
    offset += static_cast<std::uint64_t>(n);
    out = out.subspan(static_cast<std::size_t>(n));
  }
}

ScratchFile::ScratchFile(const std::string& folder) : folder_(folder) {
  if (folder_.empty()) {
    const char* const named = std::getenv("TMPDIR");
    folder_ = named && *named ? named : "/tmp";
  }
  check_path("ScratchFile", folder_);
  std::string name = folder_ + "/costate-scratch-XXXXXX";
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail_io("cannot make a scratch file in", folder_, errno);
  ::unlink(name.c_str());
}
ScratchFile::~ScratchFile() { ::close(descriptor_); }

void ScratchFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(descriptor_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30),
                               static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("cannot write a scratch file in", folder_, errno);
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void ScratchFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(descriptor_, out.data(), std::min<std::size_t>(out.size(), std::size_t{1} << 30),
                              static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_io("cannot read a scratch file in", folder_, n < 0 ? errno : EIO);
    offset += static_cast<std::uint64_t>(n);
    out = out.subspan(static_cast<std::size_t>(n));
  }
}

void write_file_atomically(const std::string& path, const std::function<void(const WriteBytes&)>& write) {
  check_path("write_file_atomically", path);
  struct stat info;
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    fail(Fault::io, {"cannot write '", path, "': it exists and is not a regular file"});
  std::string sibling;
  Descriptor file(open_sibling(path, sibling));
  if (file.get() < 0) fail_io("cannot write", path, errno);
  Temporary temporary(sibling);
  write([&](std::span<const std::byte> bytes) { detail::write_all(file.get(), bytes, path); });
  if (flush(file.get()) != 0) fail_io("cannot flush", path, errno);
  if (const int reason = file.close()) fail_io("cannot write", path, reason);
  if (::rename(sibling.c_str(), path.c_str()) != 0) fail_io("cannot write", path, errno);
  temporary.released();
  detail::flush_folder(detail::folder_of(path), path);
}

void write_file_atomically(const std::string& path, std::span<const std::span<const std::byte>> parts) {
  write_file_atomically(path, [&](const WriteBytes& write) {
    for (const std::span<const std::byte> bytes : parts) write(bytes);
  });
}

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  write_file_atomically(path, std::span<const std::span<const std::byte>>(&bytes, 1));
}

void write_file_atomically(const std::string& path, std::string_view text) {
  write_file_atomically(path, as_bytes(text));
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace costate
