// The system calls that files are read and written with, taken the place of in this executable: recorded, and made to fail, to be
// interrupted, to do less than asked for, or never to return, as a test plans; and what a loss of power would leave. Without a
// plan they do what they always do. preload.cpp makes the same of a program that knows nothing of it.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace costate::faults {

enum class Call : unsigned char { open, read, pread, write, pwrite, fsync, close, rename, unlink, mkdir, rmdir };
const char* name(Call call);
// Whether the call changes what is on the disk.
constexpr bool changes(Call call) { return call != Call::read && call != Call::pread && call != Call::close; }

struct Record {
  Call call;
  std::string path;        // open, unlink, ...: the path; rename: the new name; the others: that of the descriptor
  std::size_t bytes = 0;   // read and written
};

enum class Death : unsigned char {
  none,
  killed,          // the process ends here, as by SIGKILL: what it has written is there
  power,           // and so does the machine: bytes that were not flushed are lost, and so are names whose folder was not
  power_in_order,  // the same, but that the names have come to the disk, as on file systems that write them in order
};

// What the plan says to a call.
struct Verdict {
  int reason = 0;               // errno, instead of making the call; 0: make it
  std::size_t most = ~std::size_t{0};  // bytes to read or write at most
  Death dies = Death::none;
};

// Asked before every call below one of `folder`'s files, or the folder itself; `index` counts them from 0.
using Plan = std::function<Verdict(Call call, std::size_t index)>;

// In force as long as it lives, for this thread or for all of them.
class Scope {
 public:
  enum class Threads : unsigned char { this_one, all };
  // `power`: the power may fail, for which names that are taken away are kept under others, FOLDER.lost-N, in the meantime.
  Scope(std::string folder, Plan plan, bool power = false, Threads threads = Threads::this_one);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  const std::vector<Record>& calls() const;

 private:
  Threads threads_;
};

}  // namespace costate::faults
