// What evaluations promise: methods of sampling time, curves of checkpoints, and plans that stay exact with them.
#include <gtest/gtest.h>

#include <cmath>

#include <costate/tensor/error.h>

#include "config/json.h"
#include "program.h"
#include "run/csv_columns.h"

namespace costate::cli::testing {
namespace {

void expect_exact(const Folder& folder, const std::string& run) {
  const Result planned = costate(folder, {"plan", "config.json", "--json", "--threads", "2"});
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Json plan = Json::parse(planned.out)["stages"], record = Json::parse(contents(folder / (run + "/run.json")))["stages"];
  for (const auto& [stage, measured] : record.items())
    for (const char* what : {"peak", "evaluations", "flops"})
      EXPECT_EQ(plan[stage][what], measured[what]) << stage << " " << what;
}

Json searching(const std::string& text, const char* proposal) {
  Json config = Json::parse(text);
  Json& sample = config["sample"];
  sample["methods"] = {"smc", "best_of_n", "noise_optimisation"};
  sample["smc"] = {{"particles", 40}, {"proposal", proposal}, {"resample_below", 0.9}};
  sample["best_of_n"] = {{"n", 5}};
  sample["noise"] = {{"iterations", 6}, {"gamma", 0.1}, {"permutations", 4}};
  config["evaluate"]["methods"] = true;
  config["evaluate"]["checkpoints"] = true;
  config["finetune"]["checkpoint_every"] = 1;
  return config;
}

class Searching : public ::testing::TestWithParam<const char*> {};

// All methods and the curve, for points and for labelled pictures with guidance: plans are exact to the byte, the run is the
// same for any number of threads, and best of five is better than one.
TEST_P(Searching, IsPlannedExactlyAndTheSameForAnyThreads) {
  for (const std::string& text : {tiny_points, tiny_digits}) {
    const Folder folder;
    folder.file("config.json", searching(text, GetParam()).dump());
    for (const char* threads : {"1", "2"}) {
      const Result r =
          costate(folder, {"run", "config.json", "--quiet", "--out", std::string("run") + threads, "--threads", threads});
      ASSERT_EQ(r.code, 0) << r.err;
    }
    for (const char* file : {"evaluation.json", "curve.csv", "samples/methods.json", "samples/base_smc.npy",
                             "samples/tuned_best_of_n.npy", "samples/base_noise_optimisation.npy", "metrics.csv"}) {
      EXPECT_NE(contents(folder / (std::string("run1/") + file)), "") << file;
      EXPECT_EQ(contents(folder / (std::string("run1/") + file)), contents(folder / (std::string("run2/") + file))) << file;
    }
    expect_exact(folder, "run2");
    const Json e = Json::parse(contents(folder / "run1/evaluation.json"));
    const auto reward = [&](const std::string& set) { return e["samples"][set]["reward"]["value"].get<double>(); };
    EXPECT_GT(reward("base_best_of_n"), reward("base_sde"));
    EXPECT_GT(reward("tuned_best_of_n"), reward("tuned_sde"));
    EXPECT_GT(reward("base_noise_optimisation"), e["methods"]["base_noise_optimisation"]["reward_before"].get<double>());
    EXPECT_TRUE(e["methods"]["base_smc"]["log_z"].is_number());
    EXPECT_EQ(e["samples"].size(), 4u + 5u);

    const CsvColumns curve = read_csv_columns(folder / "run1/curve.csv");
    const Json config = Json::parse(contents(folder / "run1/config.resolved.json"));
    const auto iterations = config["finetune"]["iterations"].get<std::size_t>();
    ASSERT_EQ(curve.rows(), iterations);
    for (std::size_t i = 0; i < iterations; ++i) {
      EXPECT_EQ(curve.number("step", i), static_cast<double>(i + 1));
      EXPECT_TRUE(std::isfinite(curve.number("reward", i)) && curve.number("vendi", i) >= 1) << i;
    }
    // The last row is the evaluated model, and what it cost is what the stage counted.
    const Json record = Json::parse(contents(folder / "run1/run.json"))["stages"]["finetune"]["evaluations"];
    EXPECT_EQ(curve.number("reward", iterations - 1), reward("tuned_sde"));
    EXPECT_EQ(curve.number("path_kl", iterations - 1), e["path_kl"]["control_cost"]["value"].get<double>());
    EXPECT_EQ(curve.number("reward_queries", iterations - 1), record["rewards"].get<double>());
    EXPECT_EQ(curve.number("evaluations", iterations - 1),
              record["plain"].get<double>() + record["state"].get<double>() + record["parameters"].get<double>());
    // One row of the metrics every second update: between them in proportion.
    EXPECT_NEAR(curve.number("reward_queries", 0), record["rewards"].get<double>() / static_cast<double>(iterations), 1e-9);
  }
}
INSTANTIATE_TEST_SUITE_P(Evaluation, Searching, ::testing::Values("guided", "tuned"),
                         [](const auto& p) { return std::string(p.param); });

TEST(Evaluation, HasTheNumbersOfTheControlAndOfDiversity) {
  const Folder folder;
  for (const auto& [name, text] : {std::pair{std::string("points"), tiny_points}, {std::string("digits"), tiny_digits}}) {
    folder.file(name + ".json", text);
    const Result r = costate(folder, {"run", name + ".json", "--quiet", "--out", name});
    ASSERT_EQ(r.code, 0) << r.err;
    const Json e = Json::parse(contents(folder / (name + "/evaluation.json")));
    const Json& control = e["control"];
    const double kl = e["path_kl"]["control_cost"]["value"].get<double>(),
                 reward = e["samples"]["tuned_sde"]["reward"]["value"].get<double>();
    EXPECT_NEAR(control["objective"]["value"].get<double>(), (name == "digits" ? 2 : 1) * reward - kl, 1e-9);
    EXPECT_GT(control["effective_share_of_tuned"].get<double>(), 0);
    EXPECT_LE(control["effective_share_of_tuned"].get<double>(), 1);
    EXPECT_GE(control["variance_of_log_weights"].get<double>(), 0);
    for (const char* set : {"base_sde", "tuned_sde", "tuned_ode"}) {
      const Json& s = e["samples"][set];
      for (const char* key : {"vendi", "frechet_to_data", "precision", "recall"})
        EXPECT_TRUE(s[key].is_number()) << set << " " << key;
      EXPECT_EQ(s.contains("frechet_to_reweighted_base"), std::string(set) != "base_sde");
      EXPECT_EQ(s.contains("class_entropy"), name == "digits");
      EXPECT_EQ(s.contains("modes_covered"), name == "points");
    }
    // Of one sample: the mean; of more, more; 1, 2, 4, 8 are up to an eighth of 70 and of 90.
    const Json& best = e["best_of_n_of_base"];
    EXPECT_EQ(best["n"], Json({1, 2, 4, 8}));
    EXPECT_NEAR(best["reward"][0].get<double>(), e["samples"]["base_sde"]["reward"]["value"].get<double>(), 1e-9);
    for (std::size_t i = 1; i < 4; ++i) EXPECT_GT(best["reward"][i].get<double>(), best["reward"][i - 1].get<double>());
    EXPECT_TRUE(e["features"]["frechet_between_halves_of_base"].is_number());
    EXPECT_EQ(e["features"]["kind"], name == "digits" ? "judge" : "values");
  }
}

TEST(Evaluation, RefusesWhatIsNotThere) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  const auto refused = [&](const std::string& setting, const std::string& words) {
    const Result r = costate(folder, {"plan", "config.json", "--set", setting});
    EXPECT_EQ(r.code, 2) << setting;
    EXPECT_NE(r.err.find(words), std::string::npos) << r.err;
  };
  refused("evaluate.checkpoints=true", "finetune.checkpoint_every is 0");
  refused("evaluate.methods=true", "sample.methods is []");
  refused("sample.methods=[\"mcmc\"]", "noise_optimisation");
  refused("sample.methods=[\"smc\", \"smc\"]", "twice");
  refused("sample.smc.particles=10", "applies to smc only");
  refused("sample.best_of_n.n=10", "applies to best_of_n only");
  refused("sample.noise.lr=0.5", "applies to noise_optimisation only");
  refused("sample.smc.resample_below=2", "in [0, 1]");
  refused("evaluate.vendi.order=0", "above 0");
  folder.file("plain.json", R"({"sample": {"methods": ["smc"]}})");
  EXPECT_NE(costate(folder, {"plan", "plain.json"}).err.find("there is no reward"), std::string::npos);
}

TEST(CsvColumns, ReadsNumbersAndRefusesRaggedRows) {
  const CsvColumns t("stage,step,loss\nfinetune,1,0.5\npretrain,2,\n", "it");
  EXPECT_EQ(t.rows(), 2u);
  EXPECT_EQ(t.text("stage", 1), "pretrain");
  EXPECT_EQ(t.number("loss", 0), 0.5);
  EXPECT_TRUE(std::isnan(t.number("loss", 1)));
  EXPECT_FALSE(t.has("gold"));
  EXPECT_THROW(t.number("gold", 0), Error);
  EXPECT_THROW(t.number("stage", 0), Error);
  EXPECT_THROW(CsvColumns("a,b\n1\n", "it"), Error);
}

}  // namespace
}  // namespace costate::cli::testing
