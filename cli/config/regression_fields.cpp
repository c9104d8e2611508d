#include "config/field_list.h"

namespace costate::cli {

void regression_fields(FieldList& l, RegressionConfig& r) {
  l.section("finetune.regression");
  l.add("kl_weights", r.kl_weights,
        "Not the socm objectives: what the divergence of each step counts, one number a step or one for all; []: 1. The tuned "
        "law is the tilted one when they are equal.",
        above(0));
  l.add("sticking_the_landing", r.sticking_the_landing,
        "discrete_adjoint: add a term of mean zero that takes the variance from the costate as the control becomes optimal.");
  l.add("normaliser_decay", r.normaliser_decay,
        "The socm objectives: of the running mean that path weights are divided by.", {0, 1, false, true});
  l.add("graphs", r.graphs,
        "On a device, the objectives of adjoints: record an iteration and launch it as one, to the same bits. The reward "
        "and the network must not read on the host; a note says where they do.");
  MatricesConfig& m = r.matrices;
  l.add("matrices.gamma", m.gamma, "socm: rate at which the reparametrisation matrices leave 1, at first.", above(0));
  l.add("matrices.hidden", m.hidden, "socm: width of the two hidden layers of their network.", {1, 65536});
  l.add("matrices.scale", m.scale, "socm: initial weights of its last layer, relative to the customary ones.", at_least(0));
  l.add("matrices.lr", m.lr, "socm: its learning rate.", above(0));
  ValueConfig& v = r.value;
  l.choice("value.form", v.form, {"plain", "skip"},
           "pi_ft, stein: plain, a network of (x, t); skip, sin(pi t/2) r(x1) + cos(pi t/2) of it, with the base's estimate "
           "of x1.");
  l.choice("value.target", v.target, {"td", "monte_carlo"},
           "pi_ft, stein: what the value is fitted to: the averaged network's value of the next state, or what the rest of "
           "the trajectory collected.");
  l.add("value.hidden", v.hidden, "pi_ft, stein: width of the value network's hidden layers.", {1, 65536});
  l.add("value.depth", v.depth, "pi_ft, stein: their number.", {1, 64});
  l.add("value.time_frequencies", v.time_frequencies, "pi_ft, stein: Fourier features of t; 0: t itself.", {0, 64});
  l.add("value.lr", v.lr, "pi_ft, stein: learning rate of the value network.", above(0));
  l.add("value.target_decay", v.target_decay, "pi_ft, stein with td: of the averaged network.", {0, 1, false, true});
  l.add("value.updates", v.updates, "pi_ft, stein: updates of the value network before each one of the control.", {1, 1e6});
  l.add("value.pairs", v.pairs,
        "stein: pairs of opposite noises drawn at each state; 0: the path's own noise, with the state's value subtracted.",
        {0, 1e6});
  l.add("value.contraction_every", v.contraction_every,
        "pi_ft, stein: iterations from one measurement of the contraction factor of each step to the next; 0: none.",
        {0, large_count});
  l.add("value.contraction_rows", v.contraction_rows, "pi_ft, stein: trajectories that it is measured on.", {1, 1e6});
  l.add("value.contraction_iterations", v.contraction_iterations, "pi_ft, stein: iterations of the power method.", {1, 1e6});
  l.add("value.damping", v.damping,
        "pi_ft, stein: damp the regression at steps where the value's measured curvature is negative; needs "
        "contraction_every.");
  ReplayConfig& p = r.replay;
  l.add("replay.size", p.size, "Trajectories that are kept for several updates, a multiple of finetune.batch; 0: none.",
        {0, 1e7});
  l.add("replay.passes", p.passes, "Updates from each batch of them.", {1, 1e6});
  l.add("replay.weighted", p.weighted, "Weight paths by their density under the present policy.");
  l.add("replay.least_ess", p.least_ess,
        "Weighted: new trajectories are made when the effective sample size a row falls below.", {0, 1, false, true});
}

}  // namespace costate::cli
