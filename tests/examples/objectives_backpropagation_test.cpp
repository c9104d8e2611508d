// The shipped examples of reward backpropagation, shortened to seconds and held to the direction of their effect.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"

namespace {

using costate::cli::testing::Folder;
using nlohmann::json;

struct Shortened {
  const char* name;
  std::vector<std::string> settings;
  double gain;  // least increase of the mean reward of sde samples
};
void PrintTo(const Shortened& s, std::ostream* out) { *out << s.name; }

class BackpropagationExample : public ::testing::TestWithParam<Shortened> {};

TEST_P(BackpropagationExample, RaisesTheReward) {
  const Folder folder;
  std::vector<std::string> arguments{"run", std::string(COSTATE_SOURCE_DIR "/examples/objectives/") + GetParam().name + ".json",
                                     "--out", "run"};
  std::vector<std::string> settings{"data.count=1500", "pretrain.iterations=150", "pretrain.batch=64", "sampler.steps=10",
                                    "finetune.batch=32", "sample.count=16", "evaluate.count=512"};
  settings.insert(settings.end(), GetParam().settings.begin(), GetParam().settings.end());
  for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
  const auto result = costate::cli::testing::costate(folder, arguments);
  ASSERT_EQ(result.code, 0) << result.out << result.err;
  const json e = json::parse(costate::cli::testing::contents(folder / "run/evaluation.json"));
  const auto reward = [&](const char* set) { return e["samples"][set]["reward"]["value"].get<double>(); };
  EXPECT_GT(reward("tuned_sde"), reward("base_sde") + GetParam().gain);
  const bool tilts_the_noise = std::string(GetParam().name) == "elegant";
  EXPECT_EQ(std::filesystem::exists(folder / "run/checkpoints/noise_value.safetensors"), tilts_the_noise);
  EXPECT_EQ(std::filesystem::exists(folder / "run/checkpoints/noise_control.safetensors"), tilts_the_noise);
  EXPECT_EQ(e["path_kl"].contains("initial_law"), tilts_the_noise);
}

INSTANTIATE_TEST_SUITE_P(
    Examples, BackpropagationExample,
    ::testing::Values(Shortened{"draft", {"finetune.iterations=20"}, .2}, Shortened{"draft_k", {"finetune.iterations=20"}, .05},
                      Shortened{"align_prop", {"finetune.iterations=25"}, .2},
                      Shortened{"relative_entropy", {"finetune.iterations=40"}, .1},
                      Shortened{"elegant",
                                {"finetune.iterations=40", "finetune.initial_law.iterations=60", "finetune.initial_law.batch=64",
                                 "finetune.initial_law.control_iterations=40"},
                                .1},
                      Shortened{"draft_lv", {"finetune.iterations=25"}, .02},
                      Shortened{"refl", {"finetune.iterations=25"}, .02},
                      Shortened{"drtune", {"finetune.iterations=25"}, .02}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
