// The backend's memory: segments from the driver, cut where a block is asked for and joined again where neighbours are free.
// One stream orders everything, so a block that is given back can be taken again at once.
#pragma once
#include <cstdint>

namespace costate::cuda::pool {

// At least `bytes` bytes, aligned to 256; null for 0 bytes, and when neither the free blocks nor the driver have them. Any
// thread.
void* take(std::int64_t bytes);
void give(void* data) noexcept;  // a block of `take`, or null
// Segments that are wholly free go back to the driver, but for those of graphs.
void trim();

// Pinned memory of the host, kept for the next who asks: only copies touch it, and they run one after the other.
void* pin(std::int64_t bytes);  // null when the system has no more
void unpin(void* data) noexcept;

// Memories beside the common one, 0: what a thread takes comes from the memory that it uses, and goes back to the one that it came from.
// A memory of a graph grows while its work is rehearsed and is refused more while it is captured.
void use(int memory);
// What there is of a memory becomes part of the common one.
void merge(int memory);

// What kernels work in and no tensor is: beyond the ledger, back in the pool when the call that took it has launched its
// kernels. Throws Error(Fault::memory) when there is none.
class Scratch {
 public:
  explicit Scratch(std::int64_t bytes);
  ~Scratch() { give(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

// Bytes held from the driver, and of these in blocks that are taken.
std::int64_t held();
std::int64_t taken();

}  // namespace costate::cuda::pool
