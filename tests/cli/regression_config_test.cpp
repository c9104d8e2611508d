// finetune.regression: keys that the chosen objective does not look at are refused, with the key and the objective.
#include "config/read.h"

#include <gtest/gtest.h>

#include <costate/tensor/error.h>

#include "objectives/objectives.h"

namespace costate::cli {
namespace {

void expect_refused(const std::string& objective, const std::string& keys, const std::string& words) {
  try {
    read_config_text(R"({"finetune": {"objective": ")" + objective + R"(", )" + keys + "}}", "test", {});
    ADD_FAILURE() << objective << " takes " << keys;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}
void expect_taken(const std::string& objective, const std::string& keys) {
  EXPECT_NO_THROW(read_config_text(R"({"finetune": {"objective": ")" + objective + R"(", )" + keys + "}}", "test", {}))
      << objective << ' ' << keys;
}

TEST(RegressionConfig, KeysOfOtherObjectivesAreRefused) {
  const struct {
    const char *keys, *taken_by, *refused_by, *words;
  } cases[] = {
      {R"("pairing": "same")", "discrete_adjoint", "socm", "finetune.pairing"},
      {R"("pairing": "alg1")", "adjoint_matching", "discrete_adjoint", "finetune.pairing = alg1"},
      {R"("denoised_endpoint": true)", "continuous_adjoint", "socm_adjoint", "finetune.denoised_endpoint"},
      {R"("micro_batch": 8)", "adjoint_matching", "pi_ft", "finetune.micro_batch"},
      {R"("keep_activations": true)", "socm_adjoint", "socm_constant", "finetune.keep_activations"},
      {R"("regression": {"kl_weights": [2]})", "pi_ft", "socm", "finetune.regression.kl_weights"},
      {R"("regression": {"normaliser_decay": 0.5})", "socm_adjoint", "adjoint_matching",
       "finetune.regression.normaliser_decay"},
      {R"("regression": {"matrices": {"gamma": 3}})", "socm", "socm_constant", "finetune.regression.matrices"},
      {R"("regression": {"value": {"hidden": 32}})", "stein", "adjoint_matching", "finetune.regression.value"},
      {R"("regression": {"value": {"pairs": 2}})", "stein", "pi_ft", "finetune.regression.value.pairs"},
  };
  for (const auto& c : cases) {
    expect_taken(c.taken_by, c.keys);
    expect_refused(c.refused_by, c.keys, c.words);
  }
}

TEST(RegressionConfig, KeysOfOtherSettingsAreRefused) {
  expect_taken("pi_ft", R"("regression": {"value": {"contraction_every": 5, "damping": true}})");
  expect_refused("pi_ft", R"("regression": {"value": {"damping": true}})", "contraction_every above 0");
  expect_refused("pi_ft", R"("regression": {"value": {"target": "monte_carlo", "target_decay": 0.5}})", "target = td");
  expect_taken("adjoint_matching", R"("regression": {"replay": {"size": 512, "weighted": true, "least_ess": 0.5}})");
  expect_refused("adjoint_matching", R"("regression": {"replay": {"passes": 3}})", "replay.size above 0");
  expect_refused("adjoint_matching", R"("regression": {"replay": {"size": 512, "least_ess": 0.5}})", "replay.weighted");
}

}  // namespace
}  // namespace costate::cli
