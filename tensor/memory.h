// The memory ledger: live and peak bytes by tag, and the caching allocator beneath it.
//
// Every host thread has its own account, which its tensors are charged to; the workers of `parallel` are charged to the
// account of the thread that called it. Within a parallel region the peak counts, for every worker, that worker's own
// peak: the bytes that its cache has reserved. It therefore depends on the number of threads but not on their timing,
// and a run on the meta device, which makes the same requests, has the same peak to the byte.
//
// Bytes are those of tensor data, rounded up to 64 each; handles, tapes and the caches' free blocks are not counted.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace costate::memory {

enum class Tag : std::uint8_t {
  activations,  // whatever an op returns, unless a scope says otherwise
  parameters,
  packed,  // parameters in the layout that the matrix product reads
  gradients,
  optimiser,
  trajectory,
  adjoint,
  data,
};
constexpr int tag_count = 8;
std::string_view name(Tag tag);

struct Usage {
  std::int64_t total = 0;
  std::array<std::int64_t, tag_count> by_tag{};
  friend bool operator==(const Usage&, const Usage&) = default;
};
std::string to_string(const Usage& usage);  // "12.3 MiB (parameters 4.0 MiB, ...)", largest first

Usage live();        // of the calling thread's account
Usage peak();        // since the last reset, with the breakdown at the moment of the peak
void reset_peak();   // the peak becomes what is live now

// The peak of a piece of program: what was live at most while the scope stood. Scopes nest.
class PeakScope {
 public:
  PeakScope();
  ~PeakScope();
  PeakScope(const PeakScope&) = delete;
  PeakScope& operator=(const PeakScope&) = delete;
  Usage peak() const;

 private:
  Usage outer_;
};

// Tensors made on this thread while the scope stands are charged to `tag`.
class TagScope {
 public:
  explicit TagScope(Tag tag);
  ~TagScope();
  TagScope(const TagScope&) = delete;
  TagScope& operator=(const TagScope&) = delete;

 private:
  Tag outer_;
};
Tag current_tag();

// A request beyond this many live bytes throws Error(Fault::memory) with the largest tags; 0: no limit. Of the calling
// thread's account. The workers of a parallel region may use equal shares of what is left when it starts.
void set_limit(std::int64_t bytes);

// Gives the free blocks that the calling thread has cached, and those freed by other threads than their makers, back to
// the system.
void trim();

}  // namespace costate::memory
