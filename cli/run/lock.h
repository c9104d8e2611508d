// One process at a time writes to a run directory.
#pragma once
#include <string>

namespace costate::cli {

// A lock on a directory (flock) that goes with the object and with its process, however that ends; nothing of it is left on
// the disk. Readers (report, compare, inspect) do not ask for it. File systems that know no locks are taken at their word.
class RunLock {
 public:
  // Takes the lock if the directory is there. Throws Fault::argument, naming the directory, where another process has it.
  explicit RunLock(std::string path) : path_(std::move(path)) { take(); }
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  // The same, of a directory that was made since.
  void take();

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace costate::cli
