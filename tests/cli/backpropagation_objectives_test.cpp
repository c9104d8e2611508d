// Objectives of reward backpropagation in the program: keys, and runs with an initial law of their own.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "config/read.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

using testing::Folder;
using nlohmann::json;

std::string refused(const std::string& text) {
  try {
    read_config_text(text, "the test", {});
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << text << " was accepted";
  return {};
}
std::string finetune(const std::string& objective, const std::string& keys) {
  return R"({"finetune": {"objective": ")" + objective + R"(", )" + keys + "}}";
}

TEST(BackpropagationObjectives, KeysThatAreNotLookedAtAreRefused) {
  const auto expect = [](const std::string& text, const char* words) {
    const std::string error = refused(text);
    EXPECT_NE(error.find(words), std::string::npos) << error;
  };
  expect(finetune("adjoint_matching", R"("backpropagation": {"kl_weight": 1})"), "finetune.backpropagation");
  expect(finetune("adjoint_matching", R"("initial_law": {"kind": "sir"})"), "finetune.initial_law");
  expect(finetune("draft", R"("pairing": "same")"), "finetune.pairing: the objective 'draft' does not look at this key");
  expect(finetune("draft", R"("denoised_endpoint": true)"), "finetune.denoised_endpoint");
  expect(finetune("draft", R"("backpropagation": {"last_steps": 3})"), "the truncation last only, but it is 'full'");
  expect(finetune("draft", R"("backpropagation": {"normal_mean": 0.5})"), "the truncation normal only");
  expect(finetune("draft", R"("backpropagation": {"margin": 2})"), "the loss hinge only");
  expect(finetune("draft", R"("backpropagation": {"target": 2})"), "the loss absolute only");
  expect(finetune("draft", R"("backpropagation": {"scratch": "/tmp"})"), "the adjoint two_level only");
  expect(finetune("draft", R"("backpropagation": {"host_memory": true})"), "the adjoint two_level only");
  expect(finetune("draft", R"("backpropagation": {"adjoint": "two_level", "host_memory": true})"),
         "states on the cpu lie in the host's memory as they are");
  expect(R"({"device": "cuda:0", "finetune": {"objective": "draft",
             "backpropagation": {"adjoint": "two_level", "host_memory": true, "scratch": "/tmp"}}})",
         "with host_memory there is no file");
  expect(finetune("draft", R"("backpropagation": {"segment": 3})"), "the adjoints segments and two_level only");
  expect(finetune("draft", R"("backpropagation": {"adjoint": "segments", "slots": 3})"), "binomial_online and two_level only");
  expect(finetune("draft", R"("policy_gradient": {"epochs": 2})"), "finetune.policy_gradient: the objective 'draft'");
  expect(finetune("reinforce", R"("regression": {"kl_weights": [2]})"), "finetune.regression: the objective 'reinforce'");
  expect(finetune("draft", R"("initial_law": {"kind": "sir"})"), "kl_weight is 0");
  expect(finetune("relative_entropy", R"("initial_law": {"rollouts": 2})"), "the kinds sir, mcmc and flow only");
  expect(finetune("elegant", R"("initial_law": {"particles": 2})"), "the kind sir only, but it is 'flow'");
  expect(finetune("elegant", R"("initial_law": {"kind": "sir", "moves": 2})"), "the kind mcmc only");
  expect(finetune("elegant", R"("initial_law": {"kind": "sir", "control_steps": 2})"), "the kind flow only");
  expect(
      R"({"data": {"kind": "glyphs"}, "network": {"conditional": true}, "finetune": {"objective": "elegant", "labels": [3]}})",
      "knows of no classes");
}

TEST(BackpropagationObjectives, PresetsAreOptionsOfOneClass) {
  EXPECT_EQ(standard_finetune("draft").backpropagation, BackpropagationConfig{});
  EXPECT_EQ(standard_finetune("draft_k").backpropagation.truncation, "last");
  EXPECT_EQ(standard_finetune("elegant").initial_law.kind, "flow");
  EXPECT_EQ(standard_finetune("relative_entropy").backpropagation.kl_weight, 1);
  int count = 0;
  for (const ObjectiveEntry& e : objectives()) count += e.loop == Loop::backpropagation;
  EXPECT_EQ(count, 8);
}

// Every kind of initial law is kept with the run, found again by later stages, and planned for to the row.
TEST(BackpropagationObjectives, RunsKeepTheirInitialLaw) {
  const Folder folder;
  const json config = {
      {"data", {{"kind", "mixture"}, {"count", 300}, {"seed", 1}}},
      {"network", {{"hidden", 12}, {"depth", 1}}},
      {"pretrain", {{"iterations", 40}, {"batch", 32}}},
      {"reward", {{"kind", "linear"}, {"coefficients", {1.0, 0.0}}}},
      {"sampler", {{"kind", "constant"}, {"sigma", 0.5}, {"steps", 6}}},
      {"finetune",
       {{"objective", "elegant"},
        {"iterations", 6},
        {"batch", 16},
        {"initial_law", {{"iterations", 8}, {"batch", 16}, {"hidden", 8}, {"depth", 1}}}}},
      {"sample", {{"count", 16}}},
      {"evaluate", {{"count", 32}}}};
  folder.file("config.json", config.dump());
  for (const std::string kind : {"sir", "mcmc", "flow", "noise"}) {
    SCOPED_TRACE(kind);
    const std::string own = kind == "flow"   ? "finetune.initial_law.control_iterations=5"
                            : kind == "sir"  ? "finetune.initial_law.particles=4"
                            : kind == "mcmc" ? "finetune.initial_law.moves=3"
                                             : "finetune.iterations=5";
    std::vector<std::string> arguments{"run", "config.json", "--out", kind, "--threads", "1", "--set",
                                       "finetune.initial_law.kind=" + kind, "--set", own};
    if (kind == "noise")
      for (const char* s : {"iterations=400", "batch=256", "hidden=64", "depth=2"})
        arguments.insert(arguments.end(), {"--set", "finetune.initial_law." + std::string(s)});
    const auto run = testing::costate(folder, arguments);
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(std::filesystem::exists(folder / (kind + "/checkpoints/noise_value.safetensors")), kind != "noise");
    EXPECT_EQ(std::filesystem::exists(folder / (kind + "/checkpoints/noise_control.safetensors")), kind == "flow");
    const json first = json::parse(testing::contents(folder / (kind + "/evaluation.json")));
    EXPECT_EQ(first["path_kl"].contains("initial_law"), kind != "noise");
    // Sampled again from the files alone: the same bits.
    const std::string samples = testing::contents(folder / (kind + "/samples/tuned_sde.npy"));
    arguments[0] = "sample";
    arguments.push_back("--overwrite");
    const auto again = testing::costate(folder, arguments);
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(testing::contents(folder / (kind + "/samples/tuned_sde.npy")), samples);
    // What the plan said, of every stage.
    arguments[0] = "plan", arguments.pop_back();
    arguments.push_back("--json");
    const auto plan = testing::costate(folder, arguments);
    ASSERT_EQ(plan.code, 0) << plan.err;
    const json planned = json::parse(plan.out), record = json::parse(testing::contents(folder / (kind + "/run.json")));
    for (const auto& [stage, did] : record["stages"].items()) {
      SCOPED_TRACE(stage);
      EXPECT_EQ(planned["stages"][stage]["peak"], did["peak"]);
      EXPECT_EQ(planned["stages"][stage]["evaluations"], did["evaluations"]);
      EXPECT_EQ(planned["stages"][stage]["flops"], did["flops"]);
    }
  }
}

}  // namespace
}  // namespace costate::cli
