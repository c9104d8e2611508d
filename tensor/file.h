// Files in and out, whole or piecewise, and writing that never leaves half a file. Parsers take bytes and
// text; this is the only part of the library that touches the disk.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace costate {

constexpr std::uint64_t default_max_file = std::uint64_t{4} << 30;

// All bytes of a file or pipe. Throws Fault::io, naming the path and the system's reason, when it cannot be
// opened or read or is a folder, and Fault::data when it is longer than max_bytes (found from its size,
// before memory is taken).
std::vector<std::byte> read_file(const std::string& path, std::uint64_t max_bytes = default_max_file);

// A regular file open for reading any piece of it, with the size that it had when it was opened.
class InputFile {
 public:
  // Throws Fault::io, naming the path and the system's reason.
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  // Fills `out` with the bytes from `offset` on. Throws Fault::argument beyond size(), Fault::io when the
  // system refuses or the file has become shorter meanwhile. May be called from several threads at once.
  void read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

// A file without a name, for what memory has no room for: it is gone when this object is, or the process,
// however it ends.
class ScratchFile {
 public:
  // In this folder; "": in that of the environment's TMPDIR, or /tmp. Throws Fault::io, naming the folder and
  // the system's reason.
  explicit ScratchFile(const std::string& folder);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  // Throw Fault::io with the system's reason (a full disk, say).
  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  void read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string folder_;
  int descriptor_ = -1;
};

// Afterwards the path holds these bytes (these parts one after the other) or, after an exception, what it
// held before, whatever happens in between: the bytes go to a temporary sibling that is flushed to the disk
// and renamed, and the folder is flushed. The sibling never stays behind. Throws Fault::io naming the path
// and the system's reason; refuses a path that is not a regular file.
void write_file_atomically(const std::string& path, std::span<const std::span<const std::byte>> parts);
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
// `write` calls its argument with one part after the other, which may be made as they are asked for.
using WriteBytes = std::function<void(std::span<const std::byte>)>;
void write_file_atomically(const std::string& path, const std::function<void(const WriteBytes&)>& write);
void write_file_atomically(const std::string& path, std::string_view text);

std::span<const std::byte> as_bytes(std::string_view text);
std::string_view as_text(std::span<const std::byte> bytes);

}  // namespace costate
