#include "faults/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace costate::faults {
namespace {

// The calls themselves, past those that watch.
void raw_rename(const std::string& from, const std::string& to) {
  syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0);
}
void raw_link(const std::string& from, const std::string& to) {
  syscall(SYS_linkat, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0);
}
void raw_unlink(const std::string& path) { syscall(SYS_unlinkat, AT_FDCWD, path.c_str(), 0); }

// Of a file, not a folder; 0: there is none.
std::uint64_t number_of(const std::string& path) {
  struct stat info{};
  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? static_cast<std::uint64_t>(info.st_ino) : 0;
}

}  // namespace

std::string Disk::folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

void Disk::made(const std::string& path) {
  if (path == folder_) return;  // the folder around it is not watched: its flushes are not seen
  changes_.push_back({Change::Kind::made, path, "", ""});
  if (const std::uint64_t file = number_of(path)) flushed_[file] = 0;
}

void Disk::keep(const std::string& path) {
  kept_.clear();
  if (number_of(path) == 0) return;
  kept_ = folder_ + ".lost-" + std::to_string(serial_++);
  raw_link(path, kept_);
}
void Disk::renamed(const std::string& from, const std::string& to) {
  changes_.push_back({Change::Kind::renamed, to, from, kept_});
  kept_.clear();
}
void Disk::removed(const std::string& path) {
  changes_.push_back({Change::Kind::removed, path, "", kept_});
  kept_.clear();
}
void Disk::removed_folder(const std::string& path) { changes_.push_back({Change::Kind::removed_folder, path, "", ""}); }

void Disk::flushed(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (S_ISDIR(info.st_mode)) settle(path);
  else if (const auto found = flushed_.find(static_cast<std::uint64_t>(info.st_ino)); found != flushed_.end())
    found->second = static_cast<std::int64_t>(info.st_size);
}

void Disk::settle(const std::string& folder) {
  std::erase_if(changes_, [&](const Change& c) {
    if (folder_of(c.path) != folder) return false;
    if (!c.kept.empty()) raw_unlink(c.kept);
    return true;
  });
}

void Disk::lose_power(bool names) {
  // Bytes: of every file by its number, wherever it is now.
  const auto shorten = [&](const std::string& path) {
    if (const auto found = flushed_.find(number_of(path)); found != flushed_.end() && found->first != 0)
      syscall(SYS_truncate, path.c_str(), found->second);
  };
  for (const Change& c : changes_) shorten(c.path);
  std::error_code none;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_, none))
    if (entry.is_regular_file()) shorten(entry.path().string());
  for (auto c = changes_.rbegin(); c != changes_.rend(); ++c) {
    if (!names) {
      if (!c->kept.empty()) raw_unlink(c->kept);
      continue;
    }
    switch (c->kind) {
      case Change::Kind::made: {
        std::error_code gone;
        std::filesystem::remove_all(c->path, gone);
        break;
      }
      case Change::Kind::renamed:
        raw_rename(c->path, c->from);
        if (!c->kept.empty()) raw_rename(c->kept, c->path);
        break;
      case Change::Kind::removed:
        if (!c->kept.empty()) raw_rename(c->kept, c->path);
        break;
      case Change::Kind::removed_folder:
        syscall(SYS_mkdirat, AT_FDCWD, c->path.c_str(), 0777);
        break;
    }
  }
}

}  // namespace costate::faults
