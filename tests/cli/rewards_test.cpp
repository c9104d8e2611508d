// The sections `reward` and `gold`: what their words make, what is refused, and runs with them.
#include "rewards.h"

#include <gtest/gtest.h>

#include <jpeglib.h>

#include <cmath>

#include "build.h"
#include "config/read.h"
#include "image/jpeg.h"
#include "program.h"
#include "stages/stages.h"

namespace costate::cli::testing {
namespace {

void expect_refused(const std::string& text, std::initializer_list<const char*> words) {
  try {
    read_config_text(text, "test", {});
    ADD_FAILURE() << "no error for " << text;
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    for (const char* w : words)
      EXPECT_NE(std::string(e.what()).find(w), std::string::npos) << "'" << w << "' is not in: " << e.what();
  }
}

TEST(RewardConfig, WhatAKindDoesNotLookAtIsRefused) {
  const auto reward = [](const std::string& keys) { return R"({"reward": {)" + keys + "}}"; };
  expect_refused(reward(R"("kind": "brightness", "coefficients": [1])"), {"reward.coefficients", "'brightness'"});
  expect_refused(reward(R"("kind": "linear", "coefficients": [1], "scale": 2)"), {"reward.scale", "brightness, symmetry"});
  expect_refused(reward(R"("kind": "brightness", "axis": "up_down")"), {"reward.axis", "symmetry"});
  expect_refused(reward(R"("kind": "brightness", "smoothing": 1)"), {"reward.smoothing"});
  expect_refused(reward(R"("kind": "brightness", "scale": 0)"), {"reward.scale: found 0"});
  expect_refused(reward(R"("kind": "symmetry", "quality": 50)"), {"reward.quality", "jpeg_compressibility"});
  expect_refused(reward(R"("kind": "symmetry", "command": ["x"])"), {"reward.command", "command reward"});
  expect_refused(reward(R"("kind": "command")"), {"reward.command: found []"});
  expect_refused(
      reward(R"("kind": "log_density", "numerator": {"means": [[0]], "variances": [1]}, "denominator": {"means": [[0]]})"),
      {"reward.denominator", "ratio"});
  expect_refused(reward(R"("kind": "brightness", "clip": [0, 1])"), {"reward.clip", "on_failure is 'stop'"});
  expect_refused(reward(R"("kind": "brightness", "on_failure": "clip")"), {"reward.clip: found 0 numbers"});
  expect_refused(reward(R"("kind": "brightness", "on_failure": "clip", "clip": [1, 0])"), {"the lower one first"});
  expect_refused(reward(R"("on_failure": "skip")"), {"reward.on_failure", "'none'"});
  expect_refused(reward(R"("kind": "linear", "coefficients": [1], "bump": {"amount": 2})"), {"reward.bump.centre: found []"});
  expect_refused(reward(R"("kind": "linear", "coefficients": [1], "bump": {"centre": [2]})"), {"reward.bump.amount is 0"});
  expect_refused(reward(R"("kind": "linear", "coefficients": [1], "ensemble": {"members": 3})"),
                 {"reward.ensemble.members", "classifier"});
  expect_refused(reward(R"("kind": "classifier", "targets": [1], "ensemble": {"rule": "mean"})"),
                 {"reward.ensemble", "members is 1"});
  expect_refused(
      reward(R"("kind": "classifier", "targets": [1], "ensemble": {"members": 2, "rule": "mean", "coefficient": 2})"),
      {"reward.ensemble.coefficient"});
  expect_refused(reward(R"("kind": "brightness", "f_divergence": {"alpha": 2})"), {"reward.f_divergence", "'none'"});
  expect_refused(reward(R"("kind": "brightness", "f_divergence": {"kind": "pearson", "alpha": 2})"),
                 {"reward.f_divergence.alpha"});
  expect_refused(reward(R"("kind": "brightness", "f_divergence": {"kind": "total_variation"})"), {"reward.f_divergence.kind"});
  expect_refused(reward(R"("kind": "brightness", "multiplier": 0, "f_divergence": {"kind": "pearson"})"),
                 {"reward.multiplier"});
  expect_refused(R"({"gold": {"kind": "linear"}})", {"gold.coefficients: found []"});
  expect_refused(R"({"gold": {"kind": "linear", "coefficients": [1], "multiplier": 2}})", {"gold.multiplier", "no such key"});
  expect_refused(R"({"gold": {"kind": "classifier", "targets": [1]}})", {"gold.kind", "data.held_out"});
  expect_refused(R"({"gold": {"targets": [1]}})", {"gold.targets", "'none'"});
}

finetune::Reward reward_of(const std::string& keys, const data::Dataset& data) {
  const RewardConfig c = read_config_text(R"({"reward": {)" + keys + "}}", "test", {}).config.reward;
  return make_reward(c, data, {});
}
data::Dataset pictures(std::vector<std::int64_t> shape) {
  data::Dataset d;
  d.item_shape = std::move(shape), d.description = "pictures", d.count = 1, d.classes = 2;
  d.scale = 0.5, d.offset = 0.5;  // [-1, 1] is [0, 1] of the source
  return d;
}

TEST(RewardConfig, MakesTheRewardsOfItsWords) {
  const data::Dataset data = pictures({2, 3, 1});
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 4, 0, 3, 5}, {1, 2, 3, 1});
  EXPECT_EQ(reward_of(R"("kind": "brightness", "scale": -2)", data)(x).item(), -5);
  EXPECT_FLOAT_EQ(reward_of(R"("kind": "symmetry")", data)(x).item(), -68 / 6.0f);
  EXPECT_EQ(reward_of(R"("kind": "symmetry", "axis": "up_down")", data)(x).item(), -1);
  EXPECT_NEAR(reward_of(R"("kind": "total_variation", "smoothing": 1e-6, "scale": 6)", data)(x).item(), -11, 1e-4);
  EXPECT_EQ(reward_of(R"("kind": "linear", "coefficients": [1, 0, 0, 0, 0, 0])", data)(x).item(), 1);
  EXPECT_NEAR(
      reward_of(R"("kind": "log_density", "numerator": {"means": [[1, 2, 4, 0, 3, 5]], "variances": [0.5]})", data)(x).item(),
      -3 * std::log(M_PI), 1e-5);
  const finetune::Reward bumped = reward_of(
      R"("kind": "brightness", "bump": {"amount": 3, "centre": [1, 2, 4, 0, 3, 5], "width": 0.1}, )"
                R"("on_failure": "clip", "clip": [-1, 4])",
      data);
  EXPECT_FLOAT_EQ(bumped(x).item(), 5.5f);
  EXPECT_EQ(bumped.scores(x, false).value.item(), 4);
  EXPECT_EQ(reward_of(R"("kind": "brightness", "on_failure": "skip")", data).on_failure, finetune::Reward::Policy::skip);
  const finetune::Reward command =
      reward_of(R"("kind": "command", "command": ["no-such-program", "-x"], "command_gradient": true)", data);
  EXPECT_EQ(command.name, "no-such-program -x");
  EXPECT_TRUE(command.differentiable());
  EXPECT_THROW(reward_of(R"("kind": "brightness")", pictures({2})), Error);
  EXPECT_THROW(reward_of(R"("kind": "jpeg_compressibility")", pictures({2, 2, 2})), Error);
}

// libjpeg's own reader gives the picture back.
std::vector<std::uint8_t> decoded(const std::vector<std::byte>& bytes, std::int64_t& width, std::int64_t& height,
                                  int& channels) {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  EXPECT_EQ(jpeg_read_header(&jpeg, TRUE), JPEG_HEADER_OK);
  jpeg_start_decompress(&jpeg);
  width = jpeg.output_width, height = jpeg.output_height, channels = jpeg.output_components;
  std::vector<std::uint8_t> out(static_cast<std::size_t>(width * height * channels));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = out.data() + static_cast<std::size_t>(jpeg.output_scanline * width * channels);
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  return out;
}

TEST(Jpeg, FilesHoldThePicture) {
  for (const int channels : {1, 3}) {
    Raster r{21, 34, channels, {}};
    for (std::int64_t i = 0; i < r.height; ++i)
      for (std::int64_t j = 0; j < r.width; ++j)
        for (int c = 0; c < channels; ++c) r.pixels.push_back(static_cast<std::uint8_t>(3 * i + 4 * j + 20));
    std::int64_t width = 0, height = 0;
    int found = 0;
    const auto back = decoded(jpeg_bytes(r, 95), width, height, found);
    ASSERT_TRUE(width == 34 && height == 21 && found == channels);
    int worst = 0;
    for (std::size_t i = 0; i < back.size(); ++i) worst = std::max(worst, std::abs(back[i] - r.pixels[i]));
    // A smooth picture at quality 95: quantisation steps of at most 10 in 64 coefficients, few of which are not zero.
    EXPECT_LE(worst, 6) << channels;
    EXPECT_LT(jpeg_bytes(r, 10).size(), jpeg_bytes(r, 95).size());
    EXPECT_EQ(jpeg_bytes(r, 70), jpeg_bytes(r, 70));
  }
  EXPECT_THROW(jpeg_bytes({0, 4, 1, {}}, 90), Error);
  EXPECT_THROW(jpeg_bytes({1, 1, 1, {0}}, 0), Error);
  EXPECT_THROW(jpeg_bytes({1, 1, 2, {0, 0}}, 90), Error);
  EXPECT_THROW(jpeg_bytes({2, 2, 1, {0}}, 90), Error);
}

TEST(Jpeg, RewardsAreSizesOfFiles) {
  const data::Dataset data = pictures({16, 16, 1});
  const finetune::Reward small = reward_of(R"("kind": "jpeg_compressibility")", data),
                         large = reward_of(R"("kind": "jpeg_incompressibility", "quality": 30)", data);
  EXPECT_FALSE(small.differentiable());
  std::vector<float> x;  // a flat picture, noise, a picture with a number that is none
  for (int i = 0; i < 3 * 256; ++i) x.push_back(i < 256 ? 0.2f : static_cast<float>(std::sin(i * i)));
  x[600] = NAN;
  const Tensor batch = Tensor::from(x, {3, 16, 16, 1});
  const std::vector<double> v = small(batch).to_doubles(), w = large(batch).to_doubles();
  Raster flat{16, 16, 1, std::vector<std::uint8_t>(256, 153)};  // (0.2 + 1)/2 of 255
  EXPECT_FLOAT_EQ(v[0], -static_cast<float>(jpeg_bytes(flat, 95).size()) / 1000);
  EXPECT_FLOAT_EQ(w[0], static_cast<float>(jpeg_bytes(flat, 30).size()) / 1000);
  EXPECT_LT(v[1], v[0] - 0.1);
  EXPECT_GT(w[1], w[0] + 0.05);
  EXPECT_TRUE(std::isnan(v[2]));
}

// ---- runs

std::string with(const std::string& text, const std::string& section, const std::string& value) {
  Json config = Json::parse(text);
  config[section] = Json::parse(value);
  return config.dump();
}
Json planned_and_run(const Folder& folder, const std::string& text) {
  folder.file("config.json", text);
  const Result plan = costate(folder, {"plan", "config.json", "--json", "--threads", "2"});
  EXPECT_EQ(plan.code, 0) << plan.err;
  const Result run = costate(folder, {"run", "config.json", "--quiet", "--threads", "2", "--out", "run"});
  EXPECT_EQ(run.code, 0) << run.err;
  if (plan.code || run.code) return Json::object();
  const Json predicted = Json::parse(plan.out), record = Json::parse(contents(folder / "run/run.json"));
  for (const auto& [stage, measured] : record["stages"].items())
    for (const char* key : {"peak", "evaluations", "flops"})
      EXPECT_EQ(predicted["stages"][stage][key], measured[key]) << stage << " " << key;
  return Json::parse(contents(folder / "run/evaluation.json"));
}

TEST(RewardRun, AProxyWithItsGoldReward) {
  const Folder folder;
  const std::string gold = R"({"kind": "quadratic", "coefficients": [1, 0], "precision": [[0.5, 0.5]]})";
  std::string proxy = gold;
  proxy.insert(1, R"("bump": {"amount": 2, "centre": [1, 0.5], "width": 0.5}, )");
  const Json e = planned_and_run(folder, with(with(tiny_points, "reward", proxy), "gold", gold));
  ASSERT_TRUE(e.contains("samples"));
  for (const auto& [name, set] : e["samples"].items()) {
    EXPECT_TRUE(set["gold_reward"]["value"].is_number()) << name;
    EXPECT_GT(set["reward"]["value"].get<double>(), set["gold_reward"]["value"].get<double>()) << name;
  }
  EXPECT_TRUE(e["importance"]["tilted_gold_reward"]["value"].is_number());
  EXPECT_FALSE(e.contains("closed_form")) << "of the reward without its bump";
  EXPECT_NE(contents(folder / "run/summary.md").find("| gold reward"), std::string::npos);
}

TEST(RewardRun, AnEnsembleOfClassifiersAndTheJudgeAsGold) {
  const Folder folder;
  const Json e = planned_and_run(
      folder, with(with(tiny_digits, "reward",
                        R"({"kind": "classifier", "targets": [3, 8], "ensemble": {"members": 3, "coefficient": 2}})"),
                   "gold", R"({"kind": "classifier", "targets": [3, 8]})"));
  ASSERT_TRUE(e.contains("samples"));
  EXPECT_TRUE(e["samples"]["tuned_sde"]["gold_reward"]["value"].is_number());
  std::vector<std::string> bytes;
  for (std::int64_t i = 0; i < 3; ++i) bytes.push_back(contents(folder / ("run/" + member_checkpoint(i))));
  EXPECT_TRUE(!bytes[0].empty() && !bytes[1].empty() && !bytes[2].empty());
  EXPECT_TRUE(bytes[0] != bytes[1] && bytes[1] != bytes[2]);
  EXPECT_NE(contents(folder / "run/metrics.csv").find("\nreward_classifier_3,"), std::string::npos);
  const Result check = costate(folder, {"check-grad", "config.json", "--out", "run"});
  EXPECT_NE(check.out.find("ensemble of classifier reward"), std::string::npos) << check.out << check.err;
}

TEST(RewardRun, AnFDivergenceIsPartOfThePlan) {
  const Folder folder;
  Json reward = Json::parse(tiny_points)["reward"];
  reward["multiplier"] = 2;
  reward["f_divergence"] = {{"kind", "pearson"}, {"temperature", 3}, {"samples", 1500}};
  const Json e = planned_and_run(folder, with(tiny_points, "reward", reward.dump()));
  ASSERT_TRUE(e.contains("f_divergence"));
  const Json& f = e["f_divergence"];
  EXPECT_GT(f["multiplier"]["standard_error"].get<double>(), 0);
  // Duality, and the importance weights of other samples of the base, agree: the tilted law has the reward that was predicted.
  EXPECT_NEAR(f["value"].get<double>(), f["dual_value"].get<double>(), 1e-9);
  EXPECT_TRUE(e["samples"]["base_sde"]["transformed_reward"]["value"].is_number());
  // lambda r~ = log w*, so that Z = E_q[w*] = 1.
  EXPECT_NEAR(e["importance"]["log_z"]["value"].get<double>(), 0, 5 * e["importance"]["log_z"]["standard_error"].get<double>());
  EXPECT_FALSE(e.contains("closed_form"));
  // Reverse KL at temperature 1/multiplier is what there is without it, up to a constant.
  reward["f_divergence"] = {{"kind", "reverse_kl"}, {"samples", 1500}};
  const Folder other, plain;
  const Json kl = planned_and_run(other, with(tiny_points, "reward", reward.dump()));
  reward.erase("f_divergence");
  const Json without = planned_and_run(plain, with(tiny_points, "reward", reward.dump()));
  EXPECT_NEAR(kl["samples"]["tuned_sde"]["reward"]["value"].get<double>(),
              without["samples"]["tuned_sde"]["reward"]["value"].get<double>(), 1e-4);
  EXPECT_NEAR(kl["importance"]["kl_of_tilt"].get<double>(), without["importance"]["kl_of_tilt"].get<double>(), 1e-4);
}

// A program whose reward is 0 x_0 + 1 x_1 is the linear reward with these coefficients, to the bit.
TEST(RewardRun, AProgramThatScoresPoints) {
  const Folder program, linear;
  planned_and_run(program,
                  with(tiny_points, "reward",
                       R"({"kind": "command", "command": [")" COSTATE_SCORER R"(", "good"], "command_gradient": true})"));
  planned_and_run(linear, with(tiny_points, "reward", R"({"kind": "linear", "coefficients": [0, 1]})"));
  const std::string samples = contents(program / "run/samples/tuned_sde.npy");
  EXPECT_FALSE(samples.empty());
  EXPECT_TRUE(samples == contents(linear / "run/samples/tuned_sde.npy"));

  // Black boxes are refused by an objective that needs gradients, while planning: nothing is started.
  Json config = Json::parse(tiny_points);
  config["reward"] = {{"kind", "command"}, {"command", {"no-such-program"}}};
  const Folder folder;
  folder.file("config.json", config.dump());
  const Result refused = costate(folder, {"plan", "config.json"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("the reward 'no-such-program', which has values only"), std::string::npos) << refused.err;
  config["reward"]["command_gradient"] = true;
  folder.file("config.json", config.dump());
  EXPECT_EQ(costate(folder, {"plan", "config.json"}).code, 0);
  const Result missing = costate(folder, {"run", "config.json", "--quiet", "--out", "missing"});
  EXPECT_NE(missing.code, 0);
  EXPECT_NE(missing.err.find("'no-such-program' cannot be started"), std::string::npos) << missing.err;
}

// Samples whose reward fails are skipped by fine-tuning and by the evaluation, which counts them.
TEST(RewardRun, SamplesThatCannotBeScoredAreLeftOut) {
  const Folder folder;
  const std::string reward =
      R"({"kind": "command", "command": [")" COSTATE_SCORER R"(", "nan"], "command_gradient": true, "on_failure": "skip"})";
  folder.file("config.json", with(tiny_points, "reward", reward));
  const Result run = costate(folder, {"run", "config.json", "--quiet", "--out", "run"});
  ASSERT_EQ(run.code, 0) << run.err;
  const Json e = Json::parse(contents(folder / "run/evaluation.json"));
  const Json& base = e["samples"]["base_sde"];
  // Half of the data lies left of 0.
  EXPECT_GT(base["failed_rewards"].get<int>(), 10);
  EXPECT_LT(base["failed_rewards"].get<int>(), 80);
  const double effective = e["importance"]["effective_samples"].get<double>();
  EXPECT_LE(effective, 90.0 - base["failed_rewards"].get<int>());
  folder.file("stop.json", with(tiny_points, "reward", std::string(reward).replace(reward.find("skip"), 4, "stop")));
  const Result stopped = costate(folder, {"run", "stop.json", "--quiet", "--out", "stop"});
  EXPECT_EQ(stopped.code, 4);
  EXPECT_NE(stopped.err.find("samples is not finite"), std::string::npos) << stopped.err;
}

}  // namespace
}  // namespace costate::cli::testing
