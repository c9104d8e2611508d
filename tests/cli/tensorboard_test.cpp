// Event files of TensorBoard: bytes known from TensorFlow, the framing and its checksums, histograms, and those that a run leaves.
// TensorBoard itself reads them in tests/reference/read_events.py.
#include <gtest/gtest.h>

#include <costate/tensor/random.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "config/json.h"
#include "program.h"
#include "run/tensorboard.h"

namespace costate::cli::testing {
namespace {

namespace tb = tensorboard;

std::string bytes_of_hex(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return out;
}

// As tensorflow.summary writes them.
TEST(TensorBoard, RecordsHaveTheBytesOfTensorFlow) {
  EXPECT_EQ(tb::record(tb::version_event(1.5)),
            bytes_of_hex("1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"));
  EXPECT_EQ(tb::record(tb::summary_event(1.5, 3, {{"loss", 0.25}})),
            bytes_of_hex("1a00000000000000129bd82d09000000000000f83f10032a0d0a0b0a046c6f7373150000803ed054b255"));
}

TEST(TensorBoard, HistogramsCountEveryFiniteValueOnce) {
  const Philox random{7, Stream::user};
  std::vector<double> values{0, -0.0, 1e-300, -1e300, std::nan(""), INFINITY, -INFINITY, 1e-12};
  for (std::uint32_t i = 0; i < 5000; ++i) values.push_back(random.normal(i, 0, 0) * std::pow(10, random.normal(i, 1, 0)));
  const tb::Histogram h = tb::histogram(values);
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  EXPECT_EQ(h.count, static_cast<double>(values.size()));
  EXPECT_EQ(h.min, *std::min_element(values.begin(), values.end()));
  EXPECT_EQ(h.max, *std::max_element(values.begin(), values.end()));
  ASSERT_EQ(h.limits.size(), h.counts.size());
  ASSERT_TRUE(std::is_sorted(h.limits.begin(), h.limits.end()));
  for (std::size_t i = 0; i < h.limits.size(); ++i)
    EXPECT_EQ(h.counts[i], static_cast<double>(std::count_if(values.begin(), values.end(), [&](double v) {
                return v <= h.limits[i] && (i == 0 || v > h.limits[i - 1]);
              })))
        << i;
  // One bucket a value is from, and an empty one below it.
  const tb::Histogram one = tb::histogram(std::vector<double>{2.5, 2.5});
  ASSERT_EQ(one.counts, (std::vector<double>{0, 2}));
  EXPECT_TRUE(one.limits[0] < 2.5 && 2.5 <= one.limits[1] && one.limits[1] < 1.1001 * one.limits[0]);
  EXPECT_EQ(one.sum, 5);
  EXPECT_EQ(one.squares, 12.5);
  EXPECT_EQ(tb::histogram({}).count, 0);
}

// ------------------------------------------------------------------------------------------------ reading
// A message of protocol buffers: its fields by number, each as its bytes.
std::multimap<int, std::string> fields_of(std::string_view m) {
  std::multimap<int, std::string> out;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(m.at(at++));
      v |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return v;
    }
  };
  while (at < m.size()) {
    const std::uint64_t key = varint();
    std::size_t size = 0;
    if ((key & 7) == 0) {
      out.emplace(static_cast<int>(key >> 3), std::to_string(varint()));
      continue;
    }
    size = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : varint();
    out.emplace(static_cast<int>(key >> 3), std::string(m.substr(at, size)));
    at += size;
  }
  return out;
}
template <class T>
T as(const std::string& bytes) {
  T v{};
  EXPECT_EQ(bytes.size(), sizeof v);
  std::memcpy(&v, bytes.data(), std::min(bytes.size(), sizeof v));
  return v;
}

struct Entry {
  std::int64_t step = 0;
  std::string tag;
  std::optional<float> number;
  std::string png, histogram;
};
struct Events {
  std::string version;
  int starts = 0;
  std::vector<Entry> entries;
};
// Every record of a file, its checksums compared.
Events read_events(const std::string& path) {
  const std::string file = contents(path);
  Events out;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = as<std::uint64_t>(file.substr(at, 8));
    const std::string event = file.substr(at + 12, length);
    EXPECT_EQ(file.substr(at, 16 + length), tb::record(event));
    at += 16 + length;
    const auto fields = fields_of(event);
    EXPECT_EQ(fields.count(1), 1u);
    if (fields.count(3)) out.version = fields.find(3)->second;
    if (fields.count(7)) ++out.starts;
    if (!fields.count(5)) continue;
    const auto summary = fields_of(fields.find(5)->second);
    for (auto [v, end] = summary.equal_range(1); v != end; ++v) {
      const auto value = fields_of(v->second);
      Entry e;
      if (fields.count(2)) e.step = std::stoll(fields.find(2)->second);
      e.tag = value.find(1)->second;
      if (value.count(2)) e.number = as<float>(value.find(2)->second);
      if (value.count(4)) e.png = fields_of(value.find(4)->second).find(4)->second;
      if (value.count(5)) e.histogram = value.find(5)->second;
      out.entries.push_back(std::move(e));
    }
  }
  return out;
}
// The only file of a stage that is not empty, and the last one.
Events events_of(const std::string& run, const std::string& stage) {
  std::vector<std::string> files;
  std::string last;
  for (const auto& entry : fs::directory_iterator(run + "/tensorboard/" + stage)) {
    if (fs::file_size(entry.path()) > 0) files.push_back(entry.path().string());
    last = std::max(last, entry.path().string());
  }
  EXPECT_EQ(files.size(), 1u) << stage;
  EXPECT_EQ(files.at(0), last);
  EXPECT_NE(files.at(0).find("/events.out.tfevents."), std::string::npos);
  return read_events(files.at(0));
}

// The numbers of metrics.jsonl, rounded to single precision, in its order.
void expect_metrics(const std::string& run, const std::string& stage) {
  std::vector<Entry> expected;
  std::istringstream lines(contents(run + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json row = Json::parse(line);
    if (row["stage"] != stage) continue;
    for (const auto& [name, v] : row.items())
      if (name != "stage" && name != "step")
        expected.push_back({row["step"].get<std::int64_t>(), name, v.is_null() ? NAN : static_cast<float>(v.get<double>()), {}, {}});
  }
  const Events found = events_of(run, stage);
  EXPECT_EQ(found.version, "brain.Event:2");
  EXPECT_EQ(found.starts, 1);
  ASSERT_EQ(found.entries.size(), expected.size()) << stage;
  EXPECT_FALSE(expected.empty());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(found.entries[i].step, expected[i].step);
    EXPECT_EQ(found.entries[i].tag, expected[i].tag);
    const float a = found.entries[i].number.value(), b = *expected[i].number;
    EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << expected[i].tag;
  }
}

TEST(TensorBoardRun, HoldsMetricsPicturesAndRewardsOnRequest) {
  const Folder folder;
  folder.file("config.json", tiny_digits);
  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"config.json", "--quiet", "--out", "run"};
    arguments.insert(arguments.begin(), more.front());
    arguments.insert(arguments.end(), more.begin() + 1, more.end());
    const Result r = costate(folder, arguments);
    ASSERT_EQ(r.code, 0) << r.err;
  };
  const std::string on = "log.tensorboard=true", path = folder / "run";
  run({"run", "--set", on});
  for (const std::string stage : {"pretrain", "reward_classifier", "judge", "finetune"}) expect_metrics(path, stage);
  const Events pictures = events_of(path, "sample");
  ASSERT_EQ(pictures.entries.size(), 5u);  // the data, two models, two samplers
  for (const Entry& e : pictures.entries) EXPECT_EQ(e.png, contents(path + "/samples/" + e.tag + ".png")) << e.tag;
  const Events rewards = events_of(path, "evaluate");
  const Json evaluation = Json::parse(contents(path + "/evaluation.json"));
  ASSERT_EQ(rewards.entries.size(), 4u);
  for (const Entry& e : rewards.entries) {
    const auto h = fields_of(e.histogram);
    const std::string set = e.tag.substr(e.tag.find('/') + 1);
    EXPECT_EQ(as<double>(h.find(3)->second), 70) << set;  // evaluate.count
    EXPECT_NEAR(as<double>(h.find(4)->second) / 70, evaluation["samples"][set]["reward"]["value"].get<double>(), 1e-9) << set;
  }
  // Fine-tuning again, shorter: one new file, without the rows of before; nothing of the model before.
  run({"finetune", "--overwrite", "--set", on, "--set", "finetune.iterations=2"});
  expect_metrics(path, "finetune");
  EXPECT_TRUE(fs::exists(path + "/tensorboard/pretrain"));
  for (const char* stage : {"sample", "evaluate"})
    for (const auto& entry : fs::directory_iterator(path + "/tensorboard/" + stage)) EXPECT_EQ(fs::file_size(entry.path()), 0u);
  // Not asked for: nothing, and nothing of a run before. The models are the same.
  const std::string tuned = contents(path + "/checkpoints/base.safetensors");
  run({"run", "--overwrite"});
  EXPECT_FALSE(fs::exists(path + "/tensorboard"));
  EXPECT_EQ(contents(path + "/checkpoints/base.safetensors"), tuned);
}

}  // namespace
}  // namespace costate::cli::testing
