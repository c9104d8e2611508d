// States that are not needed for a while, away from where the process computes.
#pragma once
#include <costate/sde/process.h>
#include <costate/tensor/file.h>

#include <deque>
#include <map>
#include <memory>

namespace costate::sde::detail {

// Of states on a cuda device with `host_memory`: in memory of the host that copies reach beside the kernels. At most two copies
// are on their way in each direction, so that states leave, and come back, while steps are taken; the host waits for none.
// Otherwise: on disk, one behind the other in a file without a name. On the meta device nothing is written.
class Offloaded {
 public:
  Offloaded(const std::string& folder, bool host_memory);
  ~Offloaded();
  Offloaded(const Offloaded&) = delete;
  Offloaded& operator=(const Offloaded&) = delete;

  std::int64_t write(int step, const State& state);  // the bytes
  // Once a step. `next`: of which step the state will be read after this one, or -1; it sets out now.
  State read(int step, int next = -1);
  void drop(int step) { entries_.erase(step); }
  bool holds(int step) const { return entries_.contains(step); }
  int last_below(int step) const;  // the highest step below this one whose state is here; -1: none

 private:
  struct Pinned;
  struct Part {
    bool defined;
    Shape shape;
    DType dtype;
    Device device;
    std::uint64_t offset;  // in the file
    std::shared_ptr<Pinned> pinned;
  };
  using Entry = std::vector<Part>;
  struct Copy {
    std::int64_t number;
    Tensor held;  // its source, until kernels wait for it
  };
  void let_go(std::size_t keep);
  State bring(const Entry& entry);

  std::string folder_;
  bool host_memory_;
  std::unique_ptr<ScratchFile> file_;
  std::map<int, Entry> entries_;
  std::uint64_t size_ = 0;
  std::deque<Copy> leaving_;
  // A state on its way back.
  int coming_ = -1;
  State arriving_;
  std::int64_t arriving_copy_ = 0;
};

}  // namespace costate::sde::detail
