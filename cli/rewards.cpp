#include "rewards.h"

#include <costate/tensor/parallel.h>

#include <algorithm>
#include <cmath>

#include "image/jpeg.h"

namespace costate::cli {
namespace {

std::vector<double> flat(const Matrix& m) {
  std::vector<double> out;
  for (const auto& row : m) out.insert(out.end(), row.begin(), row.end());
  return out;
}

finetune::IsotropicMixture isotropic(const MixtureConfig& c, std::int64_t dim, const std::string& key) {
  require(!c.means.empty(), key, ".means: found [], expected the centres of a mixture in ", dim, " dimensions");
  require(static_cast<std::int64_t>(c.means[0].size()) == dim, key, ".means: rows of ", c.means[0].size(),
          " numbers, but an item of the data has ", dim);
  require(c.variances.size() == c.means.size(), key, ".variances: found ", c.variances.size(), " for ", c.means.size(),
          " means");
  require(c.weights.empty() || c.weights.size() == c.means.size(), key, ".weights: found ", c.weights.size(), " for ",
          c.means.size(), " means");
  return {flat(c.means), c.variances, c.weights.empty() ? std::vector<double>(c.means.size(), 1.0) : c.weights};
}

void check_size(const std::vector<double>& v, std::int64_t dim, const std::string& key) {
  require(static_cast<std::int64_t>(v.size()) == dim, key, ": found ", v.size(), " numbers, but an item of the data has ", dim);
}

void check_pictures(const data::Dataset& data, const std::string& section, const std::string& kind) {
  require(data.item_shape.size() == 3, section, ".kind: '", kind, "' is of pictures, but an item of the data (",
          data.description, ") has ", data.item_shape.size(), " axes, expected height, width and channels");
}

finetune::Reward classifier_of(const RewardConfig& c, const data::Dataset& data, std::span<const nn::Classifier> classifiers,
                               const std::string& section) {
  std::vector<std::int32_t> targets;
  for (const std::int64_t t : c.targets) {
    require(t < data.classes, section, ".targets: found ", t, ", but the classes of the data are 0 to ", data.classes - 1);
    targets.push_back(static_cast<std::int32_t>(t));
  }
  require(!classifiers.empty(), section, ".kind: there is no classifier");
  std::vector<finetune::Reward> members;
  for (const nn::Classifier& one : classifiers) members.push_back(finetune::classifier_reward(one, targets));
  if (members.size() == 1) return members[0];
  using Rule = finetune::EnsembleRule;
  const Rule rule = c.ensemble.rule == "mean" ? Rule::mean : c.ensemble.rule == "minimum" ? Rule::minimum : Rule::lower_bound;
  return finetune::ensemble_reward(std::move(members), rule, c.ensemble.coefficient);
}

finetune::Reward of_kind(const RewardConfig& c, const data::Dataset& data, std::span<const nn::Classifier> classifiers,
                         const std::string& section) {
  const std::int64_t dim = data::item_size(data);
  const auto n = static_cast<std::size_t>(dim);
  const std::string& kind = c.kind;
  if (kind == "linear") {
    check_size(c.coefficients, dim, section + ".coefficients");
    return finetune::linear_reward(c.coefficients);
  }
  if (kind == "quadratic") {
    if (!c.coefficients.empty()) check_size(c.coefficients, dim, section + ".coefficients");
    if (!c.centre.empty()) check_size(c.centre, dim, section + ".centre");
    return finetune::quadratic_reward(c.centre.empty() ? std::vector<double>(n) : c.centre, precision_of(c, n, section),
                                      c.coefficients);
  }
  if (kind == "log_density") return finetune::log_density_reward(isotropic(c.numerator, dim, section + ".numerator"), dim);
  if (kind == "log_density_ratio")
    return finetune::log_density_ratio_reward(isotropic(c.numerator, dim, section + ".numerator"),
                                              isotropic(c.denominator, dim, section + ".denominator"), dim);
  if (kind == "classifier") return classifier_of(c, data, classifiers, section);
  if (kind == "command")
    return finetune::subprocess_reward({.command = c.command, .gradient = c.command_gradient, .timeout = c.command_timeout});
  require(kind != "none", section, ".kind: found \"none\", expected a reward, as fine-tuning raises it");
  check_pictures(data, section, kind);
  if (kind == "brightness") return finetune::brightness_reward(c.scale);
  if (kind == "symmetry")
    return finetune::symmetry_reward(c.axis == "up_down" ? finetune::MirrorAxis::up_down : finetune::MirrorAxis::left_right,
                                     c.scale);
  if (kind == "total_variation") return finetune::total_variation_reward(c.scale, c.smoothing);
  return jpeg_reward(data, static_cast<int>(c.quality), kind == "jpeg_compressibility" ? -1 : 1);
}

}  // namespace

std::vector<double> precision_of(const RewardConfig& c, std::size_t dim, const std::string& section) {
  const Matrix& q = c.precision;
  require(q[0].size() == dim && (q.size() == 1 || q.size() == dim), section, ".precision: found ", q.size(), " rows of ",
          q[0].size(), " numbers, expected ", dim, " rows of ", dim, " or one row, the diagonal (an item of the data has ", dim,
          " numbers)");
  return flat(q);
}

finetune::Reward make_reward(const RewardConfig& c, const data::Dataset& data, std::span<const nn::Classifier> classifiers,
                             const std::string& section) {
  finetune::Reward r = of_kind(c, data, classifiers, section);
  if (c.bump.amount != 0) {
    check_size(c.bump.centre, data::item_size(data), section + ".bump.centre");
    r = finetune::proxy_reward(r, c.bump.centre, c.bump.width, c.bump.amount);
  }
  using Policy = finetune::Reward::Policy;
  r.on_failure = c.on_failure == "skip" ? Policy::skip : c.on_failure == "clip" ? Policy::clip : Policy::stop;
  if (r.on_failure == Policy::clip) r.clip_low = c.clip[0], r.clip_high = c.clip[1];
  return r;
}

finetune::Reward jpeg_reward(const data::Dataset& data, int quality, double sign) {
  const std::vector<std::int64_t>& shape = data.item_shape;
  require(shape.size() == 3 && (shape[2] == 1 || shape[2] == 3), "jpeg reward: an item of the data (", data.description,
          ") is no picture of 1 or 3 channels");
  finetune::Reward r;
  r.name = sign < 0 ? "jpeg_compressibility" : "jpeg_incompressibility";
  r.black_box = [height = shape[0], width = shape[1], channels = static_cast<int>(shape[2]), scale = data.scale,
                 offset = data.offset, quality, sign](const Tensor& x) {
    const std::int64_t rows = x.extent(0), n = height * width * channels;
    require(x.numel() == rows * n, "jpeg reward: x has shape ", x.shape(), "; expected pictures of ", n, " values");
    const Tensor narrow = x.to(DType::f32);
    const auto values = narrow.values<float>();
    Tensor out = Tensor::empty({rows});
    const auto sizes = out.mutate<float>();
    parallel_for(rows, 4, [&](std::int64_t begin, std::int64_t end) {
      Raster picture{height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(n))};
      for (std::int64_t i = begin; i < end; ++i) {
        bool finite = true;
        for (std::int64_t j = 0; j < n; ++j) {
          const double v = scale * static_cast<double>(values[i * n + j]) + offset;
          finite = finite && std::isfinite(v);
          picture.pixels[j] = static_cast<std::uint8_t>(std::clamp(std::isfinite(v) ? 255 * v + 0.5 : 0.0, 0.0, 255.0));
        }
        // A picture with values that are no numbers has no size: the policy decides.
        sizes[i] = finite ? static_cast<float>(sign * static_cast<double>(jpeg_bytes(picture, quality).size()) / 1000)
                          : std::numeric_limits<float>::quiet_NaN();
      }
    });
    return out;
  };
  return r;
}

ClassifierConfig member_config(const ClassifierConfig& config, std::int64_t i) {
  ClassifierConfig c = config;
  // Far from the seed of the judge, which is a small number as well by default.
  if (i > 0) c.seed = (config.seed + 1000003 * i) % (std::int64_t{1} << 53);
  return c;
}

std::string member_checkpoint(std::int64_t i) {
  return sentence({"checkpoints/reward_classifier", i == 0 ? "" : sentence({"_", i + 1}), ".safetensors"});
}

}  // namespace costate::cli
