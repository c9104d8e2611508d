// Whatever is wrong with a command line, a configuration, a data set or a checkpoint: one sentence on stderr
// that names it, nothing on stdout, the documented exit code, and no run directory.
#include <gtest/gtest.h>

#include <algorithm>

#include "program.h"

namespace costate::cli::testing {
namespace {

void expect_refusal(const Result& r, int code, const std::vector<std::string>& named) {
  EXPECT_EQ(r.code, code) << r.err;
  EXPECT_EQ(r.out, "");
  EXPECT_TRUE(r.err.starts_with("costate: ")) << r.err;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  for (const std::string& word : named)
    EXPECT_NE(r.err.find(word), std::string::npos) << r.err << "lacks: " << word;
}

struct Case {
  const char* name;
  std::vector<std::string> arguments;  // behind `run config.json --out run --quiet`
  int code;
  std::vector<std::string> named;  // all occur in the sentence
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// --------------------------------------------------------------------------------- settings of a good file

class Setting : public ::testing::TestWithParam<Case> {};
TEST_P(Setting, IsRefused) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  std::vector<std::string> arguments{"run", "config.json", "--out", "run", "--quiet"};
  arguments.insert(arguments.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  expect_refusal(costate(folder, arguments), GetParam().code, GetParam().named);
  EXPECT_FALSE(fs::exists(folder / "run"));
}

std::vector<std::string> set(const std::string& s) { return {"--set", s}; }

INSTANTIATE_TEST_SUITE_P(
    Malformed, Setting,
    ::testing::Values(
        Case{"unknown_key", set("network.hiden=3"), 2, {"network.hiden", "did you mean 'network.hidden'"}},
        Case{"unknown_nested_key", set("finetune.lr.peek=1"), 2, {"finetune.lr.peek", "'finetune.lr.peak'"}},
        Case{"unknown_section", set("netwrok.hidden=3"), 2, {"netwrok", "'network'"}},
        Case{"key_in_wrong_section", set("hidden_layers=3"), 2, {"hidden_layers", "no such key"}},
        Case{"key_of_another_section", set("projections=3"), 2, {"'evaluate.projections'"}},
        Case{"key_below_a_value",
             set("network.hidden.x=1"),
             2,
             {"network.hidden is an integer", "not a section"}},
        Case{"number_for_section", set("network=3"), 2, {"network", "found 3", "expected an object"}},
        Case{"section_for_number", set("pretrain.batch={}"), 2, {"pretrain.batch", "found {} (an object)"}},
        Case{"text_for_integer",
             set("pretrain.batch=many"),
             2,
             {"pretrain.batch", "\"many\" (text)", "an integer"}},
        Case{"number_for_integer", set("pretrain.batch=1.5"), 2, {"pretrain.batch", "found 1.5"}},
        Case{"zero_batch", set("pretrain.batch=0"), 2, {"pretrain.batch", "found 0", "[1, 1e+06]"}},
        Case{"negative_iterations",
             set("finetune.iterations=-4"),
             2,
             {"finetune.iterations", "of at least 1"}},
        Case{"huge_integer", set("seed=99999999999999999999"), 2, {"seed"}},
        Case{"negative_seed", {"--seed", "-1"}, 2, {"seed", "found -1"}},
        Case{"word_for_seed", {"--seed", "lucky"}, 2, {"seed", "\"lucky\""}},
        Case{"too_many_threads", {"--threads", "5000"}, 2, {"threads", "[0, 1024]"}},
        Case{"null", set("seed=null"), 2, {"seed", "found null"}},
        Case{"text_for_boolean", set("network.norm=yes"), 2, {"network.norm", "true or false"}},
        Case{"infinite_rate", set("pretrain.lr.peak=1e999"), 2, {"pretrain.lr.peak"}},
        Case{"nan_rate", set("pretrain.lr.peak=nan"), 2, {"pretrain.lr.peak", "found \"nan\""}},
        Case{"zero_rate", set("pretrain.lr.peak=0"), 2, {"pretrain.lr.peak", "above 0"}},
        Case{"decay_of_one", set("pretrain.ema_decay=1"), 2, {"pretrain.ema_decay", "[0, 1)"}},
        Case{"unknown_choice", set("path.family=liner"), 2, {"path.family", "did you mean 'linear'"}},
        Case{
            "unknown_pairing", set("finetune.pairing=previous"), 2, {"finetune.pairing", "next, same, alg1"}},
        Case{"list_for_number", set("reward.multiplier=[1]"), 2, {"reward.multiplier", "found [1] (a list)"}},
        Case{
            "number_for_list", set("reward.coefficients=1"), 2, {"reward.coefficients", "a list of numbers"}},
        Case{"word_in_list", set("reward.coefficients=[1,\"x\"]"), 2, {"reward.coefficients"}},
        Case{"unknown_sampler_in_list",
             set("sample.samplers=[\"sde\",\"pde\"]"),
             2,
             {"sample.samplers", "pde"}},
        Case{"no_sampler", set("sample.samplers=[]"), 2, {"sample.samplers"}},
        Case{"setting_without_value", set("seed"), 2, {"--set seed", "key=value"}},
        Case{"setting_without_key", set("=3"), 2, {"key=value"}},
        Case{"name_with_slash", set("name=a/b"), 2, {"name"}},
        Case{"ragged_matrix", set("reward.precision=[[1,0],[0]]"), 2, {"reward.precision", "equal lengths"}},
        Case{"wrong_reward_size", set("reward.coefficients=[1,2,3]"), 2, {"reward.coefficients", "found 3"}},
        Case{"wrong_precision_size", set("reward.precision=[[1]]"), 2, {"reward.precision"}},
        Case{"asymmetric_precision", set("reward.precision=[[1,0],[1,1]]"), 2, {"symmetric"}},
        Case{"not_integrable", set("reward.precision=[[-50,-50]]"), 2, {"reward.precision", "not integrable"}},
        Case{"unused_reward_key", set("reward.targets=[1]"), 2, {"reward.targets", "classifier"}},
        Case{"unused_sampler_key", set("sampler.sigma=2"), 2, {"sampler.sigma", "constant"}},
        Case{"unused_path_key", set("path.beta_min=1"), 2, {"path.beta_min", "vp_linear"}},
        Case{"unused_power", set("path.power=3"), 2, {"path.power", "applies to power only"}},
        Case{"unused_rho", set("path.rho=3"), 2, {"path.rho", "edm"}},
        Case{"power_below_one", set("path.power=0.5"), 2, {"path.power", "at least 1"}},
        Case{"unknown_grid", set("sampler.grid.kind=karas"), 2, {"sampler.grid.kind", "did you mean 'karras'"}},
        Case{"grid_as_a_word", set("sampler.grid=karras"), 2, {"sampler.grid", "expected an object with the keys kind"}},
        Case{"unused_shift", set("sampler.grid.shift=3"), 2, {"sampler.grid.shift", "shifted"}},
        Case{"unused_karras_key", set("sampler.grid.rho=3"), 2, {"sampler.grid", "karras"}},
        Case{"start_of_another_grid",
             {"--set", "sampler.grid.kind=trailing", "--set", "sampler.start=0.1"},
             2,
             {"sampler.start", "trailing"}},
        Case{"unused_eta", set("sampler.eta=0.5"), 2, {"sampler.eta", "ddim"}},
        Case{"unused_a", set("sampler.a=0.5"), 2, {"sampler.a", "flow_sde"}},
        Case{"unused_churn", set("sampler.churn.amount=3"), 2, {"sampler.churn", "churned"}},
        Case{"unused_variance", set("sampler.variance=fixed_large"), 2, {"sampler.variance", "ddpm"}},
        Case{"learned_variance", set("sampler.variance=learned_range"), 2, {"sampler.variance", "fixed_small"}},
        Case{"churn_from_pure_noise", set("sampler.kind=churned"), 2, {"starts above 0"}},
        Case{"karras_beyond_the_path",
             {"--set", "path.family=edm", "--set", "path.sigma_max=10", "--set", "sampler.grid.kind=karras"},
             2,
             {"sigma_max is 80", "at most 10"}},
        Case{"large_variance_of_the_linear_path",
             {"--set", "sampler.kind=ddpm", "--set", "sampler.variance=fixed_large"},
             2,
             {"variance-preserving"}},
        Case{"unknown_ode", set("sample.ode=dpmpp_2n"), 2, {"sample.ode", "did you mean 'dpmpp_2m'"}},
        Case{"standing_start", set("path.family=power"), 2, {"stands still"}},
        Case{"alg1_of_another_noise",
             {"--set", "finetune.pairing=alg1", "--set", "sampler.kind=flow_sde"},
             2,
             {"alg1"}},
        Case{"unused_data_key", set("data.path=x"), 2, {"path", "files"}},
        Case{"three_dimensional_mixture",
             set("data.mixture.means=[[1,2,3],[1,2,3]]"),
             2,
             {"data.mixture.means"}},
        Case{"missing_deviation",
             set("data.mixture.deviations=[1]"),
             2,
             {"data.mixture.deviations", "2 means"}},
        Case{"inverted_range", set("data.range=[1,0]"), 2, {"data.range"}},
        Case{"everything_held_out", set("data.held_out=0.999"), 2, {"data.held_out"}},
        Case{"judge_without_labels",
             {"--set", "data.kind=csv", "--set", "data.mixture.means=[]", "--set",
              "data.mixture.deviations=[]", "--set", "data.path=absent.csv"},
             6,
             {"absent.csv"}},
        Case{"noiseless_finetuning", set("sampler.kind=ode"), 2, {"no noise"}},
        Case{"too_many_loss_steps", set("finetune.late_steps=6"), 2, {"early_steps + late_steps"}},
        Case{"early_steps_alone", set("finetune.late_steps=0"), 2, {"early_steps without late_steps"}},
        Case{"singular_prediction", set("prediction=epsilon"), 2, {"epsilon"}},
        Case{"micro_batch_above_batch", set("finetune.micro_batch=50"), 2, {"finetune.micro_batch", "40"}},
        Case{"labels_without_classes", set("finetune.labels=[1]"), 2, {"finetune.labels", "conditional"}},
        Case{"guidance_without_labels", set("sample.guidance=2"), 2, {"sample.guidance"}},
        Case{"guided_tuning_without_labels", set("finetune.guidance=2"), 2, {"finetune.guidance", "finetune.labels"}},
        Case{"conditional_of_unknown_class",
             {"--set", "network.conditional=true", "--set", "finetune.labels=[7]"},
             2,
             {"finetune.labels", "found 7"}},
        Case{"over_memory_limit", set("memory_limit=0.01"), 5, {"memory_limit", "will need"}},
        Case{"unknown_option", {"--sett", "a=1"}, 2, {"'--sett'", "did you mean '--set'"}},
        Case{"second_file", {"other.json"}, 2, {"other.json"}}),
    [](const auto& c) { return std::string(c.param.name); });

// --------------------------------------------------------------------------------- files

struct Text {
  const char* name;
  const char* text;
  std::vector<std::string> named;
};
void PrintTo(const Text& c, std::ostream* out) { *out << c.name; }
class ConfigText : public ::testing::TestWithParam<Text> {};
TEST_P(ConfigText, IsRefused) {
  const Folder folder;
  folder.file("config.json", GetParam().text);
  expect_refusal(costate(folder, {"run", "config.json", "--out", "run"}), 2, GetParam().named);
  EXPECT_FALSE(fs::exists(folder / "run"));
}
INSTANTIATE_TEST_SUITE_P(
    Malformed, ConfigText,
    ::testing::Values(Text{"empty", "", {"config.json", "JSON"}},
                      Text{"trailing_comma", R"({"seed": 1,})", {"line 1"}},
                      Text{"comment", "{} // no", {"JSON"}}, Text{"trailing_text", "{} {}", {"JSON"}},
                      Text{"single_quotes", "{'seed': 1}", {"JSON"}},
                      Text{"unfinished", R"({"seed": )", {"JSON"}}, Text{"nan", R"({"seed": NaN})", {"JSON"}},
                      Text{"overflow", R"({"seed": 1e999})", {"1e999"}},
                      Text{"duplicate", R"({"seed": 1, "seed": 1})", {"'seed' is given twice"}},
                      Text{"nested_duplicate",
                           R"({"pretrain": {"lr": {"peak": 1, "peak": 2}}})",
                           {"'pretrain.lr.peak' is given twice"}},
                      Text{"list", "[1, 2]", {"found [1,2] (a list)"}}, Text{"number", "3", {"found 3"}},
                      Text{"not_utf8", "{\"name\": \"\xff\"}", {"UTF-8"}},
                      Text{"zero_byte_name", R"({"name": "a\u0000b"})", {"null"}},
                      Text{"unknown", R"({"lerning": {}})", {"lerning"}}),
    [](const auto& c) { return std::string(c.param.name); });

TEST(Malformed, DeepNesting) {
  const Folder folder;
  folder.file("config.json", std::string(100000, '['));
  expect_refusal(costate(folder, {"run", "config.json"}), 2, {"nested"});
}

struct DataCase {
  const char* name;
  std::string file, text, kind;
  int code;
  std::vector<std::string> named;
};
void PrintTo(const DataCase& c, std::ostream* out) { *out << c.name; }
class DataFile : public ::testing::TestWithParam<DataCase> {};
TEST_P(DataFile, IsRefused) {
  const Folder folder;
  const DataCase& c = GetParam();
  folder.file(c.file, c.text);
  folder.file("config.json", R"({"reward": {"kind": "linear", "coefficients": [1, 1]}, "data": {"kind": ")" +
                                 c.kind + R"(", "path": ")" + c.file + "\"}}");
  expect_refusal(costate(folder, {"run", "config.json", "--out", "run"}), c.code, c.named);
  EXPECT_FALSE(fs::exists(folder / "run"));
}
const std::string npy_head("\x93NUMPY\x01\x00", 8);
INSTANTIATE_TEST_SUITE_P(
    Malformed, DataFile,
    ::testing::Values(
        DataCase{"csv_word", "d.csv", "1,2\n3,x\n", "csv", 3, {"d.csv", "line 2"}},
        DataCase{"csv_ragged", "d.csv", "1,2\n3\n", "csv", 3, {"line 2"}},
        DataCase{"csv_nan", "d.csv", "1,nan\n", "csv", 3, {"d.csv"}},
        DataCase{"csv_empty", "d.csv", "", "csv", 3, {"d.csv"}},
        DataCase{"csv_of_another_width", "d.csv", "1,2,3\n4,5,6\n", "csv", 2, {"reward.coefficients"}},
        DataCase{"npy_cut", "d.npy", npy_head, "npy", 3, {"d.npy"}},
        DataCase{"npy_garbage", "d.npy", "not an array", "npy", 3, {"d.npy"}},
        DataCase{"idx_cut", "d.idx", std::string("\0\0\x08\x03\0\0", 6), "idx", 3, {"d.idx"}},
        DataCase{"gzip_cut", "d.gz", std::string("\x1f\x8b\x08\0\0\0\0\0", 8), "csv", 3, {"d.gz"}},
        DataCase{"png_folder_is_a_file", "d", "x", "png", 6, {"'d'"}},
        DataCase{"a_single_picture", "d.png", "\x89PNG", "file", 3, {"d.png", "folder"}}),
    [](const auto& c) { return std::string(c.param.name); });

// --------------------------------------------------------------------------------- commands and checkpoints

TEST(Malformed, Commands) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  folder.file("text", "a file");
  expect_refusal(costate(folder, {}), 2, {"subcommand"});
  expect_refusal(costate(folder, {"pretain", "config.json"}), 2, {"'pretain'", "did you mean 'pretrain'"});
  expect_refusal(costate(folder, {"dance"}), 2, {"'dance' is not a command; the commands are run, ", "compare, check-grad, "});
  expect_refusal(costate(folder, {"run"}), 2, {"no configuration"});
  expect_refusal(costate(folder, {"run", "absent.json"}), 6, {"absent.json", "No such file"});
  expect_refusal(costate(folder, {"run", "."}), 6, {"'.'"});
  expect_refusal(costate(folder, {"run", "config.json", "--set"}), 2, {"--set"});
  expect_refusal(costate(folder, {"run", "config.json", "--out", "text"}), 2, {"'text'", "file"});
  expect_refusal(costate(folder, {"run", "config.json", "--out", "/proc/none/run"}), 6, {"'/proc/none/run'", "'/proc/none'"});
  expect_refusal(costate(folder, {"run", "config.json", "--out", folder.path(), "--overwrite"}), 2,
                 {"not a run directory"});
  EXPECT_TRUE(fs::exists(folder / "text"));
  expect_refusal(costate(folder, {"finetune", "config.json", "--out", "absent"}), 6,
                 {"'absent'", "pretrain"});
  expect_refusal(costate(folder, {"inspect"}), 2, {"path"});
  expect_refusal(costate(folder, {"inspect", "absent"}), 6, {"'absent'"});
  expect_refusal(costate(folder, {"inspect", "text"}), 3, {"'text'"});
  expect_refusal(costate(folder, {"inspect", "/proc"}), 3, {"not a run directory"});
  EXPECT_FALSE(fs::exists(folder / "runs"));
}

TEST(Malformed, Divergence) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  const Result r = costate(folder, {"run", "config.json", "--quiet", "--out", "run", "--set",
                                    "pretrain.lr.peak=1e18", "--set", "pretrain.clip_norm=0"});
  expect_refusal(r, 4, {"iteration", "parameters are those before it"});
  EXPECT_FALSE(fs::exists(folder / "run/checkpoints"));
}

TEST(Malformed, Checkpoints) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  const auto stage = [&](const std::string& name, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{name, "config.json", "--out", "run", "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return costate(folder, arguments);
  };
  ASSERT_EQ(stage("pretrain").code, 0);
  const std::string base = folder / "run/checkpoints/base.safetensors", good = contents(base);
  expect_refusal(stage("pretrain"), 2, {"--overwrite"});
  expect_refusal(stage("sample"), 6, {"tuned.safetensors", "does not exist"});
  expect_refusal(stage("evaluate"), 6, {"tuned.safetensors"});
  expect_refusal(stage("finetune", {"--set", "network.hidden=17"}), 2,
                 {"network.hidden", "found 17", "made with 16"});
  expect_refusal(stage("finetune", {"--seed", "5"}), 2, {"seed", "found 5", "made with 0"});

  const auto damaged = [&](const std::string& bytes, const std::vector<std::string>& named) {
    folder.file("run/checkpoints/base.safetensors", bytes);
    expect_refusal(stage("finetune"), 3, named);
    EXPECT_FALSE(fs::exists(folder / "run/checkpoints/tuned.safetensors"));
  };
  damaged("", {"base.safetensors"});
  damaged("short", {"base.safetensors"});
  damaged(good.substr(0, 100), {"base.safetensors"});
  damaged(good.substr(0, good.size() - 1), {"base.safetensors"});
  damaged(good + "x", {"base.safetensors"});
  damaged(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f") + good.substr(8), {"base.safetensors"});
  std::string renamed = good;
  ASSERT_NE(renamed.find("layers.0.weight"), std::string::npos);
  renamed[renamed.find("layers.0.weight") + 7] = '7';
  damaged(renamed, {"layers.0.weight", "layers.7.weight"});
  damaged(std::string("\x02\0\0\0\0\0\0\0{}", 10), {"not a checkpoint of costate"});
  folder.file("run/checkpoints/base.safetensors", good);
  EXPECT_EQ(stage("finetune").code, 0);
}

}  // namespace
}  // namespace costate::cli::testing
