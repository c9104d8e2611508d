// CSV and whole files.
#include <costate/finetune/data/csv.h>
#include <costate/finetune/data/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <thread>

#include "data_support.h"

namespace costate::data {
namespace {

using costate::testing::bytes_of;
using costate::testing::expect_error;
using costate::testing::ScratchFolder;
using costate::testing::shared_file;
using costate::testing::text_of;
using std::string;
using namespace std::string_literals;

// ------------------------------------------------------------------------------------------------ CSV

TEST(Csv, ReadsPlainRows) {
  const CsvTable t = parse_csv("1,2.5,-3e2\n4, 5 ,\t+6\r\n\n# a comment\n7,8,.5", {}, "x");
  EXPECT_EQ(t.rows, 3);
  EXPECT_EQ(t.columns, 3);
  EXPECT_TRUE(t.names.empty());
  EXPECT_EQ(t.values, (std::vector<double>{1, 2.5, -300, 4, 5, 6, 7, 8, 0.5}));
  EXPECT_EQ(t.lines, (std::vector<std::int64_t>{1, 2, 5}));
}

TEST(Csv, ReadsHeadersWithQuotes) {
  const CsvTable t = parse_csv(
      "\xef\xbb\xbf# units: none\n\"a,b\", \"say \"\"hi\"\"\" ,\"two\nlines\",plain\r\n1,\"2\",3,4\r\n", {},
      "x");
  EXPECT_EQ(t.names, (std::vector<string>{"a,b", "say \"hi\"", "two\nlines", "plain"}));
  EXPECT_EQ(t.values, (std::vector<double>{1, 2, 3, 4}));
  EXPECT_EQ(t.lines, (std::vector<std::int64_t>{4}));
  EXPECT_EQ(csv_column(t, "plain"), 3);
  EXPECT_EQ(csv_column(t, "last"), 3);
  EXPECT_EQ(csv_column(t, "2"), 2);
  expect_error(Fault::argument, "did you mean 'plain'", [&] { csv_column(t, "plan"); });
  expect_error(Fault::argument, "0 ... 3", [&] { csv_column(t, "4"); });
  expect_error(Fault::argument, "no column", [&] { csv_column(t, "-1"); });
}

TEST(Csv, OptionsMatter) {
  CsvOptions o;
  o.delimiter = ';', o.comment = '%', o.header = CsvHeader::present;
  const CsvTable t = parse_csv("% c\n1;2\n3;4\n", o, "x");
  EXPECT_EQ(t.names, (std::vector<string>{"1", "2"}));
  EXPECT_EQ(t.values, (std::vector<double>{3, 4}));
  o.header = CsvHeader::absent, o.delimiter = '\t', o.comment = '\0';
  EXPECT_EQ(parse_csv("1\t2\n", o, "x").values, (std::vector<double>{1, 2}));
  expect_error(Fault::data, "'a' is not a number", [&] { parse_csv("a\tb\n1\t2\n", o, "x"); });
  for (const char wrong : {'\n', '\r', '"', '0', '5', '9', '.', '-', '+', '\0'}) {
    o.delimiter = wrong;
    expect_error(Fault::argument, "delimiter", [&] { parse_csv("1", o, "x"); });
  }
}

TEST(Csv, NumbersOfAnyLengthAreRounded) {
  EXPECT_EQ(parse_csv("0." + string(100000, '3') + "\n", {}, "x").values[0], 1.0 / 3);
  EXPECT_EQ(parse_csv(string(100000, '0') + "1\n", {}, "x").values[0], 1);
  expect_error(Fault::data, "(100000 characters) lies outside the range",
               [] { parse_csv(string(100000, '9'), {}, "x"); });
}

TEST(Csv, MalformedTextIsRefusedWithItsPlace) {
  const std::pair<string, string> cases[] = {
      {"", "file holds no row"},
      {"# only\n\n  \n", "no row"},
      {"a,b\n", "no row"},
      {"1,2\n3\n", "file, line 2: 1 fields, but the first record has 2"},
      {"1,2\n\n3,4,5\n", "line 3: 3 fields"},
      {"1,2\n3,4,\n", "line 2: 3 fields"},
      {"1,2\n3,\n", "line 2, column 2: '' is not a number"},
      {",\n", "line 1, column 1: '' is not a number"},
      {"1,x\n", "line 1, column 2: 'x' is not a number"},
      {"1,2\n3,nan\n", "line 2, column 2: 'nan' is not a finite number"},
      {"1,-inf\n", "'-inf' is not a finite number"},
      {"nan,nan\n", "line 1, column 1: 'nan' is not a finite number"},
      {"1,1e999\n", "'1e999' lies outside the range"},
      {"1,0x10\n", "'0x10' is not a number"},
      {"1,2 3\n", "'2 3' is not a number"},
      {"1,1.2.3\n", "'1.2.3'"},
      {"1,--2\n", "'--2'"},
      {"1,+-2\n", "'+-2'"},
      {"1,1e\n", "'1e'"},
      {"1;2\n3,4\n", "line 2: 2 fields, but the first record has 1"},
      {"1,\"2\n", "line 1, column 2: the quoted field that begins here is never closed"},
      {"1,2\n3,\"4\n5,6\n", "line 2, column 2"},
      {"1,\"2\"3\n", "line 1, column 2: after a closing quote"},
      {"1,2\"\n", "line 1, column 2: a quote within a field"},
      {"1,\"2\"\"\"\n", "'2\"\"' is not a number"},
      {"1,2\r3,4\n", "line 1"},
      {string("1,\0\n", 4), "'?' is not a number"},
      {"1,\xff\xfe\n", "is not a number"},
      {"1," + string(500, 'z') + "\n", "(500 characters) is not a number"}};
  for (const auto& c : cases) {
    expect_error(
        Fault::data, c.second, [&] { parse_csv(c.first, {}, "file"); }, c.second);
    expect_error(
        Fault::data, "file", [&] { parse_csv(c.first, {}, "file"); }, c.second);
  }
}

// Any prefix of a good file is either a shorter good file or refused with costate::Error, never anything
// else.
TEST(Csv, EveryPrefixIsReadOrRefused) {
  const string text = "# c\n\"a\"\"b\",c\r\n1.5,\"2\"\r\n-3e-1,4\n";
  for (std::size_t n = 0; n < text.size(); ++n) {
    try {
      const CsvTable t = parse_csv(text.substr(0, n), {}, "x");
      EXPECT_EQ(static_cast<std::int64_t>(t.values.size()), t.rows * t.columns);
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data);
    }
  }
}

TEST(Csv, BecomesADataset) {
  const CsvTable t = parse_csv("x,y,class\n1,2,0\n3,4,2\n", {}, "t");
  const Dataset s = csv_dataset(t, 2, {1, 2, 1});
  EXPECT_EQ(s.values, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(s.labels, (std::vector<std::int32_t>{0, 2}));
  EXPECT_EQ(s.classes, 3);
  EXPECT_EQ(s.item_shape, (std::vector<std::int64_t>{1, 2, 1}));
  EXPECT_EQ(csv_dataset(t, -1, {}).item_shape, (std::vector<std::int64_t>{3}));
  expect_error(Fault::data, "2 columns for each item", [&] { csv_dataset(t, 2, {3}); });
  expect_error(Fault::data, "2 columns for each item", [&] { csv_dataset(t, 2, {-1, -2}); });
  expect_error(Fault::data, "too many", [&] { csv_dataset(t, 2, {INT64_MAX, 4}); });
  expect_error(Fault::argument, "label column 3", [&] { csv_dataset(t, 3, {}); });
  expect_error(Fault::data, "line 2, column 1: the label 0.5",
               [] { csv_dataset(parse_csv("1,1\n0.5,1\n", {}, "t"), 0, {}); });
  expect_error(Fault::data, "the label -1", [] { csv_dataset(parse_csv("-1,1\n", {}, "t"), 0, {}); });
  expect_error(Fault::data, "the label 65536", [] { csv_dataset(parse_csv("65536,1\n", {}, "t"), 0, {}); });
  expect_error(Fault::data, "single precision", [] { csv_dataset(parse_csv("0,1e39\n", {}, "t"), 0, {}); });
  expect_error(Fault::data, "no column besides", [] { csv_dataset(parse_csv("1\n2\n", {}, "t"), 0, {}); });
}

TEST(Csv, ReadsTheOpticalDigits) {
  const string path = shared_file("optdigits/optdigits.tra");
  if (path.empty())
    GTEST_SKIP() << "optdigits.tra is not in the shared data folder (set COSTATE_SHARED_DATA)";
  const CsvTable t = parse_csv(as_text(read_file(path)), {}, "optdigits");
  EXPECT_EQ(t.columns, 65);
  const Dataset s = scaled(csv_dataset(t, csv_column(t, "last"), {8, 8, 1}), 0, 16);
  EXPECT_EQ(s.count, 2999);
  EXPECT_EQ(s.classes, 10);
  for (const float v : s.values) ASSERT_TRUE(v >= -1 && v <= 1);
}

// ------------------------------------------------------------------------------------------------ files

TEST(File, RoundTripsAndReplaces) {
  const ScratchFolder folder;
  const string path = folder / "a";
  string every;
  for (int i = 0; i < 200000; ++i) every += static_cast<char>(i * 7);
  for (const string& text : {"first"s, ""s, every}) {
    write_file_atomically(path, text);
    EXPECT_EQ(text_of(read_file(path)), text);
  }
  // Nothing but the file is left.
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST(File, LimitsAreKept) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a", string(1000, 'x'));
  EXPECT_EQ(read_file(folder / "a", 1000).size(), 1000u);
  expect_error(Fault::data, "holds 1000 bytes, but at most 999", [&] { read_file(folder / "a", 999); });
  // A device has no size and no end.
  expect_error(Fault::data, "'/dev/zero' holds more bytes", [] { read_file("/dev/zero", 100000); });
}

TEST(File, ReadsPipes) {
  const ScratchFolder folder;
  const string path = folder / "pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const string text(300000, 'p');
  std::thread writer([&] { std::ofstream(path, std::ios::binary) << text; });
  const auto got = read_file(path);
  writer.join();
  EXPECT_EQ(text_of(got), text);
}

TEST(File, FailuresNameThePathAndTheReason) {
  const ScratchFolder folder;
  expect_error(Fault::io, "No such file or directory", [&] { read_file(folder / "none"); });
  expect_error(Fault::io, folder / "none", [&] { read_file(folder / "none"); });
  expect_error(Fault::io, "Is a directory", [&] { read_file(folder.path()); });
  expect_error(Fault::io, "Not a directory", [&] {
    write_file_atomically(folder / "f", "x"s);
    read_file(folder / "f/g");
  });
  expect_error(Fault::io, "File name too long", [&] { read_file(folder / string(300, 'x')); });
  expect_error(Fault::argument, "path", [] { read_file(""); });
  expect_error(Fault::argument, "zero byte", [] { read_file("a\0b"s); });
  expect_error(Fault::io, "No such file or directory",
               [&] { write_file_atomically(folder / "no/such", "x"s); });
  expect_error(Fault::io, "not a regular file", [&] { write_file_atomically(folder.path(), "x"s); });
  expect_error(Fault::io, "not a regular file", [] { write_file_atomically("/dev/null", "x"s); });
  expect_error(Fault::argument, "path", [] { write_file_atomically("", "x"s); });
}

// A limit on file sizes plays the full disk: the write fails half-way.
TEST(File, AFailedWriteLeavesTheOldContentsAndNothingElse) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a", "old"s);
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error(Fault::io, "File too large",
               [&] { write_file_atomically(folder / "a", string(100000, 'n')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(text_of(read_file(folder / "a")), "old");
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++entries;
  EXPECT_EQ(entries, 1u);
}

}  // namespace
}  // namespace costate::data
