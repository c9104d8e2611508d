// costate compare: on directories made by hand, whose statistics are known, and on real runs.
#include "compare/compare.h"

#include <costate/finetune/data/file.h>
#include <costate/finetune/data/npy.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "config/read.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

// A run directory as an evaluated run leaves it, with these numbers.
struct Made {
  std::string name;
  std::int64_t seed = 0;
  double multiplier = 1, reward = 0, kl = 0;
  bool evaluated = true;
  double gold = NAN;
};
std::string make(const Folder& folder, const Made& m) {
  const std::string path = folder / m.name;
  fs::create_directory(path);
  const auto write = [&](const char* file, const std::string& text) { folder.file(m.name + "/" + file, text); };
  const Config config = read_config_text(tiny_points, "test",
                                         {"seed=" + std::to_string(m.seed), "name=" + m.name, "out=" + path,
                                          "reward.multiplier=" + std::to_string(m.multiplier)})
                            .config;
  write("config.resolved.json", to_json(config).dump());
  Json record{{"stages",
               {{"finetune",
                 {{"seconds", 2.5},
                  {"peak", {{"bytes", 3 * 1024 * 1024}}},
                  {"evaluations", {{"plain", 1000}, {"state", 200}, {"parameters", 34}, {"rewards", 70}}}}}}}};
  if (m.evaluated) record["stages"]["evaluate"] = {{"seconds", 1.0}};
  write("run.json", record.dump());
  if (m.evaluated) {
    Json evaluation;
    evaluation["samples"]["tuned_sde"] = {{"reward", {{"value", m.reward}, {"standard_error", 0.1}}}, {"vendi", 3.0}};
    if (std::isfinite(m.gold)) evaluation["samples"]["tuned_sde"]["gold_reward"] = {{"value", m.gold}, {"standard_error", 0.1}};
    evaluation["path_kl"]["control_cost"] = {{"value", m.kl}, {"standard_error", nullptr}};
    write("evaluation.json", evaluation.dump());
  }
  const double r = m.reward;
  write("metrics.csv", "stage,step,reward,control_cost,reward_queries,evaluations\npretrain,1,,,,\nfinetune,1," +
                           std::to_string(r / 2) + ",0.1,35,600\nfinetune,2," + std::to_string(r) + ",0.2,70,1234\n");
  return path;
}

TEST(Compare, GroupsSeedsAndHasTheirStatistics) {
  const Folder folder;
  const std::vector<std::string> paths{
      make(folder, {.name = "a", .seed = 1, .reward = 1, .kl = 0.5}),
      make(folder, {.name = "b", .seed = 2, .reward = 4, .kl = 0.7}),
      make(folder, {.name = "c", .seed = 3, .reward = 7, .kl = 0.9}),
      make(folder, {.name = "d", .seed = 1, .multiplier = 5, .reward = 9, .kl = 2, .gold = -1}),
      make(folder, {.name = "e", .seed = 2, .reward = 8, .evaluated = false}),
      make(folder, {.name = "f", .seed = 3, .reward = 100})};
  const Comparison c = compare_runs(paths);
  ASSERT_EQ(c.groups.size(), 2u);
  EXPECT_EQ(c.groups[0].runs.size(), 3u);
  EXPECT_EQ(c.groups[0].label, "adjoint_matching, reward.multiplier=1.0");
  EXPECT_EQ(c.groups[1].label, "adjoint_matching, reward.multiplier=5.0");
  ASSERT_EQ(c.left_out.size(), 2u);
  EXPECT_NE(c.left_out[0].find("it was not evaluated"), std::string::npos);
  EXPECT_NE(c.left_out[1].find("the seed, 3, of '" + paths[2] + "'"), std::string::npos) << c.left_out[1];
  const Spread reward = spread(c.groups[0], "reward").value();
  EXPECT_EQ(reward.runs, 3);
  EXPECT_DOUBLE_EQ(reward.mean, 4);
  EXPECT_DOUBLE_EQ(reward.standard_error, std::sqrt(3.0));  // deviation 3 over the root of 3
  EXPECT_EQ(reward.low, 1);
  EXPECT_EQ(reward.high, 7);
  EXPECT_DOUBLE_EQ(spread(c.groups[0], "evaluations")->mean, 1234);
  EXPECT_DOUBLE_EQ(spread(c.groups[0], "reward_queries")->mean, 70);
  EXPECT_DOUBLE_EQ(spread(c.groups[0], "peak_mib")->mean, 3);
  EXPECT_FALSE(spread(c.groups[0], "gold_reward").has_value());
  EXPECT_DOUBLE_EQ(spread(c.groups[1], "gold_reward")->mean, -1);
  EXPECT_TRUE(std::isnan(spread(c.groups[1], "gold_reward")->standard_error));

  const report::Series curve = mean_curve(c.groups[0], &ComparedRun::metrics, "finetune", "evaluations", "reward");
  EXPECT_EQ(curve.xs, (std::vector<double>{600, 1234}));
  ASSERT_EQ(curve.ys.size(), 2u);
  EXPECT_DOUBLE_EQ(curve.ys[0], 2);
  EXPECT_DOUBLE_EQ(curve.errors[1], std::sqrt(3.0));
  EXPECT_TRUE(mean_curve(c.groups[0], &ComparedRun::metrics, "finetune", "evaluations", "control_error").xs.empty());
  EXPECT_TRUE(mean_curve(c.groups[0], &ComparedRun::curve, "", "path_kl", "reward").xs.empty());

  const std::string page = report::html(comparison_report(c));
  for (const char* words : {"reward against reward queries", "path KL against network evaluations", "Reward against path KL",
                            "Gold against proxy", "class=\"band s0\"", "is left out"})
    EXPECT_NE(page.find(words), std::string::npos) << words;
  EXPECT_EQ(page.find("control error against"), std::string::npos);  // nobody logged it
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_NE(comparison_table(c).find("4 +- 1.732"), std::string::npos) << comparison_table(c);
  // Labels with commas are quoted; a row a run.
  const std::string csv = comparison_csv(c);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 4);
  EXPECT_NE(csv.find("\"adjoint_matching, reward.multiplier=5.0\",adjoint_matching," + paths[3] + ",d,1,9,-1,2,"),
            std::string::npos)
      << csv;
}

TEST(Compare, IgnoresKeysThatItIsTold) {
  const Folder folder;
  const std::vector<std::string> paths{make(folder, {.name = "a", .seed = 1, .reward = 1}),
                                       make(folder, {.name = "b", .seed = 2, .multiplier = 5, .reward = 4})};
  EXPECT_EQ(compare_runs(paths).groups.size(), 2u);
  for (const char* key : {"reward.multiplier", "reward"}) {
    const Comparison c = compare_runs(paths, {key});
    ASSERT_EQ(c.groups.size(), 1u) << key;
    EXPECT_DOUBLE_EQ(spread(c.groups[0], "reward")->mean, 2.5);
    EXPECT_NE(report::html(comparison_report(c)).find(std::string("may differ in ") + key), std::string::npos);
    EXPECT_EQ(to_json(c)["ignored"], Json(std::vector<std::string>{key}));
  }
  const Result r = costate(folder, {"compare", "a", "b", "--ignore", "reward.multiplier", "--ignore", "reward.multiplyer"});
  EXPECT_EQ(r.code, 2);
  EXPECT_NE(r.err.find("no setting of these runs has the key 'reward.multiplyer'"), std::string::npos) << r.err;
}

TEST(Compare, RefusesInWords) {
  const Folder folder;
  const auto refused = [&](const std::vector<std::string>& runs, const std::string& words, int code) {
    std::vector<std::string> arguments{"compare"};
    arguments.insert(arguments.end(), runs.begin(), runs.end());
    const Result r = costate(folder, arguments);
    EXPECT_EQ(r.code, code) << r.err;
    EXPECT_NE(r.err.find(words), std::string::npos) << r.err;
  };
  fs::create_directory(folder / "empty");
  make(folder, {.name = "good", .reward = 1});
  make(folder, {.name = "unfinished", .evaluated = false});
  make(folder, {.name = "broken", .reward = 1});
  folder.file("broken/evaluation.json", "{\"samples\": ");
  make(folder, {.name = "ragged", .reward = 1});
  folder.file("ragged/metrics.csv", "stage,step\nfinetune\n");
  refused({"nowhere"}, "'nowhere' is not a directory", 6);
  refused({"good", "empty"}, "'empty' is not a run directory", 2);
  refused({"broken"}, "broken/evaluation.json", 3);
  refused({"ragged"}, "1 cells, but the head has 2", 3);
  refused({"unfinished"}, "there is nothing to compare; 'unfinished' is left out", 2);
  refused({}, "runs", 2);
  refused({"good", "--out", "empty/../good"}, "holds something else than a comparison", 2);
  // What is left out is said on stderr, and the rest is compared.
  const Result r = costate(folder, {"compare", "good", "unfinished", "--out", "page"});
  EXPECT_EQ(r.code, 0);
  EXPECT_NE(r.err.find("note: 'unfinished' is left out"), std::string::npos) << r.err;
  for (const char* file : {"compare.csv", "compare.json", "report.html"})
    EXPECT_TRUE(fs::exists(folder / (std::string("page/") + file)));
  refused({"good", "--out", "page"}, "--overwrite", 2);
  EXPECT_EQ(costate(folder, {"compare", "good", "--out", "page", "--overwrite"}).code, 0);
}

// Real runs: two seeds of one setting with checkpoints evaluated, and another setting.
TEST(Compare, RealRuns) {
  const Folder folder;
  Json config = Json::parse(tiny_points);
  config["finetune"]["checkpoint_every"] = 2;
  config["evaluate"]["checkpoints"] = true;
  folder.file("config.json", config.dump());
  for (const auto& [out, settings] : std::initializer_list<std::pair<std::string, std::vector<std::string>>>{
           {"s1", {"seed=1"}}, {"s2", {"seed=2"}}, {"strong", {"seed=1", "reward.multiplier=3"}}}) {
    std::vector<std::string> arguments{"run", "config.json", "--quiet", "--out", out};
    for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
    const Result r = costate(folder, arguments);
    ASSERT_EQ(r.code, 0) << r.err;
  }
  const Result r = costate(folder, {"compare", "s1", "s2", "strong", "--out", "page", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err, "");
  const Json found = Json::parse(r.out);
  EXPECT_EQ(found, Json::parse(contents(folder / "page/compare.json")));
  ASSERT_EQ(found["settings"].size(), 2u);
  EXPECT_EQ(found["settings"][0]["seeds"], Json({1, 2}));
  EXPECT_EQ(found["settings"][1]["label"], "adjoint_matching, reward.multiplier=3.0");
  double mean = 0;
  for (const char* run : {"s1", "s2"})
    mean += Json::parse(contents(folder / (std::string(run) + "/evaluation.json")))["samples"]["tuned_sde"]["reward"]["value"]
                .get<double>() /
            2;
  EXPECT_NEAR(found["settings"][0]["numbers"]["reward"]["mean"].get<double>(), mean, 1e-12);
  for (const char* key : {"reward", "path_kl", "objective", "gap", "vendi", "frechet", "w1", "reward_queries", "evaluations",
                          "seconds", "peak_mib"})
    EXPECT_TRUE(found["settings"][1]["numbers"][key]["mean"].is_number()) << key;
  // 5 updates of 40 trajectories: a reward query each.
  EXPECT_EQ(found["settings"][0]["numbers"]["reward_queries"]["mean"], 200.0);
  const std::string page = contents(folder / "page/report.html");
  EXPECT_NE(page.find("Reward against diversity"), std::string::npos);
  EXPECT_NE(page.find("best of n of the base"), std::string::npos);
  EXPECT_NE(page.find("class=\"line s1\""), std::string::npos);
}

// Two settings of one proxy, the judge as gold: the gold reward in the table, as a curve against both costs, against the proxy
// and the path KL, and every setting under every reward.
TEST(Compare, GoldOfRealRuns) {
  const Folder folder;
  Json config = Json::parse(tiny_digits);
  config["gold"] = {{"kind", "classifier"}, {"targets", {3, 8}}};
  config["finetune"]["checkpoint_every"] = 2;
  config["evaluate"]["checkpoints"] = true;
  folder.file("config.json", config.dump());
  for (const auto& [out, settings] : std::initializer_list<std::pair<std::string, std::vector<std::string>>>{
           {"s1", {"seed=1"}}, {"s2", {"seed=2"}}, {"bright", {"seed=1", "reward.kind=brightness", "reward.targets=[]"}}}) {
    std::vector<std::string> arguments{"run", "config.json", "--quiet", "--out", out};
    for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
    const Result r = costate(folder, arguments);
    ASSERT_EQ(r.code, 0) << r.err;
    const CsvColumns curve = read_csv_columns(folder / (out + "/curve.csv"));
    const Json e = Json::parse(contents(folder / (out + "/evaluation.json")));
    ASSERT_EQ(curve.rows(), 2u);
    EXPECT_EQ(curve.number("gold_reward", 1), e["samples"]["tuned_sde"]["gold_reward"]["value"].get<double>());
    EXPECT_EQ(curve.number("failed_rewards", 1), 0);
  }
  const Result r = costate(folder, {"compare", "s1", "s2", "bright", "--out", "page", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json found = Json::parse(r.out);
  ASSERT_EQ(found["settings"].size(), 2u);
  for (const Json& setting : found["settings"]) EXPECT_TRUE(setting["numbers"]["gold_reward"]["mean"].is_number());
  // Columns: the classifier, brightness, and the judge, which is one for both as its data and seed are. Rows: both settings.
  const Json& cross = found["cross_rewards"];
  EXPECT_EQ(cross["rewards"], Json({"classifier", "brightness", "gold: classifier"}));
  EXPECT_EQ(cross["notes"], Json::array());
  ASSERT_EQ(cross["means"].size(), 2u);
  for (const Json& row : cross["means"]) {
    ASSERT_EQ(row.size(), 3u);
    for (const Json& cell : row) EXPECT_TRUE(cell["mean"].is_number()) << cross.dump();
  }
  EXPECT_EQ(cross["means"][0][0]["runs"], 2);
  // Mean brightness of the samples that were kept, by hand.
  const std::vector<std::byte> bytes = data::read_file(folder / "bright/samples/tuned_sde.npy");
  const std::vector<float> values = data::npy_values<float>(data::parse_npy(bytes, "samples"), "samples");
  double mean = 0;
  for (const float v : values) mean += (2 * static_cast<double>(v) - 1) / static_cast<double>(values.size());
  EXPECT_NEAR(cross["means"][1][1]["mean"].get<double>(), mean, 1e-5);
  const std::string page = contents(folder / "page/report.html");
  for (const char* words : {"Gold against proxy", "Gold against path KL", "gold reward of checkpoints against reward queries",
                            "gold reward of checkpoints against network evaluations", "reward of checkpoints against",
                            "What fine-tuning on one reward does to the others"})
    EXPECT_NE(page.find(words), std::string::npos) << words;
  const std::string csv = contents(folder / "page/compare.csv");
  EXPECT_NE(csv.find(",gold_reward,"), std::string::npos);
  EXPECT_NE(contents(folder / "s1/summary.md").find("gold reward"), std::string::npos);

  // What cannot be read is said, and the rest is there.
  fs::remove(folder / "s1/checkpoints/reward_classifier.safetensors");
  fs::remove(folder / "bright/samples/tuned_sde.npy");
  const Result less = costate(folder, {"compare", "s1", "bright"});
  EXPECT_EQ(less.code, 0) << less.err;
  EXPECT_NE(less.out.find("The reward 'classifier' is left out"), std::string::npos) << less.out;
  EXPECT_NE(less.out.find("'bright' is left out of the table of all rewards"), std::string::npos) << less.out;
}

}  // namespace
}  // namespace costate::cli::testing
