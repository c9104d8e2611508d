// What the KL penalty of a fine-tuning objective is part of.
#pragma once
#include <cstdint>

namespace costate::finetune {

enum class KlPenalty : std::uint8_t {
  // Of the return: a step is worth what it earns later, less what later steps pay. The optimum is the control problem's, and
  // the tilted law in the limit of many steps.
  in_return,
  // Of the loss at the states that were visited, not of what led there: d_k = (s_k^2/a) E[W_{k+1}'(x_{k+1})] with W the tuned
  // model's expected reward without later penalties. What a KL term beside a policy gradient settles at, as in DPOK (arXiv
  // 2305.16381) and Flow-GRPO (arXiv 2505.05470): the same for linear rewards, another law for all others.
  in_loss,
};

}  // namespace costate::finetune
