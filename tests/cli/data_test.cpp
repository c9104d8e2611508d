#include "data.h"

#include <costate/finetune/data/file.h>
#include <costate/finetune/data/npy.h>
#include <zlib.h>

#include "finetune/data_support.h"
#include "gzip.h"
#include "image/png.h"

namespace costate::cli {
namespace {

using costate::testing::bytes_of;
using costate::testing::expect_error;
using costate::testing::ScratchFolder;
using costate::testing::shared_file;
using costate::testing::text_of;
using std::string;
using namespace std::string_literals;

string gzipped(const string& data) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  string out(deflateBound(&z, static_cast<uLong>(data.size())), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  z.avail_in = static_cast<uInt>(data.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

string unpacked(const string& packed, std::uint64_t limit = 1 << 30) {
  return text_of(gunzip(bytes_of(packed), limit, "file"));
}

TEST(Gzip, UnpacksOneAndSeveralMembers) {
  string every;
  for (unsigned i = 0; i < 1000000; ++i) every += static_cast<char>(i * i / 7);
  for (const string& text : {""s, "hello"s, every, string(5000000, 'a'), string(1 << 18, 'x')})
    EXPECT_EQ(unpacked(gzipped(text)), text);
  EXPECT_EQ(unpacked(gzipped("one, ") + gzipped("") + gzipped("two")), "one, two");
}

TEST(Gzip, DamagedFilesAreRefused) {
  const string good = gzipped("some contents that are long enough to have a body");
  for (std::size_t n = 0; n < good.size(); ++n)
    expect_error(
        Fault::data, "file", [&] { unpacked(good.substr(0, n)); }, std::to_string(n));
  expect_error(Fault::data, "middle", [&] { unpacked(good.substr(0, good.size() - 1)); });
  expect_error(Fault::data, "3 bytes that are no gzip data", [&] { unpacked(good + "xyz"); });
  expect_error(Fault::data, "1 bytes that are no gzip data", [&] { unpacked(good + '\0'); });
  expect_error(Fault::data, "middle", [&] { unpacked(good + good.substr(0, 12)); });
  string wrong = good;
  wrong[good.size() - 6] = static_cast<char>(wrong[good.size() - 6] ^ 1);  // the checksum
  expect_error(Fault::data, "damaged", [&] { unpacked(wrong); });
  wrong = good;
  wrong[2] = 7;  // an unknown method
  expect_error(Fault::data, "damaged", [&] { unpacked(wrong); });
  expect_error(Fault::data, "1f 8b", [] { unpacked("plain"); });
}

TEST(Gzip, ABombStopsAtTheLimit) {
  const string bomb = gzipped(string(50000000, '\0'));
  EXPECT_LT(bomb.size(), 60000u);
  expect_error(Fault::data, "more than the 1000000 bytes", [&] { unpacked(bomb, 1000000); });
  EXPECT_EQ(unpacked(gzipped(string(1000, 'x')), 1000).size(), 1000u);
  expect_error(Fault::data, "more than the 999 bytes", [] { unpacked(gzipped(string(1000, 'x')), 999); });
}

DataSpec spec(DataKind kind, const string& path = "", const string& labels = "") {
  DataSpec s;
  s.kind = kind, s.path = path, s.labels = labels;
  return s;
}

const string images = "\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02"s + "\x00\x33\x66\xff\xff\0\0\0"s;
const string labels = "\0\0\x08\x01\0\0\0\x02\x01\x00"s;

TEST(Load, TellsFilesApartByTheirContents) {
  const ScratchFolder folder;
  data::write_file_atomically(folder / "images", images);
  data::write_file_atomically(folder / "images.gz", gzipped(images));
  data::write_file_atomically(folder / "labels.gz", gzipped(labels));
  data::write_file_atomically(folder / "table", "a,b,c\n1,2,0\n3,4,1\n"s);
  const std::vector<std::int64_t> shape{2, 2}, one{2};
  data::write_file_atomically(folder / "array", data::npy_bytes(std::vector<float>{1, 2, 3, 4}, shape));
  data::write_file_atomically(folder / "array_labels", data::npy_bytes(std::vector<std::int32_t>{3, 1}, one));
  std::filesystem::create_directories(folder / "pictures");
  data::write_file_atomically(folder / "pictures/1.png", png_bytes(Raster{1, 1, 3, {255, 0, 0}}));

  for (const string& name : {"images"s, "images.gz"s})
    for (const DataKind kind : {DataKind::file, DataKind::idx}) {
      const data::Dataset s = load_dataset(spec(kind, folder / name, folder / "labels.gz"));
      EXPECT_EQ(s.labels, (std::vector<std::int32_t>{1, 0}));
      EXPECT_FLOAT_EQ(s.values[1], 0.2f);
    }
  const data::Dataset table = load_dataset(spec(DataKind::file, folder / "table", "c"));
  EXPECT_EQ(table.values, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(table.labels, (std::vector<std::int32_t>{0, 1}));
  DataSpec array = spec(DataKind::file, folder / "array", folder / "array_labels");
  array.item_shape = {1, 2, 1};
  const data::Dataset read = load_dataset(array);
  EXPECT_EQ(read.item_shape, (std::vector<std::int64_t>{1, 2, 1}));
  EXPECT_EQ(read.labels, (std::vector<std::int32_t>{3, 1}));
  EXPECT_EQ(read.classes, 4);
  DataSpec pictures = spec(DataKind::file, folder / "pictures");
  EXPECT_EQ(load_dataset(pictures).values, (std::vector<float>{1, 0, 0}));
  pictures.grey = true;
  EXPECT_EQ(load_dataset(pictures).item_shape, (std::vector<std::int64_t>{1, 1, 1}));

  expect_error(Fault::data, "is a single picture",
               [&] { load_dataset(spec(DataKind::file, folder / "pictures/1.png")); });
  expect_error(Fault::data, "one label for each",
               [&] { load_dataset(spec(DataKind::npy, folder / "array", folder / "array")); });
  expect_error(Fault::data, "at least two",
               [&] { load_dataset(spec(DataKind::npy, folder / "array_labels")); });
  array.item_shape = {3};
  expect_error(Fault::data, "do not fill", [&] { load_dataset(array); });
  expect_error(Fault::data, "NUMPY", [&] { load_dataset(spec(DataKind::npy, folder / "table")); });
  expect_error(Fault::data, "IDX", [&] { load_dataset(spec(DataKind::idx, folder / "table")); });
  expect_error(
      Fault::argument, "did you mean 'class'",
      [&] {
        data::write_file_atomically(folder / "named", "first,second,class\n1,2,0\n"s);
        load_dataset(spec(DataKind::csv, folder / "named", "clas"));
      },
      "");
}

TEST(Load, GeneratesByKind) {
  for (const DataKind kind : {DataKind::glyphs, DataKind::mixture, DataKind::moons, DataKind::rings,
                              DataKind::checkerboard, DataKind::swiss_roll}) {
    DataSpec s = spec(kind);
    s.count = 50, s.seed = 3;
    const data::Dataset all = load_dataset(s);
    EXPECT_EQ(all.count, 50) << name(kind);
    EXPECT_EQ(data_kind(name(kind)), kind);
    s.first = 30, s.count = 20;
    const data::Dataset tail = load_dataset(s);
    EXPECT_TRUE(
        std::equal(tail.values.begin(), tail.values.end(), all.values.begin() + 30 * data::item_size(all)))
        << name(kind);
  }
  expect_error(Fault::argument, "did you mean 'glyphs'", [] { data_kind("glyph"); });
}

TEST(Load, AppliesTheSettingsInOrder) {
  DataSpec s = spec(DataKind::glyphs);
  s.count = 100, s.glyphs.resolution = 16, s.only_labels = {3, 8}, s.average_down = 2, s.range = {{0, 1}};
  const data::Dataset set = load_dataset(s);
  EXPECT_EQ(set.count, 20);
  EXPECT_EQ(set.classes, 10);
  EXPECT_EQ(set.item_shape, (std::vector<std::int64_t>{8, 8, 1}));
  EXPECT_EQ(set.values[0], -1.0f);
  EXPECT_EQ(set.scale, 0.5);
  DataSpec points = spec(DataKind::moons);
  points.noise = 0.1, points.count = 1000, points.standardise = true;
  const data::Dataset moons = load_dataset(points);
  double square = 0;
  for (const float v : moons.values) square += v * v;
  EXPECT_NEAR(square / 2000, 1, 1e-5);
}

TEST(Load, NoSettingIsIgnored) {
  const ScratchFolder folder;
  data::write_file_atomically(folder / "images", images);
  data::write_file_atomically(folder / "table", "1,2\n3,4\n"s);
  const auto refuse = [](DataKind kind, const string& path, const string& part, auto change) {
    DataSpec s = spec(kind, path);
    change(s);
    expect_error(
        Fault::argument, part, [&] { load_dataset(s); }, part);
  };
  const string table = folder / "table", idx = folder / "images";
  refuse(DataKind::glyphs, "x", "path applies to files only, not to glyphs", [](DataSpec&) {});
  refuse(DataKind::moons, "", "labels", [](DataSpec& s) { s.labels = "x"; });
  refuse(DataKind::moons, "", "parts", [](DataSpec& s) { s.parts = 3; });
  refuse(DataKind::checkerboard, "", "noise", [](DataSpec& s) { s.noise = 0.1; });
  refuse(DataKind::rings, "", "mixture", [](DataSpec& s) { s.mixture = data::ring_mixture(2, 1, 1); });
  refuse(DataKind::rings, "", "glyphs", [](DataSpec& s) { s.glyphs.resolution = 9; });
  refuse(DataKind::rings, "", "csv", [](DataSpec& s) { s.csv.delimiter = ';'; });
  refuse(DataKind::rings, "", "item_shape", [](DataSpec& s) { s.item_shape = {2}; });
  refuse(DataKind::rings, "", "grey", [](DataSpec& s) { s.grey = true; });
  refuse(DataKind::rings, "", "exclude each other", [](DataSpec& s) {
    s.range = {{0, 1}}, s.standardise = true;
  });
  refuse(DataKind::rings, "", "must not be negative", [](DataSpec& s) { s.count = -1; });
  refuse(DataKind::rings, "", "only_labels asks for 3", [](DataSpec& s) { s.only_labels = {3}; });
  refuse(DataKind::rings, "", "averaged_down", [](DataSpec& s) { s.average_down = 2; });
  refuse(DataKind::rings, "", "scaled", [](DataSpec& s) { s.range = {{1, 1}}; });
  refuse(DataKind::file, "", "needs a path", [](DataSpec&) {});
  refuse(DataKind::csv, table, "seed", [](DataSpec& s) { s.seed = 1; });
  refuse(DataKind::file, table, "grey", [](DataSpec& s) { s.grey = true; });
  refuse(DataKind::file, table, "has none", [](DataSpec& s) { s.only_labels = {1}; });
  refuse(DataKind::file, table, "holds 2 items, too few", [](DataSpec& s) { s.count = 3; });
  refuse(DataKind::file, table, "too few", [](DataSpec& s) { s.first = 2; });
  refuse(DataKind::file, idx, "item_shape", [](DataSpec& s) { s.item_shape = {4}; });
  refuse(DataKind::file, idx, "csv options", [](DataSpec& s) { s.csv.comment = '%'; });
  refuse(DataKind::file, folder.path(), "folder of pictures", [](DataSpec& s) { s.labels = "x"; });
  expect_error(Fault::io, "No such file or directory",
               [] { load_dataset(spec(DataKind::file, "/no/such/file")); });
  expect_error(Fault::io, "No such file or directory",
               [&] { load_dataset(spec(DataKind::idx, idx, folder / "none")); });
}

TEST(Load, ReadsMnist) {
  const string pixels = shared_file("mnist/t10k-images-idx3-ubyte.gz"),
               classes = shared_file("mnist/t10k-labels-idx1-ubyte.gz");
  if (pixels.empty() || classes.empty())
    GTEST_SKIP() << "MNIST is not in the shared data folder (set COSTATE_SHARED_DATA)";
  DataSpec s = spec(DataKind::file, pixels, classes);
  s.average_down = 2, s.range = {{0, 1}};
  const data::Dataset set = load_dataset(s);
  EXPECT_EQ(set.count, 10000);
  EXPECT_EQ(set.classes, 10);
  EXPECT_EQ(set.item_shape, (std::vector<std::int64_t>{14, 14, 1}));
  // The first four test digits of MNIST are 7, 2, 1, 0.
  EXPECT_EQ(std::vector<std::int32_t>(set.labels.begin(), set.labels.begin() + 4),
            (std::vector<std::int32_t>{7, 2, 1, 0}));
}

}  // namespace
}  // namespace costate::cli
