// Runs on a device: the emulator's plugin stands for one. Its kernels, like the cpu's baseline kernels, are compiled without
// fused multiply-add, so that the two differ by the order of their sums alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "objectives/objectives.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

using Json = nlohmann::ordered_json;

// The environment of the programs that a test starts, as long as this stands.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Environment() { unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

struct Emulated {
  Environment plugin{"COSTATE_CUDA_PLUGIN", COSTATE_EMULATED_PLUGIN}, kernels{"COSTATE_CPU_ISA", "baseline"};
};

void expect_done(const Folder& folder, const std::vector<std::string>& arguments) {
  const Result r = costate(folder, arguments);
  ASSERT_EQ(r.code, 0) << arguments[0] << ": " << r.err;
}

// Numbers agree to a ten thousandth, and what is itself a difference of rounding size (the divergence of a model that has
// hardly moved, the mean of advantages) to 1e-6; everything else is equal.
void expect_near(const Json& a, const Json& b, const std::string& where) {
  if (a.is_number() && b.is_number()) {
    const double x = a.get<double>(), y = b.get<double>();
    EXPECT_NEAR(x, y, 1e-4 * std::abs(x) + 1e-6) << where;
    return;
  }
  ASSERT_EQ(a.type(), b.type()) << where;
  ASSERT_EQ(a.size(), b.size()) << where;
  if (a.is_structured())
    for (auto i = a.begin(), j = b.begin(); i != a.end(); ++i, ++j) {
      const std::string key = a.is_object() ? i.key() : std::to_string(i - a.begin());
      EXPECT_EQ(key, a.is_object() ? j.key() : key) << where;
      expect_near(*i, *j, where + "/" + key);
    }
  else
    EXPECT_EQ(a, b) << where;
}

std::vector<Json> rows(const std::string& file) {
  std::vector<Json> out;
  std::istringstream lines(contents(file));
  for (std::string line; std::getline(lines, line);) out.push_back(Json::parse(line));
  return out;
}

void expect_same_metrics(const std::string& a, const std::string& b) {
  const std::vector<Json> x = rows(a + "/metrics.jsonl"), y = rows(b + "/metrics.jsonl");
  ASSERT_EQ(x.size(), y.size());
  EXPECT_FALSE(x.empty());
  for (std::size_t i = 0; i < x.size(); ++i) expect_near(x[i], y[i], "row " + std::to_string(i));
}

Json json_in(const std::string& file) { return Json::parse(contents(file)); }

// A mixture in the plane with everything that runs can be told about it, in a blink.
const std::string points = R"({
  "name": "tiny",
  "data": {"kind": "mixture", "count": 60, "mixture": {"means": [[-1, 0], [1, 0.5]], "deviations": [0.3, 0.4]}},
  "network": {"hidden": 8, "depth": 2, "time_frequencies": 2},
  "pretrain": {"iterations": 4, "batch": 16, "log_every": 1},
  "reward": {"kind": "quadratic", "coefficients": [1, 0], "precision": [[0.5, 0.5]]},
  "sampler": {"steps": 8},
  "finetune": {"iterations": 2, "batch": 8, "log_every": 1, "checkpoint_every": 1},
  "sample": {"count": 8, "methods": ["smc", "best_of_n", "noise_optimisation"], "best_of_n": {"n": 2},
             "noise": {"iterations": 2, "gamma": 0.1, "vector": 2, "permutations": 3}},
  "evaluate": {"count": 8, "projections": 4, "checkpoints": true, "likelihood": {"count": 4, "steps": 2}}
})";

TEST(Device, ARunHasTheNumbersOfTheCpu) {
  const Emulated emulated;
  const Folder folder;
  folder.file("config.json", points);
  expect_done(folder, {"run", "config.json", "--quiet", "--out", "cpu"});
  expect_done(folder, {"run", "config.json", "--quiet", "--out", "device", "--device", "cuda:0"});
  expect_same_metrics(folder / "cpu", folder / "device");
  expect_near(json_in(folder / "cpu/evaluation.json"), json_in(folder / "device/evaluation.json"), "evaluation");
  expect_near(json_in(folder / "cpu/samples/methods.json"), json_in(folder / "device/samples/methods.json"), "methods");
  const Json there = json_in(folder / "device/run.json"), here = json_in(folder / "cpu/run.json");
  EXPECT_EQ(there["device"], "cuda:0 (emulated device)");
  EXPECT_EQ(here["device"], "cpu");
  for (const auto& [name, stage] : here["stages"].items()) {
    EXPECT_EQ(stage["evaluations"], there["stages"][name]["evaluations"]) << name;
    EXPECT_EQ(stage["flops"], there["stages"][name]["flops"]) << name;
    // The device's kernels read parameters as they lie: no packed layouts, which a plan has.
    EXPECT_FALSE(there["stages"][name]["peak"]["by_tag"].contains("packed")) << name;
    EXPECT_EQ(stage["planned_peak"], there["stages"][name]["planned_peak"]) << name;
    // A plan is the cpu's. Beyond it a device has one line of 64 bytes, for a number that a kernel leaves to the host; and its own
    // iteration of fine-tuning keeps all rows of a step at once.
    const auto peak = there["stages"][name]["peak"]["bytes"].get<std::int64_t>(),
               planned = there["stages"][name]["planned_peak"]["bytes"].get<std::int64_t>();
    EXPECT_LE(peak, name == "finetune" ? 2 * planned : planned + 64) << name;
  }
  // The same again has the same bits, stage by stage as well as at once.
  for (const char* stage : {"pretrain", "finetune", "sample", "evaluate"})
    expect_done(folder, {stage, "config.json", "--quiet", "--out", "again", "--device", "cuda:0"});
  for (const char* file : {"metrics.jsonl", "evaluation.json", "samples/tuned_sde.npy", "samples/methods.json"})
    EXPECT_EQ(contents(folder / (std::string("device/") + file)), contents(folder / (std::string("again/") + file))) << file;
}

// Checkpoints belong to no device: each stage may run on another one.
TEST(Device, StagesChangeDevices) {
  const Emulated emulated;
  const Folder folder;
  folder.file("config.json", tiny_digits);
  expect_done(folder, {"run", "config.json", "--quiet", "--out", "cpu"});
  expect_done(folder, {"pretrain", "config.json", "--quiet", "--out", "mixed"});
  EXPECT_EQ(contents(folder / "cpu/checkpoints/base.safetensors"), contents(folder / "mixed/checkpoints/base.safetensors"));
  expect_done(folder, {"finetune", "config.json", "--quiet", "--out", "mixed", "--set", "device=cuda:0"});
  expect_done(folder, {"evaluate", "config.json", "--quiet", "--out", "mixed", "--device", "cpu"});
  expect_same_metrics(folder / "cpu", folder / "mixed");
  expect_near(json_in(folder / "cpu/evaluation.json"), json_in(folder / "mixed/evaluation.json"), "evaluation");
}

TEST(Device, AdaptersAndRecomputedBlocks) {
  const Emulated emulated;
  const Folder folder;
  folder.file("config.json", tiny_dit);
  const std::vector<std::string> settings{"--set", "finetune.lora.rank=2", "--set", "finetune.recompute=blocks",
                                          "--set", "network.dit.depth=1"};
  for (const std::string device : {"cpu", "cuda:0"})
    for (const std::string stage : {"pretrain", "finetune"}) {
      std::vector<std::string> arguments{stage, "config.json", "--quiet", "--out", device.substr(0, 3), "--device", device};
      arguments.insert(arguments.end(), settings.begin(), settings.end());
      expect_done(folder, arguments);
    }
  expect_same_metrics(folder / "cpu", folder / "cud");
}

// Recorded iterations: the same bits, and the same counts though nobody is there to count.
TEST(Device, GraphsHaveTheBitsAndCountsOfTheLoopThatIsNotRecorded) {
  const Emulated emulated;
  const Folder folder;
  folder.file("config.json", points);
  const std::vector<std::string> common{"config.json", "--quiet", "--device", "cuda:0", "--set", "finetune.iterations=5", "--set",
                                        "finetune.checkpoint_every=2"};
  const auto go = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin() + 1, common.begin(), common.end());
    expect_done(folder, arguments);
  };
  go({"run", "--out", "plain"});
  go({"run", "--out", "graphs", "--set", "finetune.regression.graphs=true"});
  for (const char* file : {"metrics.jsonl", "evaluation.json", "samples/tuned_sde.npy"})
    EXPECT_EQ(contents(folder / (std::string("plain/") + file)), contents(folder / (std::string("graphs/") + file))) << file;
  const Json plain = json_in(folder / "plain/run.json"), graphs = json_in(folder / "graphs/run.json");
  for (const auto& [name, stage] : plain["stages"].items()) {
    EXPECT_EQ(stage["evaluations"], graphs["stages"][name]["evaluations"]) << name;
    EXPECT_EQ(stage["flops"], graphs["stages"][name]["flops"]) << name;
  }
}

// What the configuration says cannot be recorded.
TEST(Device, GraphsThatCannotBeAreSaid) {
  const Emulated emulated;
  const Folder folder;
  folder.file("config.json", points);
  const auto refused = [&](const std::vector<std::string>& settings, const std::string& sentence) {
    std::vector<std::string> arguments{"run", "config.json", "--out", "run", "--set", "finetune.regression.graphs=true"};
    for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
    const Result r = costate(folder, arguments);
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_NE(r.err.find("finetune.regression.graphs: " + sentence), std::string::npos) << r.err;
    EXPECT_FALSE(fs::exists(folder / "run"));
  };
  refused({}, "found true, but the device is the cpu");
  refused({"device=cuda:0", "finetune.micro_batch=4"}, "found true, but micro_batch asks for less memory");
  refused({"device=cuda:0", "finetune.regression.replay.size=16"}, "found true, but a replay buffer is refilled by the host");
  refused({"device=cuda:0", "finetune.objective=pi_ft"}, "applies to adjoints without path weights only");
}

// folder/cpu and, the same, folder/cuda:0 with a base.
void make_base(const Folder& folder) {
  folder.file("config.json", points);
  expect_done(folder, {"pretrain", "config.json", "--quiet", "--out", "cpu"});
  fs::copy(folder / "cpu", folder / "cuda:0", fs::copy_options::recursive);
}

// Later stages read the checkpoint on any device.
TEST(Device, StatesInTheHostsMemory) {
  const Emulated emulated;
  const Folder folder;
  make_base(folder);
  const auto finetune = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"finetune", "config.json", "--quiet", "--out", out, "--device", "cuda:0"};
    for (const std::string& s : more) arguments.insert(arguments.end(), {"--set", s});
    expect_done(folder, arguments);
  };
  const std::string draft = "finetune.objective=draft";
  finetune("cpu", {draft});
  finetune("cuda:0", {draft, "finetune.backpropagation.adjoint=two_level", "finetune.backpropagation.segment=2",
                      "finetune.backpropagation.host_memory=true"});
  for (const std::string device : {"cpu", "cuda:0"}) {
    std::vector<std::string> arguments{"sample", "config.json", "--quiet", "--out", device, "--set", draft};
    if (device == "cuda:0")
      arguments.insert(arguments.end(), {"--set", "finetune.backpropagation.adjoint=two_level", "--set",
                                         "finetune.backpropagation.segment=2"});
    expect_done(folder, arguments);
  }
  EXPECT_EQ(contents(folder / "cpu/samples/tuned_sde.npy"), contents(folder / "cuda:0/samples/tuned_sde.npy"));
}

// The optimal control is computed by the host, from copies.
TEST(Device, ControlProblems) {
  const Emulated emulated;
  const Folder folder;
  folder.file("config.json", R"({"name": "control",
    "control": {"problem": "molecular_dynamics", "steps": 40, "hidden": [8], "paths": 16},
    "finetune": {"objective": "cross_entropy", "iterations": 2, "batch": 8, "log_every": 1}, "evaluate": {"count": 16}})");
  for (const std::string device : {"cpu", "cuda:0"})
    expect_done(folder, {"run", "config.json", "--quiet", "--out", device.substr(0, 3), "--device", device});
  expect_same_metrics(folder / "cpu", folder / "cud");
  expect_near(json_in(folder / "cpu/evaluation.json"), json_in(folder / "cud/evaluation.json"), "evaluation");
}

// Fine-tuning by an objective from the base that is in folder/cpu and, the same file, in folder/cuda:0.
void expect_same_finetuning(const Folder& folder, const std::string& objective) {
  SCOPED_TRACE(objective);
  for (const std::string device : {"cpu", "cuda:0"}) {
    std::vector<std::string> arguments{"finetune", "config.json", "--quiet", "--overwrite", "--out", device,
                                       "--device", device,        "--set",   "finetune.objective=" + objective};
    if (standard_finetune(objective).initial_law.kind != "noise")
      for (const char* key : {"iterations=2", "batch=8"})
        arguments.insert(arguments.end(), {"--set", std::string("finetune.initial_law.") + key});
    expect_done(folder, arguments);
  }
  expect_same_metrics(folder / "cpu", folder / "cuda:0");
}

TEST(Device, ObjectivesOfEveryLoop) {
  const Emulated emulated;
  const Folder folder;
  make_base(folder);
  for (const char* objective : {"pi_ft", "dpok", "draft"}) expect_same_finetuning(folder, objective);
}

TEST(Whole, EveryObjectiveOnADevice) {
  const Emulated emulated;
  const Folder folder;
  make_base(folder);
  for (const std::string& name : objective_names()) expect_same_finetuning(folder, name);
}

TEST(Device, WhatCannotBeHadIsSaidBeforeAnythingIsWritten) {
  const Folder folder;
  folder.file("config.json", points);
  const auto refused = [&](const std::vector<std::string>& arguments, int code, const std::string& sentence) {
    const Result r = costate(folder, arguments);
    EXPECT_EQ(r.code, code) << r.err;
    EXPECT_NE(r.err.find(sentence), std::string::npos) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    EXPECT_FALSE(fs::exists(folder / "run"));
  };
  refused({"run", "config.json", "--out", "run", "--device", "gpu"}, 2, "device: 'gpu' is no device; expected cpu");
  refused({"run", "config.json", "--out", "run", "--device", "meta"}, 2, "device: found \"meta\", expected cpu, or cuda:0");
  {
    const Environment none("COSTATE_CUDA_PLUGIN", folder / "none.so");
    refused({"run", "config.json", "--out", "run", "--device", "cuda:0"}, 1,
            "device: cuda:0: COSTATE_CUDA_PLUGIN names " + folder / "none.so" + ", which does not exist");
    // A plan needs no device.
    expect_done(folder, {"plan", "config.json", "--device", "cuda:0"});
  }
  const Emulated emulated;
  refused({"run", "config.json", "--out", "run", "--device", "cuda:3"}, 1, "device: cuda:3: there is no such device");
  refused({"check-grad", "config.json", "--set", "device=cuda:0"}, 2, "check-grad compares gradients on the cpu");
}

TEST(Device, AFullDeviceSaysWhatHoldsIt) {
  const Emulated emulated;
  const Environment small("COSTATE_EMULATED_MEMORY", "65536");
  const Folder folder;
  folder.file("config.json", points);
  const Result r = costate(folder, {"run", "config.json", "--quiet", "--out", "run", "--device", "cuda:0", "--set",
                                    "network.hidden=64"});
  EXPECT_EQ(r.code, 5) << r.err;
  EXPECT_NE(r.err.find("cuda:0 refused "), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("(optimiser "), std::string::npos) << r.err;
}

}  // namespace
}  // namespace costate::cli::testing
