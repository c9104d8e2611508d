// What is minimised at the end of a path: a function of the reward.
#pragma once
#include <costate/finetune/reward.h>

#include <cstdint>
#include <string_view>

namespace costate::finetune {

// With lambda the reward multiplier:
enum class TerminalLoss : std::uint8_t {
  reward,    // -lambda r
  hinge,     // lambda max(margin - r, 0): no pull beyond the margin (ReFL, arXiv 2304.05977, has margin 2)
  absolute,  // lambda |r - target| (AlignProp, arXiv 2310.03739, has target 10 for aesthetic scores)
};
std::string_view name(TerminalLoss loss);
TerminalLoss terminal_loss(std::string_view name);  // throws Error(argument) for another word, with a suggestion

struct TerminalLossOptions {
  TerminalLoss kind = TerminalLoss::reward;
  double margin = 0;  // hinge
  double target = 0;  // absolute
};

struct Terminal {
  double loss = 0, reward = 0;         // sums over the rows that count; the reward without lambda
  Tensor costate;                      // weight d loss/dx, of the shape of x; rows that do not count are zeros
  Tensor alive;                        // (rows,) of ones and zeros; undefined when all rows count
  std::int64_t rows = 0, failed = 0;   // how many count, and how many do not
};
// From the scores, with gradients, of the ends of paths. Rows that are not valid do not count. `weight` multiplies the costate
// alone.
Terminal end_of_paths(const Reward::Scores& scores, const TerminalLossOptions& options, double multiplier, double weight);

}  // namespace costate::finetune
