// An iteration of value-gradient regression where a device computes: the numbers of value_gradient.h up to rounding, with
// few and large launches, and without the host but for the reward in the middle and the metrics at the end.
//
//   sample    x_0 .. x_K: a network evaluation and one fused step each (noise is made in the step)
//   reward    by the host, or by ops
//   sweep     costates back to the first step of the loss
//   regress   the steps of the loss together, as many rows a pass as device_rows says
//   update    norm, clipping, AdamW and averages in two launches; nothing changes unless loss and norm are finite
//
// With `graphs`, sample is one recorded graph, and sweep, regress and update are another (tensor/graph.h).
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/finetune/learner.h>
#include <costate/tensor/graph.h>

#include <memory>
#include <string>
#include <vector>

namespace costate::finetune {

struct ValueGradientOptions;
struct ValueGradientMetrics;

// Rows that a network sees at a time on a device, for items of so many elements: large enough to fill it, small enough that
// activations stay within some gigabytes.
constexpr std::int64_t device_rows(std::int64_t item_size) {
  const std::int64_t rows = (std::int64_t{1} << 18) / (item_size < 1 ? 1 : item_size);
  return rows < 16 ? 16 : rows > 16384 ? 16384 : rows;
}

class DeviceIteration {
 public:
  // All are kept by reference but for the options, of which nothing may change.
  DeviceIteration(const ControlProblem& problem, const ValueGradientOptions& options, const std::vector<double>& kl_weights,
                  Learner& learner);
  ~DeviceIteration();

  // Why these options take the general way, whose host reads along; "": they do not.
  static std::string refusal(Device device, const ValueGradientOptions& options);

  // One update: the regression of `steps` on the paths of samples first_sample, first_sample + 1, ....
  Learner::Update step(std::int64_t first_sample, const std::vector<int>& steps, ValueGradientMetrics& metrics);

  // Why an iteration, or a part of it, is not recorded though graphs are on; "": it is, or will be from the third one.
  const std::string& not_recorded() const { return not_recorded_; }

 private:
  // Some rows of some steps, that are regressed in one pass; `number`: of their first one among the numbers.
  struct Pass {
    std::size_t first_step, steps;
    std::int64_t begin, rows, number;
  };
  struct Kept;  // tensors that stay where they are from iteration to iteration

  void make_kept(const std::vector<int>& steps);
  void choose(const std::vector<int>& steps);
  void initial(std::int64_t first_sample);
  void sample(std::int64_t first_sample);
  void reward(ValueGradientMetrics& metrics);
  void sweep(const std::vector<int>& steps);
  std::vector<Tensor> regress();
  Tensor stacked(const Tensor& all, bool all_steps, const Pass& pass) const;
  void run(std::unique_ptr<Graph>& graph, std::int64_t first_sample, const std::function<void()>& body);
  std::vector<const void*> addresses();

  const ControlProblem& problem_;
  const ValueGradientOptions& options_;
  const std::vector<double>& kl_weights_;
  Learner& learner_;
  std::int64_t rows_;
  bool drawn_ = false;  // whether the steps differ from iteration to iteration
  std::vector<Pass> passes_;
  std::unique_ptr<Kept> kept_;
  std::unique_ptr<Graph> sampling_, updating_;
  std::string not_recorded_;
};

}  // namespace costate::finetune
