// The shipped examples of objectives that weight the likelihood of trajectories, shortened to a second or two each: they run,
// the objective is the one that the file's name says, and the reward rises. What they reach at full length: docs/objectives.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"

namespace {

using costate::cli::testing::Folder;
using nlohmann::json;

json run(const Folder& folder, const std::string& name, const std::vector<std::string>& settings) {
  std::vector<std::string> arguments{"run", COSTATE_SOURCE_DIR "/examples/objectives/" + name + ".json", "--out", "run",
                                     "--quiet"};
  for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
  const auto result = costate::cli::testing::costate(folder, arguments);
  EXPECT_EQ(result.code, 0) << result.out << result.err;
  return json::parse(costate::cli::testing::contents(folder / "run/evaluation.json"));
}
const std::vector<std::string> short_run{"data.count=2000",         "network.hidden=32",     "network.depth=2",
                                         "pretrain.iterations=500", "pretrain.batch=128",    "sampler.steps=10",
                                         "finetune.batch=128",      "finetune.lr.peak=3e-3", "evaluate.count=2000",
                                         "evaluate.projections=4",  "sample.count=100",      "finetune.iterations=40"};

class PolicyGradientExamples : public testing::TestWithParam<const char*> {};

TEST_P(PolicyGradientExamples, RaiseTheRewardInShort) {
  const std::string name = GetParam();
  const Folder folder;
  std::vector<std::string> settings = short_run;
  if (name.starts_with("tdpo")) settings.insert(settings.end(), {"finetune.iterations=8", "finetune.lr.peak=1e-3"});
  if (name == "score_as_action") settings.emplace_back("finetune.policy_gradient.critic.warmup=5");
  if (name == "hrf") settings.emplace_back("finetune.policy_gradient.window.clusters=[[3, 5, 40]]");
  const json e = run(folder, name, settings);
  EXPECT_EQ(json::parse(costate::cli::testing::contents(folder / "run/config.resolved.json"))["finetune"]["objective"], name);
  const auto reward = [&](const char* whose) { return e["samples"][whose]["reward"]["value"].get<double>(); };
  // The base has -1.0 and the optimum 0.0; a tenth of the way is beyond five standard errors of 2000 samples.
  EXPECT_GT(reward("tuned_sde"), reward("base_sde") + 0.1);
}
INSTANTIATE_TEST_SUITE_P(All, PolicyGradientExamples,
                         testing::Values("ddpo_sf", "ddpo_is", "dpok", "flow_grpo", "score_as_action", "tdpo", "tdpo_r", "hrf",
                                         "reinforce", "cross_entropy", "log_variance", "variance", "moment",
                                         "trajectory_balance"),
                         [](const auto& p) { return std::string(p.param); });

TEST(PolicyGradientConfig, AKeyThatTheObjectiveDoesNotLookAtIsRefused) {
  const auto refused = [](const std::string& objective, const std::string& setting, const std::string& words) {
    const Folder folder;
    folder.file("points.json", costate::cli::testing::tiny_points);
    const auto result = costate::cli::testing::costate(
        folder, {"plan", "points.json", "--set", "finetune.objective=" + objective, "--set", "finetune.micro_batch=0", "--set",
                 "finetune.early_steps=0", "--set", "finetune.late_steps=0", "--set", setting});
    EXPECT_NE(result.code, 0) << objective << " " << setting;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  };
  const std::string pg = "finetune.policy_gradient.";
  refused("reinforce", pg + "ratio_clip=0.3", "ratio_clip: applies to clipped_ratio and clamped_ratio only");
  refused("log_variance", pg + "baseline=batch", "applies to losses of steps only");
  refused("log_variance", pg + "log_z=learned", "losses of paths that have a log Z");
  refused("ddpo_is", pg + "noise_scale=2", "applies to losses of paths only");
  refused("ddpo_is", pg + "critic.lr=0.1", "the baselines value and td only");
  refused("hrf", pg + "window.every=3", "dynamic windows only");
  refused("tdpo", pg + "critic.threshold=0.1", "critics with resets only");
  refused("tdpo", pg + "critic.input=features", "is no classifier");
  refused("flow_grpo", "finetune.micro_batch=10", "takes whole groups at a time");
  refused("dpok", "finetune.late_steps=2", "does not look at these keys");
  refused("reinforce", pg + "epochs=2", "the score function without a ratio");
  refused("flow_grpo", pg + "group_size=7", "does not divide the batch");
}

TEST(PolicyGradientConfig, ACriticSeesTheFeaturesOfTheRewardsClassifier) {
  const Folder folder;
  folder.file("digits.json", costate::cli::testing::tiny_digits);
  const auto result = costate::cli::testing::costate(
      folder,
      {"run", "digits.json", "--out", "run", "--quiet", "--set", "finetune.objective=tdpo_r", "--set", "finetune.loss_clip=0",
       "--set", "finetune.denoised_endpoint=false", "--set", "finetune.policy_gradient.critic.input=features", "--set",
       "finetune.policy_gradient.critic.linear=true", "--set", "finetune.policy_gradient.critic.time_frequencies=0", "--set",
       "finetune.policy_gradient.critic.dropout=0.2"});
  EXPECT_EQ(result.code, 0) << result.out << result.err;
  const json record = json::parse(costate::cli::testing::contents(folder / "run/run.json"));
  EXPECT_EQ(record["stages"]["finetune"]["peak"], record["stages"]["finetune"]["planned_peak"]);
}

}  // namespace
