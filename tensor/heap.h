// Large blocks: a range of addresses that is cut where a block is asked for and joined again where neighbours are free, so
// that the memory in use stays near the largest sum of live blocks. Nothing goes back to the system before `trim`.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace costate::memory::detail {

class Heap {
 public:
  // Reserves `reserve` bytes of addresses, or as many as the system grants; they become memory as blocks reach them.
  explicit Heap(std::int64_t reserve);
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  // At least `bytes` > 0 bytes, aligned to 64; null when there are none left. Any thread.
  void* take(std::int64_t bytes);
  // A block of `take`, from any thread.
  void give(void* block) noexcept;
  // The pages of free blocks go back to the system; the addresses stay.
  void trim();
  // Gives everything back, the addresses too, if no block is out; `take` gives null from then on.
  void unmap_unused() noexcept;
  // Bytes from the first block to the end of the last one ever taken.
  std::int64_t extent() const { return end_ - begin_; }

 private:
  struct Block;
  static constexpr int bins = 8 * 48;  // of free blocks: eight a doubling
  static int bin_of(std::int64_t size);
  Block* smallest_fit(std::int64_t size) const;
  Block* grow(std::int64_t size);
  bool commit(std::int64_t bytes);
  void insert(Block* block);
  void remove(Block* block);
  Block* after(Block* block) const;
  static Block* before(Block* block);

  std::mutex mutex_;
  std::byte *begin_ = nullptr, *end_ = nullptr;          // addresses that blocks have reached
  std::byte *committed_ = nullptr, *limit_ = nullptr;    // readable and writable up to; reserved up to
  Block* last_ = nullptr;
  std::int64_t out_ = 0;  // blocks taken and not given back
  std::array<Block*, bins> free_{};
};

}  // namespace costate::memory::detail
