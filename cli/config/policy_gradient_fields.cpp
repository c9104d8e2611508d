#include "config/field_list.h"

namespace costate::cli {
namespace {

void window_fields(FieldList& l, WindowConfig& c) {
  l.choice("window.kind", c.kind, {"full", "annealed", "segments", "clusters", "dynamic"},
           "Which steps are trained: all; or those from a first step on that is drawn each iteration: annealed from uniform to "
           "normal; in equal parts of the chain, first to last; in window.clusters; or in the part that a comparison chooses.");
  l.add("window.parts", c.parts, "segments, dynamic: equal parts of the chain.", {1, 100000});
  l.add("window.low", c.low, "annealed: the fewest steps that remain.", {1, 100000});
  l.add("window.high", c.high, "annealed: the most steps that remain; 0: all.", {0, 100000});
  l.add("window.centre", c.centre, "annealed: mean of the steps that remain, at the end of the run; 0: three quarters.",
        at_least(0));
  l.add("window.deviation", c.deviation, "annealed: its deviation; 0: the number of steps.", at_least(0));
  l.add("window.clusters", c.clusters, "clusters: rows [first step, last step, iterations].", {0, large_count});
  l.add("window.siblings", c.siblings,
        "A group starts from one sample of the policy, noised again for each of its paths; otherwise paths start from noise.");
  l.add("window.every", c.every, "dynamic: iterations from one comparison to the next.", count_from(1));
  l.add("window.probes", c.probes, "dynamic: samples that are compared.", {1, 1e6});
  l.add("window.penalty", c.penalty, "dynamic: weight of the cosine distance against the gain in reward.", at_least(0));
}

void critic_fields(FieldList& l, CriticConfig& c) {
  l.choice("critic.input", c.input, {"state", "features"},
           "What the critic sees of a noisy state: itself, or the last hidden layer of the reward's classifier.");
  l.add("critic.widths", c.widths, "Neurons of its hidden layers.", {1, 65536});
  l.add("critic.linear", c.linear,
        "Hidden layers without rectifiers, from small normal weights (the published critic of TDPO).");
  l.add("critic.time_frequencies", c.time_frequencies, "Fourier features of the time; 0: it is not told.", {0, 64});
  l.add("critic.dropout", c.dropout, "Of its hidden layers, in training.", {0, 1, false, true});
  l.add("critic.skip", c.skip, "V = cos lambda r(x_1 estimate) + sin F: exact at the end, asks the reward at every step.");
  l.add("critic.lr", c.lr, "Learning rate.", above(0));
  l.add("critic.weight_decay", c.weight_decay, "Of AdamW.", at_least(0));
  l.add("critic.clip_norm", c.clip_norm, "Largest norm of its gradient; 0: no clipping.", at_least(0));
  l.add("critic.updates", c.updates, "Updates an iteration; 0: one with every update of the policy, on its steps.",
        {0, 100000});
  l.add("critic.batch", c.batch, "Random steps of paths an update of its own, and for scores of neurons.", {1, 1e6});
  l.add("critic.warmup", c.warmup, "Iterations in which the critic alone learns.", {0, large_count});
  l.add("critic.value_clip", c.value_clip,
        "Values are cut to this band about those when the paths were made, in deviations of the returns; 0: not.", at_least(0));
  l.choice("critic.reset", c.reset, {"none", "active", "dormant", "all"}, "Which neurons are made anew.");
  l.add("critic.reset_every", c.reset_every, "Iterations from one reset to the next.", count_from(1));
  l.add("critic.threshold", c.threshold, "A neuron with a score up to this is dormant.", at_least(0));
}

}  // namespace

void policy_gradient_fields(FieldList& l, PolicyGradientConfig& c) {
  l.section("finetune.policy_gradient");
  l.choice("loss", c.loss,
           {"score_function", "clipped_ratio", "clamped_ratio", "cross_entropy", "log_variance", "variance", "moment",
            "trajectory_balance"},
           "What the likelihood of paths enters: of steps, by advantages, the first three; of whole paths, the others.");
  l.add("ratio_clip", c.ratio_clip, "Band about 1 of ratios of likelihoods, summed over features.", above(0));
  l.choice(
      "baseline", c.baseline, {"none", "batch", "label", "group", "value", "td"},
      "What is subtracted from returns: a mean over the batch, over the last paths of the label, over the group, a critic's "
      "value; td: the critic's temporal differences are the advantages.");
  l.choice("whitening", c.whitening, {"none", "batch", "set"},
           "What advantages are divided by: nothing, a deviation of the batch, or of the label's or group's.");
  l.add("advantage_clip", c.advantage_clip, "Advantages are cut to this; 0: not.", at_least(0));
  l.add("label_buffer", c.label_buffer, "baseline label: returns remembered of each label.", {1, 1e6});
  l.add("label_minimum", c.label_minimum, "baseline label: with fewer the batch's mean is taken.", {1, 1e6});
  l.choice(
      "divergence", c.divergence, {"none", "in_return", "in_loss", "in_return_and_loss"},
      "Where the divergence from the base enters: nowhere; as log-ratios in the return; as a term of the loss at the sampled "
      "states, which has an optimum of its own; or as the exact gradient of both.");
  l.choice("divergence_form", c.divergence_form, {"exact", "prediction"},
           "in_loss: the divergence of the step, or the mean square of the predictions' difference.");
  l.add("divergence_weight", c.divergence_weight, "Of the divergence, in units of reward.multiplier times the reward.",
        at_least(0));
  l.add("group_size", c.group_size, "Paths that share a label (and a start, if asked); must divide the batch.", {1, 1e6});
  l.add("shared_noise", c.shared_noise, "Paths of a group start from one x_0.");
  l.add("epochs", c.epochs, "Passes over the paths.", {1, 10000});
  l.add("minibatches", c.minibatches, "Updates a pass (a pass and step, for updates by timestep).", {1, 1e6});
  l.choice("update", c.update, {"iteration", "timestep"},
           "An update is about all steps of its paths, or about one step of each.");
  l.add("train_steps", c.train_steps, "Steps that enter the loss, drawn anew each iteration; 0: all.", {0, 100000});
  l.add("replay", c.replay, "Paths of this many iterations are learned from.", {1, 10000});
  l.choice("log_z", c.log_z, {"learned", "batch", "running"},
           "Losses of paths: log Z is a parameter, an estimate from the batch, or an average over iterations.");
  l.add("log_z_lr", c.log_z_lr, "learned: its learning rate.", above(0));
  l.add("log_z_decay", c.log_z_decay, "running: of the average.", {0, 1, false, true});
  l.add("noise_scale", c.noise_scale, "Losses of paths: the paths are made with this times the noise of the sampler.",
        above(0));
  window_fields(l, c.window);
  critic_fields(l, c.critic);
}

}  // namespace costate::cli
