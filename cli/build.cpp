#include "build.h"

#include <costate/finetune/distributed/sampling.h>
#include <costate/sde/diffusion.h>
#include <costate/sde/edm.h>
#include <costate/sde/exponential.h>
#include <costate/sde/solve.h>

#include <costate/nn/mlp.h>
#include <costate/tensor/backend.h>
#include <costate/tensor/parallel.h>

#include <algorithm>
#include <thread>

#include <cmath>
#include <limits>

namespace costate::cli {
namespace {

sde::Parametrisation prediction_of(const Config& c) { return sde::parametrisation(c.prediction); }

data::PlaneMixture plane_mixture(const DataConfig& c) {
  if (c.mixture_means.empty()) return data::ring_mixture(8, 1.0, 0.1);
  data::PlaneMixture m;
  const std::size_t n = c.mixture_means.size();
  m.weights = c.mixture_weights.empty() ? std::vector<double>(n, 1.0) : c.mixture_weights;
  m.deviations = c.mixture_deviations.empty() ? std::vector<double>(n, 0.1) : c.mixture_deviations;
  for (const auto& row : c.mixture_means) m.means.push_back({row[0], row[1]});
  return m;
}

DataSpec data_spec(const DataConfig& c) {
  DataSpec s;
  s.kind = data_kind(c.kind);
  s.path = c.path, s.labels = c.labels, s.array = c.array, s.item_shape = c.item_shape;
  s.csv.delimiter = c.csv_delimiter[0];
  s.csv.header = c.csv_header == "present"  ? data::CsvHeader::present
                 : c.csv_header == "absent" ? data::CsvHeader::absent
                                            : data::CsvHeader::automatic;
  s.grey = c.grey;
  s.count = c.count, s.first = c.first, s.seed = static_cast<std::uint64_t>(c.seed);
  s.glyphs.resolution = static_cast<int>(c.resolution);
  if (!c.mixture_means.empty()) s.mixture = plane_mixture(c);
  s.parts = static_cast<int>(c.parts), s.noise = c.noise;
  for (const std::int64_t l : c.only_labels) s.only_labels.push_back(static_cast<std::int32_t>(l));
  s.average_down = c.average_down;
  const bool pictures = s.kind == DataKind::glyphs || s.kind == DataKind::idx || s.kind == DataKind::png;
  if (c.scaling == "range" || (c.scaling == "automatic" && pictures)) s.range = {c.range[0], c.range[1]};
  require(s.range || c.range == DataConfig{}.range, "data.range: data.scaling '", c.scaling,
          "' does not look at it for ", c.kind);
  s.standardise = c.scaling == "standardise";
  return s;
}

// A generated set of the right size with nothing in it.
data::Dataset blank(const DataSpec& s) {
  data::Dataset d;
  d.count = s.count == 0 ? 10000 : s.count;
  DataSpec one = s;  // one item tells the classes, and whether every setting is good
  one.count = 1;
  one.standardise = false;
  const data::Dataset item = load_dataset(one);
  d.classes = item.classes, d.item_shape = item.item_shape;
  d.values.assign(static_cast<std::size_t>(d.count * data::item_size(d)), 0.0f);
  d.labels.assign(static_cast<std::size_t>(d.count), 0);
  d.description = "planned " + std::string(name(s.kind));
  return d;
}

nn::AdamWOptions adamw(const OptimiserConfig& o) {
  return {.lr = o.lr.peak, .beta1 = o.beta1, .beta2 = o.beta2, .eps = 1e-8, .weight_decay = o.weight_decay};
}
nn::LearningRate learning_rate(const LearningRateConfig& c, std::int64_t total) {
  return {.peak = c.peak,
          .warmup = c.warmup,
          .total = total,
          .decay = c.decay == "cosine" ? nn::LearningRate::Decay::cosine : nn::LearningRate::Decay::constant,
          .final = c.final};
}

}  // namespace

Shape item_shape(const data::Dataset& set) { return Shape(std::span<const std::int64_t>(set.item_shape)); }

void use_threads(std::int64_t threads) {
  const std::int64_t all = std::max(1u, std::thread::hardware_concurrency());
  set_threads(static_cast<int>(threads > 0 ? threads : std::min<std::int64_t>(all, 1024)));
}

ArithmeticScope::ArithmeticScope(const Config& config)
    : products(config.precision == "tf32"            ? Precision::tf32
               : config.precision == "bf16_products" ? Precision::bf16_products
                                                     : Precision::f32),
      activations(config.activations == "bf16" ? DType::bf16 : DType::f32) {}

Device use_device(const Config& config) {
  const Device device = device_named(config.device, "device");
  if (device.kind != DeviceKind::cuda) return device;
  try {
    backend_of(device);
  } catch (const Error& e) {
    fail(e.fault(), {"device: ", e.what()});
  }
  return device;
}

std::uint64_t seed_of(const Config& config, Purpose purpose) {
  return static_cast<std::uint64_t>(config.seed) ^
         (0x9E3779B97F4A7C15u * static_cast<std::uint64_t>(purpose));
}

RunData load_run_data(const Config& config, bool shapes_only) {
  const DataSpec spec = data_spec(config.data);
  const bool generator = spec.kind < DataKind::file;
  RunData out;
  out.model = shapes_only && generator && spec.only_labels.empty() ? blank(spec) : load_dataset(spec);
  if (config.data.held_out > 0) {
    const auto kept = out.model.count -
                      static_cast<std::int64_t>(config.data.held_out * static_cast<double>(out.model.count));
    require(kept >= 2 && kept <= out.model.count - 2, "data.held_out: ", config.data.held_out, " of ",
            out.model.count, " items leaves less than two on one side");
    std::tie(out.model, out.judge) = data::split(out.model, kept, seed_of(config, Purpose::split));
  }
  require(!config.network.conditional || out.model.classes > 0,
          "network.conditional: a conditional network needs labels, but the data (", out.model.description,
          ") has none");
  return out;
}

sde::Schedule make_schedule(const Config& c) {
  if (c.path.family == "vp_table")
    return sde::diffusion_schedule(sde::beta_law(c.path.beta_schedule), static_cast<int>(c.path.timesteps),
                                   c.path.beta_start, c.path.beta_end);
  sde::Schedule s;
  s.family = sde::path_family(c.path.family);
  s.beta_min = c.path.beta_min, s.beta_max = c.path.beta_max;
  s.power = c.path.power;
  s.sigma_max = c.path.sigma_max, s.rho = c.path.rho;
  return s;
}

namespace {
std::vector<double> grid(const Config& c, const sde::Schedule& schedule, std::int64_t steps) {
  const GridConfig& g = c.sampler.grid;
  sde::GridOptions o{.start = c.sampler.start, .shift = g.shift, .sigma_min = g.sigma_min, .sigma_max = g.sigma_max,
                     .rho = g.rho, .steps_offset = static_cast<int>(g.steps_offset)};
  const sde::GridKind kind = sde::grid_kind(g.kind);
  if (kind > sde::GridKind::karras) o.train_timesteps = static_cast<int>(c.path.timesteps);
  return sde::time_grid(kind, schedule, static_cast<int>(steps), o);
}
}  // namespace

sde::Chain make_chain(const Config& c, std::int64_t steps) {
  const sde::Schedule s = make_schedule(c);
  const std::vector<double> t = grid(c, s, steps ? steps : c.sampler.steps);
  const sde::Offset offset = c.sampler.offset == "none"          ? sde::Offset::none
                             : c.sampler.offset == "denominator" ? sde::Offset::denominator
                                                                 : sde::Offset::both;
  const sde::Parametrisation p = prediction_of(c);
  if (c.sampler.kind == "exact_memoryless") return sde::exact_memoryless(s, t, p);
  if (c.sampler.kind == "euler_maruyama") return sde::euler_maruyama(s, t, offset, p);
  if (c.sampler.kind == "scaled") return sde::euler_maruyama(s, t, offset, p, c.sampler.scale);
  if (c.sampler.kind == "ddpm") return sde::ddpm(s, t, sde::ddpm_variance(c.sampler.variance), p);
  if (c.sampler.kind == "ddim") return sde::ddim(s, t, c.sampler.eta, p);
  if (c.sampler.kind == "flow_sde") return sde::flow_sde(s, t, c.sampler.a, p);
  const ChurnConfig& churn = c.sampler.churn;
  if (c.sampler.kind == "churned")
    return sde::churned(s, t, {churn.amount, churn.sigma_min, churn.sigma_max, churn.noise}, p);
  if (c.sampler.kind == "constant") return sde::euler_maruyama_constant(s, t, c.sampler.sigma, p);
  return sde::euler_ode(s, t, p);
}

std::int64_t ode_steps(const Config& c) { return c.sample.ode_steps ? c.sample.ode_steps : c.sampler.steps; }

sde::Chain make_ode_chain(const Config& c, std::int64_t steps) {
  const sde::Schedule s = make_schedule(c);
  const std::vector<double> t = grid(c, s, steps ? steps : ode_steps(c));
  if (c.sample.ode == "exponential") return sde::exponential(s, t, prediction_of(c));
  if (c.sample.ode == "dpmpp_2m") return sde::dpmpp_2m(s, t, prediction_of(c));
  return sde::euler_ode(s, t, prediction_of(c));
}

Tensor sample_ode(const Config& c, const sde::Field& field, std::int64_t steps, const Shape& shape, std::int64_t count,
                  const Tensor& labels, const sde::NoiseKey& key, Device device) {
  if (c.sample.ode == "euler" || c.sample.ode == "exponential" || c.sample.ode == "dpmpp_2m")
    return finetune::shared_sample(field, make_ode_chain(c, steps), shape, count, labels, key, DType::f32, device);
  const sde::Schedule s = make_schedule(c);
  const std::vector<double> t = grid(c, s, steps);
  if (c.sample.ode != "midpoint") {
    const sde::PathPoint end = s.at(t.back());
    const sde::Affine v = [&] {
      try {
        return sde::conversion(prediction_of(c), sde::Parametrisation::velocity, end);
      } catch (const Error&) {
        return sde::Affine{std::numeric_limits<double>::infinity(), 0};
      }
    }();
    require(std::isfinite(v.x) && std::isfinite(v.prediction), "sample.ode: '", c.sample.ode,
            "' evaluates the velocity at t = ", end.t, ", where ", c.prediction, " predictions on the ", s.description(),
            " path do not give it; expected midpoint, exponential, dpmpp_2m or euler");
  }
  return finetune::shared_sample(sde::probability_flow({field, nullptr}, s, prediction_of(c)).frozen, sde::solver(c.sample.ode),
                                 t, shape, count, labels, key, DType::f32, device);
}

nn::Classifier make_classifier(const ClassifierConfig& c, const data::Dataset& data, Device device) {
  require(data.classes >= 2, "classifiers: the data (", data.description, ") has ", data.classes,
          " classes, expected labels of at least two");
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(static_cast<std::uint64_t>(c.seed), DType::f32, device);
  return nn::make_classifier(data::item_size(data), c.hidden, static_cast<int>(c.depth), data.classes, init);
}

finetune::FlowMatchingOptions flow_matching_options(const Config& c) {
  finetune::FlowMatchingOptions o;
  o.schedule = make_schedule(c);
  o.prediction = prediction_of(c);
  o.batch = c.pretrain.batch, o.micro_batch = c.pretrain.micro_batch;
  o.seed = seed_of(c, Purpose::pretrain);
  o.adamw = adamw(c.pretrain.optimiser);
  o.lr = learning_rate(c.pretrain.optimiser.lr, c.pretrain.iterations);
  o.clip_norm = c.pretrain.optimiser.clip_norm;
  o.ema_decay = c.pretrain.optimiser.ema_decay;
  o.label_drop = c.pretrain.label_drop;
  o.time_margin = c.pretrain.time_margin;
  return o;
}

finetune::LearnerOptions learner_options(const OptimiserConfig& o, std::int64_t updates) {
  return {.adamw = adamw(o), .lr = learning_rate(o.lr, updates), .clip_norm = o.clip_norm, .ema_decay = o.ema_decay};
}

nn::LoraOptions lora_options(const Config& c) {
  const LoraConfig& l = c.finetune.lora;
  return {.rank = static_cast<int>(l.rank),
          .alpha = l.alpha > 0 ? l.alpha : static_cast<double>(l.rank),
          .targets = l.targets,
          .seed = seed_of(c, Purpose::finetune)};
}

finetune::ClassifierOptions classifier_options(const ClassifierConfig& c) {
  finetune::ClassifierOptions o;
  o.hidden = c.hidden, o.depth = static_cast<int>(c.depth);
  o.iterations = c.iterations, o.batch = c.batch;
  o.lr = {.peak = c.lr,
          .warmup = std::min<std::int64_t>(50, c.iterations / 10),
          .total = c.iterations,
          .decay = nn::LearningRate::Decay::cosine,
          .final = 0.0};
  o.weight_decay = c.weight_decay;
  o.input_noise = c.noise;
  o.seed = static_cast<std::uint64_t>(c.seed);
  return o;
}

std::optional<finetune::MixtureTilt> closed_form(const Config& c, const data::Dataset& data) {
  if (c.data.kind != "mixture" || !c.data.only_labels.empty() ||
      (c.reward.kind != "linear" && c.reward.kind != "quadratic") || c.reward.bump.amount != 0 ||
      c.reward.f_divergence.kind != "none" || c.reward.on_failure == "clip")
    return std::nullopt;
  const data::PlaneMixture plane = plane_mixture(c.data);
  std::vector<double> means, covariances;
  for (std::size_t i = 0; i < plane.means.size(); ++i) {
    for (const double m : plane.means[i]) means.push_back((m - data.offset) / data.scale);
    const double variance = plane.deviations[i] * plane.deviations[i] / (data.scale * data.scale);
    covariances.insert(covariances.end(), {variance, 0, 0, variance});
  }
  finetune::QuadraticReward reward;
  reward.c = c.reward.coefficients, reward.nu = c.reward.centre;
  if (c.reward.kind == "quadratic") {
    reward.Q = precision_of(c.reward, 2);
    if (reward.Q.size() == 2) reward.Q = {reward.Q[0], 0, 0, reward.Q[1]};
  }
  try {
    return finetune::MixtureTilt(finetune::GaussianMixture(2, plane.weights, means, covariances),
                                 reward.times(c.reward.multiplier));
  } catch (const Error& e) {
    fail(e.fault(), {"reward.precision: there is no tilted law, ", e.what()});
  }
}

Tensor make_labels(const std::vector<std::int64_t>& classes, std::int64_t count, const data::Dataset& data,
                   const char* key, Device device) {
  if (classes.empty()) return {};
  for (const std::int64_t c : classes)
    require(c < data.classes, key, ": found ", c, ", but the classes of the data are 0 to ",
            data.classes - 1);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<std::int32_t>(classes[i % classes.size()]);
  const memory::TagScope scope(memory::Tag::data);
  return Tensor::from(labels, {count}, device);
}

}  // namespace costate::cli
