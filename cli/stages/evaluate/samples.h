// A set of samples with what the reward and the judge say of it.
#pragma once
#include <costate/finetune/classifier_training.h>
#include <costate/finetune/reward.h>

#include <string>
#include <vector>

namespace costate::cli {

struct Opinion {  // the judge's
  std::int64_t width = 0;
  std::vector<std::int32_t> label;
  std::vector<double> feature;  // (rows, width)
};
Opinion opinion(const nn::Classifier& judge, const Tensor& x);

struct Samples {
  std::string name;
  std::vector<double> values, reward;  // (rows, dim) as the network sees them, (rows)
  Opinion opinion;                     // empty without a judge
  bool of_base() const { return name == "base_sde" || name == "base_ode"; }
};
// Asks in slices of rows, so that memory does not grow with the set. Throws Error(numerical) that names the set where samples
// or rewards are not finite.
Samples look_at(std::string name, const Tensor& x, const finetune::Reward& reward, const nn::Classifier* judge);

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
