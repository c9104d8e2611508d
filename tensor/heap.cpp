#include <costate/tensor/heap.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <new>

namespace costate::memory::detail {

// In front of every block. `size` counts this header.
struct alignas(64) Heap::Block {
  std::int64_t size, size_before;  // of this block and of the one that ends where it begins (0: the first)
  Block *next, *previous;          // in a bin
  bool free;
};

namespace {
constexpr std::int64_t granule = 1024, step = std::int64_t{16} << 20;
constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
}  // namespace

Heap::Heap(std::int64_t reserve) {
  for (; reserve >= step; reserve /= 2) {
    void* range = mmap(nullptr, static_cast<std::size_t>(reserve), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) continue;
    begin_ = end_ = committed_ = static_cast<std::byte*>(range);
    limit_ = begin_ + reserve;
    return;
  }
}
Heap::~Heap() {
  if (begin_) munmap(begin_, static_cast<std::size_t>(limit_ - begin_));
}
void Heap::unmap_unused() noexcept {
  const std::lock_guard lock(mutex_);
  if (out_ > 0 || !begin_) return;
  munmap(begin_, static_cast<std::size_t>(limit_ - begin_));
  begin_ = end_ = committed_ = limit_ = nullptr;
  last_ = nullptr;
  free_ = {};
}

int Heap::bin_of(std::int64_t size) {
  const int log2 = 63 - std::countl_zero(static_cast<std::uint64_t>(size));
  return std::min(bins - 1, 8 * (log2 - 10) + static_cast<int>((size >> (log2 - 3)) & 7));
}
Heap::Block* Heap::after(Block* block) const {
  return block == last_ ? nullptr : reinterpret_cast<Block*>(reinterpret_cast<std::byte*>(block) + block->size);
}
Heap::Block* Heap::before(Block* block) {
  return block->size_before ? reinterpret_cast<Block*>(reinterpret_cast<std::byte*>(block) - block->size_before) : nullptr;
}

void Heap::insert(Block* block) {
  Block*& head = free_[bin_of(block->size)];
  block->free = true, block->previous = nullptr, block->next = head;
  if (head) head->previous = block;
  head = block;
}
void Heap::remove(Block* block) {
  (block->previous ? block->previous->next : free_[bin_of(block->size)]) = block->next;
  if (block->next) block->next->previous = block->previous;
  block->free = false;
}

// Within a bin the sizes are an eighth apart at most; those of the next bin all fit.
Heap::Block* Heap::smallest_fit(std::int64_t size) const {
  for (int bin = bin_of(size); bin < bins; ++bin) {
    Block* best = nullptr;
    for (Block* b = free_[bin]; b; b = b->next)
      if (b->size >= size && (!best || b->size < best->size)) best = b;
    if (best) return best;
  }
  return nullptr;
}

bool Heap::commit(std::int64_t bytes) {
  if (!begin_) return false;
  const std::int64_t missing = end_ + bytes - committed_;
  if (missing <= 0) return true;
  for (const std::int64_t most : {round_up(missing, step), round_up(missing, 4096)}) {
    if (most > limit_ - committed_ || mprotect(committed_, static_cast<std::size_t>(most), PROT_READ | PROT_WRITE) != 0) continue;
    madvise(committed_, static_cast<std::size_t>(most), MADV_HUGEPAGE);  // fewer faults and misses; refused is fine
    committed_ += most;
    return true;
  }
  return false;
}

// A block at the end; what is free there becomes its beginning.
Heap::Block* Heap::grow(std::int64_t size) {
  Block* tail = last_ && last_->free ? last_ : nullptr;
  const std::int64_t more = size - (tail ? tail->size : 0);
  if (!commit(more)) return nullptr;
  if (tail) {
    remove(tail);
    tail->size = size;
  } else {
    const std::int64_t size_before = last_ ? last_->size : 0;
    tail = new (static_cast<void*>(end_)) Block{size, size_before, nullptr, nullptr, false};
  }
  last_ = tail;
  end_ += more;
  return tail;
}

void* Heap::take(std::int64_t bytes) {
  const std::int64_t size = round_up(bytes + static_cast<std::int64_t>(sizeof(Block)), granule);
  const std::lock_guard lock(mutex_);
  Block* block = smallest_fit(size);
  if (!block) {
    block = grow(size);
    if (block) ++out_;
    return block ? block + 1 : nullptr;
  }
  ++out_;
  remove(block);
  if (const std::int64_t rest = block->size - size; rest >= granule) {
    Block* const right = after(block);
    auto* tail = new (static_cast<void*>(reinterpret_cast<std::byte*>(block) + size)) Block{rest, size, nullptr, nullptr, true};
    block->size = size;
    if (right) right->size_before = rest;
    else last_ = tail;
    insert(tail);
  }
  return block + 1;
}

void Heap::give(void* pointer) noexcept {
  Block* block = static_cast<Block*>(pointer) - 1;
  const std::lock_guard lock(mutex_);
  --out_;
  if (Block* const left = before(block); left && left->free) {
    remove(left);
    left->size += block->size;
    if (block == last_) last_ = left;
    block = left;
  }
  if (Block* const right = after(block); right && right->free) {
    remove(right);
    block->size += right->size;
    if (right == last_) last_ = block;
  }
  if (Block* const right = after(block)) right->size_before = block->size;
  insert(block);
}

void Heap::trim() {
  const std::lock_guard lock(mutex_);
  const std::int64_t page = sysconf(_SC_PAGESIZE);
  for (Block* const head : free_)
    for (Block* b = head; b; b = b->next) {
      // The header stays.
      const std::int64_t first = round_up(reinterpret_cast<std::byte*>(b + 1) - begin_, page),
                         last = (reinterpret_cast<std::byte*>(b) + b->size - begin_) / page * page;
      if (last > first) madvise(begin_ + first, static_cast<std::size_t>(last - first), MADV_DONTNEED);
    }
}

}  // namespace costate::memory::detail
