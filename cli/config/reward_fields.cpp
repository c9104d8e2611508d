// The keys of the sections `reward` and `gold`, and the rules between them.
#include <costate/tensor/error.h>

#include "config/field_list.h"
#include "config/read.h"

namespace costate::cli {
namespace {

void kind_fields(FieldList& l, RewardConfig& r, const std::string& doc) {
  l.choice("kind", r.kind,
           {"none", "linear", "quadratic", "log_density", "log_density_ratio", "classifier", "brightness", "symmetry",
            "total_variation", "jpeg_compressibility", "jpeg_incompressibility", "command"},
           doc);
}

void parameter_fields(FieldList& l, RewardConfig& r, const std::string& classifier) {
  l.add("coefficients", r.coefficients, "linear, quadratic: c of c^T x.");
  l.add("centre", r.centre, "quadratic: nu of -(x - nu)^T Q (x - nu) / 2; []: the origin.");
  l.add("precision", r.precision, "quadratic: Q, a symmetric matrix [[...], ...], or one row: its diagonal.");
  for (auto* m : {&r.numerator, &r.denominator}) {
    const std::string name = m == &r.numerator ? "numerator" : "denominator";
    const std::string whose = m == &r.numerator ? "log_density, log_density_ratio" : "log_density_ratio";
    l.add(name + ".means", m->means,
          whose + ": centres of the isotropic mixture" +
              (m == &r.numerator ? ", of the ratio in the numerator." : " in the denominator."));
    l.add(name + ".variances", m->variances, whose + ": one variance a component.", above(0));
    l.add(name + ".weights", m->weights, whose + ": one weight a component; []: equal.", above(0));
  }
  l.add("targets", r.targets, classifier, {0, 65535});
  l.add("scale", r.scale,
        "brightness, symmetry, total_variation: a factor; below 0 the opposite is raised: darkness, asymmetry, texture.");
  l.choice("axis", r.axis, {"left_right", "up_down"}, "symmetry: the mirror image that a picture is compared with.");
  l.add("smoothing", r.smoothing,
        "total_variation: eps of sqrt(d^2 + eps^2) - eps for each difference d of neighbours, in what the network sees.",
        above(0));
  l.add("quality", r.quality, "jpeg_compressibility, jpeg_incompressibility: quality of the encoder.", {1, 100});
  l.add("command", r.command, "command: a program and its arguments, which scores samples; see docs/rewards.md.");
  l.add("command_gradient", r.command_gradient, "command: whether the program answers with gradients, too.");
  l.add("command_timeout", r.command_timeout, "command: seconds that an answer may take.", {0, 1e6, true, false});
  l.choice("on_failure", r.on_failure, {"stop", "skip", "clip"},
           "What becomes of samples whose reward or gradient is not finite, or fails: the run stops; the sample is left out; "
           "or it gets the lower bound, while all values are clipped into the bounds, where there is no gradient.");
  l.add("clip", r.clip, "on_failure 'clip': the two bounds, the lower one first.");
}

bool is_given(const MixtureConfig& m) { return !m.means.empty() || !m.variances.empty() || !m.weights.empty(); }

void check_reward(const RewardConfig& r, const std::string& section) {
  const RewardConfig plain;
  for (const auto* f : {&r.numerator, &r.denominator})
    for (const auto& row : f->means)
      require(row.size() == f->means[0].size(), section, f == &r.numerator ? ".numerator" : ".denominator", ".means: rows of ",
              f->means[0].size(), " and of ", row.size(), " numbers, expected equal lengths");
  for (const auto& row : r.precision)
    require(row.size() == r.precision[0].size(), section, ".precision: rows of ", r.precision[0].size(), " and of ", row.size(),
            " numbers, expected equal lengths");
  const auto only = [&](bool used, bool given, const char* key, const char* whose) {
    require(used || !given, section, ".", key, ": applies to ", whose, " only, but the kind is '", r.kind, "'");
  };
  const auto is = [&](std::initializer_list<std::string_view> kinds) {
    for (const std::string_view k : kinds)
      if (r.kind == k) return true;
    return false;
  };
  only(is({"linear", "quadratic"}), !r.coefficients.empty(), "coefficients", "linear and quadratic rewards");
  only(is({"quadratic"}), !r.centre.empty(), "centre", "the quadratic reward");
  only(is({"quadratic"}), !r.precision.empty(), "precision", "the quadratic reward");
  only(is({"log_density", "log_density_ratio"}), is_given(r.numerator), "numerator",
       "the log density and the log density ratio");
  only(is({"log_density_ratio"}), is_given(r.denominator), "denominator", "the log density ratio");
  only(is({"classifier"}), !r.targets.empty(), "targets", "the classifier reward");
  only(is({"brightness", "symmetry", "total_variation"}), r.scale != plain.scale, "scale",
       "brightness, symmetry and total_variation rewards");
  only(is({"symmetry"}), r.axis != plain.axis, "axis", "the symmetry reward");
  only(is({"total_variation"}), r.smoothing != plain.smoothing, "smoothing", "the total_variation reward");
  only(is({"jpeg_compressibility", "jpeg_incompressibility"}), r.quality != plain.quality, "quality",
       "jpeg_compressibility and jpeg_incompressibility");
  only(is({"command"}), !r.command.empty() || r.command_gradient || r.command_timeout != plain.command_timeout,
       "command, command_gradient and command_timeout", "the command reward");
  only(!is({"none"}), r.on_failure != plain.on_failure, "on_failure", "rewards");
  require(!is({"classifier"}) || !r.targets.empty(), section, ".targets: found [], expected at least one class");
  require(!is({"linear"}) || !r.coefficients.empty(), section,
          ".coefficients: found [], expected one number a feature of an item");
  require(!is({"quadratic"}) || !r.precision.empty(), section, ".precision: found [], expected a matrix or its diagonal");
  require(!is({"command"}) || !r.command.empty(), section, ".command: found [], expected a program and its arguments");
  require(r.scale != 0, section, ".scale: found 0, expected another number");
  require(r.on_failure == "clip" || r.clip.empty(), section, ".clip: applies to on_failure 'clip' only, but on_failure is '",
          r.on_failure, "'");
  require(r.on_failure != "clip" || (r.clip.size() == 2 && r.clip[0] < r.clip[1]), section, ".clip: found ", r.clip.size(),
          " numbers, expected two bounds, the lower one first");
}

}  // namespace

void reward_fields(FieldList& l, RewardConfig& r) {
  l.section("reward");
  kind_fields(l, r,
              "What fine-tuning raises, as a function of what the network sees (after data.scaling); see docs/rewards.md.");
  l.add("multiplier", r.multiplier, "lambda: the tuned law is p_base exp(lambda r) / Z.", at_least(0));
  parameter_fields(l, r, "classifier: log probability of any of these classes.");
  l.add("bump.amount", r.bump.amount,
        "A of A exp(-d^2 / (2 width^2)), d the distance from the centre, which is added to the reward: a fault to study; 0: "
        "none.");
  l.add("bump.centre", r.bump.centre, "Where the bump is.");
  l.add("bump.width", r.bump.width, "How wide the bump is.", above(0));
  l.add("ensemble.members", r.ensemble.members,
        "classifier: so many classifiers, of other seeds, are trained; the reward is made from what each says; 1: one.",
        {1, 64});
  l.choice("ensemble.rule", r.ensemble.rule, {"mean", "minimum", "lower_bound"},
           "How: the mean, the smallest, or the mean less ensemble.coefficient times the deviation.");
  l.add("ensemble.coefficient", r.ensemble.coefficient, "lower_bound: how many deviations.", at_least(0));
  FDivergenceConfig& f = r.f_divergence;
  l.choice("f_divergence.kind", f.kind,
           {"none", "reverse_kl", "forward_kl", "jensen_shannon", "pearson", "neyman", "squared_hellinger", "alpha"},
           "The tuned law maximises E r - a D_f against the base for this D_f instead of the Kullback-Leibler divergence: the "
           "reward is transformed with a multiplier that is estimated from samples of the base.");
  l.add("f_divergence.alpha", f.alpha, "alpha: A of the alpha family.", {-100, 100});
  l.add("f_divergence.temperature", f.temperature, "a; 0: 1 / reward.multiplier.", at_least(0));
  l.add("f_divergence.samples", f.samples, "Samples of the base, drawn whenever the reward is needed.", {2, 1e7});
  l.add("f_divergence.floor", f.floor, "The density ratio is raised to this, where the transformed reward has no gradient.",
        {0, 1, true, true});
  l.add("f_divergence.ceiling", f.ceiling, "And lowered to this.", above(1));
}

void gold_fields(FieldList& l, RewardConfig& g) {
  l.section("gold");
  kind_fields(l, g, "Shown beside the reward in every evaluation, for samples of the base and of the tuned model.");
  parameter_fields(l, g, "classifier: log probability of any of these classes by the judge, which needs data.held_out.");
}

void check_rewards(const Config& c) {
  check_reward(c.reward, "reward"), check_reward(c.gold, "gold");
  const RewardConfig &r = c.reward, plain;
  require(r.bump.amount == 0 || !r.bump.centre.empty(),
          "reward.bump.centre: found [], expected one number a feature of an item");
  require(r.bump.amount != 0 || (r.bump.centre.empty() && r.bump.width == plain.bump.width),
          "reward.bump: centre and width apply to a bump only, but reward.bump.amount is 0");
  require(r.bump.amount == 0 || r.kind != "none", "reward.bump.amount: applies to rewards only, but the kind is 'none'");
  require(r.ensemble.members == 1 || r.kind == "classifier",
          "reward.ensemble.members: applies to the classifier reward only, but the kind is '", r.kind, "'");
  require(r.ensemble.members > 1 ||
              (r.ensemble.rule == plain.ensemble.rule && r.ensemble.coefficient == plain.ensemble.coefficient),
          "reward.ensemble: rule and coefficient apply to several members only, but reward.ensemble.members is 1");
  require(r.ensemble.rule == "lower_bound" || r.ensemble.coefficient == plain.ensemble.coefficient,
          "reward.ensemble.coefficient: applies to lower_bound only, but reward.ensemble.rule is '", r.ensemble.rule, "'");
  const FDivergenceConfig &f = r.f_divergence, &pf = plain.f_divergence;
  require(f.kind != "none" || (f.alpha == pf.alpha && f.temperature == pf.temperature && f.samples == pf.samples &&
                               f.floor == pf.floor && f.ceiling == pf.ceiling),
          "reward.f_divergence: alpha, temperature, samples, floor and ceiling apply to a divergence only, but "
          "reward.f_divergence.kind is 'none'");
  require(f.kind == "alpha" || f.alpha == pf.alpha, "reward.f_divergence.alpha: applies to alpha only, but the kind is '",
          f.kind, "'");
  require(f.kind == "none" || r.kind != "none", "reward.f_divergence.kind: applies to rewards only, but reward.kind is 'none'");
  require(f.kind == "none" || r.multiplier > 0,
          "reward.multiplier: found 0, expected a number above 0 with reward.f_divergence, whose transformed reward is divided "
          "by it");
  require(c.gold.kind != "classifier" || c.data.held_out > 0,
          "gold.kind: the classifier is the judge, which needs data.held_out above 0");
}

}  // namespace costate::cli
