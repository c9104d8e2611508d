// The safetensors reader and writer: exact bytes, round trips, types, files on the disk.
#include "safetensors_support.h"

#include <costate/tensor/memory.h>
#include <costate/tensor/random.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

namespace costate {
namespace {

using namespace testing_files;
using std::string;
using std::vector;

vector<NamedTensor> one(const string& name, const Tensor& t) { return {{name, t}}; }

string written(const vector<NamedTensor>& tensors, const SafetensorsMetadata& metadata = {}) {
  return text_of(safetensors_bytes(tensors, metadata));
}

Tensor counting(const Shape& shape) {
  vector<float> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  return Tensor::from(v, shape);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0);
}

// The bytes that the reference implementation's own tests expect (safetensors/src/tensor.rs).
TEST(Safetensors, GoldenBytes) {
  string values;
  for (int i = 0; i < 6; ++i) {
    const float f = static_cast<float>(i);
    values.append(reinterpret_cast<const char*>(&f), 4);
  }
  EXPECT_EQ(written({}), string("\x08\0\0\0\0\0\0\0", 8) + "{}      ");
  EXPECT_EQ(written(one("attn.0", counting({1, 2, 3}))),
            length_of(64) + R"({"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}})" + values);
  EXPECT_EQ(written(one("attn0", counting({1, 1, 2, 3}))),
            length_of(72) + R"({"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}})" +
                string(7, ' ') + values);
  EXPECT_EQ(written({}, {{"framework", "pt"}}),
            length_of(40) + R"({"__metadata__":{"framework":"pt"}})" + string(5, ' '));
}

TEST(Safetensors, TensorsAreLaidOutByTypeThenName) {
  const vector<NamedTensor> tensors = {{"b", Tensor::full({2}, 1)},
                                       {"i", Tensor::full({1}, 7, DType::i32)},
                                       {"a", Tensor::full({1}, 2)},
                                       {"z", Tensor::full({}, 3, DType::f64)}};
  const string file = written(tensors, {{"k", "v"}, {"a", "\x01\""}});
  const string header = R"({"__metadata__":{"a":"\u0001\"","k":"v"},)"
                        R"("z":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                        R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                        R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},)"
                        R"("i":{"dtype":"I32","shape":[1],"data_offsets":[20,24]}})";
  EXPECT_EQ(file.substr(8, header.size()), header);
  const std::size_t begin = 8 + (header.size() + 7) / 8 * 8;
  EXPECT_EQ(file.substr(0, 8), length_of(begin - 8));
  EXPECT_EQ(begin % 8, 0u);
  EXPECT_EQ(file.size(), begin + 24);
  // The order in which tensors are handed over does not matter.
  EXPECT_EQ(written({tensors[3], tensors[1], tensors[0], tensors[2]}, {{"k", "v"}, {"a", "\x01\""}}), file);
  const auto read = load_safetensors(as_bytes(file));
  ASSERT_EQ(read.size(), 4u);
  EXPECT_EQ(read[0].first, "z");
  EXPECT_EQ(read[0].second.item(), 3);
  EXPECT_EQ(read[3].second.values<std::int32_t>()[0], 7);
}

// A random name of 0 to 1024 bytes from pieces that need care: quotes, backslashes, controls, all lengths of
// UTF-8.
string random_name(const Philox& philox, std::uint32_t file, std::uint32_t& element) {
  static const vector<string> pieces = {
      "a", "layer.0", "\"", "\\", "\n",     "\t", "\x01", "\x1f",         "\x7f",
      " ", "/",       "é",  "ß",  "日本語", "𝒩",  "😀",    "\xEF\xBF\xBF", "\u0080"};
  const std::uint32_t length =
      philox.below(8, 0, file, element++) == 0 ? 1024 : philox.below(40, 0, file, element++);
  string name;
  while (name.size() < length) {
    const string& piece = pieces[philox.below(static_cast<std::uint32_t>(pieces.size()), 0, file, element++)];
    if (name.size() + piece.size() > 1024) break;
    name += piece;
  }
  return name;
}

TEST(Safetensors, RandomFilesRoundTripBitForBit) {
  const Philox philox{3, Stream::user};
  for (std::uint32_t file = 0; file < 400; ++file) {
    std::uint32_t e = 0;
    const auto below = [&](std::uint32_t n) { return philox.below(n, 0, file, e++); };
    std::map<string, Tensor> tensors;
    for (std::uint32_t n = below(8); n > 0; --n) {
      vector<std::int64_t> extents(below(Shape::max_rank + 1));
      for (auto& x : extents) x = below(8) == 0 ? 0 : 1 + below(3);
      const DType dtype = static_cast<DType>(below(3));
      const Tensor t = Tensor::empty(Shape(extents), dtype);
      // Any bits: NaNs with payloads, infinities and subnormals must come back as they were.
      auto* words = static_cast<std::uint32_t*>(t.raw_mutable());
      for (std::int64_t i = 0; i < t.bytes() / 4; ++i) words[i] = philox.words(1, file, e++)[0];
      tensors.emplace(random_name(philox, file, e), t);
    }
    SafetensorsMetadata metadata;
    for (std::uint32_t n = below(4); n > 0; --n)
      metadata.emplace(random_name(philox, file, e), random_name(philox, file, e));
    const vector<NamedTensor> list(tensors.begin(), tensors.end());
    const auto bytes = safetensors_bytes(list, metadata);
    const SafetensorsFile read(bytes);
    EXPECT_EQ(read.metadata(), metadata);
    ASSERT_EQ(read.entries().size(), tensors.size());
    for (const auto& [name, t] : tensors) {
      ASSERT_NE(read.find(name), nullptr);
      EXPECT_TRUE(same_bits(read.tensor(name), t)) << name;
      EXPECT_EQ(read.bytes(*read.find(name)).size(), static_cast<std::size_t>(t.bytes()));
    }
    EXPECT_EQ(safetensors_bytes(load_safetensors(bytes), metadata), bytes);
  }
}

TEST(Safetensors, WhatCannotBeWrittenIsRefusedInWords) {
  const Tensor t = Tensor::zeros({1});
  const auto expect = [](const string& words, const vector<NamedTensor>& tensors,
                         const SafetensorsMetadata& metadata = {}) {
    try {
      safetensors_bytes(tensors, metadata);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_NE(string(e.what()).find(words), string::npos) << e.what();
    }
  };
  expect("occurs twice", {{"a", t}, {"a", t}});
  expect("'__metadata__'", {{"__metadata__", t}});
  expect("1025 bytes", {{string(1025, 'a'), t}});
  expect("not UTF-8", {{"\xC0\x80", t}});
  expect("zero byte", {{string("a\0b", 3), t}});
  expect("undefined", {{"a", Tensor()}});
  expect("meta", {{"a", Tensor::zeros({1}, DType::f32, Device::meta)}});
  expect("not UTF-8", {}, {{"k", "\xFF"}});
  expect("not UTF-8", {}, {{"\xED\xA0\x80", "v"}});
}

// IEEE 754 half precision, worked out from its definition: sign, exponent with bias 15, fraction of 10 bits.
double half_value(std::uint32_t h) {
  const double sign = h & 0x8000u ? -1 : 1;
  const int exponent = static_cast<int>(h >> 10 & 31u);
  const double fraction = (h & 1023u) / 1024.0;
  if (exponent == 31) return h & 1023u ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  return sign * (exponent ? std::ldexp(1 + fraction, exponent - 15) : std::ldexp(fraction, -14));
}

TEST(Safetensors, EveryHalfWidensExactlyOnRequest) {
  string data;
  for (std::uint32_t h = 0; h < 65536; ++h) data += {static_cast<char>(h & 0xFF), static_cast<char>(h >> 8)};
  SafetensorsOptions widen;
  widen.widen_half = true;
  for (const string type : {"F16", "BF16"}) {
    const string file =
        file_of(R"({"h":{"dtype":")" + type + R"(","shape":[65536],"data_offsets":[0,131072]}})", data);
    const Tensor t = SafetensorsFile(as_bytes(file), widen).tensor("h");
    ASSERT_EQ(t.dtype(), DType::f32);
    for (std::uint32_t h = 0; h < 65536; ++h) {
      const float got = t.values<float>()[h];
      if (type == "BF16") {  // the upper half of a binary32
        std::uint32_t bits;
        std::memcpy(&bits, static_cast<const std::byte*>(t.raw()) + 4 * h, 4);
        ASSERT_EQ(bits, h << 16);
      } else if (std::isnan(half_value(h))) {
        ASSERT_TRUE(std::isnan(got)) << h;
      } else {
        ASSERT_EQ(static_cast<double>(got), half_value(h)) << h;
        ASSERT_EQ(std::signbit(got), (h & 0x8000u) != 0) << h;
      }
    }
    try {
      load_safetensors(as_bytes(file));
      ADD_FAILURE() << "read without being asked to widen";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data);
      EXPECT_NE(string(e.what()).find("widen_half"), string::npos) << e.what();
    }
  }
}

TEST(Safetensors, OtherTypesAreReadAsBytesOnly) {
  // 4 elements of 4 bits are 2 bytes, of 6 bits 3 bytes.
  const vector<std::pair<string, int>> types = {
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
      {"U16", 16},    {"U32", 32},    {"C64", 64},    {"I64", 64},        {"U64", 64}};
  for (const auto& [type, type_bits] : types) {
    const string data =
        string("abcdefghijklmnopqrstuvwxyz123456").substr(0, static_cast<std::size_t>(4 * type_bits / 8));
    const string file = file_of(R"({"x":{"dtype":")" + type + R"(","shape":[4],"data_offsets":[0,)" +
                                    std::to_string(data.size()) + "]}}",
                                data);
    const SafetensorsFile read(as_bytes(file));
    EXPECT_EQ(text_of(read.bytes(*read.find("x"))), data);
    try {
      read.tensor("x");
      ADD_FAILURE() << type << " became a tensor";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data);
      EXPECT_NE(string(e.what()).find("unsupported dtype " + type), string::npos) << e.what();
    }
  }
}

TEST(Safetensors, ShapesThatATensorCannotHaveAreRefusedWhenLoaded) {
  const auto expect = [](const string& words, const string& shape) {
    const string file = file_of(R"({"x":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,0]}})");
    const SafetensorsFile read(as_bytes(file));  // a tensor without elements: the format allows it
    EXPECT_TRUE(read.bytes(read.entries()[0]).empty());
    try {
      read.tensor("x");
      ADD_FAILURE() << shape;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data);
      EXPECT_NE(string(e.what()).find(words), string::npos) << e.what();
    }
  };
  expect("7 axes", "[0,1,1,1,1,1,1]");
  expect("too large", "[9223372036854775808,0]");
  expect("too large", "[4611686018427387904,2,0]");
  const string fits =
      file_of(R"({"x":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}})");
  EXPECT_EQ(SafetensorsFile(as_bytes(fits)).tensor("x").numel(), 0);
}

TEST(Safetensors, FilesOnTheDisk) {
  const TemporaryFolder folder;
  const string path = folder / "m.safetensors";
  const vector<NamedTensor> tensors = {{"w", counting({3, 5})}, {"b", Tensor::full({2}, 0.5, DType::f64)}};
  save_safetensors(path, tensors);
  EXPECT_EQ(folder.files(), 1u);  // no sibling stays behind
  SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
  EXPECT_TRUE(same_bits(file.tensor("w"), tensors[0].second));
  EXPECT_EQ(text_of(read_file(path)), written(tensors, {{"format", "pt"}}));
  save_safetensors(path, tensors, {{"format", "np"}, {"step", "7"}});
  EXPECT_EQ(SafetensorsFile(path).metadata(), (SafetensorsMetadata{{"format", "np"}, {"step", "7"}}));
  // The file that was open is still the old one: the new one was renamed over it.
  EXPECT_TRUE(same_bits(file.tensor("b"), tensors[1].second));
  const string other = folder / "other";
  EXPECT_THROW(save_safetensors(folder / "no/such", tensors), Error);
  EXPECT_EQ(folder.files(), 1u);
  // A refused write leaves the file as it was.
  EXPECT_THROW(save_safetensors(path, vector<NamedTensor>{{"a", Tensor()}}), Error);
  EXPECT_EQ(SafetensorsFile(path).metadata().at("step"), "7");
  // Sentences name the file.
  for (const string& bad : {folder / "none", folder / ""}) {
    try {
      SafetensorsFile{bad};
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::io);
      EXPECT_NE(string(e.what()).find("'" + bad + "'"), string::npos) << e.what();
    }
  }
  EXPECT_THROW(SafetensorsFile("/dev/zero"), Error);
  // A file that is shortened while it is open is noticed, not read past its end.
  const SafetensorsFile open(path);
  std::filesystem::resize_file(path, 100);
  EXPECT_THROW(open.tensor("w"), Error);
  EXPECT_THROW(load_safetensors(path), Error);
}

TEST(Safetensors, EntriesOfOtherFilesAndUnknownNamesAreRefused) {
  const auto bytes = safetensors_bytes(one("a", Tensor::zeros({1})));
  const SafetensorsFile first(bytes), second(bytes);
  EXPECT_EQ(first.find("b"), nullptr);
  EXPECT_THROW(first.tensor("b"), Error);
  EXPECT_THROW(first.tensor(second.entries()[0]), Error);
  const SafetensorsEntry copy = first.entries()[0];
  EXPECT_THROW(first.bytes(copy), Error);
}

TEST(Safetensors, TensorsAreChargedToTheTagOfTheirReader) {
  const auto bytes = safetensors_bytes(one("a", Tensor::zeros({1000})));
  const auto before = memory::live();
  const memory::TagScope scope(memory::Tag::parameters);
  const Tensor t = SafetensorsFile(bytes).tensor("a");
  const auto tag = static_cast<std::size_t>(memory::Tag::parameters);
  EXPECT_EQ(memory::live().by_tag[tag] - before.by_tag[tag], 4032);  // 4000 bytes, rounded up to 64 each
}

}  // namespace
}  // namespace costate
