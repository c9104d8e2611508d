// Objectives that weight the likelihood of trajectories: presets of one loop.
#include <costate/finetune/policy_gradient/policy_gradient.h>

#include "build.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

using finetune::PolicyGradientOptions;

template <class E>
E chosen(const std::string& word, std::initializer_list<std::pair<const char*, E>> table) {
  for (const auto& [name, value] : table)
    if (word == name) return value;
  fail(Fault::argument, {"finetune.policy_gradient: unknown word '", word, "'"});
}

finetune::WindowOptions window_options(const WindowConfig& c, std::int64_t iterations) {
  using Kind = finetune::WindowOptions::Kind;
  finetune::WindowOptions o;
  o.kind = chosen<Kind>(c.kind, {{"full", Kind::full}, {"annealed", Kind::annealed}, {"segments", Kind::segments},
                                 {"clusters", Kind::clusters}, {"dynamic", Kind::dynamic}});
  o.iterations = iterations;
  o.count = static_cast<int>(c.parts), o.low = static_cast<int>(c.low), o.high = static_cast<int>(c.high);
  o.centre = c.centre, o.deviation = c.deviation, o.siblings = c.siblings;
  for (const auto& row : c.clusters) {
    require(row.size() == 3, "finetune.policy_gradient.window.clusters: a row has ", row.size(),
            " numbers, expected three: first step, last step, iterations");
    o.clusters.push_back({static_cast<int>(row[0]), static_cast<int>(row[1]), static_cast<std::int64_t>(row[2])});
  }
  o.every = static_cast<int>(c.every), o.probes = c.probes, o.penalty = c.penalty;
  return o;
}

finetune::CriticOptions critic_options(const CriticConfig& c) {
  using Reset = finetune::CriticOptions::Reset;
  finetune::CriticOptions o;
  o.widths = c.widths, o.linear = c.linear, o.time_frequencies = static_cast<int>(c.time_frequencies);
  o.dropout = c.dropout, o.skip = c.skip;
  o.lr = c.lr, o.clip_norm = c.clip_norm, o.adamw.weight_decay = c.weight_decay;
  o.updates = c.updates, o.batch = c.batch, o.warmup = c.warmup, o.value_clip = c.value_clip;
  o.reset = chosen<Reset>(c.reset,
                          {{"none", Reset::none}, {"active", Reset::active}, {"dormant", Reset::dormant}, {"all", Reset::all}});
  o.reset_every = c.reset_every, o.threshold = c.threshold;
  return o;
}

PolicyGradientOptions options(const Config& config) {
  using O = PolicyGradientOptions;
  using finetune::Baseline;
  using finetune::Whitening;
  const FinetuneConfig& f = config.finetune;
  const PolicyGradientConfig& c = f.policy_gradient;
  O o;
  o.batch = f.batch, o.micro_batch = f.micro_batch, o.seed = seed_of(config, Purpose::finetune);
  o.learner = learner_options(f.optimiser, f.iterations);
  o.loss = chosen<O::Loss>(c.loss, {{"score_function", O::Loss::score_function}, {"clipped_ratio", O::Loss::clipped_ratio},
                                    {"clamped_ratio", O::Loss::clamped_ratio}, {"cross_entropy", O::Loss::cross_entropy},
                                    {"log_variance", O::Loss::log_variance}, {"variance", O::Loss::variance},
                                    {"moment", O::Loss::moment}, {"trajectory_balance", O::Loss::trajectory_balance}});
  o.ratio_clip = c.ratio_clip;
  o.advantage.baseline = chosen<Baseline>(c.baseline, {{"none", Baseline::none},
                                                       {"batch", Baseline::batch},
                                                       {"label", Baseline::label},
                                                       {"group", Baseline::group},
                                                       {"value", Baseline::value},
                                                       {"td", Baseline::td}});
  o.advantage.whitening =
      chosen<Whitening>(c.whitening, {{"none", Whitening::none}, {"batch", Whitening::batch}, {"set", Whitening::set}});
  o.advantage.clip = c.advantage_clip, o.advantage.group_size = c.group_size;
  o.label_buffer = c.label_buffer, o.label_minimum = c.label_minimum;
  o.divergence = chosen<O::Divergence>(c.divergence, {{"none", O::Divergence::none}, {"in_return", O::Divergence::in_return},
                                                      {"in_loss", O::Divergence::in_loss},
                                                      {"in_return_and_loss", O::Divergence::in_return_and_loss}});
  using Form = finetune::SurrogateOptions::Divergence;
  o.divergence_form = chosen<Form>(c.divergence_form, {{"exact", Form::exact}, {"prediction", Form::prediction}});
  o.divergence_weight = c.divergence_weight;
  o.window = window_options(c.window, f.iterations);
  o.critic = critic_options(c.critic);
  o.log_z = chosen<O::LogZ>(c.log_z, {{"learned", O::LogZ::learned}, {"batch", O::LogZ::batch}, {"running", O::LogZ::running}});
  o.log_z_lr = c.log_z_lr, o.log_z_decay = c.log_z_decay, o.noise_scale = c.noise_scale;
  o.shared_noise = c.shared_noise;
  o.epochs = static_cast<int>(c.epochs), o.minibatches = static_cast<int>(c.minibatches);
  o.update = chosen<O::Update>(c.update, {{"iteration", O::Update::iteration}, {"timestep", O::Update::timestep}});
  o.train_steps = static_cast<int>(c.train_steps), o.replay = static_cast<int>(c.replay);
  return o;
}

// The learning rate's schedule is one of iterations: an iteration makes several updates.
void stretch_schedule(nn::LearningRate& lr, const PolicyGradientOptions& o, std::size_t controlled_steps) {
  const std::int64_t steps = o.update == PolicyGradientOptions::Update::iteration ? 1
                             : o.train_steps > 0                                  ? o.train_steps
                                                                 : static_cast<std::int64_t>(controlled_steps);
  const std::int64_t updates = steps * o.epochs * o.minibatches;
  lr.warmup *= updates, lr.total *= updates;
}

std::unique_ptr<finetune::Objective> make(ObjectiveInputs in) {
  PolicyGradientOptions o = options(in.config);
  stretch_schedule(o.learner.lr, o, in.problem.controlled_steps().size());
  o.features = in.reward_features;
  return std::make_unique<finetune::PolicyGradient>("finetune.policy_gradient (" + in.config.finetune.objective + ")",
                                                    std::move(in.problem), std::move(in.tuned), o);
}

// Presets begin from these: the settings of adjoint matching that are not defaults of the whole are none of theirs.
PolicyGradientConfig& steps(FinetuneConfig& f, const char* loss, const char* baseline, const char* divergence) {
  PolicyGradientConfig& p = f.policy_gradient;
  p.loss = loss, p.baseline = baseline, p.divergence = divergence;
  return p;
}
void whole_paths(FinetuneConfig& f, const char* loss, const char* log_z) {
  steps(f, loss, "none", "none").log_z = log_z;
}

void ddpo_sf(FinetuneConfig& f) {
  auto& p = steps(f, "score_function", "label", "none");
  p.whitening = "set", p.advantage_clip = 5;
}
void ddpo_is(FinetuneConfig& f) {
  auto& p = steps(f, "clipped_ratio", "label", "none");
  p.whitening = "set", p.advantage_clip = 5, p.minibatches = 2;
}
void dpok(FinetuneConfig& f) {
  auto& p = steps(f, "clamped_ratio", "value", "in_loss");
  p.minibatches = 5, p.replay = 2, p.critic.updates = 5;
}
void flow_grpo(FinetuneConfig& f) {
  auto& p = steps(f, "clipped_ratio", "group", "in_loss");
  p.group_size = 8, p.whitening = "batch", p.advantage_clip = 5, p.divergence_weight = 0.04, p.minibatches = 2;
}
void score_as_action(FinetuneConfig& f) {
  auto& p = steps(f, "clipped_ratio", "td", "in_return");
  p.whitening = "batch", p.advantage_clip = 5, p.minibatches = 2, p.critic.skip = true, p.critic.warmup = 10;
}
void tdpo(FinetuneConfig& f) {
  auto& p = steps(f, "clipped_ratio", "value", "none");
  p.whitening = "batch", p.update = "timestep", p.critic.value_clip = 0.2;
}
void tdpo_r(FinetuneConfig& f) {
  tdpo(f);
  f.policy_gradient.critic.reset = "active";
}
void hrf(FinetuneConfig& f) {
  auto& p = steps(f, "clipped_ratio", "group", "none");
  p.group_size = 8, p.whitening = "set", p.advantage_clip = 2.5, p.window.kind = "segments", p.window.siblings = true;
}
void reinforce(FinetuneConfig& f) { steps(f, "score_function", "batch", "in_return_and_loss"); }
void cross_entropy(FinetuneConfig& f) { whole_paths(f, "cross_entropy", "batch"); }
void log_variance(FinetuneConfig& f) { whole_paths(f, "log_variance", "batch"); }
void variance(FinetuneConfig& f) { whole_paths(f, "variance", "batch"); }
void moment(FinetuneConfig& f) { whole_paths(f, "moment", "learned"); }
void trajectory_balance(FinetuneConfig& f) { whole_paths(f, "trajectory_balance", "learned"); }

}  // namespace

void check_policy_gradient(const Config& c) {
  const FinetuneConfig& f = c.finetune;
  const PolicyGradientConfig &p = f.policy_gradient, standard = standard_finetune(f.objective).policy_gradient;
  const auto only = [](bool used, bool given, const char* key, const char* whose) {
    require(used || !given, "finetune.policy_gradient.", key, ": applies to ", whose, " only");
  };
  const bool ratio = p.loss == "clipped_ratio" || p.loss == "clamped_ratio", by_steps = ratio || p.loss == "score_function";
  const bool critic = by_steps && (p.baseline == "value" || p.baseline == "td");
  only(ratio, p.ratio_clip != standard.ratio_clip, "ratio_clip", "clipped_ratio and clamped_ratio");
  only(by_steps,
       p.baseline != standard.baseline || p.whitening != standard.whitening || p.advantage_clip != standard.advantage_clip ||
           p.divergence != standard.divergence || p.update != standard.update,
       "baseline, whitening, advantage_clip, divergence and update", "losses of steps");
  only(by_steps && p.baseline == "label", p.label_buffer != standard.label_buffer || p.label_minimum != standard.label_minimum,
       "label_buffer and label_minimum", "the baseline label");
  only(by_steps && p.divergence != "none", p.divergence_weight != standard.divergence_weight, "divergence_weight",
       "losses of steps with a divergence");
  only(by_steps && p.divergence == "in_loss", p.divergence_form != standard.divergence_form, "divergence_form",
       "divergence in_loss");
  only(!by_steps && p.loss != "log_variance", p.log_z != standard.log_z, "log_z", "losses of paths that have a log Z");
  only(!by_steps && p.log_z == "learned", p.log_z_lr != standard.log_z_lr, "log_z_lr", "a learned log_z");
  only(!by_steps && p.log_z == "running", p.log_z_decay != standard.log_z_decay, "log_z_decay", "a running log_z");
  only(!by_steps, p.noise_scale != standard.noise_scale, "noise_scale", "losses of paths");
  const WindowConfig &w = p.window, &pw = standard.window;
  only(by_steps, !(w == pw), "window", "losses of steps");
  only(w.kind == "segments" || w.kind == "dynamic", w.parts != pw.parts, "window.parts", "segments and dynamic windows");
  only(w.kind == "annealed", w.low != pw.low || w.high != pw.high || w.centre != pw.centre || w.deviation != pw.deviation,
       "window.low, high, centre and deviation", "annealed windows");
  only(w.kind == "clusters", w.clusters != pw.clusters, "window.clusters", "the window clusters");
  only(w.kind == "dynamic", w.every != pw.every || w.probes != pw.probes || w.penalty != pw.penalty,
       "window.every, probes and penalty", "dynamic windows");
  const CriticConfig &k = p.critic, &pk = standard.critic;
  only(critic, !(k == pk), "critic", "the baselines value and td");
  only(k.reset != "none", k.reset_every != pk.reset_every || k.threshold != pk.threshold, "critic.reset_every and threshold",
       "critics with resets");
  only(k.updates > 0 || k.reset != "none", k.batch != pk.batch, "critic.batch", "critics with updates of their own or resets");
  require(k.input == "state" || c.reward.kind == "classifier",
          "finetune.policy_gradient.critic.input: found features, but the reward '", c.reward.kind,
          "' is no classifier and has none");
  // Keys of `finetune` itself that belong to the regression of adjoint matching.
  const FinetuneConfig plain = Config().finetune;
  require(f.micro_batch % p.group_size == 0, "finetune.micro_batch: found ", f.micro_batch, "; ", f.objective,
          " takes whole groups at a time, expected 0 or a multiple of finetune.policy_gradient.group_size, ", p.group_size);
  require(f.pairing == plain.pairing && f.early_steps == 0 && f.late_steps == 0 && f.loss_clip == 0 &&
              f.loss_space == plain.loss_space && !f.keep_activations && !f.denoised_endpoint,
          "finetune.pairing, early_steps, late_steps, loss_clip, loss_space, keep_activations and denoised_endpoint: the "
          "objective '",
          f.objective, "' does not look at these keys; finetune.policy_gradient.train_steps chooses steps");
}

std::vector<ObjectiveEntry> policy_gradient_objectives() {
  const auto entry = [](const char* name, const char* title, const char* source, void (*preset)(FinetuneConfig&),
                        Optimum optimum, const char* lands) {
    return ObjectiveEntry{.name = name, .title = title, .source = source, .loop = Loop::policy_gradient,
                          .needs_reward_gradient = false, .optimum = optimum, .lands = lands, .preset = preset, .make = make,
                          .cost = policy_gradient_cost};
  };
  constexpr auto tilted = Optimum::given_start, other = Optimum::other;
  const char* const highest = "the highest reward: no divergence";
  const char* const in_loss = "a law of its own: the divergence is in the loss alone";
  const char* const exact = "exactly";
  const char* const by_groups = "exactly; where x_0 is remembered, with shared_noise";
  const char* const forgetful = "exactly, but not where x_0 is remembered";
  return {entry("ddpo_sf", "DDPO, score function", "arXiv 2305.13301", ddpo_sf, other, highest),
          entry("ddpo_is", "DDPO, importance sampling", "arXiv 2305.13301", ddpo_is, other, highest),
          entry("dpok", "DPOK", "arXiv 2305.16381", dpok, other, in_loss),
          entry("flow_grpo", "Flow-GRPO", "arXiv 2505.05470", flow_grpo, other, in_loss),
          entry("score_as_action", "Score as action", "arXiv 2502.01819", score_as_action, tilted,
                "up to the error of the critic"),
          entry("tdpo", "TDPO", "arXiv 2402.08552", tdpo, other, highest),
          entry("tdpo_r", "TDPO-R", "arXiv 2402.08552", tdpo_r, other, highest),
          entry("hrf", "Hierarchical reward fine-tuning", "arXiv 2410.08315", hrf, other, highest),
          entry("reinforce", "REINFORCE of the control cost", "arXiv 2410.00345", reinforce, tilted, exact),
          entry("cross_entropy", "Cross entropy", "arXiv 2005.05409", cross_entropy, tilted, exact),
          entry("log_variance", "Log variance", "arXiv 2005.05409", log_variance, tilted, by_groups),
          entry("variance", "Variance", "arXiv 2005.05409", variance, tilted, forgetful),
          entry("moment", "Moment", "arXiv 2005.05409", moment, tilted, forgetful),
          entry("trajectory_balance", "Trajectory balance", "arXiv 2201.13259", trajectory_balance, tilted, by_groups)};
}

}  // namespace costate::cli
