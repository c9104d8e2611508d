#include <costate/finetune/training.h>
#include <costate/tensor/hooks.h>

namespace costate::finetune {
namespace {

template <class Training, class After>
std::int64_t loop(Training& training, std::int64_t iterations, const After& after) {
  require(iterations >= 0, "train: ", iterations, " iterations were asked for");
  ProgressReport report("train", iterations);
  std::int64_t done = 0;
  try {
    while (done < iterations) {
      check_cancelled("train");
      const auto metrics = training.step();
      ++done;
      report.add(1);
      if (after) after(done, metrics);
    }
  } catch (const Cancelled&) {
  }
  return done;
}

}  // namespace

std::int64_t train(Objective& objective, std::int64_t iterations,
                   const std::function<void(std::int64_t, const Metrics&)>& after) {
  return loop(objective, iterations, after);
}
std::int64_t train(FlowMatching& training, std::int64_t iterations,
                   const std::function<void(std::int64_t, const FlowMatchingMetrics&)>& after) {
  return loop(training, iterations, after);
}

}  // namespace costate::finetune
