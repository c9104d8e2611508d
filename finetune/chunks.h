// How a batch is cut for training: pieces of at most `limit` rows, as equal as can be, whatever the number of threads.
#pragma once
#include <costate/sde/sampler.h>

namespace costate::finetune {

// Rows of a network's training pass, for items of so many elements: large enough that a chunk's share of the weight
// gradient is cheap to add, small enough that activations, which grow with the item, stay near a core.
constexpr std::int64_t training_rows(std::int64_t item_size) {
  const std::int64_t rows = (std::int64_t{1} << 15) / (item_size < 1 ? 1 : item_size) / 16 * 16;
  return rows < 16 ? 16 : rows > 128 ? 128 : rows;
}

class Chunks {
 public:
  Chunks(std::int64_t batch, std::int64_t limit) : batch_(batch), count_((batch + limit - 1) / limit) {}
  std::int64_t count() const { return count_; }
  std::int64_t first(std::int64_t i) const { return batch_ * i / count_; }
  std::int64_t rows(std::int64_t i) const { return first(i + 1) - first(i); }

 private:
  std::int64_t batch_, count_;
};

}  // namespace costate::finetune
