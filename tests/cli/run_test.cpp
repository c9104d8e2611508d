// Whole runs of the program, tiny: what is left in the run directory, that it does not depend on threads or
// on how the stages were started, and that plans are exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>

#include <costate/finetune/data/npy.h>
#include <costate/tensor/safetensors.h>

#include "config/json.h"
#include "npz.h"
#include "program.h"
#include "run/lock.h"

namespace costate::cli::testing {
namespace {

// Files of a run that must not depend on anything but the configuration.
std::set<std::string> reproducible_files(const std::string& run) {
  std::set<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string name = fs::relative(entry.path(), run).string();
    const bool timed =
        name == "run.json" || name == "timing.csv" || name == "summary.md" || name == "config.resolved.json";
    if (entry.is_regular_file() && !timed) out.insert(name);
  }
  return out;
}

void expect_equal_runs(const std::string& a, const std::string& b) {
  EXPECT_EQ(reproducible_files(a), reproducible_files(b));
  for (const std::string& name : reproducible_files(a))
    EXPECT_EQ(contents(a + "/" + name), contents(b + "/" + name)) << name;
}

// Predicted and measured peaks, to the byte and by tag, and the counts of evaluations and of floating-point operations.
void expect_exact_plan(const Json& plan, const std::string& run) {
  const Json record = Json::parse(contents(run + "/run.json"));
  EXPECT_EQ(plan["stages"].size(), record["stages"].size());
  for (const auto& [stage, measured] : record["stages"].items()) {
    const Json& predicted = plan["stages"][stage];
    EXPECT_EQ(predicted["peak"], measured["peak"]) << stage;
    EXPECT_EQ(predicted["evaluations"], measured["evaluations"]) << stage;
    EXPECT_EQ(predicted["flops"], measured["flops"]) << stage;
    EXPECT_GT(measured["flops"].get<std::int64_t>(), 0) << stage;
    EXPECT_GT(measured["peak"]["bytes"].get<std::int64_t>(), 0) << stage;
  }
  EXPECT_EQ(plan["peak_bytes"], record["peak_bytes"]);
}

class TinyRun : public ::testing::TestWithParam<std::string> {};

TEST_P(TinyRun, IsTheSameForAnyThreadsAndStageByStage) {
  const Folder folder;
  folder.file("config.json", tiny(GetParam()));
  for (const std::string threads : {"1", "2"}) {
    const Result planned = costate(folder, {"plan", "config.json", "--json", "--threads", threads});
    ASSERT_EQ(planned.code, 0) << planned.err;
    const Result r =
        costate(folder, {"run", "config.json", "--quiet", "--out", "run" + threads, "--threads", threads});
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.err, "");
    EXPECT_NE(r.out.find("tuned sde"), std::string::npos) << r.out;
    expect_exact_plan(Json::parse(planned.out), folder / ("run" + threads));
  }
  expect_equal_runs(folder / "run1", folder / "run2");
  for (const std::string stage : {"pretrain", "finetune", "sample", "evaluate"}) {
    const Result r = costate(folder, {stage, "config.json", "--quiet", "--out", "stages"});
    ASSERT_EQ(r.code, 0) << r.err;
  }
  expect_equal_runs(folder / "run1", folder / "stages");
  // Again, over the same directory: refused first, then replaced by the same.
  EXPECT_EQ(costate(folder, {"run", "config.json", "--out", "run2"}).code, 2);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--quiet", "--out", "run2", "--overwrite"}).code, 0);
  expect_equal_runs(folder / "run1", folder / "run2");
  // Fine-tuning again forgets what was made from the model before.
  ASSERT_EQ(costate(folder, {"finetune", "config.json", "--quiet", "--out", "run2", "--overwrite"}).code, 0);
  EXPECT_FALSE(fs::exists(folder / "run2/samples") || fs::exists(folder / "run2/evaluation.json"));
  for (const std::string stage : {"sample", "evaluate"})
    ASSERT_EQ(costate(folder, {stage, "config.json", "--quiet", "--out", "run2"}).code, 0);
  expect_equal_runs(folder / "run1", folder / "run2");
  // Another seed is another run.
  ASSERT_EQ(costate(folder, {"run", "config.json", "--quiet", "--out", "other", "--seed", "1"}).code, 0);
  EXPECT_NE(contents(folder / "run1/samples/tuned_sde.npy"),
            contents(folder / "other/samples/tuned_sde.npy"));
}

INSTANTIATE_TEST_SUITE_P(Run, TinyRun, ::testing::Values("points", "digits", "unet", "dit"),
                         [](const auto& c) { return c.param; });

// The archive has what the files have, and the labels in the order of the samples.
TEST(Run, KeepsItsSamplesAsOneArchiveToo) {
  const Folder folder;
  folder.file("config.json", tiny_digits);
  const Result r = costate(folder, {"run", "config.json", "--out", "run", "--quiet", "--set", "sample.archive=true", "--set",
                                    "sample.labels=[2,0,1]"});
  ASSERT_EQ(r.code, 0) << r.err;
  const std::string text = contents(folder / "run/samples/samples.npz");
  const auto archive = std::as_bytes(std::span(text));
  std::set<std::string> names;
  for (const NpzMember& m : npz_members(archive, "archive")) {
    names.insert(m.name);
    const std::vector<std::byte> array = npz_array(archive, m, 1 << 24, "archive");
    const std::string_view held(reinterpret_cast<const char*>(array.data()), array.size());
    if (m.name != "labels") {
      EXPECT_EQ(held, contents(folder / ("run/samples/" + m.name + ".npy"))) << m.name;
      continue;
    }
    const auto labels = data::npy_values<std::int32_t>(data::parse_npy(array, "labels"), "labels");
    for (std::size_t i = 0; i < labels.size(); ++i) EXPECT_EQ(labels[i], (std::vector{2, 0, 1})[i % 3]);
    EXPECT_GE(labels.size(), 3u);
  }
  EXPECT_EQ(names, (std::set<std::string>{"base_sde", "base_ode", "tuned_sde", "tuned_ode", "data", "labels"}));
}

// A directory that another process writes to is neither replaced nor gone on with; readers do not care.
TEST(Run, OneProcessAtATimeWrites) {
  const Folder folder;
  folder.file("config.json", tiny_digits);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--out", "run", "--quiet"}).code, 0);
  const std::string before = contents(folder / "run/checkpoints/tuned.safetensors"), record = contents(folder / "run/run.json");
  {
    const RunLock other(folder / "run");
    for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
             {"run", "config.json", "--out", "run", "--overwrite", "--seed", "3"},
             {"run", "config.json", "--out", "run", "--resume", "auto"},
             {"evaluate", "config.json", "--out", "run", "--overwrite"}}) {
      const Result r = costate(folder, arguments);
      EXPECT_EQ(r.code, 2) << r.err;
      EXPECT_NE(r.err.find("another process is writing to 'run'"), std::string::npos) << r.err;
    }
    EXPECT_EQ(costate(folder, {"report", "run"}).code, 0);
    EXPECT_EQ(contents(folder / "run/checkpoints/tuned.safetensors"), before);
    EXPECT_EQ(contents(folder / "run/run.json"), record);
  }
  EXPECT_EQ(costate(folder, {"evaluate", "config.json", "--out", "run", "--overwrite", "--quiet"}).code, 0);
}

TEST(Run, LeavesWhatItPromises) {
  const Folder folder;
  folder.file("config.json", tiny_digits);
  const Result r = costate(folder, {"run", "config.json", "--out", "run", "--json", "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  for (const char* name :
       {"config.resolved.json", "run.json", "metrics.jsonl", "metrics.csv", "timing.csv", "evaluation.json", "data.json",
        "summary.md", "checkpoints/base.safetensors", "checkpoints/tuned.safetensors",
        "checkpoints/reward_classifier.safetensors", "checkpoints/judge.safetensors", "samples/data.png",
        "samples/base_sde.npy", "samples/base_ode.npy", "samples/tuned_sde.png", "samples/tuned_ode.png",
        "samples/overview.png"})
    EXPECT_TRUE(fs::is_regular_file(folder / (std::string("run/") + name))) << name;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "run"))
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();

  const Json printed = Json::parse(r.out), evaluation = Json::parse(contents(folder / "run/evaluation.json"));
  EXPECT_EQ(printed["evaluation"], evaluation);
  for (const char* set : {"base_sde", "base_ode", "tuned_sde", "tuned_ode"}) {
    const Json& s = evaluation["samples"][set];
    EXPECT_TRUE(s["reward"]["value"].is_number() && s["diversity"].is_number()) << set;
    double share = 0;
    for (const Json& f : s["class_frequency"]) share += f.get<double>();
    EXPECT_NEAR(share, 1.0, 1e-9) << set;
  }
  EXPECT_TRUE(evaluation["path_kl"]["control_cost"]["value"].is_number());
  const Json record = Json::parse(contents(folder / "run/run.json"));
  for (const char* key : {"version", "compiler", "cpu", "argv", "seed", "threads", "peak_bytes", "stages"})
    EXPECT_TRUE(record.contains(key)) << key;

  // One row a logged step: 6/3 of pretraining, 4/2 of fine-tuning, the last step and the accuracy of both
  // classifiers.
  const std::string table = contents(folder / "run/metrics.csv"),
                    lines = contents(folder / "run/metrics.jsonl");
  EXPECT_TRUE(table.starts_with("stage,step,loss,"));
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 1 + 2 + 2 + 2 * 2);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2 + 2 + 2 * 2);
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) EXPECT_TRUE(Json::parse(line).contains("stage"));
  // The configuration that was used can be run again.
  EXPECT_EQ(costate(folder, {"run", "run/config.resolved.json", "--quiet", "--out", "again"}).code, 0);
  expect_equal_runs(folder / "run", folder / "again");

  const Result file = costate(folder, {"inspect", "run/checkpoints/base.safetensors", "--json"});
  ASSERT_EQ(file.code, 0) << file.err;
  const Json shown = Json::parse(file.out);
  EXPECT_EQ(shown["tensors"][0]["dtype"], "F32");
  EXPECT_TRUE(shown["metadata"].contains("costate.config"));
  const Result run = costate(folder, {"inspect", "run"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.out.find("tuned.safetensors"), std::string::npos);
}

TEST(Run, AdaptersAloneAreTrainedAndKept) {
  const Folder folder;
  Json config = Json::parse(tiny_digits);
  config["finetune"]["lora"] = {{"rank", 3}, {"alpha", 6}, {"targets", {"layers.*"}}};
  folder.file("config.json", config.dump());
  const Result planned = costate(folder, {"plan", "config.json", "--json", "--threads", "2"});
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Result r = costate(folder, {"run", "config.json", "--out", "run", "--quiet", "--threads", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  expect_exact_plan(Json::parse(planned.out), folder / "run");
  EXPECT_FALSE(fs::exists(folder / "run/checkpoints/tuned.safetensors"));
  const Result file = costate(folder, {"inspect", "run/checkpoints/tuned.lora.safetensors", "--json"});
  ASSERT_EQ(file.code, 0) << file.err;
  const Json shown = Json::parse(file.out);
  ASSERT_EQ(shown["tensors"].size(), 4u);  // two layers, A and B each
  EXPECT_EQ(shown["tensors"][0]["name"], "base_model.model.layers.0.lora_A.weight");
  EXPECT_EQ(shown["metadata"]["lora_alpha"], "6");
  EXPECT_EQ(Json::parse(shown["metadata"]["lora_adapter_metadata"].get<std::string>())["r"], 3);
  // The same for another number of threads, and from the base of a run with other adapters or none.
  ASSERT_EQ(costate(folder, {"run", "config.json", "--out", "again", "--quiet", "--threads", "1"}).code, 0);
  expect_equal_runs(folder / "run", folder / "again");
  const Result whole = costate(folder, {"finetune", "config.json", "--out", "again", "--quiet", "--overwrite",
                                        "--set", "finetune.lora={\"rank\": 0, \"alpha\": 0, \"targets\": [\"*\"]}"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_FALSE(fs::exists(folder / "again/checkpoints/tuned.lora.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "again/checkpoints/tuned.safetensors"));
  // A layer that is not there is found before anything is written.
  const Result wrong = costate(folder, {"finetune", "config.json", "--out", "run", "--quiet", "--overwrite",
                                        "--set", "finetune.lora.targets=[\"layers.7\"]"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("'layers.7' fits none"), std::string::npos) << wrong.err;
}

// Blocks computed again: the files of the run are those of the stored activations to the bit, checkpoints included, the
// peak is lower, and known before.
TEST(Run, RecomputedBlocksAreTheSameRunInLessMemory) {
  const std::string kept = "finetune.keep_activations=true";
  for (const auto& [config, setting] : {std::pair{tiny_dit, "finetune.guidance=1"}, {tiny_unet, "finetune.lora.rank=2"},
                                        {tiny_unet, kept.c_str()}}) {
    const Folder folder;
    folder.file("config.json", config);
    const std::vector<std::string> stored_settings{"--threads", "2", "--set", "finetune.batch=64", "--set", setting};
    std::vector<std::string> again_settings = stored_settings;
    again_settings.insert(again_settings.end(), {"--set", "finetune.recompute=blocks"});
    const auto with = [&](std::vector<std::string> arguments, const std::vector<std::string>& settings) {
      arguments.insert(arguments.end(), settings.begin(), settings.end());
      const Result r = costate(folder, arguments);
      EXPECT_EQ(r.code, 0) << r.err;
      return r.out;
    };
    const Json planned = Json::parse(with({"plan", "config.json", "--json"}, again_settings));
    with({"run", "config.json", "--quiet", "--out", "stored"}, stored_settings);
    with({"run", "config.json", "--quiet", "--out", "again"}, again_settings);
    expect_exact_plan(planned, folder / "again");
    expect_equal_runs(folder / "stored", folder / "again");
    const auto peak = [&](const std::string& run) {
      return Json::parse(contents(folder / (run + "/run.json")))["stages"]["finetune"]["peak"]["bytes"].get<std::int64_t>();
    };
    EXPECT_LT(peak("again"), peak("stored"));
    const Result wrong = costate(folder, {"plan", "config.json", "--set", "finetune.recompute=layers"});
    EXPECT_EQ(wrong.code, 2);
    EXPECT_NE(wrong.err.find("expected one of none, blocks"), std::string::npos) << wrong.err;
  }
}

// Another path, grid, sampler and ODE solver, one that looks at two steps: plans stay exact.
TEST(Run, SamplersOfAnotherKind) {
  const Folder folder;
  Json config = Json::parse(testing::tiny_points);
  config["path"] = {{"family", "edm"}};
  config["prediction"] = "v_prediction";
  config["sampler"] = {{"kind", "churned"}, {"steps", 6}, {"grid", {{"kind", "karras"}}}};
  config["sample"]["ode"] = "dpmpp_2m";
  config["sample"]["ode_steps"] = 16;
  folder.file("config.json", config.dump());
  const Result planned = costate(folder, {"plan", "config.json", "--json", "--threads", "2"});
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Result r = costate(folder, {"run", "config.json", "--out", "run", "--quiet", "--threads", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  expect_exact_plan(Json::parse(planned.out), folder / "run");
  config["sample"]["ode"] = "euler";
  folder.file("euler.json", config.dump());
  ASSERT_EQ(costate(folder, {"run", "euler.json", "--out", "euler", "--quiet", "--threads", "1"}).code, 0);
  EXPECT_EQ(contents(folder / "run/samples/base_sde.npy"), contents(folder / "euler/samples/base_sde.npy"));
  EXPECT_NE(contents(folder / "run/samples/base_ode.npy"), contents(folder / "euler/samples/base_ode.npy"));
  // Runge-Kutta methods, which are no chains; one that would ask at t = 1 says so when the network does not know the velocity
  // there.
  for (const char* ode : {"midpoint", "heun", "rk4"}) {
    config["sample"]["ode"] = ode;
    config["path"] = {{"family", "linear"}}, config["prediction"] = "velocity", config["sampler"] = {{"steps", 5}};
    folder.file("rk.json", config.dump());
    const Result known = costate(folder, {"plan", "rk.json", "--json", "--threads", "2"});
    ASSERT_EQ(known.code, 0) << known.err;
    ASSERT_EQ(costate(folder, {"run", "rk.json", "--out", ode, "--quiet", "--threads", "2"}).code, 0);
    expect_exact_plan(Json::parse(known.out), folder / ode);
  }
  EXPECT_NE(contents(folder / "heun/samples/base_ode.npy"), contents(folder / "rk4/samples/base_ode.npy"));
  const Result singular = costate(folder, {"plan", "rk.json", "--set", "prediction=x1"});
  EXPECT_EQ(singular.code, 2);
  EXPECT_NE(singular.err.find("expected midpoint"), std::string::npos) << singular.err;
  // What the sampler remembers of its noise is said where a model is tuned on it.
  const Result told = costate(folder, {"finetune", "config.json", "--out", "run", "--overwrite"});
  ASSERT_EQ(told.code, 0) << told.err;
  EXPECT_NE((told.out + told.err).find("never memoryless"), std::string::npos) << told.out << told.err;
}

// Log-likelihoods of the data under both models, planned to the byte and to the evaluation.
TEST(Run, LikelihoodsOfBaseAndTunedModel) {
  const Folder folder;
  Json config = Json::parse(testing::tiny_points);
  config["evaluate"]["likelihood"] = {{"count", 70}, {"steps", 8}, {"trace", "exact"}};
  folder.file("config.json", config.dump());
  const Result planned = costate(folder, {"plan", "config.json", "--json", "--threads", "2"});
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Result r = costate(folder, {"run", "config.json", "--out", "run", "--quiet", "--threads", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  expect_exact_plan(Json::parse(planned.out), folder / "run");
  const Json found = Json::parse(contents(folder / "run/evaluation.json"));
  for (const char* model : {"likelihood_of_base", "likelihood_of_tuned"}) {
    const double nats = found[model]["nats"]["value"], bits = found[model]["bits_per_dim"]["value"];
    EXPECT_EQ(found[model]["items"], 70);
    EXPECT_NEAR(bits, -nats / (2 * std::log(2.0)), 1e-9);
    EXPECT_LT(std::abs(nats), 50);
  }
  EXPECT_NE(found["likelihood_of_base"]["nats"], found["likelihood_of_tuned"]["nats"]);
  // A network that does not know the velocity at t = 1 needs a margin.
  const Result singular = costate(folder, {"plan", "config.json", "--set", "prediction=x1"});
  EXPECT_EQ(singular.code, 2);
  EXPECT_NE(singular.err.find("t = 1"), std::string::npos) << singular.err;
  EXPECT_EQ(costate(folder, {"plan", "config.json", "--set", "prediction=x1", "--set", "evaluate.likelihood.margin=0.01"}).code, 0);
  const Result probes = costate(folder, {"plan", "config.json", "--set", "evaluate.likelihood.trace=hutch_pp"});
  EXPECT_EQ(probes.code, 2);
  EXPECT_NE(probes.err.find("3"), std::string::npos) << probes.err;
}

// A checkpoint made before a key existed is one made with the key's default.
TEST(Run, CheckpointsOutliveNewKeys) {
  const Folder folder;
  folder.file("config.json", testing::tiny_points);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--out", "run", "--quiet"}).code, 0);
  const std::string base = folder / "run/checkpoints/base.safetensors";
  SafetensorsMetadata metadata = SafetensorsFile(base).metadata();
  Json config = Json::parse(metadata.at("costate.config"));
  ASSERT_EQ(config["path"].erase("power"), 1u);
  ASSERT_EQ(config["network"].erase("residual"), 1u);
  metadata["costate.config"] = config.dump();
  save_safetensors(base, load_safetensors(base), metadata);
  const Result same = costate(folder, {"sample", "config.json", "--out", "run", "--overwrite", "--quiet"});
  EXPECT_EQ(same.code, 0) << same.err;
  const Result other = costate(folder, {"sample", "config.json", "--out", "run", "--overwrite", "--set", "network.residual=true"});
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("network.residual: found true, but"), std::string::npos) << other.err;
}

TEST(Run, PrecisionIsThatOfProductsAndKeptActivations) {
  const Folder folder;
  folder.file("config.json", testing::tiny_dit);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--out", "f32", "--quiet", "--threads", "1"}).code, 0);
  const Json f32 = Json::parse(contents(folder / "f32/run.json"));
  for (const std::string set : {"precision=bf16_products", "precision=tf32", "precision=bf16", "activations=bf16"}) {
    const Result planned = costate(folder, {"plan", "config.json", "--json", "--threads", "2", "--set", set});
    ASSERT_EQ(planned.code, 0) << planned.err;
    for (const std::string threads : {"1", "2"}) {
      const Result r = costate(folder, {"run", "config.json", "--out", set + threads, "--quiet", "--threads", threads,
                                        "--set", set});
      ASSERT_EQ(r.code, 0) << r.err;
    }
    expect_exact_plan(Json::parse(planned.out), folder / (set + "2"));
    expect_equal_runs(folder / (set + "1"), folder / (set + "2"));
    const Json peak = Json::parse(contents(folder / (set + "1/run.json")))["stages"]["pretrain"]["peak"]["bytes"];
    if (set == "activations=bf16") {
      EXPECT_LT(peak, f32["stages"]["pretrain"]["peak"]["bytes"]);
    }
    EXPECT_NE(contents(folder / "f32/checkpoints/tuned.safetensors"),
              contents(folder / (set + "1/checkpoints/tuned.safetensors")));
  }
}

TEST(Run, BaseAloneNeedsNoReward) {
  const Folder folder;
  folder.file("config.json",
              R"({"data": {"kind": "moons", "noise": 0.1, "count": 100}, "network": {"hidden": 8, "depth": 1},
    "pretrain": {"iterations": 3, "batch": 16}, "sampler": {"steps": 4}, "sample": {"model": "base", "count": 10}})");
  EXPECT_EQ(costate(folder, {"pretrain", "config.json", "--quiet"}).code, 0);
  const Result sampled = costate(folder, {"sample", "config.json", "--quiet"});
  EXPECT_EQ(sampled.code, 0) << sampled.err;
  EXPECT_TRUE(fs::exists(folder / "runs/run/samples/base_ode.npy"));
  EXPECT_EQ(costate(folder, {"finetune", "config.json", "--quiet"}).code, 2);
  EXPECT_EQ(costate(folder, {"plan", "config.json"}).code, 0);
}

TEST(Run, ProgressGoesToStderrInPlainLines) {
  const Folder folder;
  folder.file("config.json", tiny_points);
  const Result r = costate(folder, {"run", "config.json"});
  ASSERT_EQ(r.code, 0);
  EXPECT_NE(r.err.find("pretrain: loss"), std::string::npos) << r.err;
  EXPECT_EQ(r.err.find('\x1b'), std::string::npos) << "no terminal, no escapes";
  EXPECT_EQ(r.out.find("ETA"), std::string::npos);
}

TEST(Commands, HelpAndVersionOnEveryLevel) {
  const Folder folder;
  for (const std::string command :
       {"", "run", "pretrain", "finetune", "sample", "evaluate", "plan", "inspect", "config-reference"}) {
    const Result r = costate(folder, command.empty() ? std::vector<std::string>{"--help"}
                                                     : std::vector<std::string>{command, "--help"});
    EXPECT_EQ(r.code, 0) << command;
    EXPECT_EQ(r.err, "") << command;
    EXPECT_NE(r.out.find("Exit codes: 0 done"), std::string::npos) << command;
  }
  EXPECT_TRUE(costate(folder, {"--version"}).out.starts_with("costate "));
  EXPECT_NE(costate(folder, {"config-reference"}).out.find("`finetune.pairing`"), std::string::npos);
  folder.file("config.json", tiny_points);
  const Result printed = costate(folder, {"run", "config.json", "--print-config", "--set", "seed=8"});
  EXPECT_EQ(Json::parse(printed.out)["seed"], 8);
  EXPECT_NE(costate(folder, {"run", "config.json", "--origins"}).out.find("file"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "runs"));
}

std::vector<std::string> shipped_configurations() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(COSTATE_SOURCE_DIR "/examples"))
    if (entry.path().extension() == ".json") out.push_back(entry.path().stem().string());
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Plan, ConfigurationsShip) { EXPECT_GE(shipped_configurations().size(), 2u); }

class Shipped : public ::testing::TestWithParam<std::string> {};

// Two updates: the second one finds all that an update leaves behind. The sizes of networks are the file's, and the batches
// but those of UNets and DiTs.
TEST_P(Shipped, HasAnExactPlan) {
  const Folder folder;
  const std::string file = COSTATE_SOURCE_DIR "/examples/" + GetParam() + ".json";
  std::vector<std::string> shrunk{file};
  for (const char* s : {"pretrain.iterations=2", "finetune.iterations=2", "classifiers.reward.iterations=2",
                        "classifiers.judge.iterations=2", "sample.count=20", "evaluate.count=100",
                        "pretrain.lr.warmup=0", "finetune.lr.warmup=0", "data.count=700"})
    shrunk.insert(shrunk.end(), {"--set", s});
  const auto with = [&](const std::string& command, std::vector<std::string> more) {
    more.insert(more.begin(), command);
    more.insert(more.end(), shrunk.begin(), shrunk.end());
    return costate(folder, more);
  };
  const Json config = Json::parse(contents(file));
  if (config["data"].contains("path")) {  // relative to where the program is started from
    const std::string data = COSTATE_SOURCE_DIR "/" + config["data"]["path"].get<std::string>();
    if (!fs::exists(data)) GTEST_SKIP() << "the data set " << data << " is not here";
    shrunk.insert(shrunk.end(), {"--set", "data.path=" + data});
    if (config["data"]["kind"] == "idx")
      shrunk.insert(shrunk.end(), {"--set", "data.labels=" COSTATE_SOURCE_DIR "/" + config["data"]["labels"].get<std::string>()});
  }
  if (config["network"].contains("path"))
    shrunk.insert(shrunk.end(),
                  {"--set", "network.path=" COSTATE_SOURCE_DIR "/" + config["network"]["path"].get<std::string>()});
  if (config["network"].contains("kind"))  // large networks, in short
    for (const char* s : {"pretrain.batch=8", "finetune.batch=8", "sampler.steps=3", "sample.count=4", "evaluate.count=16"})
      shrunk.insert(shrunk.end(), {"--set", s});
  for (const std::string threads : {"1", "2"}) {
    const Result plan = with("plan", {"--json", "--threads", threads});
    ASSERT_EQ(plan.code, 0) << plan.err;
    const Result run = with("run", {"--quiet", "--threads", threads, "--out", "run" + threads});
    ASSERT_EQ(run.code, 0) << run.err;
    expect_exact_plan(Json::parse(plan.out), folder / ("run" + threads));
  }
}

INSTANTIATE_TEST_SUITE_P(Plan, Shipped, ::testing::ValuesIn(shipped_configurations()),
                         [](const auto& c) {
                           std::string name = c.param;
                           for (char& letter : name)
                             if (!std::isalnum(static_cast<unsigned char>(letter))) letter = '_';
                           return name;
                         });

}  // namespace
}  // namespace costate::cli::testing
