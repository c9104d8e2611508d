// Returns and advantages: the weights of the log-likelihoods of steps in a policy gradient,
//   R_k = lambda r(x_K) - sum_{j >= k} (f_j + w l_j),   A_k = R_k - b_k,
// with l_j a measure of the divergence of step j from the base (or 0) and b_k a baseline, which may depend on x_k (and on
// other paths) but not on the noise of step k: it changes the variance of the gradient, not its mean.
// Baselines of groups: Shao et al., arXiv 2402.03300; of labels: Black et al., arXiv 2305.13301; temporal differences: Sutton
// and Barto, Reinforcement Learning, chapter 13.
//
// Whitening divides by a standard deviation: one number a batch leaves the direction of the gradient, and with it the optimum
// of an objective whose divergence is part of the return; it multiplies the temperature of one whose divergence is a term of
// the loss. A standard deviation a group or label is another for every one of them, and moves the optimum in either case.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace costate::finetune {

class StateVisitor;

using StepTable = std::vector<std::vector<double>>;  // (steps)(paths)

// R_k of all steps, sums over j >= k of the terms. `cost` and `divergence` (K)(paths) or empty, as zeros.
StepTable returns_to_go(std::span<const double> reward, int steps, const StepTable& cost, const StepTable& divergence,
                        double divergence_weight);

enum class Baseline : std::uint8_t {
  none,
  batch,   // the mean of R_k over the other paths that take step k: n/(n - 1) times the distance from the mean of all n
  label,   // the mean over the last paths of this label (LabelStatistics); a path enters with its own return as well
  group,   // the same in the path's group
  value,   // V(x_k) of a critic
  td,      // A_k = V(x_{k+1}) - f_k - w l_k - V(x_k) instead, V(x_K) = lambda r(x_K): what step k alone has changed
};
enum class Whitening : std::uint8_t {
  none,
  batch,  // by the standard deviation over the batch: of returns for group and label, of advantages otherwise; then,
          // for value and td, less their mean
  set,    // group and label: by the standard deviation over the set whose mean is the baseline (and without that factor)
};

// Running statistics of whole-path returns by label: the last `capacity` of each. Labels with fewer than `minimum` take the
// batch's.
class LabelStatistics {
 public:
  explicit LabelStatistics(std::size_t capacity = 32, std::size_t minimum = 16) : capacity_(capacity), minimum_(minimum) {}
  void add(std::int32_t label, double value);
  struct Moments {
    double mean, std;
  };
  // Of `label`, or `otherwise` where there are too few.
  Moments of(std::int32_t label, const Moments& otherwise) const;
  void visit_state(StateVisitor& v);

 private:
  std::size_t capacity_, minimum_;
  std::map<std::int32_t, std::vector<double>> values_;  // oldest first
};

struct AdvantageOptions {
  Baseline baseline = Baseline::batch;
  Whitening whitening = Whitening::none;
  double clip = 0;              // A is cut to +-clip; 0: not
  std::int64_t group_size = 1;  // paths g G .. (g + 1) G - 1 are group g
};

struct AdvantageInputs {
  const StepTable& returns;               // (K)(paths)
  const std::vector<int>& steps;          // those whose advantages are wanted
  std::span<const std::uint8_t> valid;    // (paths): 0: no part in anything
  std::span<const std::int32_t> labels;   // (paths) or empty: one label
  const StepTable& values;                // (K + 1)(paths) for value and td; empty otherwise
  const StepTable& step_cost;             // td: f_k + w l_k (K)(paths)
  std::span<const int> stopped_at{};      // (paths): the first step that a path does not take; empty: they take all
};

// (K)(paths), empty rows for steps that are not wanted and 0 for paths that are not valid or have stopped: these have no part in
// means and deviations either, but that the baseline of a step which one path of a set alone takes is the mean over the others,
// stopped as they are. `statistics` are brought up to date.
// Throws Error(argument) when the options do not fit each other or the paths do not fill groups.
StepTable advantages(const AdvantageOptions& options, const AdvantageInputs& in, LabelStatistics& statistics);

}  // namespace costate::finetune
