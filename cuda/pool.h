// The backend's memory: segments from the driver, cut where a block is asked for and joined again where neighbours are free.
// One stream orders everything, so a block that is given back can be taken again at once.
#pragma once
#include <cstdint>

namespace costate::cuda::pool {

// At least `bytes` bytes, aligned to 256; null for 0 bytes, and when neither the free blocks nor the driver have them. Any
// thread.
void* take(std::int64_t bytes);
void give(void* data) noexcept;  // a block of `take`, or null
// Segments that are wholly free go back to the driver.
void trim();

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
