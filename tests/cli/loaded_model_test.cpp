// Models of run directories without their data: the samples that the run kept, rewards with their slopes in the data's units.
#include "loaded_model.h"

#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "build.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

// The numbers of an .npy file.
std::vector<float> numbers(const std::string& path) {
  const std::string text = contents(path);
  if (text.size() < 10) return {};
  const std::size_t at = 10 + static_cast<unsigned char>(text[8]) + 256 * static_cast<unsigned char>(text[9]);
  std::vector<float> out((text.size() - at) / sizeof(float));
  std::memcpy(out.data(), text.data() + at, out.size() * sizeof(float));
  return out;
}

class Loaded : public ::testing::TestWithParam<std::string> {};

TEST_P(Loaded, DrawsWhatTheRunKept) {
  const Folder folder;
  folder.file("config.json", tiny(GetParam()));
  const Result run = costate(folder, {"run", "config.json", "--quiet", "--out", "made", "--set", "data.scaling=standardise"});
  ASSERT_EQ(run.code, 0) << run.err;
  fs::rename(folder / "made", folder / "moved");
  for (const std::string which : {"base", "tuned"}) {
    const LoadedModel model(folder / "moved", which);
    const Config& c = model.config();
    LoadedModel::Request r;
    r.count = c.sample.count, r.seed = seed_of(c, Purpose::sample);
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; i < r.count && !c.sample.labels.empty(); ++i)
      labels.push_back(static_cast<std::int32_t>(c.sample.labels[static_cast<std::size_t>(i) % c.sample.labels.size()]));
    r.labels = labels;
    const std::vector<float> kept = numbers(folder / ("moved/samples/" + which + "_sde.npy"));
    EXPECT_EQ(model.sample(r), kept) << which;
    set_threads(2);
    EXPECT_EQ(model.sample(r), kept) << which;
    set_threads(1);
    r.ode = true;
    EXPECT_EQ(model.sample(r), numbers(folder / ("moved/samples/" + which + "_ode.npy"))) << which;

    // Central differences of the value, in the units of the data: error of order h^2, and rounding of f32 over h.
    if (!model.reward().differentiable()) continue;
    const std::int64_t size = model.item_size();
    const std::vector<float> row(kept.begin(), kept.begin() + size);
    std::vector<float> value(1), slope(static_cast<std::size_t>(size));
    model.score(row, 1, value, slope);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(size, 3); ++i) {
      const float h = 0.02f;
      std::vector<float> two = row;
      two.insert(two.end(), row.begin(), row.end());
      two[i] += h, two[size + i] -= h;
      std::vector<float> values(2);
      model.score(two, 2, values, {});
      EXPECT_NEAR((values[0] - values[1]) / (two[i] - two[size + i]), slope[i], 2e-3 * (1 + std::abs(slope[i]))) << i;
    }
  }
  EXPECT_THROW(LoadedModel(folder / "moved", "best"), Error);
  fs::remove(folder / "moved/data.json");
  try {
    const LoadedModel model(folder / "moved", "tuned");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::io);
    EXPECT_NE(std::string(e.what()).find("data.json' does not exist"), std::string::npos) << e.what();
  }
}
INSTANTIATE_TEST_SUITE_P(Runs, Loaded, ::testing::Values("points", "digits", "dit"), [](const auto& p) { return p.param; });

TEST(LoadedModel, WhatIsNoDataIsNamed) {
  const Json good = {{"item_shape", {4, 4, 1}}, {"classes", 3}, {"scale", 2.0}, {"offset", -1.0}, {"description", "x"}};
  const data::Dataset d = without_items(good, "it");
  EXPECT_EQ(data_facts(d), good);
  const auto refused = [&](const char* key, const Json& value) {
    Json bad = good;
    if (value.is_null())
      bad.erase(key);
    else
      bad[key] = value;
    try {
      (void)without_items(bad, "'data.json'");
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data);
      EXPECT_EQ(std::string(e.what()).find("'data.json' "), 0u) << e.what();
    }
  };
  for (const char* key : {"item_shape", "classes", "scale", "offset", "description"}) refused(key, nullptr);
  refused("item_shape", Json::array());
  refused("item_shape", {0, 4});
  refused("item_shape", {-1});
  refused("item_shape", {std::int64_t{1} << 40, 2});
  refused("item_shape", {std::int64_t{1} << 31, std::int64_t{1} << 31, std::int64_t{1} << 31});
  refused("item_shape", "wide");
  refused("classes", -1);
  refused("scale", 0.0);
  refused("scale", "big");
  refused("offset", "far");
  refused("description", 7);
}

}  // namespace
}  // namespace costate::cli::testing
