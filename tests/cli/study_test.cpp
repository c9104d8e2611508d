// costate study: what is predicted is measured, exact methods have the same bits, and a wrong file is named.
#include <gtest/gtest.h>

#include <filesystem>

#include "cli/program.h"
#include "study/study.h"

namespace costate::cli {
namespace {

using testing::contents;
using testing::costate;
using testing::Folder;
using testing::Result;

const char* const tiny_study = R"({
  "name": "tiny", "rounds": 1, "threads": 2, "steps": [4, 9],
  "processes": ["chain", {"solver": "heun", "inner": true}, {"solver": "reversible_heun", "sigma": 0.5, "inner": true}],
  "networks": [
    {"name": "points", "batch": 8, "config": {"data": {"kind": "mixture"}, "network": {"hidden": 16, "depth": 2}}},
    {"name": "pictures", "batch": 2, "config": {
      "data": {"kind": "glyphs", "resolution": 8},
      "network": {"kind": "dit", "dit": {"patch": 4, "hidden": 16, "depth": 1, "heads": 2}}}},
    {"name": "unet", "batch": 2, "recompute": true, "config": {
      "data": {"kind": "glyphs", "resolution": 8}, "prediction": "x1",
      "network": {"kind": "unet", "unet": {"channels": [8, 16], "layers": 1, "attention_levels": [1], "groups": 4}}}}
  ]})";

TEST(Study, EveryCellIsAsPredictedAndExactMethodsHaveTheSameBits) {
  const Folder folder;
  folder.file("study.json", tiny_study);
  const Result r = costate(folder, {"study", "study.json", "--out", "out", "--quiet", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json rows = Json::parse(r.out);
  int run = 0, refused = 0;
  for (const Json& row : rows) {
    if (row.contains("refusal")) {
      ++refused;
      continue;
    }
    ++run;
    EXPECT_EQ(row["predicted"], row["measured"]) << row.dump();
    const std::string method = row["method"];
    const double error = row["gradient_error"];
    if (sde::bitwise_exact(sde::adjoint_method(method))) {
      EXPECT_TRUE(row["bits_of_store_all"]) << row.dump();
    }
    // Single precision for exact methods; coarse steps of continuous ones are another gradient.
    EXPECT_LT(error, method == "backsolve" || method == "interpolated" ? 3.0 : 1e-4) << row.dump();
    EXPECT_GT(error, 0) << row.dump();
  }
  EXPECT_EQ(run + refused, 3 * 3 * 2 * 9);
  EXPECT_GE(run, 3 * 2 * (5 + 7 + 7));
  for (const char* file : {"report.html", "study.csv", "study.json", "config.resolved.json", "figures/pictures_heun_inner_times_memory_against_steps.svg"})
    EXPECT_TRUE(std::filesystem::exists(folder / (std::string("out/") + file))) << file;
  EXPECT_NE(contents(folder / "out/report.html").find("memory against time"), std::string::npos);
  // The resolved file is a study, the same one.
  const StudyConfig again = study_of(Json::parse(contents(folder / "out/config.resolved.json")));
  EXPECT_EQ(to_json(again).dump(), Json::parse(contents(folder / "out/config.resolved.json")).dump());
  // The plan alone.
  const Result plan = costate(folder, {"study", "study.json", "--plan", "--json"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  const Json planned = Json::parse(plan.out);
  ASSERT_EQ(planned.size(), rows.size());
  for (std::size_t i = 0; i < planned.size(); ++i)
    if (planned[i].contains("predicted")) {
      EXPECT_EQ(planned[i]["predicted"], rows[i]["predicted"]);
    }
  EXPECT_FALSE(std::filesystem::exists(folder / "runs"));
  const Result twice = costate(folder, {"study", "study.json", "--out", "out", "--quiet"});
  EXPECT_EQ(twice.code, 2);
  EXPECT_NE(twice.err.find("--overwrite"), std::string::npos);
}

// The shipped studies are good, and their cells can be predicted.
TEST(Study, ShippedStudiesCanBePlanned) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(COSTATE_SOURCE_DIR) + "/examples/studies")) {
    const Folder folder;
    const Result plan = costate(folder, {"study", entry.path().string(), "--plan", "--json"});
    ASSERT_EQ(plan.code, 0) << entry.path() << plan.err;
    EXPECT_GT(Json::parse(plan.out).size(), 100u);
    ++files;
  }
  EXPECT_GE(files, 1);
}

TEST(Study, WrongFilesAreNamed) {
  const Folder folder;
  const struct {
    const char* text;
    const char* expected;
  } cases[] = {
      {"[]", "expected an object"},
      {"{}", "networks: missing"},
      {R"({"networks": []})", "at least one entry"},
      {R"({"networks": [{"config": {}}], "step": [3]})", "did you mean 'steps'?"},
      {R"({"networks": [{"config": {}}], "steps": [0]})", "steps[0]: found"},
      {R"({"networks": [{"config": {}}], "methods": ["binomal"]})", "did you mean \"binomial\"?"},
      {R"({"networks": [{"config": {}}], "methods": [{"method": "binomial", "slot": 3}]})", "did you mean 'methods[0].slots'?"},
      {R"({"networks": [{"config": {}}], "methods": [{"method": "binomial", "slots": 0}]})", "expected an integer in [1"},
      {R"({"networks": [{"config": {}}], "processes": ["hoin"]})", "did you mean"},
      {R"({"networks": [{"config": {}}], "processes": [{"solver": "chain", "sigma": 1}]})", "sampler"},
      {R"({"networks": [{"config": {"network": {"hiden": 3}}}]})", "network.hidden"},
      {R"({"networks": [{"config": {}}, {"config": {}}]})", "twice"},
      {R"({"networks": [{"config": {}, "batch": -1}]})", "networks[0].batch"},
  };
  for (const auto& c : cases) {
    folder.file("wrong.json", c.text);
    const Result r = costate(folder, {"study", "wrong.json"});
    EXPECT_EQ(r.code, 2) << c.text << r.err;
    EXPECT_NE(r.err.find(c.expected), std::string::npos) << c.text << ": " << r.err;
  }
  EXPECT_EQ(costate(folder, {"study", "missing.json"}).code, 6);
}

}  // namespace
}  // namespace costate::cli
