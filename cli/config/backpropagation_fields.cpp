#include <costate/sde/adjoint/adjoint.h>

#include "config/field_list.h"

namespace costate::cli {

void backpropagation_fields(FieldList& l, BackpropagationConfig& b) {
  l.section("finetune.backpropagation");
  l.choice("truncation", b.truncation, {"full", "last", "uniform", "normal"},
           "Steps that the reward is differentiated through: all; the last ones; from a random step on, drawn every update.");
  l.add("last_steps", b.last_steps, "last: how many steps.", count_from(1));
  l.add("normal_mean", b.normal_mean, "normal: mean of the first step, as a share of the steps.", {0, 1});
  l.add("normal_deviation", b.normal_deviation, "normal: its standard deviation.", {0, 1});
  l.add("renoisings", b.renoisings,
        "Times that the end of a path is noised to the last level and denoised again; the gradients of the last step are "
        "averaged. Needs truncation last of one step.",
        {0, 1e4});
  l.add("stop_from", b.stop_from, "The path ends at a random step from this share of the steps on, with the estimate of x_1.",
        {0, 1});
  l.add("stop_to", b.stop_to, "And before this share; 0: no stop.", {0, 1});
  l.add("detached_inputs", b.detached_inputs,
        "The network's inputs are constants: the reward reaches a step through the sampler's own recursion alone.");
  l.add("trained_steps", b.trained_steps,
        "detached_inputs: equally spaced steps, behind a random offset, that are trained; 0: all.", {0, large_count});
  l.add("kl_weight", b.kl_weight,
        "Weight of the divergence from the base, differentiated through the states too; 1: the tilted law is the optimum; 0: none.",
        at_least(0));
  l.choice("loss", b.loss, {"reward", "hinge", "absolute"},
           "Of the reward r, times the multiplier: -r, max(margin - r, 0), or |r - target|.");
  l.add("margin", b.margin, "hinge: rewards above it do not pull.");
  l.add("target", b.target, "absolute: the reward that is aimed at.");
  std::vector<std::string> methods;
  for (const sde::AdjointMethod m : sde::adjoint_methods()) methods.emplace_back(sde::name(m));
  l.choice("adjoint", b.adjoint, std::move(methods),
           "How the states of the backward sweep are had; those that a chain does not allow say so.");
  l.add("segment", b.segment, "segments, two_level: steps from one kept state to the next; 0: chosen.", {0, large_count});
  l.add("slots", b.slots, "binomial, binomial_online, two_level: states in memory; 0: 2 + log2 of the steps.", {0, large_count});
  l.add("scratch", b.scratch, "two_level: the folder of its file; empty: that of the system.");
  l.add("host_memory", b.host_memory,
        "two_level on a cuda device: states go to memory of the host beside the kernels, instead of to a file.");
}

void initial_law_fields(FieldList& l, InitialLawConfig& i) {
  l.section("finetune.initial_law");
  l.choice("kind", i.kind, {"noise", "sir", "mcmc", "flow"},
           "The law of x_0 in training, sde samples and evaluation of the tuned model: N(0, I); or N(0, I) exp(v_0), which makes "
           "every chain reach the tilted law, by resampling, by Crank-Nicolson moves, or as the end of a control problem.");
  l.choice("regression", i.regression, {"gamma", "least_squares", "log_mean"},
           "How v_0 = log E[exp(multiplier r) | x_0] is fitted to paths of the base; log_mean is robust and biased.");
  l.add("hidden", i.hidden, "Width of the network of v_0, and of flow's control.", {1, 65536});
  l.add("depth", i.depth, "Their hidden layers.", {1, 1000});
  l.add("iterations", i.iterations, "Updates of v_0.", count_from(1));
  l.add("batch", i.batch, "Noises an update.", {1, 1e6});
  l.add("rollouts", i.rollouts, "Paths of the base from each of them.", {1, 1e6});
  l.add("lr", i.lr, "Learning rate of v_0 and of flow's control, falling as a half cosine.", above(0));
  l.add("particles", i.particles, "sir: draws out of which one is taken.", {1, 1e6});
  l.add("moves", i.moves, "mcmc: moves of every x_0.", {0, 1e6});
  l.add("move_size", i.move_size, "mcmc: s of x' = sqrt(1 - s^2) x + s xi.", {0, 1, true, false});
  l.add("control_steps", i.control_steps, "flow: steps of the control.", {1, 100000});
  l.add("control_iterations", i.control_iterations, "flow: updates of the control.", count_from(1));
}

}  // namespace costate::cli
