// Objectives of the loop `backpropagation`: presets of one class.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/tensor/backend.h>

#include "build.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

finetune::BackpropagationOptions options_of(const Config& c) {
  using Options = finetune::BackpropagationOptions;
  const FinetuneConfig& f = c.finetune;
  const BackpropagationConfig& b = f.backpropagation;
  Options o;
  o.batch = f.batch, o.micro_batch = f.micro_batch, o.seed = seed_of(c, Purpose::finetune);
  o.truncation = b.truncation == "full"      ? Options::Truncation::full
                 : b.truncation == "last"    ? Options::Truncation::last
                 : b.truncation == "uniform" ? Options::Truncation::uniform
                                             : Options::Truncation::normal;
  o.last_steps = static_cast<int>(b.last_steps);
  o.normal_mean = b.normal_mean, o.normal_deviation = b.normal_deviation;
  o.renoisings = static_cast<int>(b.renoisings);
  o.stop_from = b.stop_from, o.stop_to = b.stop_to;
  o.detached_inputs = b.detached_inputs, o.trained_steps = static_cast<int>(b.trained_steps);
  o.kl_weight = b.kl_weight, o.keep_activations = f.keep_activations;
  o.loss = {finetune::terminal_loss(b.loss), b.margin, b.target};
  o.adjoint.method = sde::adjoint_method(b.adjoint);
  o.adjoint.segment = static_cast<int>(b.segment), o.adjoint.slots = static_cast<int>(b.slots), o.adjoint.scratch = b.scratch;
  o.adjoint.host_memory = b.host_memory;
  o.learner = learner_options(f.optimiser, f.iterations);
  return o;
}

std::unique_ptr<finetune::Objective> make(ObjectiveInputs in) {
  return std::make_unique<finetune::Backpropagation>(std::move(in.problem), std::move(in.tuned), options_of(in.config));
}

constexpr const char *highest = "the highest reward: no divergence", *partly = "the highest reward, by a part of its gradient",
                     *exact = "exactly";

ObjectiveEntry entry(std::string name, std::string title, std::string source, Optimum optimum, std::string lands,
                     void (*preset)(FinetuneConfig&)) {
  return {.name = std::move(name), .title = std::move(title), .source = std::move(source), .loop = Loop::backpropagation,
          .optimum = optimum, .lands = std::move(lands), .preset = preset, .make = make, .cost = backpropagation_cost};
}

}  // namespace

std::vector<ObjectiveEntry> backpropagation_objectives() {
  return {
      entry("draft", "DRaFT: reward backpropagation through the whole path", "arXiv 2309.17400", Optimum::other, highest,
            [](FinetuneConfig&) {}),
      entry("draft_k", "DRaFT-K: through the last K steps", "arXiv 2309.17400", Optimum::other, partly,
            [](FinetuneConfig& f) { f.backpropagation.truncation = "last"; }),
      entry("draft_lv", "DRaFT-LV: the last step, again from re-noised samples", "arXiv 2309.17400", Optimum::other, partly,
            [](FinetuneConfig& f) { f.backpropagation.truncation = "last", f.backpropagation.renoisings = 2; }),
      entry("align_prop", "AlignProp: through a random number of last steps", "arXiv 2310.03739", Optimum::other, partly,
            [](FinetuneConfig& f) { f.backpropagation.truncation = "uniform"; }),
      entry("refl", "ReFL: one late step and the estimate of the sample from there", "arXiv 2304.05977", Optimum::other, partly,
            [](FinetuneConfig& f) {
              BackpropagationConfig& b = f.backpropagation;
              b.truncation = "last", b.stop_from = 0.75, b.stop_to = 1;
            }),
      entry("drtune", "DRTune: detached inputs, some steps, early stop", "arXiv 2405.00760", Optimum::other, partly,
            [](FinetuneConfig& f) {
              BackpropagationConfig& b = f.backpropagation;
              b.detached_inputs = true, b.trained_steps = 3, b.stop_from = 0.6, b.stop_to = 1;
            }),
      entry("elegant", "ELEGANT: entropy-regularised control of the drift and of the initial law", "arXiv 2402.15194",
            Optimum::tilted, exact, [](FinetuneConfig& f) { f.backpropagation.kl_weight = 1, f.initial_law.kind = "flow"; }),
      entry("relative_entropy", "Relative-entropy control: the divergence differentiated through the path",
            "arXiv 2403.06279", Optimum::given_start, exact, [](FinetuneConfig& f) { f.backpropagation.kl_weight = 1; }),
  };
}

void check_backpropagation(const Config& c, const FinetuneConfig& standard) {
  const FinetuneConfig& f = c.finetune;
  const BackpropagationConfig &b = f.backpropagation, &plain = standard.backpropagation;
  const auto only = [](bool used, bool given, const char* key, const char* whose, const std::string& found) {
    require(used || !given, "finetune.", key, ": applies to ", whose, " only, but it is '", found, "'");
  };
  const auto foreign = [&](bool given, const char* key) {
    require(!given, "finetune.", key, ": the objective '", f.objective, "' does not look at this key");
  };
  foreign(f.pairing != standard.pairing, "pairing");
  foreign(f.early_steps != standard.early_steps, "early_steps");
  foreign(f.late_steps != standard.late_steps, "late_steps");
  foreign(f.loss_clip != standard.loss_clip, "loss_clip");
  foreign(f.loss_space != standard.loss_space, "loss_space");
  foreign(f.denoised_endpoint != standard.denoised_endpoint, "denoised_endpoint");
  only(b.truncation == "last", b.last_steps != plain.last_steps, "backpropagation.last_steps", "the truncation last",
       b.truncation);
  only(b.truncation == "normal", b.normal_mean != plain.normal_mean || b.normal_deviation != plain.normal_deviation,
       "backpropagation.normal_mean and normal_deviation", "the truncation normal", b.truncation);
  only(b.loss == "hinge", b.margin != plain.margin, "backpropagation.margin", "the loss hinge", b.loss);
  only(b.loss == "absolute", b.target != plain.target, "backpropagation.target", "the loss absolute", b.loss);
  only(b.adjoint == "segments" || b.adjoint == "two_level", b.segment != plain.segment, "backpropagation.segment",
       "the adjoints segments and two_level", b.adjoint);
  only(b.adjoint == "binomial" || b.adjoint == "binomial_online" || b.adjoint == "two_level", b.slots != plain.slots,
       "backpropagation.slots", "the adjoints binomial, binomial_online and two_level", b.adjoint);
  only(b.adjoint == "two_level", b.scratch != plain.scratch, "backpropagation.scratch", "the adjoint two_level", b.adjoint);
  only(b.adjoint == "two_level", b.host_memory, "backpropagation.host_memory", "the adjoint two_level", b.adjoint);
  require(!b.host_memory || device_named(c.device, "device").kind == DeviceKind::cuda,
          "finetune.backpropagation.host_memory: found true, but states on the ", c.device,
          " lie in the host's memory as they are; expected false, or a cuda device");
  require(!b.host_memory || b.scratch.empty(), "finetune.backpropagation.scratch: found \"", b.scratch,
          "\", but with host_memory there is no file; expected one of the two");
  const InitialLawConfig &i = f.initial_law, &noise = standard.initial_law;
  require(i.kind == "noise" || b.kl_weight > 0, "finetune.initial_law.kind: '", i.kind,
          "' is the optimum of a problem with a divergence, but finetune.backpropagation.kl_weight is 0");
  require(i.kind != "flow" || f.labels.empty(), "finetune.initial_law.kind: the control of 'flow' knows of no classes, but "
          "there are finetune.labels; take sir or mcmc");
  only(i.kind != "noise",
       i.regression != noise.regression || i.hidden != noise.hidden || i.depth != noise.depth ||
           i.iterations != noise.iterations || i.batch != noise.batch || i.rollouts != noise.rollouts || i.lr != noise.lr,
       "initial_law.regression, hidden, depth, iterations, batch, rollouts and lr", "the kinds sir, mcmc and flow", i.kind);
  only(i.kind == "sir", i.particles != noise.particles, "initial_law.particles", "the kind sir", i.kind);
  only(i.kind == "mcmc", i.moves != noise.moves || i.move_size != noise.move_size, "initial_law.moves and move_size",
       "the kind mcmc", i.kind);
  only(i.kind == "flow", i.control_steps != noise.control_steps || i.control_iterations != noise.control_iterations,
       "initial_law.control_steps and control_iterations", "the kind flow", i.kind);
}

}  // namespace costate::cli
