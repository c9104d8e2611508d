// Sets of safetensors files: what is refused, how they are split, and that loading takes no second copy.
#include <costate/tensor/memory.h>
#include <costate/tensor/safetensors_set.h>

#include <fstream>

#include "safetensors_support.h"

namespace costate {
namespace {

using std::string;
using testing_files::file_of;
using testing_files::TemporaryFolder;

template <class F>
void expect_error(Fault fault, const string& words, const F& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one about: " << words;
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), fault) << e.what();
    EXPECT_NE(string(e.what()).find(words), string::npos) << e.what();
  }
}

struct Two {
  TemporaryFolder folder;
  Tensor a = Tensor::from(std::vector<float>{1, 2, 3}, {3}), b = Tensor::from(std::vector<double>{4, 5}, {2});
  Two() {
    save_safetensors(folder / "m-00001-of-00002.safetensors", std::vector<NamedTensor>{{"a", a}, {"c", a}});
    save_safetensors(folder / "m-00002-of-00002.safetensors", std::vector<NamedTensor>{{"b", b}});
  }
  WeightMap map() const {
    return {{"a", "m-00001-of-00002.safetensors"},
            {"b", "m-00002-of-00002.safetensors"},
            {"c", "m-00001-of-00002.safetensors"}};
  }
  SafetensorsSet open(const WeightMap& m) const {
    return SafetensorsSet((folder / "").substr(0, (folder / "").size() - 1), m, "index 'i'");
  }
};

TEST(SafetensorsSet, ReadsFilesAsOne) {
  const Two two;
  const SafetensorsSet set = two.open(two.map());
  ASSERT_EQ(set.entries().size(), 3u);
  EXPECT_EQ(set.entries()[1].name(), "b");
  EXPECT_EQ(set.tensor(*set.find("b")).to_doubles(), (std::vector<double>{4, 5}));
  EXPECT_EQ(set.tensor(*set.find("c")).to_doubles(), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(set.find("d"), nullptr);
  EXPECT_EQ(set.bytes(), 12u + 12 + 16);
  EXPECT_EQ(set.files().size(), 2u);
  const SafetensorsSet one{SafetensorsFile(two.folder / "m-00002-of-00002.safetensors")};
  EXPECT_EQ(one.entries().size(), 1u);
  EXPECT_EQ(one.raw(one.entries()[0]).size(), 16u);
}

TEST(SafetensorsSet, FileNamesArePlain) {
  for (const string bad :
       {"", ".", "..", "../m.safetensors", "a/m.safetensors", "/etc/m.safetensors", "a\\m.safetensors",
        "C:m.safetensors", ".safetensors", "m.bin", "m.safetensors.index.json"})
    expect_error(Fault::data, "not the plain name of a .safetensors file",
                 [&] { check_shard_name(bad, "here"); });
  expect_error(Fault::data, "not the plain name",
               [&] { check_shard_name(string("m\0.safetensors", 14), "here"); });
  expect_error(Fault::data, "not the plain name",
               [&] { check_shard_name(string(300, 'm') + ".safetensors", "here"); });
  check_shard_name("diffusion_pytorch_model-00001-of-00002.safetensors", "here");
  check_shard_name("..m.safetensors", "here");  // a name, not a way out
}

TEST(SafetensorsSet, RefusesInWords) {
  const Two two;
  const string first = "m-00001-of-00002.safetensors", second = "m-00002-of-00002.safetensors";
  const auto refused = [&](const WeightMap& m, const string& words, Fault fault = Fault::data) {
    expect_error(fault, words, [&] { two.open(m); });
  };
  refused({}, "index 'i': it lists no tensors");
  WeightMap m = two.map();
  m["a"] = "../" + first;  // refused before anything is opened, though other shards are missing as well
  m["b"] = "nowhere.safetensors";
  refused(m, "may not reach outside its folder");
  m = two.map(), m["b"] = "nowhere.safetensors";
  refused(m, "shard 'nowhere.safetensors'", Fault::io);
  m = two.map(), m.erase("c");
  refused(m, "holds tensor 'c', which the index does not list");
  m = two.map(), m["d"] = second;
  refused(m, "tensor 'd' is not in shard '" + second + "'");
  m = two.map(), m["a"] = second;
  refused(m, "tensor 'a' is in shard '" + first + "', but the index has it in '" + second + "'");
  save_safetensors(two.folder / second, std::vector<NamedTensor>{{"a", two.a}, {"b", two.b}});
  refused(two.map(), "tensor 'a' is in two shards");
  std::ofstream(two.folder / second, std::ios::binary) << file_of("{}", "1234");
  refused(two.map(), "shard '" + second + "'");
  std::ofstream(two.folder / second, std::ios::binary) << "short";
  refused(two.map(), "shard '" + second + "'");
}

TEST(SafetensorsSet, ShardsAreFilledInOrder) {
  const std::vector<std::uint64_t> bytes{4, 4, 9, 1, 1, 0, 3};
  EXPECT_EQ(split_shards(bytes, 8), (std::vector<std::size_t>{0, 0, 1, 2, 2, 2, 2}));
  EXPECT_EQ(split_shards(bytes, 100), (std::vector<std::size_t>(7, 0)));
  EXPECT_EQ(split_shards(bytes, 1), (std::vector<std::size_t>{0, 1, 2, 3, 4, 4, 5}));
  const std::vector<std::uint64_t> huge{~std::uint64_t{0} - 1, 5};  // no wrap-around
  EXPECT_EQ(split_shards(huge, ~std::uint64_t{0}), (std::vector<std::size_t>{0, 1}));
  EXPECT_TRUE(split_shards({}, 1).empty());
  expect_error(Fault::argument, "0 bytes", [&] { split_shards(bytes, 0); });
  EXPECT_EQ(shard_name("m", 0, 1), "m.safetensors");
  EXPECT_EQ(shard_name("m", 1, 3), "m-00002-of-00003.safetensors");
}

// The number of KiB behind a word of /proc/self/status.
std::int64_t status_kib(const string& key) {
  std::ifstream in("/proc/self/status");
  for (string line; std::getline(in, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(key.size() + 1));
  return -1;
}

// Writes a set of `shards` files of four tensors each and loads it.
void expect_no_second_copy(std::int64_t total, int shards) {
  const TemporaryFolder folder;
  WeightMap map;
  for (int s = 0; s < shards; ++s) {
    std::vector<NamedTensor> tensors;
    for (int i = 0; i < 4; ++i) {
      tensors.emplace_back(std::string("t").append(std::to_string(4 * s + i)),
                           Tensor::full({total / shards / 16}, 4 * s + i));
      map[tensors.back().first] = shard_name("m", s, shards);
    }
    save_safetensors(folder / shard_name("m", s, shards), tensors);
  }
  std::ofstream("/proc/self/clear_refs") << "5";  // the resident peak becomes what is resident now
  const std::int64_t before = status_kib("VmRSS:");
  const memory::PeakScope scope;
  const std::int64_t live = memory::live().total;
  const SafetensorsSet set(folder / ".", map, "the set");
  std::vector<Tensor> loaded;
  for (const auto& e : set.entries()) loaded.push_back(set.tensor(e));
  const std::int64_t peak = scope.peak().total - live, resident = (status_kib("VmHWM:") - before) * 1024;
  EXPECT_EQ(loaded.size(), static_cast<std::size_t>(4 * shards));
  EXPECT_EQ(loaded.back().values<float>().back(), 9.0f);  // "t9" is the last by name
  EXPECT_GE(peak, total);
  EXPECT_LT(static_cast<double>(peak), 1.01 * static_cast<double>(total));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const bool measured = false;  // sanitizers keep memory of their own
#else
  const bool measured = before >= 0;
#endif
  if (measured) {
    EXPECT_LT(static_cast<double>(resident), 1.1 * static_cast<double>(total));
  }
}

TEST(SafetensorsSet, LoadsWithoutASecondCopy) { expect_no_second_copy(64 << 20, 4); }
TEST(Whole, TwoGibibytesLoadWithoutASecondCopy) { expect_no_second_copy(std::int64_t{2} << 30, 8); }

}  // namespace
}  // namespace costate
