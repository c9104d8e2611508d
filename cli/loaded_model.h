// A model of a run directory, ready to draw samples and to score them, without the data that it was trained on.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <costate/finetune/initial_law/tilted_noise.h>
#include <costate/finetune/reward.h>
#include <costate/nn/network.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/json.h"

namespace costate::cli {

// What of the data a model needs: shape of an item, classes, units. Runs keep it as data.json; `without_items` has as many
// items as are named there, none, and is what networks and rewards are made from.
inline const std::string data_file = "data.json";
Json data_facts(const data::Dataset& data);
data::Dataset without_items(const Json& facts, const std::string& what);

class LoadedModel {
 public:
  // `which`: base or tuned. Throws Fault::io where a file is missing, Fault::argument for runs that have no such model, and
  // whatever loading a checkpoint throws.
  LoadedModel(const std::string& directory, std::string_view which);

  const Config& config() const { return config_; }
  const data::Dataset& data() const { return data_; }
  std::int64_t item_size() const { return data::item_size(data_); }
  bool has_reward() const { return reward_.defined(); }
  const finetune::Reward& reward() const { return reward_; }

  struct Request {
    std::int64_t count = 1;
    std::uint64_t seed = 0, first = 0;       // sample i is a function of (seed, first + i)
    std::int64_t steps = 0;                  // 0: the configuration's
    bool ode = false;                        // sample.ode instead of the sampler
    std::optional<double> guidance{};        // none: sample.guidance
    std::span<const std::int32_t> labels{};  // one a sample, or none
  };
  // (count, item) in the units of the data, as `costate sample` keeps them. Throws Fault::numerical when they are not finite.
  std::vector<float> sample(const Request& request) const;

  // The reward, without multiplier and f-divergence, of rows in the units of the data; gradients in these units, unless empty.
  void score(std::span<const float> rows, std::int64_t count, std::span<float> values, std::span<float> gradients) const;

 private:
  Config config_;
  data::Dataset data_;
  std::string which_;
  nn::Network network_;
  std::optional<finetune::TiltedNoise> initial_;
  finetune::Reward reward_;
};

}  // namespace costate::cli
