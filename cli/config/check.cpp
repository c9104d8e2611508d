// Rules between keys.
#include <costate/tensor/backend.h>

#include "config/read.h"
#include "objectives/objectives.h"

namespace costate::cli {

void check_config(const Config& c) {
  require(!c.name.empty() && c.name.find_first_of("/\n") == std::string::npos, "name: found \"", c.name,
          "\", expected text without slashes");
  require(device_named(c.device, "device").kind != DeviceKind::meta, "device: found \"", c.device,
          "\", expected cpu, or cuda:0 and so on");
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
  check_rewards(c);
  // What a kind would not look at is a mistake of the user, who must hear of it.
  const auto only = [](bool used, bool given, const char* key, const char* whose, const std::string& kind) {
    require(used || !given, key, ": applies to ", whose, " only, but the kind is '", kind, "'");
  };
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
  only(s == "flow_sde", c.sampler.a != standard.a, "sampler.a", "the flow_sde sampler", s);
  only(s == "ddim", c.sampler.eta != standard.eta, "sampler.eta", "the ddim sampler", s);
  only(s == "ddpm", c.sampler.variance != standard.variance, "sampler.variance", "the ddpm sampler", s);
  const ChurnConfig &churn = c.sampler.churn, &plain_churn = standard.churn;
  only(s == "churned",
       churn.amount != plain_churn.amount || churn.sigma_min != plain_churn.sigma_min ||
           churn.sigma_max != plain_churn.sigma_max || churn.noise != plain_churn.noise,
       "sampler.churn", "the churned sampler", s);
  require(churn.sigma_max >= churn.sigma_min, "sampler.churn.sigma_max: found ", churn.sigma_max,
          ", expected at least sampler.churn.sigma_min, ", churn.sigma_min);
  const GridConfig &grid = c.sampler.grid, &plain_grid = standard.grid;
  const std::string& g = grid.kind;
  only(g == "uniform" || g == "quadratic" || g == "shifted", c.sampler.start != standard.start, "sampler.start",
       "uniform, quadratic and shifted grids", g);
  only(g == "shifted", grid.shift != plain_grid.shift, "sampler.grid.shift", "the shifted grid", g);
  only(g == "karras",
       grid.sigma_min != plain_grid.sigma_min || grid.sigma_max != plain_grid.sigma_max || grid.rho != plain_grid.rho,
       "sampler.grid.sigma_min, sigma_max and rho", "the karras grid", g);
  only(g == "leading", grid.steps_offset != plain_grid.steps_offset, "sampler.grid.steps_offset", "the leading grid", g);
  require(grid.sigma_max > grid.sigma_min, "sampler.grid.sigma_max: found ", grid.sigma_max,
          ", expected more than sampler.grid.sigma_min, ", grid.sigma_min);
  const PathConfig table;
  only(c.path.family == "vp_table",
       c.path.beta_schedule != table.beta_schedule || c.path.timesteps != table.timesteps ||
           c.path.beta_start != table.beta_start || c.path.beta_end != table.beta_end,
       "path.beta_schedule, timesteps, beta_start and beta_end", "vp_table", c.path.family);
  require(c.path.beta_end >= c.path.beta_start, "path.beta_end: found ", c.path.beta_end,
          ", expected at least path.beta_start, ", c.path.beta_start);
  const std::string& family = c.path.family;
  only(family == "vp_linear" || family == "vp_scaled_linear" || family == "vp_sigmoid",
       c.path.beta_min != table.beta_min || c.path.beta_max != table.beta_max, "path.beta_min and path.beta_max",
       "vp_linear, vp_scaled_linear and vp_sigmoid", family);
  only(family == "power", c.path.power != table.power, "path.power", "power", family);
  only(family == "edm", c.path.sigma_max != table.sigma_max || c.path.rho != table.rho, "path.sigma_max and path.rho", "edm",
       family);
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
  require(c.pretrain.micro_batch <= c.pretrain.batch, "pretrain.micro_batch: found ", c.pretrain.micro_batch,
          ", expected at most pretrain.batch, ", c.pretrain.batch);
  require(c.finetune.micro_batch <= c.finetune.batch, "finetune.micro_batch: found ", c.finetune.micro_batch,
          ", expected at most finetune.batch, ", c.finetune.batch);
  check_objective(c);
  check_control(c);
  check_search(c);
  check_evaluation(c);
}

}  // namespace costate::cli
