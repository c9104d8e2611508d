// Runs on the control benchmark.
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <costate/tensor/error.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "config/read.h"

namespace costate::cli {
namespace {

using testing::Folder;
using nlohmann::json;

// A problem whose paths stop: after some updates the control is nearer to the optimal one than none is (relative error 1), and
// likelihoods of paths give log Z = log E[e^{-tau}] = -0.93227 of 30 steps, by a backward recursion on a grid, within 4 standard
// errors.
TEST(ControlRuns, ObjectivesOfLikelihoodsLearnAProblemThatStops) {
  for (const std::string objective : {"log_variance", "cross_entropy", "reinforce"}) {
    SCOPED_TRACE(objective);
    const Folder folder;
    folder.file("none.json", "{}");
    const auto result = testing::costate(
        folder, {"run", "none.json", "--out", "run", "--quiet", "--set", "control.problem=molecular_dynamics", "--set",
                 "control.steps=30", "--set", "control.hidden=[32, 16]", "--set", "control.activation=silu", "--set", "finetune.objective=" + objective,
                 "--set", "finetune.iterations=100", "--set", "finetune.batch=64", "--set", "finetune.lr.peak=8e-3", "--set",
                 "control.paths=128", "--set", "evaluate.count=3000"});
    ASSERT_EQ(result.code, 0) << result.err;
    const json e = json::parse(testing::contents(folder / "run/evaluation.json"))["control_problem"];
    EXPECT_LT(e["relative_control_error"].get<double>(), 0.7) << e.dump();
    EXPECT_LT(e["cost"]["value"].get<double>() - 3 * e["cost"]["standard_error"].get<double>(),
              e["cost_without_control"]["value"].get<double>());
    EXPECT_NEAR(e["log_z_from_paths"]["value"].get<double>(), -0.93227,
                4 * e["log_z_from_paths"]["standard_error"].get<double>());
  }
}

TEST(ControlRuns, WhatAControlProblemHasNotIsRefused) {
  const auto refused = [](const std::string& objective, const std::vector<std::string>& more, const std::string& words) {
    std::vector<std::string> settings{"control.problem=molecular_dynamics", "finetune.objective=" + objective};
    settings.insert(settings.end(), more.begin(), more.end());
    try {
      read_config("", settings);
      ADD_FAILURE() << objective << ": " << words;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  refused("elegant", {}, "finetune.initial_law.kind");
  refused("score_as_action", {}, "policy_gradient.critic.skip: asks for the estimate of x_1");
  refused("hrf", {}, "policy_gradient.window.siblings");
  refused("refl", {}, "backpropagation.stop_to");
  refused("draft_lv", {}, "backpropagation.renoisings");
  refused("adjoint_matching", {"finetune.loss_space=velocity"}, "loss_space = velocity");
  refused("pi_ft", {"finetune.regression.value.form=skip"}, "regression.value.form = skip");
  refused("reinforce", {"finetune.recompute=blocks"}, "finetune.recompute");
  refused("adjoint_matching", {"precision=bf16"}, "adds to a drift that is known exactly");
  const Folder folder;
  folder.file("none.json", "{}");
  for (const std::string objective : {"adjoint_matching", "pi_ft", "draft"}) {
    const auto result = testing::costate(folder, {"plan", "none.json", "--set", "control.problem=molecular_dynamics", "--set",
                                                  "finetune.objective=" + objective});
    EXPECT_EQ(result.code, 2);
    EXPECT_NE(result.err.find("likelihood of paths, such as log_variance or reinforce"), std::string::npos) << result.err;
  }
}

}  // namespace
}  // namespace costate::cli
