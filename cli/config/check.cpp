// Rules between keys.
#include <costate/tensor/error.h>

#include "config/read.h"

namespace costate::cli {

void check_config(const Config& c) {
  require(!c.name.empty() && c.name.find_first_of("/\n") == std::string::npos, "name: found \"", c.name,
          "\", expected text without slashes");
  require(c.data.csv_delimiter.size() == 1, "data.csv.delimiter: found \"", c.data.csv_delimiter,
          "\", expected one character");
  require(c.data.range.size() == 2 && c.data.range[0] < c.data.range[1],
          "data.range: expected two values, the lower one first, such as [0, 1]");
  const auto& mixture = c.data.mixture_means;
  for (const auto& row : mixture)
    require(row.size() == 2, "data.mixture.means: a row has ", row.size(),
            " numbers, expected two (the plane)");
  require(c.data.mixture_weights.empty() || c.data.mixture_weights.size() == mixture.size(),
          "data.mixture.weights: found ", c.data.mixture_weights.size(), " weights for ", mixture.size(),
          " means");
  require(c.data.mixture_deviations.empty() || c.data.mixture_deviations.size() == mixture.size(),
          "data.mixture.deviations: found ", c.data.mixture_deviations.size(), " deviations for ",
          mixture.size(), " means");
  require(c.path.beta_max >= c.path.beta_min, "path.beta_max: found ", c.path.beta_max,
          ", expected at least path.beta_min, ", c.path.beta_min);
  for (const auto* f : {&c.reward.numerator, &c.reward.denominator})
    for (const auto& row : f->means)
      require(row.size() == f->means[0].size(), "reward.",
              f == &c.reward.numerator ? "numerator" : "denominator", ".means: rows of ", f->means[0].size(),
              " and of ", row.size(), " numbers, expected equal lengths");
  for (const auto& row : c.reward.precision)
    require(row.size() == c.reward.precision[0].size(), "reward.precision: rows of ",
            c.reward.precision[0].size(), " and of ", row.size(), " numbers, expected equal lengths");
  // What a kind would not look at is a mistake of the user, who must hear of it.
  const auto only = [](bool used, bool given, const char* key, const char* whose, const std::string& kind) {
    require(used || !given, key, ": applies to ", whose, " only, but the kind is '", kind, "'");
  };
  const std::string& r = c.reward.kind;
  only(r == "linear" || r == "quadratic", !c.reward.coefficients.empty(), "reward.coefficients",
       "linear and quadratic rewards", r);
  only(r == "quadratic", !c.reward.centre.empty(), "reward.centre", "the quadratic reward", r);
  only(r == "quadratic", !c.reward.precision.empty(), "reward.precision", "the quadratic reward", r);
  const auto given = [](const MixtureConfig& m) {
    return !m.means.empty() || !m.variances.empty() || !m.weights.empty();
  };
  only(r == "log_density_ratio", given(c.reward.numerator), "reward.numerator", "the log density ratio", r);
  only(r == "log_density_ratio", given(c.reward.denominator), "reward.denominator", "the log density ratio",
       r);
  only(r == "classifier", !c.reward.targets.empty(), "reward.targets", "the classifier reward", r);
  require(r != "classifier" || !c.reward.targets.empty(),
          "reward.targets: found [], expected at least one class");
  require(r != "linear" || !c.reward.coefficients.empty(),
          "reward.coefficients: found [], expected one number a feature of an item");
  require(r != "quadratic" || !c.reward.precision.empty(),
          "reward.precision: found [], expected a matrix or its diagonal");
  const NetworkConfig& n = c.network;
  const NetworkConfig plain;
  only(n.kind == "mlp",
       n.hidden != plain.hidden || n.depth != plain.depth || n.activation != plain.activation ||
           n.time_frequencies != plain.time_frequencies || n.class_width != plain.class_width ||
           n.residual != plain.residual || n.norm != plain.norm,
       "network.hidden, depth, activation, time_frequencies, class_width, residual and norm", "mlp", n.kind);
  only(n.kind == "pretrained", !n.path.empty(), "network.path", "pretrained", n.kind);
  require(n.kind != "pretrained" || !n.path.empty(),
          "network.path: found \"\", expected the checkpoint of the pretrained network");
  const UNetConfig &u = n.unet, &pu = plain.unet;
  only(n.kind == "unet",
       u.channels != pu.channels || u.layers != pu.layers || u.attention_levels != pu.attention_levels ||
           u.head_channels != pu.head_channels || u.groups != pu.groups ||
           u.time_conditioning != pu.time_conditioning || u.resampling != pu.resampling ||
           u.dropout != pu.dropout,
       "network.unet", "unet", n.kind);
  const DitConfig &d = n.dit, &pd = plain.dit;
  only(n.kind == "dit",
       d.patch != pd.patch || d.hidden != pd.hidden || d.depth != pd.depth || d.heads != pd.heads ||
           d.mlp_ratio != pd.mlp_ratio,
       "network.dit", "dit", n.kind);
  require(!u.channels.empty() && u.channels.size() <= 16, "network.unet.channels: found ", u.channels.size(),
          " levels, expected 1 to 16");
  for (const std::int64_t level : u.attention_levels)
    require(level < static_cast<std::int64_t>(u.channels.size()), "network.unet.attention_levels: found ",
            level, ", but the levels are 0 to ", u.channels.size() - 1);
  const SamplerConfig standard;
  const std::string& s = c.sampler.kind;
  only(s == "constant", c.sampler.sigma != standard.sigma, "sampler.sigma", "the constant sampler", s);
  only(s == "scaled", c.sampler.scale != standard.scale, "sampler.scale", "the scaled sampler", s);
  only(s == "scaled" || s == "euler_maruyama", c.sampler.offset != standard.offset, "sampler.offset",
       "euler_maruyama and scaled samplers", s);
  const PathConfig table;
  only(c.path.family == "vp_table",
       c.path.beta_schedule != table.beta_schedule || c.path.timesteps != table.timesteps ||
           c.path.beta_start != table.beta_start || c.path.beta_end != table.beta_end,
       "path.beta_schedule, timesteps, beta_start and beta_end", "vp_table", c.path.family);
  require(c.path.beta_end >= c.path.beta_start, "path.beta_end: found ", c.path.beta_end,
          ", expected at least path.beta_start, ", c.path.beta_start);
  only(c.path.family == "vp_linear",
       c.path.beta_min != PathConfig{}.beta_min || c.path.beta_max != PathConfig{}.beta_max,
       "path.beta_min and path.beta_max", "vp_linear", c.path.family);
  const bool conditional = c.network.conditional;
  for (const auto& [key, list] : {std::pair{"finetune.labels", &c.finetune.labels},
                                  {"sample.labels", &c.sample.labels},
                                  {"evaluate.labels", &c.evaluate.labels}})
    require(conditional || list->empty(), key,
            ": the network is given no class (network.conditional is false), expected []");
  require(c.sample.guidance == 0 || !c.sample.labels.empty(), "sample.guidance: found ", c.sample.guidance,
          ", expected 0 as there are no sample.labels");
  require(c.finetune.guidance == 0 || !c.finetune.labels.empty(), "finetune.guidance: found ",
          c.finetune.guidance, ", expected 0 as there are no finetune.labels");
  require(!c.sample.samplers.empty(), "sample.samplers: found [], expected sde, ode or both");
  const LoraConfig& lora = c.finetune.lora;
  require(lora.rank > 0 || (lora.alpha == 0 && lora.targets == LoraConfig{}.targets), "finetune.lora.",
          lora.alpha != 0 ? "alpha" : "targets", ": applies to adapters only, but finetune.lora.rank is 0");
  require(!lora.targets.empty(), "finetune.lora.targets: found [], expected at least one pattern, such as *");
  require(c.finetune.micro_batch <= c.finetune.batch, "finetune.micro_batch: found ", c.finetune.micro_batch,
          ", expected at most finetune.batch, ", c.finetune.batch);
}

}  // namespace costate::cli
