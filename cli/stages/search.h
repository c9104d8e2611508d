// Samples of high reward found at sampling time, by the methods of sample.methods.
#pragma once
#include <functional>

#include "stages/stages.h"

namespace costate::cli {

struct SearchRequest {
  std::int64_t count = 0;
  std::vector<std::int64_t> classes;  // labels in turn; []: none
  const char* labels_key = "sample.labels";
  double guidance = 0;
  sde::NoiseKey key;
  bool base = true, tuned = true;  // whose samples are searched; the tuned network is read for smc's proposal in any case
};

// A set that was found. `facts`: what the method knows of itself, such as the estimate of log Z.
struct Found {
  std::string name;  // base_smc (the tilted law of the base, whatever the proposal), tuned_best_of_n, ...
  Tensor x;          // (count, ...), undefined values on the meta device
  Json facts;
};

// Calls `use` with each set in turn; one set is held at a time. In a plan the same requests for memory are made.
void search(Session& session, const RunData& data, const finetune::Reward& reward, const SearchRequest& request,
            const std::function<void(const Found&)>& use);

}  // namespace costate::cli
