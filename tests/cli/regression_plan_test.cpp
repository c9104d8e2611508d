// Plans of the objectives that regress on a gradient of the value are exact: peak bytes, evaluations and operations of a tiny
// run, with replay and measurements of the contraction, whose iterations differ.
#include <gtest/gtest.h>

#include "config/json.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

TEST(RegressionPlan, IsExact) {
  const Folder folder;
  const auto write = [&](const std::string& finetune) {
    folder.file("config.json", R"({"data": {"kind": "moons", "count": 300}, "network": {"hidden": 8, "depth": 1},
      "pretrain": {"iterations": 3, "batch": 16}, "reward": {"kind": "linear", "coefficients": [1, 0.5]},
      "sampler": {"steps": 7}, "finetune": {"iterations": 11, "batch": 40, )" + finetune + "}}");
  };
  write(R"("objective": "adjoint_matching")");
  ASSERT_EQ(costate(folder, {"pretrain", "config.json", "--quiet", "--out", "run"}).code, 0);
  for (const std::string finetune : {
           R"("objective": "adjoint_matching", "early_steps": 2, "late_steps": 2, "regression": {"replay": {"size": 80}})",
           R"("objective": "adjoint_matching",
              "regression": {"replay": {"size": 40, "passes": 3, "weighted": true, "least_ess": 0}})",
           R"("objective": "adjoint_matching", "early_steps": 1, "late_steps": 2)",
           R"("objective": "continuous_adjoint", "early_steps": 1, "late_steps": 2)",
           R"("objective": "discrete_adjoint", "early_steps": 1, "late_steps": 2, "pairing": "same")",
           R"("objective": "socm_adjoint", "early_steps": 2, "late_steps": 2)",
           R"("objective": "socm", "late_steps": 3)",
           R"("objective": "stein", "early_steps": 2, "late_steps": 2)",
           R"("objective": "discrete_adjoint", "micro_batch": 16, "pairing": "same")",
           R"("objective": "continuous_adjoint", "late_steps": 3)", R"("objective": "socm")", R"("objective": "socm_constant")",
           R"("objective": "socm_adjoint", "late_steps": 2)",
           R"("objective": "pi_ft", "regression": {"value": {"contraction_every": 4, "form": "skip"}})",
           R"("objective": "pi_ft", "regression": {"value": {"contraction_every": 2}, "replay": {"size": 120, "passes": 1}})",
           R"("objective": "stein", "regression": {"value": {"pairs": 2}})"}) {
    write(finetune);
    const Result planned = costate(folder, {"plan", "config.json", "--json"});
    ASSERT_EQ(planned.code, 0) << finetune << planned.err;
    const Result r = costate(folder, {"finetune", "config.json", "--quiet", "--overwrite", "--out", "run"});
    ASSERT_EQ(r.code, 0) << finetune << r.err;
    const Json predicted = Json::parse(planned.out)["stages"]["finetune"],
               measured = Json::parse(contents(folder / "run/run.json"))["stages"]["finetune"];
    for (const char* key : {"peak", "evaluations", "flops"}) EXPECT_EQ(predicted[key], measured[key]) << finetune << key;
  }
}

}  // namespace
}  // namespace costate::cli::testing
