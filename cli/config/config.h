// Everything a run can be told, with its defaults. The sections and keys of the JSON file are these members
// under their own names; fields.h says what each means and which values it takes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/backpropagation_config.h"
#include "config/control_config.h"
#include "config/initial_law_config.h"
#include "config/policy_gradient_config.h"
#include "config/regression_config.h"
#include "config/reward_config.h"

namespace costate::cli {

struct LearningRateConfig {
  double peak = 1e-3;
  std::int64_t warmup = 0;
  std::string decay = "cosine";
  double final = 0.0;
};

struct OptimiserConfig {
  LearningRateConfig lr;
  double weight_decay = 0.0, beta1 = 0.9, beta2 = 0.999, clip_norm = 1.0, ema_decay = 0.999;
};

struct DataConfig {
  std::string kind = "glyphs";
  std::string path, labels, array;
  std::vector<std::int64_t> item_shape;
  std::string csv_delimiter = ",", csv_header = "automatic";
  bool grey = false;
  std::int64_t count = 0, first = 0, seed = 0;
  std::int64_t resolution = 16;
  Matrix mixture_means;
  std::vector<double> mixture_weights, mixture_deviations;
  std::int64_t parts = 0;
  double noise = 0.0;
  std::vector<std::int64_t> only_labels;
  std::int64_t average_down = 1;
  std::string scaling = "automatic";
  std::vector<double> range{0.0, 1.0};
  double held_out = 0.0;
};

struct PathConfig {
  std::string family = "linear";
  double beta_min = 0.1, beta_max = 20.0;
  std::string beta_schedule = "linear";
  std::int64_t timesteps = 1000;
  double beta_start = 1e-4, beta_end = 0.02;
  double power = 2.0;
  double sigma_max = 80.0, rho = 7.0;
};

struct UNetConfig {
  std::vector<std::int64_t> channels{64, 128, 128};
  std::int64_t layers = 2;
  std::vector<std::int64_t> attention_levels{2};
  std::int64_t head_channels = 0, groups = 32;
  std::string time_conditioning = "shift", resampling = "conv";
  double dropout = 0.0;
};

struct DitConfig {
  std::int64_t patch = 4, hidden = 192, depth = 6, heads = 6;
  double mlp_ratio = 4.0;
};

struct NetworkConfig {
  std::string kind = "mlp", path;
  std::int64_t hidden = 128, depth = 3;
  std::string activation = "silu";
  std::int64_t time_frequencies = 8;
  bool conditional = false;
  std::int64_t class_width = 16;
  bool residual = false, norm = false;
  UNetConfig unet;
  DitConfig dit;
};

struct PretrainConfig {
  std::int64_t iterations = 4000, batch = 256, micro_batch = 0;
  OptimiserConfig optimiser;
  double label_drop = 0.1, time_margin = 0.0;
  std::int64_t log_every = 50, checkpoint_every = 0;
};

struct ClassifierConfig {
  std::int64_t hidden = 128, depth = 2, iterations = 1500, batch = 128, seed = 1;
  double lr = 1e-3, weight_decay = 1e-2, noise = 0.1;
  std::int64_t log_every = 50;
};

struct GridConfig {
  std::string kind = "uniform";
  double shift = 1.0;
  double sigma_min = 0.002, sigma_max = 80.0, rho = 7.0;
  std::int64_t steps_offset = 0;
};

struct ChurnConfig {
  double amount = 40.0, sigma_min = 0.05, sigma_max = 50.0, noise = 1.0;
};

struct SamplerConfig {
  std::string kind = "exact_memoryless";
  std::int64_t steps = 50;
  double sigma = 1.0, scale = 1.0;
  std::string offset = "both";
  double a = 0.7, eta = 1.0;
  std::string variance = "fixed_small";
  ChurnConfig churn;
  double start = 0.0;
  GridConfig grid;
};

struct LoraConfig {
  std::int64_t rank = 0;
  double alpha = 0.0;
  std::vector<std::string> targets{"*"};
};

struct FinetuneConfig {
  std::string objective = "adjoint_matching";
  std::int64_t iterations = 400, batch = 256, micro_batch = 0;
  std::string pairing = "next";
  std::int64_t early_steps = 0, late_steps = 0;
  double loss_clip = 0.0;
  std::string loss_space = "control";
  bool keep_activations = false, denoised_endpoint = false;
  std::string recompute = "none";
  LoraConfig lora;
  OptimiserConfig optimiser;
  std::vector<std::int64_t> labels;
  double guidance = 0.0;
  std::int64_t log_every = 10, checkpoint_every = 0;
  RegressionConfig regression;
  PolicyGradientConfig policy_gradient;
  BackpropagationConfig backpropagation;
  InitialLawConfig initial_law;
};

struct SmcConfig {
  std::int64_t particles = 0;
  std::string proposal = "guided", tempering = "linear";
  double resample_below = 0.5;
};

struct BestOfNConfig {
  std::int64_t n = 8;
};

struct NoiseConfig {
  std::int64_t iterations = 50, vector = 4, permutations = 100;
  double gamma = 0.0, lr = 1e-2, clip_norm = 1.0;
};

struct SampleConfig {
  std::int64_t count = 64;
  std::vector<std::string> samplers{"sde", "ode"};
  std::string model = "both";
  std::vector<std::int64_t> labels;
  double guidance = 0.0;
  bool archive = false;
  std::string ode = "euler";
  std::int64_t ode_steps = 0;
  std::vector<std::string> methods;
  SmcConfig smc;
  BestOfNConfig best_of_n;
  NoiseConfig noise;
};

struct LikelihoodConfig {
  std::int64_t count = 0, steps = 50, probes = 1;
  std::string trace = "hutchinson";
  double margin = 0.0;
};

struct VendiConfig {
  std::int64_t count = 400;
  double order = 1.0, bandwidth = 0.0;
};

struct EvaluateConfig {
  std::int64_t count = 2048, projections = 128;
  std::vector<std::int64_t> labels;
  bool control_error = true, checkpoints = false, methods = false;
  VendiConfig vendi;
  LikelihoodConfig likelihood;
};

struct ResumeConfig {
  std::int64_t every = 0, keep = 2;
  double minutes = 10;
};

struct DistributedConfig {
  std::string reduction = "ordered";
};

struct LogConfig {
  bool tensorboard = false;
};

struct Config {
  std::string name = "run";
  std::int64_t seed = 0, threads = 0;
  double memory_limit = 0.0;
  std::string device = "cpu", precision = "f32", activations = "f32";
  std::string out;
  DataConfig data;
  PathConfig path;
  std::string prediction = "velocity";
  ControlConfig control;
  NetworkConfig network;
  PretrainConfig pretrain;
  ClassifierConfig reward_classifier, judge;
  RewardConfig reward, gold;
  SamplerConfig sampler;
  FinetuneConfig finetune;
  SampleConfig sample;
  EvaluateConfig evaluate;
  ResumeConfig resume;
  LogConfig log;
  DistributedConfig distributed;

  Config() {
    judge.seed = 2;
    finetune.optimiser.lr = {1e-4, 20, "constant", 0.0};
    finetune.optimiser.ema_decay = 0.9;
  }
};

}  // namespace costate::cli
