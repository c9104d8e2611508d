// What a disk has and what it has only been told: names and bytes that are not flushed are lost with the power. A model of the
// least that POSIX promises: fsync of a file keeps its bytes, fsync of a folder the names in it, and nothing else is.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace costate::faults {

class Disk {
 public:
  // Of a folder; what has lost its name is kept beside it, as FOLDER.lost-N.
  explicit Disk(std::string folder) : folder_(std::move(folder)) {}
  // Calls that have succeeded. `keep` before one that takes a name away: what has it stays reachable, to be brought back.
  void made(const std::string& path);
  void keep(const std::string& path);
  void renamed(const std::string& from, const std::string& to);
  void removed(const std::string& path);
  void removed_folder(const std::string& path);
  void flushed(const std::string& path);  // a file or a folder

  // Files get the length that they had when they were flushed; files that never were become empty. With `names`, names that
  // were not flushed are undone, the last one first.
  void lose_power(bool names);

 private:
  struct Change {
    enum class Kind { made, renamed, removed, removed_folder } kind;
    std::string path, from;
    std::string kept;  // what had the name before; "": nothing
  };
  static std::string folder_of(const std::string& path);
  void settle(const std::string& folder);
  std::vector<Change> changes_;                // of names whose folder has not been flushed since
  std::map<std::uint64_t, std::int64_t> flushed_;  // bytes of files made while watching, by number
  std::string folder_, kept_;
  std::uint64_t serial_ = 0;
};

}  // namespace costate::faults
