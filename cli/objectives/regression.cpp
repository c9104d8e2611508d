// Objectives that regress the control on a gradient of the value: one class, with these presets.
#include <costate/finetune/regression/device_iteration.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/tensor/backend.h>

#include <algorithm>
#include <numeric>

#include "build.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

using Options = finetune::ValueGradientOptions;

finetune::LearnerOptions constant_rate(double lr) { return {.lr = {.peak = lr}}; }

Options options_of(const Config& c) {
  const FinetuneConfig& f = c.finetune;
  const RegressionConfig& r = f.regression;
  Options o;
  o.batch = f.batch, o.micro_batch = f.micro_batch;
  o.seed = seed_of(c, Purpose::finetune);
  o.pairing = f.pairing == "next"   ? Options::Pairing::next
              : f.pairing == "same" ? Options::Pairing::same
                                    : Options::Pairing::alg1;
  o.early_steps = static_cast<int>(f.early_steps), o.late_steps = static_cast<int>(f.late_steps);
  o.loss_clip = f.loss_clip;
  o.loss_space = f.loss_space == "control" ? Options::LossSpace::control : Options::LossSpace::velocity;
  o.denoised_endpoint = f.denoised_endpoint, o.keep_activations = f.keep_activations;
  o.learner = learner_options(f.optimiser, f.iterations);
  o.sticking_the_landing = r.sticking_the_landing;
  o.graphs = r.graphs;
  o.kl_weights = r.kl_weights, o.normaliser_decay = r.normaliser_decay;
  o.reparametrisation.gamma = r.matrices.gamma, o.reparametrisation.scale = r.matrices.scale;
  o.reparametrisation.hidden = r.matrices.hidden, o.reparametrisation.learner = constant_rate(r.matrices.lr);
  finetune::ValueOptions& v = o.value;
  v.form = r.value.form == "skip" ? finetune::ValueOptions::Form::skip : finetune::ValueOptions::Form::plain;
  v.target = r.value.target == "td" ? finetune::ValueOptions::Target::td : finetune::ValueOptions::Target::monte_carlo;
  v.hidden = r.value.hidden, v.depth = static_cast<int>(r.value.depth);
  v.time_frequencies = static_cast<int>(r.value.time_frequencies);
  v.learner = constant_rate(r.value.lr), v.target_decay = r.value.target_decay;
  v.updates = static_cast<int>(r.value.updates), v.pairs = static_cast<int>(r.value.pairs);
  v.damping = r.value.damping, v.contraction_every = static_cast<int>(r.value.contraction_every);
  v.contraction_rows = r.value.contraction_rows;
  v.contraction_iterations = static_cast<int>(r.value.contraction_iterations);
  o.replay = {.size = r.replay.size, .passes = r.replay.passes, .weighted = r.replay.weighted,
              .least_ess = r.replay.least_ess};
  return o;
}

// A replay buffer is filled anew when its batches have served their passes (a plan knows no effective sample sizes), and the
// contraction is measured every so many iterations.
std::int64_t period(const FinetuneConfig& f) {
  const ReplayConfig& replay = f.regression.replay;
  return std::lcm(std::max<std::int64_t>(1, replay.size / f.batch * replay.passes),
                  std::max<std::int64_t>(1, f.regression.value.contraction_every));
}

template <Options::Costate costate, bool path_weights = false, bool learned_matrices = true>
std::unique_ptr<finetune::Objective> make(ObjectiveInputs in) {
  Options o = options_of(in.config);
  o.costate = costate, o.path_weights = path_weights, o.reparametrisation.learned = learned_matrices;
  return std::make_unique<finetune::ValueGradientRegression>(std::move(in.problem), std::move(in.tuned), o);
}

}  // namespace

std::vector<ObjectiveEntry> regression_objectives() {
  using Costate = Options::Costate;
  const std::string socm = "arXiv 2312.02027", matching = "arXiv 2409.08861", pi = "arXiv 2412.18164";
  const auto entry = [](std::string name, std::string title, const std::string& source, auto make, bool needs_gradient,
                        std::string lands) {
    ObjectiveEntry e;
    e.name = std::move(name), e.title = std::move(title), e.source = source, e.loop = Loop::regression, e.make = make;
    e.period = period;
    e.needs_reward_gradient = needs_gradient, e.lands = std::move(lands), e.cost = regression_cost;
    return e;
  };
  const std::string exact = "exactly", value_network = "up to the error of the value network";
  return {entry("adjoint_matching", "Adjoint matching", matching, make<Costate::lean>, true, exact),
          entry("discrete_adjoint", "Discrete-adjoint matching", matching, make<Costate::full>, true, exact),
          entry("continuous_adjoint", "Continuous-adjoint matching", matching, make<Costate::continuous>, true, "up to O(h)"),
          entry("socm", "Stochastic optimal control matching", socm, make<Costate::reparametrised, true>, true, exact),
          entry("socm_constant", "Stochastic optimal control matching, M = 1", socm,
                make<Costate::reparametrised, true, false>, true, exact),
          entry("socm_adjoint", "Adjoint matching with path weights", socm, make<Costate::lean, true>, true, exact),
          entry("pi_ft", "Policy iteration on a value network", pi, make<Costate::value>, false, value_network),
          entry("stein", "Policy iteration by Stein's identity", pi, make<Costate::stein>, false, value_network)};
}

void check_regression(const Config& c) {
  const FinetuneConfig& f = c.finetune;
  const std::string& name = f.objective;
  const RegressionConfig standard = standard_finetune(name).regression, &r = f.regression;
  const auto only = [&](bool used, bool given, const char* keys, const char* whose) {
    require(used || !given, keys, ": applies to ", whose, " only, but the objective is '", name, "'");
  };
  const bool weighted = name.starts_with("socm"), value = name == "pi_ft" || name == "stein";
  const bool adjoint = name == "adjoint_matching" || name == "discrete_adjoint" || name == "continuous_adjoint";
  only(adjoint || name == "socm_adjoint", f.pairing != "next", "finetune.pairing", "adjoints");
  only(name == "adjoint_matching", f.pairing == "alg1", "finetune.pairing = alg1", "adjoint_matching");
  only(adjoint, f.micro_batch != 0, "finetune.micro_batch", "adjoints without path weights");
  only(name != "socm" && name != "socm_constant", f.early_steps != 0, "finetune.early_steps",
       "objectives but socm and socm_constant");
  only(name != "socm" && name != "socm_constant", f.keep_activations, "finetune.keep_activations",
       "objectives but socm and socm_constant");
  only(adjoint, f.denoised_endpoint, "finetune.denoised_endpoint", "adjoints without path weights");
  only(!weighted, r.kl_weights != standard.kl_weights, "finetune.regression.kl_weights", "objectives without path weights");
  only(name == "discrete_adjoint", r.sticking_the_landing, "finetune.regression.sticking_the_landing", "discrete_adjoint");
  only(adjoint, r.graphs, "finetune.regression.graphs", "adjoints without path weights");
  if (r.graphs) {
    const std::string why = finetune::DeviceIteration::refusal(device_named(c.device, "device"), options_of(c));
    require(why.empty(), "finetune.regression.graphs: found true, but ", why);
  }
  only(weighted, r.normaliser_decay != standard.normaliser_decay, "finetune.regression.normaliser_decay",
       "socm, socm_constant and socm_adjoint");
  only(name == "socm", !(r.matrices == standard.matrices), "finetune.regression.matrices", "socm");
  only(value, !(r.value == standard.value), "finetune.regression.value", "pi_ft and stein");
  only(name == "stein", r.value.pairs != standard.value.pairs, "finetune.regression.value.pairs", "stein");
  const auto needs = [](bool used, bool given, const char* keys, const char* what) {
    require(used || !given, keys, ": applies with ", what, " only");
  };
  needs(r.value.target == "td", r.value.target_decay != standard.value.target_decay, "finetune.regression.value.target_decay",
        "finetune.regression.value.target = td");
  needs(r.value.contraction_every > 0,
        r.value.damping || r.value.contraction_rows != standard.value.contraction_rows ||
            r.value.contraction_iterations != standard.value.contraction_iterations,
        "finetune.regression.value.damping, contraction_rows and contraction_iterations",
        "finetune.regression.value.contraction_every above 0");
  const ReplayConfig replay{.size = r.replay.size};
  needs(r.replay.size > 0, !(r.replay == replay), "finetune.regression.replay.passes, weighted and least_ess",
        "finetune.regression.replay.size above 0");
  needs(r.replay.weighted, r.replay.least_ess != replay.least_ess, "finetune.regression.replay.least_ess",
        "finetune.regression.replay.weighted");
}

}  // namespace costate::cli
