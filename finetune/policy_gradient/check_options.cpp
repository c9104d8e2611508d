// PolicyGradient: what fits together, and its construction.
#include <costate/finetune/policy_gradient/policy_gradient.h>

#include <algorithm>

namespace costate::finetune {

using Options = PolicyGradientOptions;

void PolicyGradient::check() const {
  const Options& o = options_;
  const char* const what = name_.c_str();
  problem_.check(what);
  require(o.batch >= 1 && o.epochs >= 1 && o.minibatches >= 1 && o.minibatches <= o.batch && o.replay >= 1, what, ": batch ",
          o.batch, ", epochs ", o.epochs, ", minibatches ", o.minibatches, ", replay ", o.replay, " are out of range");
  require(o.micro_batch >= 0 && o.micro_batch % std::max<std::int64_t>(o.advantage.group_size, 1) == 0, what,
          ": micro_batch is ", o.micro_batch, "; expected 0 or whole groups of ", o.advantage.group_size);
  require(o.train_steps >= 0 && o.train_steps <= static_cast<int>(controlled_.size()), what, ": train_steps is ", o.train_steps,
          "; the chain has ", controlled_.size(), " steps with noise");
  require(o.advantage.group_size >= 1 && o.batch % o.advantage.group_size == 0, what, ": group_size is ",
          o.advantage.group_size, ", which does not divide the batch of ", o.batch);
  require(o.divergence_weight >= 0 && o.ratio_clip > 0 && o.log_z_lr > 0 && o.log_z_decay >= 0 && o.log_z_decay < 1 &&
              o.noise_scale > 0 && o.label_buffer >= 1 && o.label_minimum >= 1 && o.label_minimum <= o.label_buffer,
          what, ": divergence_weight ", o.divergence_weight, ", ratio_clip ", o.ratio_clip, ", log_z_lr ", o.log_z_lr,
          ", log_z_decay ", o.log_z_decay, ", noise_scale ", o.noise_scale, ", label_buffer ", o.label_buffer,
          ", label_minimum ", o.label_minimum, " are out of range");
  check_window(o.window, problem_.chain.steps());
  require(!o.shared_noise || o.advantage.group_size >= 2, what, ": shared_noise needs a group_size of at least 2");
  require(!o.window.siblings || !o.shared_noise, what, ": siblings start from noised samples, not from a shared x_0");
  require(!o.window.siblings || !problem_.initial, what,
          ": siblings are noised along the path of the chain, which starts from N(0, I); the problem has an initial law of its "
          "own");
  require(!problem_.running || (!o.window.siblings && o.window.kind != WindowOptions::Kind::dynamic), what,
          ": siblings and dynamic windows noise the ends of paths again, which says nothing of where a path that stops has been");
  if (of_paths()) {
    require(o.window.kind == WindowOptions::Kind::full && !o.window.siblings, what,
            ": a loss of whole paths cannot be trained in a window");
    require(o.update == Options::Update::iteration, what, ": a loss of whole paths has no updates by timestep");
    require(!o.shared_noise || o.minibatches == 1, what, ": minibatches would split groups whose means the loss is about");
    const bool learned = o.loss == Options::Loss::moment || o.loss == Options::Loss::trajectory_balance;
    const bool weights = o.loss == Options::Loss::cross_entropy || o.loss == Options::Loss::variance;
    require(o.log_z != Options::LogZ::learned || learned, what, ": log_z is learned by moment and trajectory balance only");
    require(o.log_z != Options::LogZ::running || weights, what, ": a running log_z is for cross entropy and variance only");
    require(o.loss != Options::Loss::moment || o.log_z == Options::LogZ::learned, what,
            ": the moment loss learns log_z; with the batch's it would be the log variance");
    require(o.noise_scale == 1 || o.loss != Options::Loss::cross_entropy, what,
            ": the weights of cross entropy are ratios to the policy itself; noise_scale must be 1");
  } else {
    require(o.noise_scale == 1, what, ": noise_scale is ", o.noise_scale,
            "; a policy gradient learns from paths of the policy, and ratios of likelihoods need one noise");
    require(
        o.loss != Options::Loss::score_function ||
            (o.epochs == 1 && o.minibatches == 1 && o.replay == 1 && o.update == Options::Update::iteration),
        what,
        ": the score function without a ratio is right at the policy that made the paths only: epochs, minibatches and replay ",
        "must be 1 and updates by iteration");
    require(o.divergence == Options::Divergence::in_loss || o.divergence_form == SurrogateOptions::Divergence::exact, what,
            ": the mean square of predictions is a term of the loss only");
    require(o.advantage.baseline != Baseline::group || o.advantage.group_size >= 2, what,
            ": the group baseline needs a group_size of at least 2");
    require(!o.window.siblings || o.window.kind != WindowOptions::Kind::full, what, ": siblings need a window");
  }
}

PolicyGradient::PolicyGradient(std::string name, ControlProblem problem, nn::Network tuned, const Options& options)
    : name_(std::move(name)),
      problem_(std::move(problem)),
      options_(options),
      controlled_(problem_.controlled_steps()),
      learner_(name_, std::move(tuned), options.learner),
      labels_(static_cast<std::size_t>(std::max<std::int64_t>(options.label_buffer, 1)),
              static_cast<std::size_t>(std::max<std::int64_t>(options.label_minimum, 1))) {
  check();
  const Baseline baseline = options_.advantage.baseline;
  if (!of_paths() && (baseline == Baseline::value || baseline == Baseline::td)) {
    std::int64_t width = problem_.sample_shape.numel(), classes = 0;
    if (options_.features)
      width = options_.features(Tensor::zeros(problem_.sample_shape.with_front(1), DType::f32, problem_.device)).extent(1);
    for (const std::int32_t l : problem_.labels) classes = std::max<std::int64_t>(classes, l + 1);
    critic_.emplace(options_.critic, width, classes, options_.seed ^ 0x637269746963u, problem_.device);
  }
  if (of_paths() && options_.log_z == Options::LogZ::learned) {
    const memory::TagScope scope(memory::Tag::parameters);
    log_z_ = Tensor::zeros({}, DType::f32, problem_.device);
  }
}

}  // namespace costate::finetune
