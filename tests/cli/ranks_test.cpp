// Runs by several processes under mpirun: the files of one process, refusals, and what becomes of a rank that fails or dies.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "distributed/ranks.h"
#include "config/json.h"
#include "config/read.h"
#include "commands.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

const std::string shared_points = R"({
  "name": "tiny",
  "data": {"kind": "mixture", "count": 300, "mixture": {"means": [[-1, 0], [1, 0.5]], "deviations": [0.3, 0.4]}},
  "network": {"hidden": 16, "depth": 2, "time_frequencies": 3},
  "pretrain": {"iterations": 6, "batch": 35, "micro_batch": 8, "log_every": 2, "checkpoint_every": 4},
  "reward": {"kind": "quadratic", "coefficients": [1, 0], "precision": [[0.5, 0.5]]},
  "sampler": {"steps": 6},
  "finetune": {"iterations": 4, "batch": 40, "micro_batch": 9, "early_steps": 2, "late_steps": 2, "log_every": 2},
  "sample": {"count": 70},
  "evaluate": {"count": 90, "projections": 8}
})";

Config config_with(const std::vector<std::string>& settings) { return read_config_text(shared_points, "test", settings).config; }

TEST(Ranks, WhatIsNotSharedIsRefusedInASentence) {
  const std::vector<Stage> all{Stage::pretrain, Stage::finetune, Stage::sample, Stage::evaluate};
  EXPECT_NO_THROW(check_shared(config_with({}), all, 5));
  EXPECT_NO_THROW(check_shared(config_with({"finetune.objective=draft"}), all, 2));
  const auto refused = [&](const std::vector<std::string>& settings, int ranks, const std::string& begin) {
    try {
      check_shared(config_with(settings), all, ranks);
      ADD_FAILURE() << begin;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_TRUE(std::string(e.what()).starts_with(begin)) << e.what();
    }
    EXPECT_NO_THROW(check_shared(config_with(settings), all, 1));
  };
  refused({}, 6, "pretrain.micro_batch: found 8, but 6 processes share the micro-batches of an update, and 35 samples are 5 of "
                 "them; expected 1 to 5");
  refused({"finetune.micro_batch=0"}, 2, "finetune.micro_batch: found 0, but 2 processes");
  refused({"finetune.objective=ddpo", "finetune.micro_batch=0"}, 2, "finetune.objective: found ddpo, which 2 processes cannot share");
  refused({"finetune.objective=socm", "finetune.micro_batch=0", "finetune.early_steps=0"}, 2, "finetune.objective: found socm");
  refused({"finetune.micro_batch=0", "finetune.regression.replay.size=80"}, 2, "finetune.regression.replay.size: found 80");
}

TEST(Ranks, TheLaunchIsReadFromTheEnvironment) {
  EXPECT_EQ(launch_of_environment().size, 1);
  ::setenv("SLURM_NTASKS", "4", 1);  // of a batch script, which is one process
  ::setenv("SLURM_PROCID", "0", 1);
  EXPECT_EQ(launch_of_environment().size, 1);
  ::setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  ::setenv("SLURM_PROCID", "3", 1);
  EXPECT_EQ(launch_of_environment().by, "srun");
  EXPECT_EQ(launch_of_environment().rank, 3);
  ::setenv("SLURM_PROCID", "three", 1);
  EXPECT_EQ(launch_of_environment().size, 1);
  for (const char* name : {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}) ::unsetenv(name);
}

#ifdef COSTATE_MPIRUN
constexpr const char* mpirun = COSTATE_MPIRUN " --oversubscribe --allow-run-as-root";

// A line of the shell, in `folder`.
Result shell(const Folder& folder, const std::string& line) {
  const std::string whole = "cd '" + folder.path() + "' && export OMPI_MCA_rmaps_base_oversubscribe=1 && { " + line + "; } > '" +
                            folder / ".out" + "' 2> '" + folder / ".err" + "' < /dev/null";
  const int status = std::system(whole.c_str());
  return {status < 0 ? -1 : WEXITSTATUS(status), contents(folder / ".out"), contents(folder / ".err")};
}
std::string by_ranks(int ranks, const std::string& arguments) {
  return std::string(mpirun) + " -np " + std::to_string(ranks) + " '" COSTATE_PROGRAM "' " + arguments + " --threads 1";
}
std::int64_t count(const std::string& text, const std::string& word) {
  std::int64_t n = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

TEST(Ranks, OneTwoAndFourLeaveTheFilesOfOneProcess) {
  const Folder folder;
  folder.file("config.json", shared_points);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--quiet", "--threads", "1", "--out", "alone"}).code, 0);
  std::set<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "alone")) {
    const std::string name = fs::relative(entry.path(), folder / "alone").string();
    if (entry.is_regular_file() && name != "run.json" && name != "timing.csv" && name != "summary.md" &&
        name != "config.resolved.json")
      files.insert(name);
  }
  EXPECT_GT(files.size(), 8u);
  for (const int ranks : {1, 2, 4}) {
    const std::string out = "run" + std::to_string(ranks);
    const Result r = shell(folder, by_ranks(ranks, "run config.json --quiet --out " + out));
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(count(r.out, "tuned sde"), 1) << r.out;  // the first rank alone speaks
    for (const std::string& name : files)
      EXPECT_EQ(contents(folder / (out + "/" + name)), contents(folder / ("alone/" + name))) << name << ", " << ranks << " ranks";
    const Json record = Json::parse(contents(folder / (out + "/run.json")));
    EXPECT_EQ(record["ranks"], ranks);
    const Json alone = Json::parse(contents(folder / "alone/run.json"));
    for (const auto& [stage, numbers] : alone["stages"].items()) {
      EXPECT_EQ(record["stages"][stage]["evaluations"], numbers["evaluations"]) << stage;
      EXPECT_EQ(record["stages"][stage]["flops"], numbers["flops"]) << stage;
    }
    EXPECT_EQ(record["stages"]["finetune"].contains("sent_bytes"), ranks > 1);
  }
}

TEST(Ranks, WhatIsWrongIsSaidOnceBeforeTheRunBegins) {
  const Folder folder;
  folder.file("config.json", shared_points);
  const Result few = shell(folder, by_ranks(2, "run config.json --out run --set pretrain.micro_batch=0"));
  EXPECT_EQ(few.code, 2);
  EXPECT_EQ(count(few.err, "costate: pretrain.micro_batch: found 0"), 1) << few.err;
  EXPECT_FALSE(fs::exists(folder / "run"));
  const Result inspect = shell(folder, std::string(mpirun) + " -np 2 '" COSTATE_PROGRAM "' objectives");
  EXPECT_EQ(inspect.code, 2);
  EXPECT_EQ(count(inspect.err, "costate: mpirun started 2 processes, but they share run"), 1) << inspect.err;
  const Result differ = shell(folder, by_ranks(1, "run config.json --out run") + " : -np 1 '" COSTATE_PROGRAM
                                          "' run config.json --out run --threads 1 --seed 5");
  EXPECT_NE(differ.code, 0);
  EXPECT_EQ(count(differ.err, "the processes differ in their configuration"), 1) << differ.err;
  EXPECT_FALSE(fs::exists(folder / "run"));
  const Result without = shell(folder, "COSTATE_MPI_PLUGIN=none.so " + by_ranks(2, "run config.json --out run"));
  EXPECT_EQ(without.code, 1);
  EXPECT_EQ(count(without.err, "costate: mpirun started 2 processes, but none.so could not be loaded"), 1) << without.err;
}

TEST(Ranks, AnErrorOfOneRankEndsAllWithItsName) {
  // The second rank works elsewhere and does not find what the first has written.
  const Folder folder;
  folder.file("config.json", shared_points);
  fs::create_directory(folder / "elsewhere");
  fs::copy(folder / "config.json", folder / "elsewhere/config.json");
  const Result r = shell(folder, by_ranks(1, "run config.json --quiet --out run") + " : -np 1 -wdir '" + folder / "elsewhere" +
                                     "' '" COSTATE_PROGRAM "' run config.json --quiet --out run --threads 1");
  EXPECT_EQ(r.code, 6) << r.err;
  EXPECT_EQ(count(r.err, "costate: rank 1 of 2: 'run/checkpoints/base.safetensors' does not exist"), 1) << r.err;
  EXPECT_EQ(count(r.err, "this ends all ranks, and the checkpoints are as they were"), 1) << r.err;
  EXPECT_EQ(costate(folder, {"finetune", "config.json", "--quiet", "--out", "run"}).code, 0);
}

TEST(Ranks, ARankThatIsKilledEndsTheJobAndTheNextGoesOnFromItsCheckpoint) {
  const Folder folder;
  folder.file("config.json", shared_points);
  ASSERT_EQ(shell(folder, by_ranks(2, "pretrain config.json --quiet --out run")).code, 0);
  const std::string base = contents(folder / "run/checkpoints/base.safetensors");
  // Long enough that the kill comes in the middle: after the first intermediate checkpoint.
  const std::string tuning = " --set finetune.checkpoint_every=1 --set finetune.iterations=";
  const Result r = shell(folder, by_ranks(2, "finetune config.json --quiet --out run" + tuning + "1000000") +
                                     " & job=$!; until [ -e run/checkpoints/tuned_000002.safetensors ]; do sleep 0.05; done; "
                                     "kill -9 $(pgrep -P $job | tail -n 1); wait $job");
  EXPECT_NE(r.code, 0);
  EXPECT_NE(r.err.find("signal 9"), std::string::npos) << r.err;  // mpirun names the rank and the signal
  EXPECT_EQ(contents(folder / "run/checkpoints/base.safetensors"), base);
  const Result again = shell(folder, by_ranks(2, "finetune config.json --quiet --overwrite --out run"));
  ASSERT_EQ(again.code, 0) << again.err;
  ASSERT_EQ(costate(folder, {"pretrain", "config.json", "--quiet", "--out", "alone"}).code, 0);
  ASSERT_EQ(costate(folder, {"finetune", "config.json", "--quiet", "--out", "alone"}).code, 0);
  EXPECT_EQ(contents(folder / "run/checkpoints/tuned.safetensors"), contents(folder / "alone/checkpoints/tuned.safetensors"));
}
#else
TEST(Ranks, RunUnderMpirun) { GTEST_SKIP() << "MPI was not found when this was configured: no run by several processes to look at"; }
#endif

}  // namespace
}  // namespace costate::cli::testing
