#include <costate/finetune/control_problem.h>

#include <costate/tensor/random.h>

namespace costate::finetune {

std::vector<int> ControlProblem::controlled_steps() const {
  std::vector<int> steps;
  for (int k = 0; k < chain.steps(); ++k)
    if (chain.std[k] > 0) steps.push_back(k);
  return steps;
}

void ControlProblem::check(const char* what) const {
  require(static_cast<bool>(base), what, ": the base is empty");
  require(reward.defined(), what, ": the reward is empty");
  sde::require_one_step(chain, what);
  require(!controlled_steps().empty(), what, ": the chain '", chain.description,
          "' has no noise; a control is a mean shift in units of the noise");
}

void ControlProblem::require_pathwise(const char* what) const {
  require(pathwise, what, ": the cost of this problem jumps where a path stops, so that a path's derivative is not that of the ",
          "expected cost; take an objective that weights the likelihood of paths, such as log_variance or reinforce");
}

void ControlProblem::require_endless(const char* what) const {
  require(!running, what, ": paths of this problem stop, but this objective follows all of them to the last step; take one that ",
          "weights the likelihood of paths, such as log_variance or reinforce");
}

Tensor ControlProblem::initial_states(std::int64_t rows, const sde::NoiseKey& key) const {
  if (!initial) return sde::initial_noise(sample_shape, rows, key, DType::f32, device);
  Tensor x = initial(rows, key);
  require(x.shape() == sample_shape.with_front(rows) && x.dtype() == DType::f32, "the initial law: found ", x.shape(),
          ", expected ", sample_shape.with_front(rows), " of f32");
  return x;
}

Tensor ControlProblem::draw_labels(std::int64_t rows, const sde::NoiseKey& key) const {
  if (labels.empty()) return {};
  std::vector<std::int32_t> drawn(static_cast<std::size_t>(rows));
  const Philox philox{key.seed, Stream::label};
  for (std::int64_t i = 0; i < rows; ++i)
    drawn[i] = labels[philox.below(static_cast<std::uint32_t>(labels.size()),
                                   key.first_sample + static_cast<std::uint64_t>(i), 0, 0)];
  return Tensor::from(drawn, {rows}, device);
}

}  // namespace costate::finetune
