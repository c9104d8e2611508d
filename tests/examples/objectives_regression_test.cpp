// The shipped configurations of the objectives that regress on a gradient of the value, shortened: each comes most of the way
// from the base to the closed form.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"

namespace {

using costate::cli::testing::Folder;
using nlohmann::json;

class RegressionObjective : public testing::TestWithParam<const char*> {};

TEST_P(RegressionObjective, InShort) {
  const Folder folder;
  const std::string name = GetParam();
  const auto result = costate::cli::testing::costate(
      folder, {"run", COSTATE_SOURCE_DIR "/examples/objectives/" + name + ".json", "--out", "run", "--set",
               "pretrain.iterations=500", "--set", "pretrain.lr.peak=4e-3", "--set", "sampler.steps=16", "--set",
               "finetune.iterations=50", "--set", "finetune.lr.peak=4e-3", "--set", "finetune.batch=64", "--set",
               "evaluate.count=2000", "--set", "sample.count=64"});
  ASSERT_EQ(result.code, 0) << result.out << result.err;
  const json e = json::parse(costate::cli::testing::contents(folder / "run/evaluation.json"));
  EXPECT_LT(e["closed_form"]["relative_control_error"].get<double>(), 0.6) << e["closed_form"].dump();
  const auto reward = [&](const char* which) { return e["samples"][which]["reward"]["value"].get<double>(); };
  EXPECT_GT(reward("tuned_sde"), reward("base_sde") + 0.25);
}

INSTANTIATE_TEST_SUITE_P(Examples, RegressionObjective,
                         testing::Values("adjoint_matching", "discrete_adjoint", "continuous_adjoint", "socm", "socm_constant",
                                         "socm_adjoint", "pi_ft", "stein"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
