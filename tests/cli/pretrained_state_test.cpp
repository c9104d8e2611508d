// Weights as they lie in files: their values by type, the forms in which a folder holds them, and what is written over.
#include "pretrained/state.h"

#include <costate/tensor/safetensors.h>
#include <gtest/gtest.h>

#include <cstring>

#include "finetune/data_support.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

using costate::testing::expect_error;

template <class T>
RawTensor raw(SafetensorsType type, std::vector<T> values) {
  RawTensor t{type, {values.size()}, std::vector<std::byte>(values.size() * sizeof(T))};
  std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
  return t;
}

TEST(PretrainedState, ValuesOfEveryType) {
  using T = SafetensorsType;
  using Doubles = std::vector<double>;
  EXPECT_EQ(to_doubles(raw<std::uint8_t>(T::BOOL, {0, 1})), (Doubles{0, 1}));
  EXPECT_EQ(to_doubles(raw<std::uint8_t>(T::U8, {0, 255})), (Doubles{0, 255}));
  EXPECT_EQ(to_doubles(raw<std::int8_t>(T::I8, {-128, 127})), (Doubles{-128, 127}));
  EXPECT_EQ(to_doubles(raw<std::int16_t>(T::I16, {-32768, 3})), (Doubles{-32768, 3}));
  EXPECT_EQ(to_doubles(raw<std::uint16_t>(T::U16, {65535})), (Doubles{65535}));
  EXPECT_EQ(to_doubles(raw<std::int32_t>(T::I32, {-7, 2147483647})), (Doubles{-7, 2147483647.0}));
  EXPECT_EQ(to_doubles(raw<std::uint32_t>(T::U32, {4294967295u})), (Doubles{4294967295.0}));
  EXPECT_EQ(to_doubles(raw<std::int64_t>(T::I64, {-5})), (Doubles{-5}));
  EXPECT_EQ(to_doubles(raw<std::uint64_t>(T::U64, {std::uint64_t{1} << 63})), (Doubles{0x1p63}));
  EXPECT_EQ(to_doubles(raw<float>(T::F32, {0.5f})), (Doubles{0.5}));
  EXPECT_EQ(to_doubles(raw<double>(T::F64, {-0.1})), (Doubles{-0.1}));
  EXPECT_EQ(to_doubles(raw<std::uint16_t>(T::F16, {0xFC00})), (Doubles{-std::numeric_limits<double>::infinity()}));
  EXPECT_TRUE(to_doubles({T::F32, {0}, {}}).empty());
  expect_error(Fault::data, "whose values are not read here", [] { to_doubles(raw<std::uint8_t>(T::F8_E4M3, {1})); });
  expect_error(Fault::argument, "from I32 to F32 is not offered", [] { to_type(raw<std::int32_t>(T::I32, {1}), T::F32); });
  expect_error(Fault::argument, "from F32 to I32 is not offered", [] { to_type(raw<float>(T::F32, {1}), T::I32); });
  EXPECT_EQ(to_type(raw<std::int32_t>(T::I32, {1}), T::I32).bytes.size(), 4u);
}

const State state{{"a", raw<float>(SafetensorsType::F32, {1, 2, 3})}, {"b", raw<float>(SafetensorsType::F32, {4})}};

TEST(PretrainedState, FoldersHoldOneSetOfWeights) {
  const Folder f;
  std::vector<std::string> notes;
  const auto tensors = [&](const std::string& path) { return open_weights(f / path, notes).entries().size(); };
  write_state(f / "single", "weights", state, {}, 0, false);  // one file, whatever its name
  EXPECT_EQ(tensors("single"), 2u);
  write_state(f / "shards", "parts", state, {}, 12, false);  // one index, whatever its name
  EXPECT_EQ(tensors("shards"), 2u);
  EXPECT_EQ(tensors("shards/parts.safetensors.index.json"), 2u);
  EXPECT_TRUE(notes.empty());
  const std::string index = contents(f / "shards/parts.safetensors.index.json");
  f.file("shards/parts.safetensors.index.json", std::string(index).replace(index.find("16"), 2, "17"));
  EXPECT_EQ(tensors("shards"), 2u);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("says 17 bytes, but its tensors have 16"), std::string::npos) << notes[0];
  write_state(f / "two", "x", state, {}, 0, false), write_state(f / "two", "y", state, {}, 0, false);
  expect_error(Fault::data, "2 safetensors files and 0 indices", [&] { tensors("two"); });
  write_state(f / "two", "model", state, {}, 0, false);  // of several the one with the common name
  EXPECT_EQ(tensors("two"), 2u);
  fs::create_directory(f / "none");
  expect_error(Fault::data, "0 safetensors files and 0 indices", [&] { tensors("none"); });
  f.file("none/b.pt", ""), f.file("none/a.ckpt", "");
  expect_error(Fault::data, "a.ckpt", [&] { tensors("none"); });
  f.file("config.json", "{}");
  expect_error(Fault::data, "is no index of shards", [&] { tensors("config.json"); });
  expect_error(Fault::io, "does not exist", [&] { tensors("nowhere"); });
}

// A file and an index of the same stem would contradict each other.
TEST(PretrainedState, WhatIsWrittenReplacesTheOtherForm) {
  const Folder f;
  const std::string file = f / "m/model.safetensors", index = file + ".index.json";
  write_state(f / "m", "model", state, {}, 0, false);
  expect_error(Fault::argument, "model.safetensors' exists already", [&] { write_state(f / "m", "model", state, {}, 0, false); });
  expect_error(Fault::argument, "model.safetensors' exists already", [&] { write_state(f / "m", "model", state, {}, 12, false); });
  EXPECT_FALSE(fs::exists(index));
  write_state(f / "m", "model", state, {}, 12, true);
  EXPECT_TRUE(fs::exists(index) && !fs::exists(file));
  expect_error(Fault::argument, "index.json' exists already", [&] { write_state(f / "m", "model", state, {}, 0, false); });
  EXPECT_FALSE(fs::exists(file));
  write_state(f / "m", "model", state, {}, 0, true);
  EXPECT_TRUE(!fs::exists(index) && fs::exists(file));
}

}  // namespace
}  // namespace costate::cli::testing
