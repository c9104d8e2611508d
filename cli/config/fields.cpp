#include "config/fields.h"

#include <cstddef>

#include "config/field_list.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

void data_fields(FieldList& l, DataConfig& d) {
  l.section("data");
  l.choice("kind", d.kind,
           {"glyphs", "mixture", "moons", "rings", "checkerboard", "swiss_roll", "file", "idx", "csv", "npy",
            "npz", "png"},
           "What the model learns: a generator (glyphs: drawn digits; the plane point sets) or files, told "
           "apart by their "
           "contents if 'file'.");
  l.add("path", d.path, "The file, or the folder of pictures; relative to where costate is started.");
  l.add(
      "labels", d.labels,
      "A second file with labels (idx, npy), an array of an npz file, or the label column of a csv file: 'last', a "
      "name or a number.");
  l.add("array", d.array, "npz: the array that holds the items; '': the only one beside the labels.");
  l.add("item_shape", d.item_shape,
        "csv, npy, npz: the shape of one item, [height, width, channels] for pictures; []: as stored.",
        count_from(1));
  l.add("csv.delimiter", d.csv_delimiter, "One character between the fields of a csv file.");
  l.choice("csv.header", d.csv_header, {"automatic", "present", "absent"},
           "Whether the first record of a csv file is a header.");
  l.add("grey", d.grey, "png: colour pictures become grey.");
  l.add("count", d.count, "Items to make or to read; 0: 10000 of a generator, all of a file.", {0, 1e7});
  l.add("first", d.first, "Number of the first item.", {0, large_count});
  l.add("seed", d.seed, "Seed of the generator; independent of the seed of the run.", seed_range());
  l.add("resolution", d.resolution, "glyphs: pixels a side.", {6, 512});
  l.add("mixture.means", d.mixture_means, "mixture: centres [[x, y], ...]; []: eight on the unit circle.");
  l.add("mixture.weights", d.mixture_weights, "mixture: weight of each component, normalised; []: equal.",
        above(0));
  l.add("mixture.deviations", d.mixture_deviations, "mixture: standard deviation of each component; []: 0.1.",
        above(0));
  l.add("parts", d.parts, "rings: how many (0: 3); checkerboard: cells a side (0: 4).", {0, 1000});
  l.add("noise", d.noise, "moons, rings, swiss_roll: standard deviation about the curve.", at_least(0));
  l.add("only_labels", d.only_labels, "Keep the items of these classes; []: all.", {0, 65535});
  l.add("average_down", d.average_down, "Pictures: each pixel becomes the mean of so many squared.", {1, 64});
  l.choice("scaling", d.scaling, {"automatic", "none", "range", "standardise"},
           "What the network sees: 'range' maps data.range to [-1, 1], 'standardise' gives mean 0 and "
           "deviation 1; 'automatic': "
           "range for glyphs, idx and png, none for the others.");
  l.add("range", d.range, "Two values of the data that become -1 and +1.");
  l.add("held_out", d.held_out, "Share of the data kept from the model and the reward, for the judge.",
        {0, 1, false, true});
}

void network_fields(FieldList& l, NetworkConfig& n) {
  l.section("network");
  l.choice("kind", n.kind, {"mlp", "unet", "dit", "pretrained"},
           "The architecture: a multilayer perceptron over all features, or for pictures the UNet of diffusers "
           "or the diffusion transformer; pretrained: a checkpoint of diffusers or of a DiT, which is the base model.");
  l.add("path", n.path, "pretrained: the checkpoint's folder or weights, relative to where costate is started.");
  l.add("conditional", n.conditional, "Whether the network is given the class.");
  l.add("hidden", n.hidden, "mlp: width of the hidden layers.", {1, 65536});
  l.add("depth", n.depth, "mlp: number of hidden layers.", {1, 64});
  l.choice("activation", n.activation, {"silu", "gelu_tanh", "relu"}, "mlp: between the layers.");
  l.add("time_frequencies", n.time_frequencies, "mlp: Fourier features of t; 0: t itself.", {0, 64});
  l.add("class_width", n.class_width, "mlp: width of the class vectors.", {1, 65536});
  l.add("residual", n.residual, "mlp: hidden layers after the first add to their input.");
  l.add("norm", n.norm, "mlp: layer norm before hidden layers after the first.");
  UNetConfig& u = n.unet;
  l.add("unet.channels", u.channels,
        "unet: channels of each level; every level but the first sees half as many pixels a side.",
        {1, 65536});
  l.add("unet.layers", u.layers, "unet: residual blocks a level on the way down; one more on the way up.",
        {1, 64});
  l.add("unet.attention_levels", u.attention_levels,
        "unet: levels, counted from 0, whose residual blocks are followed by attention; the middle always "
        "has it.",
        {0, 63});
  l.add("unet.head_channels", u.head_channels, "unet: channels of an attention head; 0: one head for all.",
        {0, 65536});
  l.add("unet.groups", u.groups, "unet: groups of every normalisation; divides all channels.", {1, 65536});
  l.choice("unet.time_conditioning", u.time_conditioning, {"shift", "scale_shift"},
           "unet: what time and class do to the second normalisation of a residual block.");
  l.choice("unet.resampling", u.resampling, {"conv", "resnet"},
           "unet: convolutions, or residual blocks, between the levels.");
  l.add("unet.dropout", u.dropout, "unet: probability of dropout in residual blocks, in pretraining only.",
        {0, 1, false, true});
  DitConfig& d = n.dit;
  l.add("dit.patch", d.patch, "dit: pixels a side of the patches that become tokens.", {1, 1024});
  l.add("dit.hidden", d.hidden, "dit: width of a token, a multiple of 4 and of the heads.", {4, 65536});
  l.add("dit.depth", d.depth, "dit: number of blocks.", {1, 256});
  l.add("dit.heads", d.heads, "dit: attention heads.", {1, 1024});
  l.add("dit.mlp_ratio", d.mlp_ratio, "dit: features of a block's hidden layer as a multiple of the width.",
        above(0));
}

void classifier_fields(FieldList& l, std::string path, ClassifierConfig& c) {
  l.section(std::move(path));
  l.add("hidden", c.hidden, "Width of the hidden layers.", {1, 65536});
  l.add("depth", c.depth, "Number of hidden layers.", {1, 64});
  l.add("iterations", c.iterations, "Updates.", count_from(1));
  l.add("batch", c.batch, "Items an update.", {1, 1e6});
  l.add("seed", c.seed, "Seed of weights, order and noise.", seed_range());
  l.add("lr", c.lr, "Peak learning rate (cosine decay).", above(0));
  l.add("weight_decay", c.weight_decay, "Decoupled weight decay.", at_least(0));
  l.add("noise", c.noise, "Standard deviation of Gaussian noise added to the items in training.",
        at_least(0));
  l.add("log_every", c.log_every, "Updates from one row of the metrics to the next.", count_from(1));
}

void finetune_fields(FieldList& l, FinetuneConfig& f) {
  l.section("finetune");
  l.choice("objective", f.objective, objective_names(),
           "How the control is learnt. An objective brings defaults of its own, which are in the table of objectives.");
  l.add("iterations", f.iterations, "Updates.", count_from(1));
  l.add("batch", f.batch, "Trajectories an update.", {1, 1e6});
  l.add("micro_batch", f.micro_batch,
        "Trajectories at a time, which several processes share, and which bound the memory of objectives but policy gradients; "
        "0: all.",
        {0, 1e6});
  l.choice("pairing", f.pairing, {"next", "same", "alg1"},
           "Which costate a state is regressed on: next a_{k+1} (exact), same a_k (under-tilts), alg1 as the "
           "paper's Algorithm 1.");
  l.add("early_steps", f.early_steps, "Steps drawn at random among those before the late ones.", {0, 1e6});
  l.add("late_steps", f.late_steps, "Last steps that always enter the loss; 0: all steps do.", {0, 1e6});
  l.add("loss_clip", f.loss_clip, "Upper limit of a sample's squared residual; 0: none.", at_least(0));
  l.choice("loss_space", f.loss_space, {"control", "velocity"}, "Units of the residual.");
  l.add("keep_activations", f.keep_activations,
        "Keep what the network computed while sampling for the regression, instead of computing it again: "
        "less time, "
        "more memory.");
  l.choice("recompute", f.recompute, {"none", "blocks"},
           "blocks: activations within a block of the network (of a transformer, of a UNet; a few layers of an mlp) are "
           "computed again in the sweep, instead of kept: less memory, one more forward pass, the same bits.");
  l.add("denoised_endpoint", f.denoised_endpoint,
        "Take the reward's gradient at the noiseless estimate of x_1.");
  l.add(
      "lora.rank", f.lora.rank,
      "Rank of low-rank adapters beside the frozen weights, which alone are trained and kept; 0: none, every "
      "weight is trained.",
      {0, 65536});
  l.add("lora.alpha", f.lora.alpha, "Adapters count alpha / rank times; 0: as many as the rank, once.",
        at_least(0));
  l.add("lora.targets", f.lora.targets,
        "Layers with adapters: patterns with * and ? that fit a layer's whole name or a tail of it behind a "
        "dot, "
        "such as to_q.");
  optimiser_fields(l, f.optimiser);
  l.add("labels", f.labels,
        "Conditional networks: classes of the trajectories, drawn uniformly; []: the null class.",
        {0, 65535});
  l.add("guidance", f.guidance,
        "w of classifier-free guidance (1 + w) v(x | y) - w v(x): what is tuned, and evaluated, is the "
        "guided network; "
        "needs finetune.labels.",
        at_least(0));
  l.add("log_every", f.log_every, "Updates from one row of the metrics to the next.", count_from(1));
  l.add("checkpoint_every", f.checkpoint_every,
        "Updates from one intermediate checkpoint to the next; 0: none.", {0, large_count});
  regression_fields(l, f.regression);
  policy_gradient_fields(l, f.policy_gradient);
  backpropagation_fields(l, f.backpropagation);
  initial_law_fields(l, f.initial_law);
}

void path_fields(FieldList& l, PathConfig& p) {
  l.section("path");
  l.choice("family", p.family,
           {"linear", "power", "vp_linear", "vp_scaled_linear", "vp_sigmoid", "vp_squaredcos", "vp_cosine", "vp_table", "edm"},
           "alpha and beta of x_t = alpha x_1 + beta x_0.");
  l.add("beta_min", p.beta_min, "vp_linear, vp_scaled_linear, vp_sigmoid: noising rate at the data end.", above(0));
  l.add("beta_max", p.beta_max, "vp_linear, vp_scaled_linear, vp_sigmoid: noising rate at the noise end.", above(0));
  l.choice("beta_schedule", p.beta_schedule, {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"},
           "vp_table: the betas of a discrete diffusion model, as checkpoints name them.");
  l.add("timesteps", p.timesteps, "vp_table: timesteps of the model.", {1, 1e6});
  l.add("beta_start", p.beta_start, "vp_table: beta at timestep 0.", {0, 1, true, true});
  l.add("beta_end", p.beta_end, "vp_table: beta at the last timestep.", {0, 1, true, true});
  l.add("power", p.power, "power: the exponent of alpha = t^power, beta = 1 - t^power.", at_least(1));
  l.add("sigma_max", p.sigma_max, "edm: sigma at t = 0, of sigma = sigma_max (1 - t)^rho.", above(0));
  l.add("rho", p.rho, "edm: the exponent of sigma.", at_least(1));
}

void sampler_fields(FieldList& l, SamplerConfig& s) {
  l.section("sampler");
  l.choice("kind", s.kind,
           {"exact_memoryless", "ddpm", "ddim", "euler_maruyama", "scaled", "flow_sde", "constant", "churned", "ode"},
           "The Gaussian chain that is tuned and sampled: the exact memoryless step; DDPM's, the same but for its variance; "
           "DDIM with eta; Euler-Maruyama with the memoryless sigma, with sigma^2 = scale 2 eta, as Flow-GRPO takes it with "
           "sigma^2 = a^2 eta, with a constant sigma; EDM's churned steps; or Euler's step of the noiseless equation.");
  l.add("steps", s.steps, "K, the number of steps.", {1, 100000});
  l.add("sigma", s.sigma, "constant: sigma.", above(0));
  l.add("scale", s.scale, "scaled: c of sigma^2 = c 2 eta.", above(0));
  l.choice("offset", s.offset, {"none", "denominator", "both"},
           "euler_maruyama, scaled: how the singularity at t = 0 is avoided.");
  l.add("a", s.a, "flow_sde: a; memoryless in the limit for every a, convertible for sqrt(2).", above(0));
  l.add("eta", s.eta, "ddim: eta; 1 is the exact memoryless step, 0 has no noise.", {0, 1});
  l.choice("variance", s.variance, {"fixed_small", "fixed_small_log", "fixed_large"},
           "ddpm: of the posterior (also as computed in logarithms), or the beta of the step.");
  l.add("churn.amount", s.churn.amount, "churned: S_churn.", at_least(0));
  l.add("churn.sigma_min", s.churn.sigma_min, "churned: S_tmin, the lowest level sigma = beta/alpha that is raised.", at_least(0));
  l.add("churn.sigma_max", s.churn.sigma_max, "churned: S_tmax, the highest.", at_least(0));
  l.add("churn.noise", s.churn.noise, "churned: S_noise; the marginals are kept by 1.", at_least(0));
  l.add("start", s.start, "First time of a uniform, quadratic or shifted grid.", {0, 1, false, true});
  l.choice("grid.kind", s.grid.kind, {"uniform", "quadratic", "shifted", "karras", "linspace", "leading", "trailing"},
           "The times of this chain and of ode sampling: finer towards the data (quadratic, karras), towards the noise "
           "(shifted), or through the timesteps of a discrete model with path.timesteps.");
  l.add("grid.shift", s.grid.shift, "shifted: the factor of (1 - t)/t; above 1 is finer towards the noise.", above(0));
  l.add("grid.sigma_min", s.grid.sigma_min, "karras: the last level sigma = beta/alpha before the data.", above(0));
  l.add("grid.sigma_max", s.grid.sigma_max, "karras: the first level.", above(0));
  l.add("grid.rho", s.grid.rho, "karras: levels are uniform in sigma^(1/rho).", at_least(1));
  l.add("grid.steps_offset", s.grid.steps_offset, "leading: added to every timestep.", {0, 1e6});
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : ", ") + w;
  return out;
}

}  // namespace

void optimiser_fields(FieldList& l, OptimiserConfig& o) {
  l.add("lr.peak", o.lr.peak, "Learning rate after the warm-up.", above(0));
  l.add("lr.warmup", o.lr.warmup, "Updates of linear warm-up.", {0, large_count});
  l.choice("lr.decay", o.lr.decay, {"constant", "cosine"}, "What follows the warm-up.");
  l.add("lr.final", o.lr.final, "Cosine: the last learning rate as a share of the peak.", {0, 1});
  l.add("weight_decay", o.weight_decay, "Decoupled weight decay of AdamW.", at_least(0));
  l.add("beta1", o.beta1, "AdamW: decay of the first moment.", {0, 1, false, true});
  l.add("beta2", o.beta2, "AdamW: decay of the second moment.", {0, 1, false, true});
  l.add("clip_norm", o.clip_norm, "Largest norm of the gradient; 0: no clipping.", at_least(0));
  l.add("ema_decay", o.ema_decay,
        "Decay of the averaged weights, which are the ones saved; 0: the last weights.", {0, 1, false, true});
}

std::string Range::description() const {
  const bool has_low = low > -std::numeric_limits<double>::infinity(),
             has_high = high < large_count && high != 9007199254740992.0;
  if (has_low && has_high)
    return sentence({"in ", low_open ? "(" : "[", low, ", ", high, high_open ? ")" : "]"});
  if (has_low) return sentence({low_open ? "above " : "of at least ", low});
  return "";
}

std::string Field::type() const {
  constexpr const char* names[] = {
      "boolean",          "integer",         "number",        "text",
      "list of integers", "list of numbers", "list of words", "list of rows of numbers"};
  return value.index() == 3 && !choices.empty() ? "word" : names[value.index()];
}

std::string Field::expected() const {
  if (value.index() == 3 && !choices.empty()) return "one of " + joined(choices);
  if (value.index() == 6) return choices.empty() ? "a list of words" : "a list of words out of " + joined(choices);
  if (value.index() == 0) return "true or false";
  const std::string limits = range.description();
  const std::string entries = value.index() >= 4 ? (limits.empty() ? "" : ", each ")
                              : limits.empty()   ? ""
                                                 : " ";
  return (value.index() == 1 ? "an " : value.index() == 3 ? "" : "a ") + type() + entries + limits;
}

namespace {

// The configuration that the fields point into.
Config& described() {
  static Config config;
  return config;
}

std::vector<Field> described_fields() {
  Config& c = described();
  std::vector<Field> out;
  FieldList l(out);
  l.add("name", c.name, "Name of the run, for reports.");
  l.add("seed", c.seed, "Seed of everything random but the data generator and the classifiers.",
        seed_range());
  l.add("threads", c.threads, "Threads; 0: one a processor. Results do not depend on it.", {0, 1024});
  l.add("device", c.device,
        "What computes: cpu, or cuda:0 and so on. Results on a cuda device are those of the cpu up to rounding.");
  l.add("memory_limit", c.memory_limit,
        "Largest memory of tensors in MiB: a run that will need more is refused, and on a cuda device, where plans estimate, "
        "stopped; 0: none.",
        at_least(0));
  l.choice("precision", c.precision, {"f32", "tf32", "bf16_products", "bf16"},
           "Arithmetic of networks. tf32: operands of matrix products and convolutions rounded to 11 significant bits, sums in "
           "f32; faster on cuda devices. bf16_products: operands of products rounded to bf16 (8 bits), sums in f32; faster "
           "there and on processors that multiply bf16; convolutions stay in f32. bf16: the network computes in bf16, each op in "
           "f32 with its result rounded; half the memory of activations, and for cuda devices: the cpu is slower that way. "
           "Parameters, their gradients, predictions, costates, losses and rewards stay f32.");
  l.choice("activations", c.activations, {"f32", "bf16"},
           "What is kept of activations until gradients are computed. bf16: half the memory; results are the same, gradients "
           "err by the rounding of what they are computed from, about 2^-9. Parameters, costates and losses stay in f32. A "
           "network that computes in bf16 has no others.");
  l.add("out", c.out, "The run directory; empty: runs/NAME.");
  data_fields(l, c.data);
  path_fields(l, c.path);
  l.top();
  l.choice("prediction", c.prediction, {"velocity", "epsilon", "x1", "v_prediction"},
           "What the network predicts.");
  control_fields(l, c.control);
  network_fields(l, c.network);
  PretrainConfig& p = c.pretrain;
  l.section("pretrain");
  l.add("iterations", p.iterations, "Updates.", count_from(1));
  l.add("batch", p.batch, "Items an update.", {1, 1e6});
  l.add("micro_batch", p.micro_batch, "Items at a time, which several processes share; 0: all.", {0, 1e6});
  optimiser_fields(l, p.optimiser);
  l.add("label_drop", p.label_drop, "Conditional networks: probability of the null class.", {0, 1});
  l.add("time_margin", p.time_margin, "Times are drawn from [margin, 1 - margin].", {0, 0.5, false, true});
  l.add("log_every", p.log_every, "Updates from one row of the metrics to the next.", count_from(1));
  l.add("checkpoint_every", p.checkpoint_every,
        "Updates from one intermediate checkpoint to the next; 0: none.", {0, large_count});
  classifier_fields(l, "classifiers.reward", c.reward_classifier);
  classifier_fields(l, "classifiers.judge", c.judge);
  reward_fields(l, c.reward);
  gold_fields(l, c.gold);
  sampler_fields(l, c.sampler);
  finetune_fields(l, c.finetune);
  l.section("sample");
  l.add("count", c.sample.count, "Samples of each kind.", {1, 1e7});
  l.add("samplers", c.sample.samplers,
        "sde: the chain of the section sampler; ode: steps of dX = v dt.", {}, {"sde", "ode"});
  l.choice("model", c.sample.model, {"both", "base", "tuned"}, "Whose samples.");
  l.add("labels", c.sample.labels, "Conditional networks: classes, taken in turn; []: the null class.",
        {0, 65535});
  l.add("guidance", c.sample.guidance,
        "w of classifier-free guidance (1 + w) v(x | y) - w v(x); needs sample.labels.", at_least(0));
  l.add("archive", c.sample.archive,
        "All sets of samples and their labels as arrays of one file too, samples/samples.npz, which numpy.load reads.");
  l.choice("ode", c.sample.ode, {"euler", "exponential", "dpmpp_2m", "heun", "midpoint", "rk4"},
           "Steps of ode sampling, here and in evaluate: Euler's; exponential, which is DPM-Solver++(1) and DDIM with eta = 0; "
           "or the second-order DPM-Solver++(2M).");
  l.add("ode_steps", c.sample.ode_steps, "Steps of ode sampling, here and in evaluate; 0: sampler.steps.",
        {0, 100000});
  add_search_fields(out, c.sample);
  l.section("evaluate");
  l.add("count", c.evaluate.count, "Samples of each kind that the numbers are computed from.", {2, 1e7});
  l.add("projections", c.evaluate.projections, "Directions of the sliced Wasserstein distance.", {1, 100000});
  l.add("labels", c.evaluate.labels,
        "Conditional networks: classes, taken in turn; []: those of finetune.labels.", {0, 65535});
  l.add("control_error", c.evaluate.control_error,
        "Where the optimum is known: the relative error of the control at every step.");
  add_evaluation_fields(out, c.evaluate);
  LikelihoodConfig& likelihood = c.evaluate.likelihood;
  l.add("likelihood.count", likelihood.count,
        "Items of the data (of the held-out part, if there is one) whose log-likelihood is computed under base and tuned "
        "model, along the probability flow; 0: none.",
        {0, 1e7});
  l.add("likelihood.steps", likelihood.steps, "Steps of the classical Runge-Kutta method, four evaluations each.", {1, 100000});
  l.choice("likelihood.trace", likelihood.trace, {"exact", "hutchinson", "hutch_pp"},
           "The divergence: exact, one pullback a dimension; or estimated from random probes.");
  l.add("likelihood.probes", likelihood.probes, "hutchinson, hutch_pp: pullbacks an evaluation.", {1, 1e6});
  l.add("likelihood.margin", likelihood.margin,
        "The flow is followed to t = 1 - margin only; predictions of x1 and score need one above 0.", {0, 0.5, false, true});
  l.section("resume");
  l.add("every", c.resume.every,
        "Updates of a training from one state that --resume goes on from to the next; 0: resume.minutes alone counts.",
        {0, large_count});
  l.add("minutes", c.resume.minutes, "Longest time without one; 0: resume.every alone counts.", at_least(0));
  l.add("keep", c.resume.keep, "How many of them are kept, the newest; all go when the stage is done.", {1, 1000});
  l.section("log");
  l.add("tensorboard", c.log.tensorboard,
        "Besides metrics.jsonl and metrics.csv: the metrics, the pictures of samples and the distributions of rewards as event "
        "files, in the folder tensorboard of the run directory, a folder a stage.");
  l.section("distributed");
  l.choice("reduction", c.distributed.reduction, {"ordered", "fast"},
           "How processes add up gradients: ordered, micro-batch by micro-batch, the same bits for any number of processes; "
           "fast, first within each process, which sends less where a process has several micro-batches, with bits that depend "
           "on the number of processes.");
  return out;
}

}  // namespace

const std::vector<Field>& fields() {
  static const std::vector<Field> all = described_fields();
  return all;
}

// Every value is part of the object itself, as far from its beginning in one configuration as in another.
FieldValue Field::in(Config& config) const {
  return std::visit(
      [&]<class T>(T* kept) -> FieldValue {
        const auto offset = reinterpret_cast<std::byte*>(kept) - reinterpret_cast<std::byte*>(&described());
        return reinterpret_cast<T*>(reinterpret_cast<std::byte*>(&config) + offset);
      },
      value);
}

std::vector<Section> sections() {
  return {{"data", "The data set"},
          {"path", "The probability path from noise to data"},
          {"control", "A control problem"},
          {"network", "The network"},
          {"pretrain", "Flow matching"},
          {"classifiers.reward",
           "The learned reward, trained on the data that is not held out (reward.kind = classifier)"},
          {"classifiers.judge", "The judge, trained on the held-out data (data.held_out > 0)"},
          {"reward", "The reward"},
          {"gold", "The gold reward: what was meant, which is evaluated and never trained on"},
          {"sampler", "The sampler"},
          {"finetune", "Fine-tuning"},
          {"finetune.regression", "Objectives that regress the control on a gradient of the value"},
          {"finetune.policy_gradient", "Objectives that weight the likelihood of trajectories"},
          {"finetune.backpropagation", "Objectives that differentiate the reward through the sampler"},
          {"finetune.initial_law", "The law of x_0 of objectives with a divergence (elegant, relative_entropy)"},
          {"sample", "Samples and pictures"},
          {"evaluate", "Evaluation"},
          {"resume", "What is kept of a training while it runs, so that it can go on"},
          {"log", "What a run writes about itself"},
          {"distributed", "Runs by several processes"}};
}

}  // namespace costate::cli
