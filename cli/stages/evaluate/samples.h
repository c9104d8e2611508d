// A set of samples with what the rewards and the judge say of it.
#pragma once
#include <costate/finetune/classifier_training.h>

#include <string>
#include <vector>

#include "stages/evaluate/scores.h"
#include "stages/stages.h"

namespace costate::cli {

struct Opinion {  // the judge's
  std::int64_t width = 0;
  std::vector<std::int32_t> label;
  std::vector<double> feature;  // (rows, width)
};
Opinion opinion(const nn::Classifier& judge, const Tensor& x);

// Who is asked.
struct Judges {
  LoadedReward reward;
  double multiplier = 1;                  // lambda of the reward
  finetune::Reward gold = {};             // empty: there is none
  const nn::Classifier* judge = nullptr;  // null: there is none
};

struct Samples {
  std::string name;
  std::vector<double> values;  // (rows, dim) as the network sees them
  // As configured; as it is raised, which is another one under an f-divergence; the gold reward, empty without one.
  Rewards reward, raised, gold;
  Opinion opinion;  // empty without a judge
  bool of_base() const { return name == "base_sde" || name == "base_ode"; }
};
// Asks in slices of rows, so that memory does not grow with the set. Throws Error(numerical) that names the set where samples
// are not finite; rewards that are not finite are dealt with by their policy.
Samples look_at(std::string name, const Tensor& x, const Judges& judges);

// Features of the rows for which `wanted(row)` holds.
template <class Wanted>
std::vector<double> features_where(const Opinion& o, const Wanted& wanted) {
  std::vector<double> out;
  const auto width = static_cast<std::size_t>(o.width);
  for (std::size_t i = 0; i < o.label.size(); ++i)
    if (wanted(i))
      out.insert(out.end(), o.feature.begin() + static_cast<std::ptrdiff_t>(i * width),
                 o.feature.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
  return out;
}

}  // namespace costate::cli
