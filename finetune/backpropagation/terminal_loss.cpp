#include <costate/finetune/backpropagation/terminal_loss.h>

#include <costate/autograd/ops.h>
#include <costate/sde/words.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace costate::finetune {
namespace {
constexpr std::array<std::string_view, 3> kNames = {"reward", "hinge", "absolute"};
}

std::string_view name(TerminalLoss loss) { return kNames[static_cast<std::size_t>(loss)]; }
TerminalLoss terminal_loss(std::string_view word) {
  return static_cast<TerminalLoss>(sde::word_index(word, kNames, "a loss of the reward"));
}

Terminal end_of_paths(const Reward::Scores& scores, const TerminalLossOptions& options, double multiplier, double weight) {
  require(scores.gradient.defined(), "end_of_paths: scores without gradients");
  const Tensor& x = scores.gradient;
  const std::int64_t rows = x.extent(0);
  const auto count = static_cast<std::size_t>(rows);
  Terminal end;
  std::vector<float> slope(count, static_cast<float>(-multiplier * weight)), alive(count, 1.0f);
  if (!x.is_meta()) {
    const std::vector<double> r = scores.value.to_doubles();
    for (std::size_t i = 0; i < count; ++i) {
      if (!scores.valid.empty() && !scores.valid[i]) {
        slope[i] = alive[i] = 0;
        ++end.failed;
        continue;
      }
      end.reward += r[i];
      double loss = -r[i], derivative = -1;
      if (options.kind == TerminalLoss::hinge) {
        loss = std::max(options.margin - r[i], 0.0);
        derivative = r[i] < options.margin ? -1 : 0;
      } else if (options.kind == TerminalLoss::absolute) {
        loss = std::abs(r[i] - options.target);
        derivative = r[i] < options.target ? -1 : r[i] > options.target ? 1 : 0;
      }
      end.loss += multiplier * loss;
      slope[i] = static_cast<float>(multiplier * derivative * weight);
    }
  }
  end.rows = rows - end.failed;
  const Var flat = reshape(Var(x), {rows, -1});
  Tensor costate = reshape(mul(flat, Var(Tensor::from(slope, {rows, 1}, x.device()))), x.shape()).value();
  if (end.failed > 0) {
    end.alive = Tensor::from(alive, {rows}, x.device());
    for (std::int64_t i = 0; i < rows; ++i)  // not a product with zero: a failed gradient may not be finite
      if (alive[static_cast<std::size_t>(i)] == 0) {
        const Tensor row = costate.slice(i, 1);
        row.copy_from(Tensor::zeros(row.shape(), row.dtype(), row.device()));
      }
  }
  end.costate = std::move(costate);
  return end;
}

}  // namespace costate::finetune
