// The keys of the section `control`, and what a run on a control problem looks at.
#include <costate/finetune/problem/control_benchmark.h>
#include <costate/tensor/error.h>

#include "config/field_list.h"
#include "config/read.h"

namespace costate::cli {

void control_fields(FieldList& l, ControlConfig& c) {
  l.section("control");
  std::vector<std::string> problems{"none"};
  for (const std::string_view name : finetune::control_benchmark_names()) problems.emplace_back(name);
  l.choice("problem", c.problem, problems,
           "A problem of the control benchmark, in place of data, base model, reward and sampler; see docs/control.md.");
  l.add("seed", c.seed, "Seed of what the problem draws once.", seed_range());
  l.add("steps", c.steps, "Steps of Euler-Maruyama; 0: as published.", {0, 100000});
  l.add("hidden", c.hidden, "Widths of the control network's hidden layers, going down; it widens again with connections across.",
        {1, 65536});
  l.choice("activation", c.activation, {"relu", "silu", "gelu_tanh"}, "Of the control network.");
  l.add("time_frequencies", c.time_frequencies, "Fourier features of t that the control network sees; 0: t itself.", {0, 64});
  l.add("state_powers", c.state_powers,
        "The control network sees the powers of the state's elements up to this one; 1: the state alone, as published.", {1, 16});
  l.add("products", c.products, "The control network sees the products of these powers with the features of t as well.");
  l.add("terminal_gradient", c.terminal_gradient,
        "The control has a further term, the gradient of the reward at the state times a learnt function of t.");
  l.add("paths", c.paths, "Optimally controlled paths that the control error is a mean over, at every row of the metrics.",
        {2, 1e6});
}

void check_control(const Config& c) {
  if (c.control.problem == "none") {
    require(c.control == ControlConfig{}, "control: its keys need a problem, but control.problem is none");
    return;
  }
  require(c.precision != "bf16", "precision: found \"bf16\", but the network of a control problem adds to a drift that is known "
          "exactly and would be rounded with it; expected f32, tf32 or bf16_products");
  require(!c.control.terminal_gradient || c.control.problem != "molecular_dynamics",
          "control.terminal_gradient: molecular_dynamics has no cost at the end whose gradient there could be");
  require(!c.control.hidden.empty(), "control.hidden: found [], expected at least one width");
  const Json given = to_json(c), standard = to_json(Config());
  for (const char* section : {"data", "path", "prediction", "network", "pretrain", "classifiers", "reward", "gold", "sampler",
                              "sample"})
    require(given[section] == standard[section], section, ": control.problem is ", c.control.problem,
            ", which brings its own; expected the defaults");
  const FinetuneConfig& f = c.finetune;
  require(f.lora.rank == 0 && f.labels.empty() && f.guidance == 0 && !f.denoised_endpoint,
          "finetune: lora, labels, guidance and denoised_endpoint do not apply to a control problem");
  require(f.recompute == "none", "finetune.recompute: found ", f.recompute, ", but the control network has no blocks");
  require(f.initial_law.kind == "noise", "finetune.initial_law.kind: found ", f.initial_law.kind,
          ", but a control problem starts from one point; expected noise");
  // What asks for the path from noise to data, which there is none of.
  const PolicyGradientConfig& p = f.policy_gradient;
  const BackpropagationConfig& b = f.backpropagation;
  const auto pathless = [&](bool asked, const char* key) {
    require(!asked, "finetune.", key, ": asks for the estimate of x_1 from a noised state or for states noised again, but ",
            c.control.problem, " is no path from noise to data");
  };
  pathless(f.loss_space == "velocity", "loss_space = velocity");
  pathless(f.regression.value.form == "skip", "regression.value.form = skip");
  pathless(p.critic.skip, "policy_gradient.critic.skip");
  pathless(p.window.siblings, "policy_gradient.window.siblings");
  pathless(p.window.kind == "dynamic", "policy_gradient.window.kind = dynamic");
  pathless(b.stop_to != 0, "backpropagation.stop_to");
  pathless(b.renoisings != 0, "backpropagation.renoisings");
}

}  // namespace costate::cli
