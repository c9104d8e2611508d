// The registry of objectives: what each says that it asks for, against what is counted; its flags; the table.
#include "objectives/objectives.h"

#include <gtest/gtest.h>

#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/window.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "build.h"
#include "commands.h"
#include "config/read.h"
#include "objectives/table.h"
#include "program.h"

namespace costate::cli {
namespace {

using testing::Folder;

std::string example(const std::string& name) { return COSTATE_SOURCE_DIR "/examples/objectives/" + name + ".json"; }

Config example_config(const std::string& name, const std::vector<std::string>& settings = {}) {
  return read_config(example(name), settings).config;
}

StageRecord planned_stage(const Config& c) {
  for (const StageRecord& r : plan(c, {Stage::finetune}))
    if (r.name == "finetune") return r;
  ADD_FAILURE() << "no stage finetune";
  return {};
}
Evaluations planned(const Config& c) { return planned_stage(c).evaluations; }

// The number that the formula says, of all trajectories and iterations.
double total(const Config& c, double per_trajectory, double before = 0) {
  return per_trajectory * static_cast<double>(c.finetune.batch) * static_cast<double>(c.finetune.iterations) + before;
}

void expect_counts(const Config& c, const Evaluations& e) {
  const ObjectiveCost cost = objective(c.finetune.objective).cost(c);
  EXPECT_NEAR(static_cast<double>(e.plain), total(c, cost.plain(), cost.base_before), 1e-6);
  EXPECT_NEAR(static_cast<double>(e.state), total(c, cost.state), 1e-6);
  EXPECT_NEAR(static_cast<double>(e.parameters), total(c, cost.parameters), 1e-6);
  EXPECT_NEAR(static_cast<double>(e.rewards), total(c, cost.rewards, cost.rewards_before), 1e-6);
}

// Those whose iterations draw how many steps they differentiate or take.
bool draws(const std::string& name) { return name == "align_prop" || name == "refl" || name == "drtune" || name == "hrf"; }

TEST(ObjectiveCosts, PlansOfAllExamplesCountWhatTheFormulasSay) {
  int exact = 0;
  for (const ObjectiveEntry& e : objectives()) {
    SCOPED_TRACE(e.name);
    const Config c = example_config(e.name);
    ASSERT_EQ(c.finetune.objective, e.name);
    const ObjectiveCost cost = e.cost(c);
    EXPECT_EQ(cost.kind == ObjectiveCost::Kind::exact, !draws(e.name));
    if (draws(e.name)) continue;
    const StageRecord r = planned_stage(c);
    expect_counts(c, r.evaluations);
    // What is kept, by the ledger at the peak of the stage: all of it, but where the peak comes while the first paths are being
    // made (two states more) or after the first pullback (one less).
    const auto tag = [&](memory::Tag t) { return r.peak.by_tag[static_cast<std::size_t>(t)]; };
    const auto bytes = tag(memory::Tag::trajectory) + tag(memory::Tag::adjoint);
    const std::int64_t sample = c.data.kind == "glyphs" ? c.data.resolution * c.data.resolution : 2;
    const double kept = static_cast<double>(bytes) / static_cast<double>(4 * sample * c.finetune.batch);
    EXPECT_NEAR(kept, cost.stored, 2);
    exact += kept == cost.stored;
  }
  EXPECT_GE(exact, 24);  // of 26
}

// The formulas again away from the presets: one setting at a time that changes a term.
TEST(ObjectiveCosts, SettingsThatChangeTheCounts) {
  const std::string pg = "finetune.policy_gradient.", b = "finetune.backpropagation.", r = "finetune.regression.";
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases{
      {"adjoint_matching", {"finetune.pairing=same"}},
      {"adjoint_matching", {"finetune.late_steps=7"}},
      {"adjoint_matching", {"finetune.keep_activations=true"}},
      {"adjoint_matching", {"finetune.denoised_endpoint=true"}},
      {"adjoint_matching", {"finetune.pairing=alg1", "sampler.kind=euler_maruyama"}},
      {"adjoint_matching", {"finetune.micro_batch=12"}},
      {"discrete_adjoint", {"finetune.pairing=same"}},
      {"discrete_adjoint", {"sampler.kind=constant", "sampler.sigma=0.5", "finetune.late_steps=3"}},
      {"continuous_adjoint", {"finetune.pairing=same"}},
      {"continuous_adjoint", {"finetune.late_steps=1"}},
      {"socm_adjoint", {"finetune.late_steps=5"}},
      {"pi_ft", {r + "value.form=skip", r + "value.contraction_every=0"}},
      {"pi_ft", {r + "value.contraction_every=0", "sampler.kind=constant", "sampler.sigma=0.5"}},
      {"stein", {r + "value.form=skip"}},
      {"stein", {r + "value.form=skip", r + "value.pairs=0"}},
      {"stein", {"sampler.kind=constant", "sampler.sigma=0.5"}},
      {"ddpo_is", {pg + "epochs=3", pg + "train_steps=5"}},
      {"ddpo_is", {"sampler.kind=constant", "sampler.sigma=0.5", pg + "divergence=in_return"}},
      {"dpok", {pg + "replay=1", pg + "divergence=none"}},
      {"score_as_action", {pg + "baseline=value"}},
      {"log_variance", {pg + "epochs=2", pg + "minibatches=4"}},
      {"log_variance", {pg + "epochs=2", pg + "minibatches=4", "finetune.micro_batch=5"}},
      {"flow_grpo", {"finetune.micro_batch=8"}},
      {"cross_entropy", {pg + "epochs=3", "sampler.kind=constant", "sampler.sigma=0.5"}},
      {"draft", {b + "adjoint=segments", b + "segment=5", b + "slots=0"}},
      {"draft", {b + "adjoint=binomial", b + "slots=3"}},
      {"draft", {b + "adjoint=store_all", b + "slots=0", b + "detached_inputs=true", b + "trained_steps=7"}},
      {"draft", {b + "adjoint=store_all", b + "slots=0", b + "detached_inputs=true", b + "trained_steps=7", "finetune.keep_activations=true"}},
      {"draft_k", {b + "last_steps=9"}},
      {"draft_lv", {b + "renoisings=4"}},
      {"relative_entropy", {"sampler.kind=constant", "sampler.sigma=0.5"}},
      {"relative_entropy", {b + "detached_inputs=true"}},
      {"relative_entropy", {b + "truncation=last", b + "last_steps=4"}},
      {"elegant", {"finetune.initial_law.kind=sir", "finetune.initial_law.rollouts=2", "finetune.initial_law.control_steps=16",
                    "finetune.initial_law.control_iterations=300"}},
  };
  for (const auto& [name, settings] : cases) {
    std::string what = name;
    for (const std::string& s : settings) what += " " + s;
    SCOPED_TRACE(what);
    // Short chains and few paths: what is counted is the same, of less.
    std::vector<std::string> all{"sampler.steps=16", "finetune.batch=32"};
    all.insert(all.end(), settings.begin(), settings.end());
    const Config c = example_config(name, all);
    expect_counts(c, planned(c));
  }
}

TEST(ObjectiveCosts, GuidanceMakesTwoRowsOfOne) {
  const char* const text = R"({"data": {"kind": "glyphs", "resolution": 6, "count": 100}, "network": {"conditional": true},
      "reward": {"kind": "brightness"}, "finetune": {"labels": [3], "guidance": 2, "batch": 32, "iterations": 10}})";
  const Config c = read_config_text(text, "test", {}).config;
  EXPECT_EQ(objective("adjoint_matching").cost(c).policy, 100);
  expect_counts(c, planned(c));
}

// Where counts are random a plan has those of its first three iterations: over 40 seeds their mean is the formula's within 4
// standard errors, and each lies between the bounds that the truncations give. What is not random is exact.
TEST(ObjectiveCosts, WhatIterationsDrawHasTheFormulasMean) {
  struct Bounds {
    const char* name;
    double plain[2], state[2], parameters;
  };
  // align_prop: 0 to K - 1 = 39 steps behind the first. refl: m + 1 steps, m = 23..29 of 30. drtune: m = 18..29; three steps and
  // the estimate are trained.
  for (const Bounds& b :
       {Bounds{"align_prop", {40, 40}, {0, 39}, 1}, {"refl", {24, 30}, {0, 0}, 1}, {"drtune", {19, 30}, {0, 0}, 4}}) {
    SCOPED_TRACE(b.name);
    const std::string steps = b.name == std::string("align_prop") ? "sampler.steps=40" : "sampler.steps=30";
    const ObjectiveCost cost = objective(b.name).cost(example_config(b.name, {"finetune.keep_activations=false", steps}));
    double mean[2] = {0, 0}, square[2] = {0, 0};
    constexpr int seeds = 40;
    for (int seed = 0; seed < seeds; ++seed) {
      const Config c = example_config(b.name, {"seed=" + std::to_string(seed), "finetune.iterations=3", "finetune.batch=2",
                                               "finetune.keep_activations=false", steps});
      const Evaluations e = planned(c);
      const double per = 1.0 / total(c, 1);
      const double found[2] = {static_cast<double>(e.plain) * per, static_cast<double>(e.state) * per};
      for (int j = 0; j < 2; ++j) mean[j] += found[j] / seeds, square[j] += found[j] * found[j] / seeds;
      EXPECT_GE(found[0], b.plain[0]);
      EXPECT_LE(found[0], b.plain[1]);
      EXPECT_GE(found[1], b.state[0]);
      EXPECT_LE(found[1], b.state[1]);
      EXPECT_NEAR(static_cast<double>(e.parameters), total(c, b.parameters), 1e-6);
      EXPECT_NEAR(static_cast<double>(e.rewards), total(c, 1), 1e-6);
    }
    EXPECT_DOUBLE_EQ(cost.parameters, b.parameters);
    EXPECT_DOUBLE_EQ(cost.rewards, 1);
    const double expected[2] = {cost.plain(), cost.state};
    for (int j = 0; j < 2; ++j)
      EXPECT_NEAR(mean[j], expected[j], 4 * std::sqrt(std::max(square[j] - mean[j] * mean[j], 0.0) / (seeds - 1)) + 1e-9);
  }
}

// hrf plans for its longest window, which is the whole chain and its parents; a run takes the windows that it draws, which
// anyone can draw again: K - i steps, and K/8 of a parent's, in iteration n.
TEST(ObjectiveCosts, WindowsAreCountedAsTheyAreDrawn) {
  const std::vector<std::string> settings{"finetune.iterations=24", "sampler.steps=12", "pretrain.iterations=2",
                                          "finetune.batch=16",      "data.count=200",   "network.hidden=8",
                                          "finetune.policy_gradient.divergence=none",
                                          "finetune.policy_gradient.window.kind=segments",
                                          "finetune.policy_gradient.window.clusters=[]",
                                          "finetune.policy_gradient.window.parts=4"};
  const Config c = example_config("hrf", settings);
  const double batch = static_cast<double>(c.finetune.batch);
  EXPECT_EQ(static_cast<double>(planned(c).plain), 24 * batch * (12 + 12.0 / 8));

  const Folder folder;
  for (const char* stage : {"pretrain", "finetune"}) {
    std::vector<std::string> arguments{stage, example("hrf"), "--out", "run", "--quiet"};
    for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
    const auto result = testing::costate(folder, arguments);
    ASSERT_EQ(result.code, 0) << result.err;
  }
  const Json record = Json::parse(testing::contents(folder / "run/run.json"))["stages"]["finetune"]["evaluations"];
  finetune::WindowOptions window;
  window.kind = finetune::WindowOptions::Kind::segments, window.iterations = 24, window.count = 4;
  const std::vector<int> noisy = noisy_steps(make_chain(c));
  double plain = 0, parameters = 0;
  for (int n = 0; n < 24; ++n) {
    const int first = std::min(finetune::draw_first_step(window, 12, n, seed_of(c, Purpose::finetune)), noisy.back());
    plain += batch * (12 - first + 12.0 / 8);
    for (const int k : noisy) parameters += k >= first ? batch : 0;
  }
  EXPECT_EQ(record["plain"].get<double>(), plain);
  EXPECT_EQ(record["parameters"].get<double>(), parameters);
  EXPECT_EQ(record["state"].get<double>(), 0);
  EXPECT_EQ(record["rewards"].get<double>(), 24 * batch);
  // The formula has the mean over draws: of 24 steps uniform in parts of three, whose deviation is sqrt(2/3).
  EXPECT_NEAR(plain / (24 * batch), objective("hrf").cost(c).policy, 4 * std::sqrt(2.0 / 3 / 24));
}

// A run counts what its plan said, for one objective of each loop.
TEST(ObjectiveCosts, RunsCountWhatTheFormulasSay) {
  for (const std::string name : {"socm_adjoint", "trajectory_balance", "relative_entropy"}) {
    SCOPED_TRACE(name);
    const std::vector<std::string> settings{"finetune.iterations=4", "sampler.steps=8", "pretrain.iterations=2",
                                            "finetune.batch=16",     "data.count=200",  "network.hidden=8"};
    const Folder folder;
    for (const char* stage : {"pretrain", "finetune"}) {
      std::vector<std::string> arguments{stage, example(name), "--out", "run", "--quiet"};
      for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
      const auto result = testing::costate(folder, arguments);
      ASSERT_EQ(result.code, 0) << result.err;
    }
    const Json e = Json::parse(testing::contents(folder / "run/run.json"))["stages"]["finetune"]["evaluations"];
    expect_counts(example_config(name, settings), {e["plain"], e["state"], e["parameters"], e["rewards"]});
  }
}

// What of it every objective is made on here: two features, six steps.
ObjectiveInputs inputs(const Config& c, sde::Chain chain, finetune::Reward reward) {
  nn::Init init(1, DType::f32, Device::cpu);
  nn::MlpOptions o;
  o.dim = 2, o.hidden = 8, o.depth = 1;
  const nn::Network base(nn::make_velocity_mlp(o, init));
  finetune::ControlProblem problem{.chain = std::move(chain), .base = finetune::field_of(base), .sample_shape = {2},
                                   .reward = std::move(reward)};
  return {c, std::move(problem), base, nn::clone(base)};
}

TEST(ObjectiveFlags, GradientsAreNeededWhereTheTableSaysSo) {
  const finetune::Reward values_only = finetune::black_box_reward(
      "values", [](auto x, auto rows, auto value) {
        for (std::int64_t i = 0; i < rows; ++i) value[i] = x[2 * i];
      });
  ASSERT_FALSE(values_only.differentiable());
  for (const ObjectiveEntry& e : objectives()) {
    SCOPED_TRACE(e.name);
    Config c;
    c.sampler.steps = 6, c.finetune = standard_finetune(e.name), c.finetune.batch = 16;
    const auto make = [&](const finetune::Reward& reward) { return e.make(inputs(c, make_chain(c), reward)); };
    EXPECT_NO_THROW(make(finetune::linear_reward({1, 0}))->step());
    if (e.needs_reward_gradient) {
      try {
        make(values_only);
        ADD_FAILURE() << "took a reward without a gradient";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("values"), std::string::npos) << error.what();
      }
    } else {
      EXPECT_NO_THROW(make(values_only)->step());
    }
    EXPECT_EQ(e.cost(c).reward_gradient, e.needs_reward_gradient);
  }
}

TEST(ObjectiveFlags, AllNeedNoise) {
  for (const ObjectiveEntry& e : objectives()) {
    Config c;
    c.sampler.steps = 6, c.finetune = standard_finetune(e.name), c.finetune.batch = 16;
    try {
      e.make(inputs(c, make_ode_chain(c), finetune::linear_reward({1, 0})));
      ADD_FAILURE() << e.name << " took a sampler without noise";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("has no noise"), std::string::npos) << error.what();
    }
  }
}

TEST(ObjectiveTable, PageAndPagesAreUpToDate) {
  const std::string page = testing::contents(COSTATE_SOURCE_DIR "/docs/objectives.md");
  EXPECT_NE(page.find(objectives_table(true)), std::string::npos)
      << "put the table there again: costate objectives --markdown";
  for (const ObjectiveEntry& e : objectives()) {
    EXPECT_TRUE(std::filesystem::exists(COSTATE_SOURCE_DIR "/docs/objectives/" + e.name + ".md")) << e.name;
    EXPECT_TRUE(std::filesystem::exists(example(e.name))) << e.name;
    EXPECT_FALSE(e.title.empty() || e.source.empty() || e.lands.empty()) << e.name;
  }
}

TEST(ObjectiveTable, TheCommandPrintsOneLineAnObjective) {
  const Folder folder;
  const auto text = testing::costate(folder, {"objectives"}), json = testing::costate(folder, {"objectives", "--json"}),
             markdown = testing::costate(folder, {"objectives", "--markdown"});
  ASSERT_EQ(text.code, 0) << text.err;
  ASSERT_EQ(json.code, 0) << json.err;
  EXPECT_EQ(markdown.out, objectives_table(true));
  const Json all = Json::parse(json.out);
  EXPECT_EQ(all.size(), objectives().size());
  for (const ObjectiveEntry& e : objectives()) {
    EXPECT_NE(("\n" + text.out).find("\n" + e.name + " "), std::string::npos) << e.name;
    ASSERT_TRUE(all.contains(e.name));
    EXPECT_EQ(all[e.name]["needs_reward_gradient"], e.needs_reward_gradient);
  }
  EXPECT_EQ(all["adjoint_matching"]["cost"]["state"], 49);
  EXPECT_NE(testing::costate(folder, {"objectives", "--json", "--markdown"}).code, 0);
}

}  // namespace
}  // namespace costate::cli
