// How a batch is cut for training: pieces of at most `limit` rows, as equal as can be, whatever the number of threads.
#pragma once
#include <costate/sde/sampler.h>

namespace costate::finetune {

// Rows of a network's training pass: large enough that a chunk's share of the weight gradient is cheap to add, small
// enough that its activations stay in a core's cache.
constexpr std::int64_t training_rows = 128;

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
