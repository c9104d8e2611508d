#include "stages/evaluate/laws.h"

#include <costate/finetune/evaluate/coverage.h>
#include <costate/finetune/evaluate/diversity.h>
#include <costate/finetune/evaluate/frechet.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/evaluate/modes.h>
#include <costate/finetune/evaluate/vendi.h>
#include <costate/finetune/evaluate/wasserstein.h>
#include <costate/finetune/sampling/best_of_n.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "stages/evaluation.h"

namespace costate::cli {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr int widest_values = 64;             // beyond, values are no features: distances would need too many samples
constexpr std::size_t neighbour_rows = 1000;  // of each set, for precision and recall
constexpr int neighbours = 3;

// Standard deviation of the data: the root of the mean variance of its coordinates.
double deviation(const data::Dataset& d) {
  const std::int64_t dim = data::item_size(d);
  double variance = 0;
  for (std::int64_t j = 0; j < dim; ++j) {
    double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < d.count; ++i) {
      const double v = d.values[i * dim + j];
      sum += v, squares += v * v;
    }
    const auto n = static_cast<double>(d.count);
    variance += squares / n - sum / n * (sum / n);
  }
  return std::sqrt(std::max(variance / static_cast<double>(dim), 1e-300));
}

Json json_numbers(std::span<const double> v) {
  Json out = Json::array();
  for (const double e : v) out.push_back(json_number(e));
  return out;
}

double largest_difference(const std::vector<double>& a, std::span<const double> b) {
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out = std::max(out, std::abs(a[i] - b[i]));
  return out;
}

std::span<const double> first_rows(std::span<const double> x, int width, std::size_t rows) {
  return x.first(std::min(x.size(), rows * static_cast<std::size_t>(width)));
}

}  // namespace

Laws::Laws(const Config& config, const RunData& data, const std::optional<finetune::MixtureTilt>& tilt, const Opinion& real,
           const Samples& base, std::uint64_t seed)
    : config_(config),
      data_(data),
      tilt_(tilt),
      real_(real),
      base_(base),
      seed_(seed),
      dim_(static_cast<int>(data::item_size(data.model))),
      judged_(config.data.held_out > 0),
      targets_(judged_ && !config.reward.targets.empty()),
      unit_(deviation(data.model)) {
  for (std::size_t i = 0; i < base.raised.value.size(); ++i)  // a sample without a reward has no weight
    log_weights_.push_back(base.raised.valid[i] ? config.reward.multiplier * base.raised.value[i]
                                                : -std::numeric_limits<double>::infinity());
  weights_ = finetune::normalised_weights(log_weights_);
  width_ = judged_ ? static_cast<int>(real.width) : dim_ <= widest_values ? dim_ : 0;
  if (!judged_ && width_ > 0) data_values_.assign(data.model.values.begin(), data.model.values.end());
  if (tilt) {
    exact_.resize(base.values.size());
    tilt->target().sample(seed, 0, config.evaluate.count, exact_.data());
  }
  if (targets_) {
    const auto width = static_cast<std::size_t>(real.width);
    real_targets_ = features_where(real, [&](std::size_t i) { return targeted(data.model.labels[i]); });
    base_targets_ = features_where(base.opinion, [&](std::size_t i) { return targeted(base.opinion.label[i]); });
    target_rows_ =
        std::min({real_targets_.size() / width, base_targets_.size() / width, static_cast<std::size_t>(config.evaluate.count)});
  }
}

bool Laws::targeted(std::int32_t label) const {
  return std::find(config_.reward.targets.begin(), config_.reward.targets.end(), label) != config_.reward.targets.end();
}
std::span<const double> Laws::features_of(const Samples& set) const {
  if (judged_) return set.opinion.feature;
  return width_ > 0 ? std::span<const double>(set.values) : std::span<const double>();
}
std::span<const double> Laws::data_features() const { return judged_ ? std::span<const double>(real_.feature) : data_values_; }

double Laws::frechet_to_targets(const std::vector<double>& features) const {
  const auto n = target_rows_ * static_cast<std::size_t>(real_.width);
  return target_rows_ < 2 ? nan
                          : finetune::frechet_distance(static_cast<int>(real_.width), std::span(features).first(n),
                                                       std::span(real_targets_).first(n));
}

double Laws::vendi(const Samples& set) const {
  const VendiConfig& c = config_.evaluate.vendi;
  const auto rows = static_cast<std::size_t>(c.count);
  if (!judged_)
    return finetune::vendi_of_points(dim_, first_rows(set.values, dim_, rows), c.bandwidth > 0 ? c.bandwidth : unit_ / 4,
                                     c.order);
  const std::span<const double> f = first_rows(set.opinion.feature, width_, rows);
  for (std::size_t i = 0; i < f.size(); i += static_cast<std::size_t>(width_)) {
    const auto row = f.subspan(i, static_cast<std::size_t>(width_));
    if (std::all_of(row.begin(), row.end(), [](double v) { return v == 0; })) return nan;
  }
  return finetune::vendi_of_features(width_, f, c.order);
}

double Laws::frechet_to_reweighted_base(const Samples& set) const {
  // With hardly more than one weight that counts there is no covariance to compare with.
  if (width_ == 0 || finetune::effective_sample_size(log_weights_) < 2) return nan;
  return finetune::weighted_frechet_distance(width_, features_of(set), {}, features_of(base_), weights_);
}

void Laws::add_feature_numbers(Json& j, const Samples& set) const {
  if (width_ == 0) return;
  const std::span<const double> f = features_of(set), real = data_features();
  if (judged_) j["feature_variance"] = json_number(finetune::pairwise_variance(width_, f));
  j["frechet_to_data"] = json_number(finetune::frechet_distance(width_, f, real));
  if (!set.of_base()) j["frechet_to_reweighted_base"] = json_number(frechet_to_reweighted_base(set));
  const auto near = first_rows(f, width_, neighbour_rows), near_real = first_rows(real, width_, neighbour_rows);
  const auto least = static_cast<std::size_t>((neighbours + 1) * width_);
  if (near.size() < least || near_real.size() < least) return;
  const finetune::PrecisionRecall r = finetune::precision_recall(width_, near_real, near, neighbours);
  j["precision"] = json_number(r.precision), j["recall"] = json_number(r.recall);
}

void Laws::add_tilt_numbers(Json& j, const Samples& set) const {
  const bool of_base = set.of_base();
  const finetune::GaussianMixture& law = of_base ? tilt_->base() : tilt_->target();
  const std::vector<double> modes = finetune::mode_weights(law, set.values);
  if (!of_base)
    j["w1_to_closed_form"] = json_number(
        finetune::sliced_wasserstein1(dim_, set.values, exact_, static_cast<int>(config_.evaluate.projections), seed_) / unit_);
  j["mode_weights"] = json_numbers(modes);
  if (!of_base) {
    j["mode_error_to_closed_form"] = json_number(largest_difference(modes, law.weights()));
    j["mode_error_to_reweighted_base"] = json_number(largest_difference(
        modes, finetune::mode_weights(law, base_.values, finetune::ModeAssignment::responsibility, weights_)));
  }
  const finetune::ModeCoverage coverage = finetune::mode_coverage(law, set.values);
  j["modes_covered"] = coverage.covered;
  j["mode_total_variation"] = json_number(coverage.test.total_variation);
  j["mode_g_test_p"] = json_number(coverage.test.g_p);
  j["share_outside_modes"] = json_number(static_cast<double>(coverage.outside) / static_cast<double>(set.reward.value.size()));
}

Json Laws::numbers(const Samples& set) const {
  Json j = Json::object();
  j["reward"] = json_estimate(set.reward.mean());
  if (set.reward.failed > 0) j["failed_rewards"] = set.reward.failed;
  if (config_.reward.f_divergence.kind != "none") j["transformed_reward"] = json_estimate(set.raised.mean());
  if (!set.gold.value.empty()) j["gold_reward"] = json_estimate(set.gold.mean());
  if (set.gold.failed > 0) j["failed_gold_rewards"] = set.gold.failed;
  j["diversity"] = json_number(std::sqrt(finetune::mean_pairwise_squared_distance(dim_, set.values)));
  j["vendi"] = json_number(vendi(set));
  if (judged_) {
    std::vector<double> frequency(static_cast<std::size_t>(data_.model.classes));
    const double one = 1.0 / static_cast<double>(set.opinion.label.size());
    double share = 0;
    for (const std::int32_t l : set.opinion.label) frequency[l] += one, share += targeted(l) ? one : 0.0;
    if (targets_) j["target_frequency"] = json_number(share);
    j["class_frequency"] = json_numbers(frequency);
    j["class_entropy"] = json_number(finetune::entropy(frequency));
  }
  if (targets_ && set.name != "base_ode")
    j["frechet_to_real_targets"] = json_number(frechet_to_targets(set.of_base() ? base_targets_ : set.opinion.feature));
  if (!set.of_base())
    j["w1_to_reweighted_base"] =
        json_number(finetune::sliced_wasserstein1(dim_, set.values, base_.values,
                                                  static_cast<int>(config_.evaluate.projections), seed_, {}, weights_) /
                    unit_);
  add_feature_numbers(j, set);
  if (tilt_) add_tilt_numbers(j, set);
  return j;
}

Json Laws::features() const {
  Json out{{"kind", judged_ ? "judge" : width_ > 0 ? "values" : "none"}, {"width", width_}};
  const std::span<const double> f = features_of(base_);
  const std::size_t half = width_ > 0 ? f.size() / static_cast<std::size_t>(width_) / 2 * static_cast<std::size_t>(width_) : 0;
  if (half >= 2 * static_cast<std::size_t>(width_) && width_ > 0)
    out["frechet_between_halves_of_base"] =
        json_number(finetune::frechet_distance(width_, f.first(half), f.subspan(half, half)));
  return out;
}

Json Laws::frechet(const Samples& sde, const Samples& ode) const {
  const double own = frechet_to_targets(base_targets_);
  return {{"rows", target_rows_},
          {"ratio_sde", json_number(frechet_to_targets(sde.opinion.feature) / own)},
          {"ratio_ode", json_number(frechet_to_targets(ode.opinion.feature) / own)}};
}

Json Laws::importance() const {
  const std::vector<double> log_weights = base_.raised.kept(log_weights_);
  const finetune::Estimate log_z = finetune::log_z_estimate(log_weights),
                           tilted = finetune::weighted_mean(base_.raised.kept(), log_weights);
  Json out{{"log_z", json_estimate(log_z)},
           {"effective_samples", json_number(finetune::effective_sample_size(log_weights))},
           {"tilted_reward", json_estimate(tilted)},
           {"kl_of_tilt", json_number(config_.reward.multiplier * tilted.value - log_z.value)}};
  if (base_.gold.value.empty()) return out;
  std::vector<double> gold, gold_log_weights;
  for (std::size_t i = 0; i < base_.gold.value.size(); ++i)
    if (base_.raised.valid[i] && base_.gold.valid[i])
      gold.push_back(base_.gold.value[i]), gold_log_weights.push_back(log_weights_[i]);
  out["tilted_gold_reward"] = json_estimate(finetune::weighted_mean(gold, gold_log_weights));
  return out;
}

Json Laws::best_of_n() const {
  const std::vector<double> rewards = base_.reward.kept();
  Json n = Json::array(), reward = Json::array(), kl = Json::array();
  for (std::int64_t i = 1; i == 1 || 8 * i <= static_cast<std::int64_t>(rewards.size()); i *= 2) {
    n.push_back(i);
    reward.push_back(json_number(finetune::expected_best_of_n(rewards, i)));
    kl.push_back(json_number(finetune::best_of_n_kl(i)));
  }
  return {{"n", n}, {"reward", reward}, {"kl", kl}};
}

Json Laws::closed_form() const {
  Json j = Json::object();
  const double lambda = config_.reward.multiplier;
  j["tilted_reward"] = json_number(lambda > 0 ? tilt_->expected_reward() / lambda : nan);
  j["kl"] = json_number(tilt_->kl()), j["log_z"] = json_number(tilt_->log_z());
  j["mode_weights"] = json_numbers(tilt_->target().weights());
  std::vector<double> again(exact_.size());
  const std::int64_t count = config_.evaluate.count;
  tilt_->target().sample(seed_, static_cast<std::uint64_t>(count), count, again.data());
  j["w1_between_two_exact_sets"] = json_number(
      finetune::sliced_wasserstein1(dim_, again, exact_, static_cast<int>(config_.evaluate.projections), seed_) / unit_);
  return j;
}

}  // namespace costate::cli
