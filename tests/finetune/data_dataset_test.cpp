#include <costate/finetune/data/dataset.h>
#include <costate/finetune/data/points.h>

#include <algorithm>
#include <cmath>

#include "data_support.h"

namespace costate::data {
namespace {

using costate::testing::expect_error;

Dataset counted(std::int64_t count) {
  Dataset s;
  s.count = count, s.item_shape = {2}, s.classes = 3, s.description = "counted";
  for (std::int64_t i = 0; i < count; ++i) {
    s.values.push_back(static_cast<float>(10 * i));
    s.values.push_back(static_cast<float>(10 * i + 1));
    s.labels.push_back(static_cast<std::int32_t>(i % 3));
  }
  return s;
}

TEST(Dataset, CheckFindsEveryDisagreement) {
  check(counted(4));
  const auto with = [](auto change) {
    Dataset s = counted(4);
    change(s);
    return [s] { check(s); };
  };
  expect_error(Fault::data, "'counted' holds no item",
               with([](Dataset& s) { s = Dataset{}, s.description = "counted"; }));
  expect_error(Fault::data, "holds 8 values", with([](Dataset& s) { s.count = 3; }));
  expect_error(Fault::data, "holds 7 values", with([](Dataset& s) { s.values.pop_back(); }));
  expect_error(Fault::data, "no value", with([](Dataset& s) { s.item_shape = {0}; }));
  expect_error(Fault::data, "overflows", with([](Dataset& s) { s.item_shape = {INT64_MAX, 2}; }));
  expect_error(Fault::data, "negative", with([](Dataset& s) { s.item_shape = {-2}; }));
  expect_error(Fault::data, "3 labels for 4 items", with([](Dataset& s) { s.labels.pop_back(); }));
  expect_error(Fault::data, "label 2 of item 2", with([](Dataset& s) { s.classes = 2; }));
  expect_error(Fault::data, "label -1 of item 1", with([](Dataset& s) { s.labels[1] = -1; }));
  expect_error(Fault::data, "announces 3 classes", with([](Dataset& s) { s.labels.clear(); }));
  expect_error(Fault::data, "value 1 of item 2", with([](Dataset& s) { s.values[5] = NAN; }));
  expect_error(Fault::data, "value 0 of item 0", with([](Dataset& s) { s.values[0] = -INFINITY; }));
  expect_error(Fault::data, "inverted", with([](Dataset& s) { s.scale = 0; }));
  expect_error(Fault::data, "inverted", with([](Dataset& s) { s.offset = NAN; }));
}

TEST(Dataset, TakeSliceAndLabels) {
  const Dataset s = counted(7);
  const std::vector<std::int64_t> chosen{5, 0, 5};
  const Dataset t = take(s, chosen);
  EXPECT_EQ(t.values, (std::vector<float>{50, 51, 0, 1, 50, 51}));
  EXPECT_EQ(t.labels, (std::vector<std::int32_t>{2, 0, 2}));
  EXPECT_EQ(t.classes, 3);
  EXPECT_EQ(slice(s, 2, 2).values, (std::vector<float>{20, 21, 30, 31}));
  const std::vector<std::int32_t> labels{1};
  EXPECT_EQ(with_labels(s, labels).values, (std::vector<float>{10, 11, 40, 41}));
  const std::vector<std::int64_t> wrong{7}, negative{-1};
  expect_error(Fault::argument, "index 7", [&] { take(s, wrong); });
  expect_error(Fault::argument, "index -1", [&] { take(s, negative); });
  expect_error(Fault::argument, "slice", [&] { slice(s, 5, 3); });
  expect_error(Fault::argument, "slice", [&] { slice(s, 1, INT64_MAX); });
  Dataset unlabelled = s;
  unlabelled.labels.clear(), unlabelled.classes = 0;
  expect_error(Fault::argument, "no labels", [&] { with_labels(unlabelled, labels); });
  EXPECT_TRUE(take(unlabelled, chosen).labels.empty());
}

TEST(Dataset, ShuffleAndSplitKeepEveryItemOnce) {
  const Dataset s = counted(50);
  const auto sorted_firsts = [](std::vector<float> values) {
    std::vector<float> out;
    for (std::size_t i = 0; i < values.size(); i += 2) out.push_back(values[i]);
    std::sort(out.begin(), out.end());
    return out;
  };
  const Dataset a = shuffled(s, 1), b = shuffled(s, 2);
  EXPECT_NE(a.values, s.values);
  EXPECT_NE(a.values, b.values);
  EXPECT_EQ(shuffled(s, 1).values, a.values);
  EXPECT_EQ(sorted_firsts(a.values), sorted_firsts(s.values));
  for (std::size_t i = 0; i < 50; ++i) EXPECT_EQ(a.labels[i], static_cast<int>(a.values[2 * i]) / 10 % 3);
  auto [first, rest] = split(s, 20, 1);
  EXPECT_EQ(first.count, 20);
  EXPECT_EQ(rest.count, 30);
  std::vector<float> both = first.values;
  both.insert(both.end(), rest.values.begin(), rest.values.end());
  EXPECT_EQ(sorted_firsts(both), sorted_firsts(s.values));
  expect_error(Fault::argument, "split", [&] { split(s, 50, 1); });
  expect_error(Fault::argument, "split", [&] { split(s, 0, 1); });
}

TEST(Dataset, ScalingIsUndone) {
  const Dataset s = counted(5);  // 0 ... 41
  const Dataset once = scaled(s, 0, 41), twice = scaled(once, -2, 6), other = standardised(s);
  EXPECT_EQ(once.values.front(), -1.0f);
  EXPECT_EQ(once.values.back(), 1.0f);
  // Three roundings to f32 of numbers up to 41.
  for (const Dataset& t : {once, twice, other}) {
    const std::vector<float> back = original(t, t.values);
    for (std::size_t i = 0; i < back.size(); ++i) EXPECT_NEAR(back[i], s.values[i], 41 * 4e-7);
  }
  double mean = 0, square = 0;
  for (const float v : other.values) mean += v, square += v * v;
  EXPECT_NEAR(mean / 10, 0, 1e-6);
  EXPECT_NEAR(square / 10, 1, 1e-6);
  expect_error(Fault::argument, "scaled", [&] { scaled(s, 1, 1); });
  expect_error(Fault::argument, "scaled", [&] { scaled(s, 0, INFINITY); });
  Dataset flat = s;
  std::fill(flat.values.begin(), flat.values.end(), 3.0f);
  expect_error(Fault::data, "equal", [&] { standardised(flat); });
}

TEST(Dataset, AveragingDownTakesMeansOfSquares) {
  Dataset s;
  s.count = 1, s.item_shape = {2, 4, 2}, s.description = "picture";
  for (int i = 0; i < 16; ++i) s.values.push_back(static_cast<float>(i));
  const Dataset t = averaged_down(s, 2);
  EXPECT_EQ(t.item_shape, (std::vector<std::int64_t>{1, 2, 2}));
  // Pixel (y, x), channel c holds 8 y + 2 x + c.
  EXPECT_EQ(t.values, (std::vector<float>{5, 6, 9, 10}));
  EXPECT_EQ(averaged_down(s, 1).values, s.values);
  expect_error(Fault::argument, "squares of 3", [&] { averaged_down(s, 3); });
  expect_error(Fault::argument, "squares of 0", [&] { averaged_down(s, 0); });
  expect_error(Fault::argument, "3: height", [] { averaged_down(counted(2), 1); });
}

}  // namespace
}  // namespace costate::data
