#include <costate/tensor/folder.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <costate/tensor/checksum.h>
#include <costate/tensor/descriptor.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <set>

namespace costate {
namespace {

using detail::Descriptor;
using detail::fail_io;

constexpr std::string_view first_line = "costate folder 1\n";
constexpr std::size_t most_files = 4096, longest_name = 255;

bool is_file_name(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= longest_name && name[0] != '.' && std::all_of(name.begin(), name.end(), plain);
}

std::string hexadecimal(std::uint32_t v) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(v));
  return text;
}

struct CloseFolder {
  void operator()(DIR* d) const { ::closedir(d); }
};
// The names in a folder but . and ..
std::vector<std::string> names_in(const std::string& folder) {
  const std::unique_ptr<DIR, CloseFolder> open(::opendir(folder.c_str()));
  if (!open) fail_io("cannot read the folder", folder, errno);
  std::vector<std::string> out;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(open.get());
    if (!entry) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") out.emplace_back(name);
  }
  if (errno != 0) fail_io("cannot read the folder", folder, errno);
  return out;
}

// A folder of files and all that is in it; a file as well.
void remove_tree(const std::string& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return;
    fail_io("cannot remove", path, errno);
  }
  if (S_ISDIR(info.st_mode)) {
    for (const std::string& name : names_in(path)) remove_tree(path + "/" + name);
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT) fail_io("cannot remove", path, errno);
  } else if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    fail_io("cannot remove", path, errno);
  }
}

// A folder in the making, gone unless it takes its name. What cannot be removed because the system refuses that as well is
// left to remove_leftovers.
class Unfinished {
 public:
  explicit Unfinished(const std::string& path) : path_(&path) {}
  ~Unfinished() {
    if (!path_) return;
    try {
      remove_tree(*path_);
    } catch (...) {
    }
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  void released() { path_ = nullptr; }

 private:
  const std::string* path_;
};

std::string make_sibling(const std::string& path) {
  for (int attempt = 0;; ++attempt) {
    std::string sibling = detail::sibling_of(path);
    if (::mkdir(sibling.c_str(), 0777) == 0) return sibling;
    if ((errno != EEXIST && errno != EINTR) || attempt == 100) fail_io("cannot write", path, errno);
  }
}

FolderFile write_part(const std::string& folder, const FolderPart& part, const std::string& path) {
  const std::string named = path + "/" + part.name;  // in sentences
  Descriptor file(::open((folder + "/" + part.name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.get() < 0) fail_io("cannot write", named, errno);
  FolderFile out{part.name, 0, 0};
  Crc32c sum;
  part.write([&](std::span<const std::byte> bytes) {
    detail::write_all(file.get(), bytes, named);
    sum.add(bytes), out.bytes += bytes.size();
  });
  if (detail::flush(file.get()) != 0) fail_io("cannot flush", named, errno);
  if (const int reason = file.close()) fail_io("cannot write", named, reason);
  out.checksum = sum.value();
  return out;
}

// PATH.partial-PID-N: PID, or 0.
long owner_of(std::string_view name) {
  constexpr std::string_view mark = ".partial-";
  const std::size_t at = name.rfind(mark);
  if (at == std::string_view::npos) return 0;
  const std::string_view numbers = name.substr(at + mark.size());
  long pid = 0;
  unsigned serial = 0;
  const auto [dash, bad] = std::from_chars(numbers.data(), numbers.data() + numbers.size(), pid);
  if (bad != std::errc() || dash == numbers.data() + numbers.size() || *dash != '-') return 0;
  const auto [end, worse] = std::from_chars(dash + 1, numbers.data() + numbers.size(), serial);
  return worse == std::errc() && end == numbers.data() + numbers.size() && pid > 0 ? pid : 0;
}

}  // namespace

void write_folder_atomically(const std::string& path, const std::vector<FolderPart>& parts) {
  detail::check_path("write_folder_atomically", path);
  std::set<std::string_view> names{manifest_name};
  for (const FolderPart& part : parts)
    require(is_file_name(part.name) && names.insert(part.name).second && names.size() <= most_files,
            "write_folder_atomically: '", part.name, "' is no name for a file of '", path, "'");
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0) fail_io("cannot write", path, EEXIST);
  const std::string sibling = make_sibling(path);
  Unfinished unfinished(sibling);
  std::vector<FolderFile> files;
  for (const FolderPart& part : parts) files.push_back(write_part(sibling, part, path));
  const std::string manifest = format_manifest(files);
  write_part(sibling, {std::string(manifest_name), [&](const WriteBytes& write) { write(as_bytes(manifest)); }}, path);
  detail::flush_folder(sibling, path);
  const std::string around = detail::folder_of(path);
  if (::rename(sibling.c_str(), path.c_str()) != 0) fail_io("cannot write", path, errno);
  unfinished.released();
  detail::flush_folder(around, path);
}

namespace {

// `path` is `asked` or a folder around it.
void make_folders_of(const std::string& path, const std::string& asked) {
  const auto refused = [&](int reason) {
    const std::string what = "cannot make the folder";
    fail_io(path == asked ? what : what + " '" + asked + "': " + what, path, reason);
  };
  struct stat info;
  if (::stat(path.c_str(), &info) == 0) {
    if (!S_ISDIR(info.st_mode)) refused(ENOTDIR);
    return;
  }
  const std::string around = detail::folder_of(path);
  if (around.size() < path.size()) make_folders_of(around, asked);
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) refused(errno);
  detail::flush_folder(around, path);
}

}  // namespace

void make_folders(const std::string& path) {
  detail::check_path("make_folders", path);
  make_folders_of(path, path);
}

std::string format_manifest(const std::vector<FolderFile>& files) {
  std::string out(first_line);
  for (const FolderFile& f : files)
    out += hexadecimal(f.checksum) + " " + std::to_string(f.bytes) + " " + f.name + "\n";
  return out + hexadecimal(crc32c(as_bytes(out))) + " " + std::string(manifest_name) + "\n";
}

std::vector<FolderFile> parse_manifest(std::string_view text, std::string_view what) {
  const auto wrong = [&](std::string_view why) { fail(Fault::data, {what, " is not the manifest of a folder: ", why}); };
  if (!text.starts_with(first_line)) wrong("it does not begin with 'costate folder 1'");
  std::vector<FolderFile> files;
  std::set<std::string_view> names;
  for (std::size_t at = first_line.size();;) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) wrong("its last line is missing");
    const std::string_view line = text.substr(at, end - at);
    FolderFile f;
    const auto hex_end = line.data() + std::min<std::size_t>(8, line.size());
    const auto [after, bad] = std::from_chars(line.data(), hex_end, f.checksum, 16);
    if (bad != std::errc() || after != line.data() + 8 || line.size() < 10 || line[8] != ' ') wrong("a line has no checksum");
    std::string_view rest = line.substr(9);
    if (rest == manifest_name) {
      if (end + 1 != text.size()) wrong("something follows its last line");
      if (f.checksum != crc32c(as_bytes(text.substr(0, at)))) wrong("its checksum is another one");
      // Digits of another case, or a sign, read as the same numbers.
      if (format_manifest(files) != text) wrong("it is written in another way");
      return files;
    }
    const auto [blank, worse] = std::from_chars(rest.data(), rest.data() + rest.size(), f.bytes);
    if (worse != std::errc() || blank == rest.data() + rest.size() || *blank != ' ') wrong("a line has no size");
    rest.remove_prefix(static_cast<std::size_t>(blank + 1 - rest.data()));
    if (!is_file_name(rest) || !names.insert(rest).second || files.size() >= most_files) wrong("a line has no name of a file");
    f.name = rest;
    files.push_back(std::move(f));
    at = end + 1;
  }
}

std::vector<FolderFile> check_folder(const std::string& path) {
  const std::string manifest = path + "/" + std::string(manifest_name);
  const std::vector<std::byte> text = read_file(manifest, std::uint64_t{1} << 21);
  std::vector<FolderFile> files = parse_manifest(as_text(text), "'" + manifest + "'");
  std::vector<std::byte> piece;
  for (const FolderFile& f : files) {
    const InputFile file(path + "/" + f.name);
    if (file.size() != f.bytes)
      fail(Fault::data, {"'", file.path(), "' has ", file.size(), " bytes, but the manifest says ", f.bytes});
    Crc32c sum;
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(f.bytes, 1 << 20)));
    for (std::uint64_t at = 0; at < f.bytes; at += piece.size()) {
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(f.bytes - at, piece.size()));
      file.read(at, std::span(piece).first(n));
      sum.add(std::span(piece).first(n));
    }
    if (sum.value() != f.checksum)
      fail(Fault::data, {"'", file.path(), "' is damaged: its CRC-32C is ", hexadecimal(sum.value()),
                         ", but the manifest says ", hexadecimal(f.checksum)});
  }
  return files;
}

void remove_folder(const std::string& path) {
  detail::check_path("remove_folder", path);
  const std::string sibling = detail::sibling_of(path);
  if (::rename(path.c_str(), sibling.c_str()) != 0) {
    if (errno == ENOENT) return;
    fail_io("cannot remove", path, errno);
  }
  remove_tree(sibling);
}

int remove_leftovers(const std::string& folder) {
  int removed = 0;
  for (const std::string& name : names_in(folder)) {
    const long pid = owner_of(name);
    if (pid == 0 || (pid != ::getpid() && (::kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH))) continue;
    remove_tree(folder + "/" + name);
    ++removed;
  }
  return removed;
}

}  // namespace costate
