// Numbers of sets of samples: each on its own, against the data, against the base with the weights of the tilt, and against
// the tilted law where it is known.
#pragma once
#include <costate/finetune/problem/mixture_tilt.h>

#include <optional>

#include "build.h"
#include "stages/evaluate/samples.h"

namespace costate::cli {

// What all sets are compared with. `base`: samples of the base's chain.
class Laws {
 public:
  // `real`: the judge's opinion of the data, empty without a judge. All references must outlive this.
  Laws(const Config& config, const RunData& data, const std::optional<finetune::MixtureTilt>& tilt, const Opinion& real,
       const Samples& base, std::uint64_t seed);

  Json numbers(const Samples& set) const;
  // Sections of the evaluation: features (what distances are measured in, and how far apart two halves of the base are),
  // frechet (with targets of a reward and a judge; `sde` and `ode` of the tuned model), importance, best_of_n_of_base,
  // closed_form (with a tilt).
  Json features() const;
  bool has_frechet() const { return targets_; }
  Json frechet(const Samples& sde, const Samples& ode) const;
  Json importance() const;
  // Expected reward of the best of n samples of the base and its divergence, n = 1, 2, 4, ... up to an eighth of the samples:
  // the frontier that fine-tuning is measured by.
  Json best_of_n() const;
  Json closed_form() const;

  double unit() const { return unit_; }  // the data's standard deviation, the unit of distances
  // The Vendi score of evaluate.vendi; NaN where a feature vector has no direction.
  double frechet_to_reweighted_base(const Samples& set) const;  // NaN without features, or where one weight counts alone
  double vendi(const Samples& set) const;

 private:
  bool targeted(std::int32_t label) const;
  // Rows of features: the judge's or, without one, up to 64 values of a sample; empty beyond.
  std::span<const double> features_of(const Samples& set) const;
  std::span<const double> data_features() const;
  double frechet_to_targets(const std::vector<double>& features) const;
  void add_feature_numbers(Json& j, const Samples& set) const;
  void add_tilt_numbers(Json& j, const Samples& set) const;

  const Config& config_;
  const RunData& data_;
  const std::optional<finetune::MixtureTilt>& tilt_;
  const Opinion& real_;
  const Samples& base_;
  std::uint64_t seed_;
  int dim_, width_ = 0;  // width_ 0: no features
  bool judged_, targets_;
  double unit_;
  std::vector<double> log_weights_, weights_, data_values_, exact_, real_targets_, base_targets_;
  std::size_t target_rows_ = 0;
};

}  // namespace costate::cli
