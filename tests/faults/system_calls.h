// The system calls that files are read and written with, taken the place of in this executable: recorded, and made to fail, to be
// interrupted, to do less than asked for, or never to return, as a test plans. Without a plan they do what they always do.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace costate::faults {

enum class Call : unsigned char { open, read, pread, write, fsync, close, rename, unlink };
const char* name(Call call);

struct Record {
  Call call;
  std::string path;        // open, unlink: the path; rename: the new name; the others: that of the descriptor
  std::size_t bytes = 0;   // read and written
};

// What the plan says to a call.
struct Verdict {
  int reason = 0;               // errno, instead of making the call; 0: make it
  std::size_t most = ~std::size_t{0};  // bytes to read or write at most
  bool dies = false;            // the process ends here, as by SIGKILL
};

// Asked before every call of this thread below one of `folder`'s files, or the folder itself; `index` counts them from 0.
using Plan = std::function<Verdict(Call call, std::size_t index)>;

// In force as long as it lives, for this thread.
class Scope {
 public:
  Scope(std::string folder, Plan plan);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  const std::vector<Record>& calls() const;
};

}  // namespace costate::faults
