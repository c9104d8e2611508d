// --mem-limit: settings chosen by plans, and what a run does with them.
#include <gtest/gtest.h>

#include <algorithm>

#include "bytes.h"
#include "config/json.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

Json limited(const Folder& folder, std::int64_t limit, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"plan",      "config.json", "--json",      "--threads",
                                     "2",         "--mem-limit", std::to_string(limit)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Result r = costate(folder, arguments);
  EXPECT_EQ(r.code, 0) << r.err;
  return r.code == 0 ? Json::parse(r.out) : Json();
}

// The digits with a batch that is most of the memory of fine-tuning.
std::string config_text() {
  Json config = Json::parse(tiny_dit);
  config["finetune"]["batch"] = 64;
  return config.dump();
}
const std::vector<std::string> keys{"micro_batch", "keep_activations", "recompute"};

TEST(MemLimit, ChoosesTheFewestOperationsThatFit) {
  const Folder folder;
  folder.file("config.json", config_text());
  const Json all = limited(folder, std::int64_t{1} << 40)["mem_limit"];
  // Everything fits: one candidate for each pair of the two other settings, the whole batch.
  ASSERT_EQ(all["candidates"].size(), 4u);
  for (const Json& c : all["candidates"]) EXPECT_EQ(c["micro_batch"], 0);
  EXPECT_TRUE(std::is_sorted(all["candidates"].begin(), all["candidates"].end(), [](const Json& a, const Json& b) {
    return a["flops"].get<std::int64_t>() < b["flops"].get<std::int64_t>();
  }));
  // Kept activations save a pass, computing blocks again costs one.
  EXPECT_EQ(all["chosen"],
            "--set finetune.micro_batch=0 --set finetune.keep_activations=true --set finetune.recompute=none");

  std::int64_t last_flops = 0;
  // From the largest peak down: what is chosen fits by its own plan, and takes more operations the less there is.
  for (const double share : {1.0, 0.9, 0.6, 0.4}) {
    const auto limit = static_cast<std::int64_t>(share * all["candidates"][0]["peak_bytes"].get<double>());
    const Result tried = costate(folder, {"plan", "config.json", "--json", "--threads", "2", "--mem-limit", std::to_string(limit)});
    if (tried.code == 5) continue;  // another stage is larger
    ASSERT_EQ(tried.code, 0) << tried.err;
    const Json plan = Json::parse(tried.out);
    EXPECT_LE(plan["peak_bytes"].get<std::int64_t>(), limit);
    std::int64_t fewest = INT64_MAX;
    for (const Json& c : plan["mem_limit"]["candidates"]) {
      EXPECT_EQ(c["fits"], c["peak_bytes"].get<std::int64_t>() <= limit);
      if (c["fits"]) fewest = std::min(fewest, c["flops"].get<std::int64_t>());
    }
    const std::int64_t flops = plan["stages"]["finetune"]["flops"].get<std::int64_t>();
    EXPECT_EQ(flops, fewest);
    EXPECT_GE(flops, last_flops);
    last_flops = flops;
  }
}

TEST(MemLimit, RunsWithTheChosenSettings) {
  const Folder folder;
  folder.file("config.json", config_text());
  const Json free = limited(folder, std::int64_t{1} << 40);
  // Less than what the configured settings need, as much as the largest of the other stages or three quarters.
  std::int64_t others = 0;
  for (const auto& [name, stage] : free["stages"].items())
    if (name != "finetune") others = std::max(others, stage["peak"]["bytes"].get<std::int64_t>());
  std::int64_t configured = 0;
  for (const Json& c : free["mem_limit"]["candidates"])
    if (c["recompute"] == "none" && c["keep_activations"] == false) configured = c["peak_bytes"].get<std::int64_t>();
  const std::int64_t limit = std::max(others, configured * 3 / 4);
  ASSERT_LT(limit, configured);
  const Json planned = limited(folder, limit);
  const std::string chosen = planned["mem_limit"]["chosen"].get<std::string>();

  const Result r = costate(folder, {"run", "config.json", "--out", "run", "--threads", "2", "--mem-limit", std::to_string(limit)});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.err.find(chosen), std::string::npos) << r.err;
  const Json resolved = Json::parse(contents(folder / "run/config.resolved.json")),
             record = Json::parse(contents(folder / "run/run.json"));
  EXPECT_LE(record["peak_bytes"].get<std::int64_t>(), limit);
  std::string written;
  for (const std::string& key : keys)
    written += (written.empty() ? "--set finetune." : " --set finetune.") + key + "=" +
               (resolved["finetune"][key].is_string() ? resolved["finetune"][key].get<std::string>()
                                                      : resolved["finetune"][key].dump());
  EXPECT_EQ(written, chosen);
  EXPECT_EQ(record["stages"]["finetune"]["flops"], planned["stages"]["finetune"]["flops"]);
  EXPECT_EQ(record["stages"]["finetune"]["peak"], planned["stages"]["finetune"]["peak"]);
  // Fine-tuning again, alone.
  const Result again = costate(folder, {"finetune", "config.json", "--out", "run", "--overwrite", "--threads", "2", "--quiet",
                                        "--mem-limit", std::to_string(limit)});
  EXPECT_EQ(again.code, 0) << again.err;
}

// Blocks may be computed again; another micro-batch or kept activations cut the sums differently.
TEST(MemLimit, SaysWhatKeepsTheBits) {
  const Folder folder;
  folder.file("config.json", config_text());
  const Json plan = limited(folder, std::int64_t{1} << 40, {"--set", "finetune.micro_batch=24"})["mem_limit"];
  for (const Json& c : plan["candidates"])
    EXPECT_EQ(c["same_bits"], c["micro_batch"] == 24 && c["keep_activations"] == false) << c.dump();
  const Result text = costate(folder, {"plan", "config.json", "--mem-limit", "1GiB"});
  EXPECT_NE(text.out.find("other bits"), std::string::npos) << text.out;
}

TEST(MemLimit, RefusesInWords) {
  const Folder folder;
  folder.file("config.json", config_text());
  const Json free = limited(folder, std::int64_t{1} << 40);
  std::int64_t others = 0;
  for (const auto& [name, stage] : free["stages"].items())
    if (name != "finetune") others = std::max(others, stage["peak"]["bytes"].get<std::int64_t>());
  const Result small = costate(folder, {"plan", "config.json", "--threads", "2", "--mem-limit", std::to_string(others - 1)});
  EXPECT_EQ(small.code, 5);
  EXPECT_NE(small.err.find("the smallest peak of"), std::string::npos) << small.err;
  EXPECT_NE(small.err.find(std::to_string(others)), std::string::npos) << small.err;
  // Fine-tuning alone does not fit; nothing is written. Its smallest peak is that of a candidate.
  costate(folder, {"pretrain", "config.json", "--out", "run", "--quiet"});
  const Result none = costate(folder, {"finetune", "config.json", "--out", "run", "--mem-limit", "2KiB"});
  EXPECT_EQ(none.code, 5);
  EXPECT_NE(none.err.find("the smallest peak of finetune is "), std::string::npos) << none.err;
  EXPECT_FALSE(fs::exists(folder / "run/checkpoints/tuned.safetensors"));
  for (const char* wrong : {"many", "0", "12XB", "-3", "1.5GB", "99999999999999999999"}) {
    const Result r = costate(folder, {"plan", "config.json", std::string("--mem-limit=") + wrong});
    EXPECT_EQ(r.code, 2) << wrong;
    EXPECT_NE(r.err.find("--mem-limit: found '"), std::string::npos) << r.err;
  }
  EXPECT_EQ(costate(folder, {"pretrain", "config.json", "--mem-limit", "1GB"}).code, 2) << "an option of run, finetune and plan";
}

TEST(Bytes, AreReadAndWritten) {
  EXPECT_EQ(bytes_of("4096", "--x"), 4096u);
  EXPECT_EQ(bytes_of("2GB", "--x"), 2000000000u);
  EXPECT_EQ(bytes_of("512MiB", "--x"), 512u << 20);
  EXPECT_EQ(bytes_of("10995116277760", "--x"), std::uint64_t{10} << 40);
  EXPECT_EQ(bytes_text(512), "512 B");
  EXPECT_EQ(bytes_text(std::int64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(flops_text(999), "999 FLOP");
  EXPECT_EQ(flops_text(999960), "1 MFLOP");
  EXPECT_EQ(flops_text(24790000000000), "24.79 TFLOP");
}

}  // namespace
}  // namespace costate::cli::testing
