// Workspace of the kernels.
#pragma once
#include <cstdint>
#include <new>

namespace costate::cpu::COSTATE_ISA {
namespace {

// Memory that a thread keeps from call to call, aligned to cache lines.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { release(); }
  template <class T>
  T* get(std::int64_t count) {
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    if (bytes > bytes_) {
      release();
      memory_ = ::operator new(static_cast<std::size_t>(bytes), std::align_val_t(64));
      bytes_ = bytes;
    }
    return static_cast<T*>(memory_);
  }

 private:
  void release() {
    if (memory_) ::operator delete(memory_, std::align_val_t(64));
    memory_ = nullptr, bytes_ = 0;
  }
  void* memory_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
