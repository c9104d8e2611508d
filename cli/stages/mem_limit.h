// Settings of fine-tuning that change memory and time but not the law of the result, chosen by plans: the fewest operations
// whose peak fits.
#pragma once
#include "commands.h"

namespace costate::cli {

struct MemoryCandidate {
  std::int64_t micro_batch = 0;  // as finetune.micro_batch
  bool keep_activations = false;
  std::string recompute;
  std::int64_t peak = 0, flops = 0;  // of the stage
  bool same_bits = false;  // as the configured settings give: micro-batches and kept activations cut sums differently
  // "--set finetune.micro_batch=8 --set ..."
  std::string settings() const;
};

struct MemoryFit {
  std::vector<MemoryCandidate> candidates;  // fewest operations first; none without fine-tuning, or if another stage is too large
  int chosen = -1;                          // nothing fits
  std::string other;                        // the stage with the largest peak among the others, which the settings do not touch
  std::int64_t other_peak = 0;
  const MemoryCandidate& best() const { return candidates[static_cast<std::size_t>(chosen)]; }
};

// Plans `stages` of the configuration as it is, then fine-tuning with activations kept or not, blocks computed again or not,
// and micro-batches from the largest down by halves until one fits or smaller ones save less than a hundredth. Chosen: the
// fewest operations, of those the configuration's own bits, of those the largest micro-batch.
MemoryFit fit_to_memory(const Config& config, const std::vector<Stage>& stages, std::int64_t limit);
// The configuration with the chosen settings. Throws Error(memory) with the smallest peak when nothing fits.
Config fitted(const Config& config, const MemoryFit& fit, std::int64_t limit);
// The candidates and what was chosen.
std::string memory_fit_text(const MemoryFit& fit, std::int64_t limit);
Json memory_fit_json(const MemoryFit& fit, std::int64_t limit);

}  // namespace costate::cli
