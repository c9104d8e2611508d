#include "npz.h"

#include <costate/finetune/data/npy.h>
#include <costate/tensor/file.h>

#include <cstdlib>

#include "data.h"
#include "finetune/data_support.h"

namespace costate::cli {
namespace {

using costate::testing::bytes_of;
using costate::testing::expect_error;
using costate::testing::ScratchFolder;
using std::string;
using namespace std::string_literals;

std::vector<std::byte> seed(const string& name) { return read_file(COSTATE_SOURCE_DIR "/tests/fuzz/corpus/npz/" + name); }

// Archives as NumPy writes them (with ZIP64's field before the contents), with DEFLATE, without ZIP64, with a comment that
// looks like an end, with the end of a ZIP64 directory, with ZIP64's extents in the directory: the same two arrays.
TEST(Npz, ArchivesOfAllForms) {
  for (const string& name : {"accepted-stored"s, "accepted-deflated"s, "accepted-narrow"s, "accepted-comment"s, "accepted-zip64"s,
                             "accepted-wide-extents"s}) {
    const std::vector<std::byte> archive = seed(name);
    const std::vector<NpzMember> members = npz_members(archive, "archive");
    ASSERT_EQ(members.size(), 2u) << name;
    EXPECT_EQ(members[0].name, "x");
    EXPECT_EQ(members[1].name, "label\u00e9");
    EXPECT_EQ(members[0].deflated, name == "accepted-deflated");
    const std::vector<std::byte> x = npz_array(archive, members[0], 1 << 20, "archive"),
                                 label = npz_array(archive, members[1], 1 << 20, "archive");
    EXPECT_EQ(data::npy_values<float>(data::parse_npy(x, "x"), "x"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(data::npy_values<std::int32_t>(data::parse_npy(label, "label"), "label"), (std::vector<std::int32_t>{3, 1}));
  }
  EXPECT_TRUE(npz_members(seed("accepted-none"), "archive").empty());
}

// Each by the sentence of the rule that it breaks.
TEST(Npz, DamagedArchivesAreRefused) {
  const auto refused = [](const string& name, const string& part) {
    const std::vector<std::byte> archive = seed(name);
    expect_error(Fault::data, part, [&] {
      for (const NpzMember& m : npz_members(archive, "archive")) npz_array(archive, m, 1 << 14, "archive");
    }, name);
  };
  refused("refused-empty", "does not begin with the bytes 'PK'");
  refused("refused-truncated", "does not end with the end of a ZIP directory");
  refused("refused-tail", "does not end with the end of a ZIP directory");
  refused("refused-checksum", "'x' is damaged: its checksum is another");
  refused("refused-encrypted", "'x' is encrypted");
  refused("refused-method", "'x' is packed by method 12");
  refused("refused-elsewhere", "the header of 'x' is not at byte 7");
  refused("refused-bomb", "more than can be packed so");
  refused("refused-long", "at most 16384 are read");
  refused("refused-entries", "announces 3 arrays, but its directory has 2");
  refused("refused-parts", "one of several parts");
  refused("refused-path", "'../x', which is a path");
  refused("refused-text", "'x.txt', but those of NPZ archives are called NAME.npy");
  refused("refused-twice", "'x' twice");
  refused("refused-zip64-elsewhere", "ZIP64");
  refused("refused-wide-extents", "the extents of 'x' are not there");
  refused("refused-many", "announces 70000 arrays, but at most 65535 are read");
  // Packed bytes of the right checksum's array that end early, or that go on.
  std::vector<std::byte> archive = seed("accepted-deflated");
  std::vector<NpzMember> members = npz_members(archive, "archive");
  for (const std::uint64_t size : {members[0].size - 1, members[0].size + 1}) {
    NpzMember m = members[0];
    m.size = size;
    expect_error(Fault::data, "damaged or not of the", [&] { npz_array(archive, m, 1 << 20, "archive"); });
  }
  members[0].packed_size -= 1;
  expect_error(Fault::data, "damaged or not of the", [&] { npz_array(archive, members[0], 1 << 20, "archive"); });
}

TEST(Npz, WrittenAndReadAgain) {
  const std::vector<float> x{1, -2.5f, 3, 4, 5, 6};
  const std::vector<NpzArray> arrays{{"x y", data::npy_bytes(x, std::vector<std::int64_t>{3, 2})},
                                     {"\u00e9", data::npy_bytes(x, std::vector<std::int64_t>{6})},
                                     {"empty", data::npy_bytes(std::span<const float>{}, std::vector<std::int64_t>{0, 4})}};
  const std::vector<std::byte> archive = npz_bytes(arrays);
  EXPECT_EQ(archive, npz_bytes(arrays));
  const std::vector<NpzMember> members = npz_members(archive, "archive");
  ASSERT_EQ(members.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(members[i].name, arrays[i].name);
    EXPECT_EQ(npz_array(archive, members[i], 1 << 20, "archive"), arrays[i].npy);
  }
  EXPECT_TRUE(npz_members(npz_bytes({}), "archive").empty());
  for (const string& name : {""s, "a/b"s, "a\\b"s, "\xff"s, "a\0b"s, string(2000, 'a')})
    expect_error(Fault::argument, "cannot be the name of an array", [&] { npz_bytes(std::vector{NpzArray{name, {}}}); });
  expect_error(Fault::argument, "given twice", [&] { npz_bytes(std::vector{arrays[0], arrays[0]}); });
}

// Another reader: NumPy, where it is.
TEST(Npz, NumPyReadsIt) {
  if (std::system("python3 -c 'import numpy' 2>/dev/null") != 0) GTEST_SKIP() << "no NumPy here";
  const ScratchFolder folder;
  const std::vector<float> x{1, -2.5f, 3, 4, 5, 6};
  const std::vector<std::int32_t> labels{7, -1};
  write_file_atomically(folder / "a.npz", npz_bytes(std::vector<NpzArray>{
                                              {"x", data::npy_bytes(x, std::vector<std::int64_t>{2, 3})},
                                              {"labels", data::npy_bytes(labels, std::vector<std::int64_t>{2})}}));
  const string check = "python3 -c \"import numpy, sys, zipfile; p = sys.argv[1]; a = numpy.load(p); "
                       "assert zipfile.ZipFile(p).testzip() is None and a.files == ['x', 'labels']; "
                       "assert a['x'].tolist() == [[1, -2.5, 3], [4, 5, 6]] and a['labels'].tolist() == [7, -1]\" ";
  EXPECT_EQ(std::system((check + (folder / "a.npz")).c_str()), 0);
}

TEST(Npz, AsData) {
  const ScratchFolder folder;
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> labels{1, 0};
  const NpzArray items{"items", data::npy_bytes(x, std::vector<std::int64_t>{2, 3})},
      others{"others", data::npy_bytes(x, std::vector<std::int64_t>{3, 2})},
      classes{"classes", data::npy_bytes(labels, std::vector<std::int64_t>{2})};
  write_file_atomically(folder / "two.npz", npz_bytes(std::vector{items, classes}));
  write_file_atomically(folder / "three.npz", npz_bytes(std::vector{items, others, classes}));
  DataSpec s;
  s.path = folder / "two.npz", s.labels = "classes";
  for (const DataKind kind : {DataKind::file, DataKind::npz}) {
    s.kind = kind;
    const data::Dataset set = load_dataset(s);
    EXPECT_EQ(set.values, x);
    EXPECT_EQ(set.item_shape, (std::vector<std::int64_t>{3}));
    EXPECT_EQ(set.labels, labels);
    EXPECT_EQ(set.classes, 2);
  }
  s.labels = "";
  expect_error(Fault::argument, "has the arrays 'items', 'classes'; data.array must name", [&] { load_dataset(s); });
  s.array = "item";
  expect_error(Fault::data, "has no array 'item'; it has 'items', 'classes'", [&] { load_dataset(s); });
  s.path = folder / "three.npz", s.array = "others";
  EXPECT_EQ(load_dataset(s).item_shape, (std::vector<std::int64_t>{2}));
  s.item_shape = {1, 2, 1};
  EXPECT_EQ(load_dataset(s).item_shape, (std::vector<std::int64_t>{1, 2, 1}));
  s.labels = "classes";
  expect_error(Fault::data, "'classes' of '", [&] { load_dataset(s); });
  s = DataSpec{};
  s.array = "x";
  expect_error(Fault::argument, "array applies to npz files only", [&] { load_dataset(s); });
}

}  // namespace
}  // namespace costate::cli
