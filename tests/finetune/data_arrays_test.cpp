// IDX and NPY: golden bytes, round trips, and tables of malformed files.
#include <costate/finetune/data/file.h>
#include <costate/finetune/data/idx.h>
#include <costate/finetune/data/npy.h>

#include <cmath>
#include <limits>

#include "data_support.h"

namespace costate::data {
namespace {

using costate::testing::bytes_of;
using costate::testing::expect_error;
using costate::testing::text_of;
using std::string;
using namespace std::string_literals;

// ------------------------------------------------------------------------------------------------ elements

TEST(Elements, HalvesAreReadExactly) {
  const std::pair<std::uint16_t, double> cases[] = {
      {0x0000, 0.0},      {0x3c00, 1.0},      {0xc000, -2.0},           {0x7bff, 65504.0},
      {0x0400, 0x1p-14},  {0x0001, 0x1p-24},  {0x03ff, 1023 * 0x1p-24}, {0x3555, 0.333251953125},
      {0x7c00, INFINITY}, {0xfc00, -INFINITY}};
  for (const auto& [bits, value] : cases) {
    const std::byte raw[2] = {static_cast<std::byte>(bits & 255), static_cast<std::byte>(bits >> 8)};
    EXPECT_EQ(convert<double>(raw, Element::f16, std::endian::little, "x")[0], value);
  }
  const std::byte nan[2] = {std::byte{1}, std::byte{0x7c}};
  EXPECT_TRUE(std::isnan(convert<float>(nan, Element::f16, std::endian::little, "x")[0]));
}

TEST(Elements, NumbersThatDoNotFitAreRefused) {
  const auto refuse = [](auto target, Element element, const string& big_endian, const string& part) {
    expect_error(
        Fault::data, part,
        [&] { convert<decltype(target)>(bytes_of(big_endian), element, std::endian::big, "file"); }, part);
  };
  refuse(std::int32_t{}, Element::f32, "\x3f\x80\x00\x00\x3f\x00\x00\x00"s, "file: element 1 is 0.5");
  refuse(std::int32_t{}, Element::f32, "\x7f\xc0\x00\x00"s, "whole number");
  refuse(std::int32_t{}, Element::f64, "\x41\xe0\x00\x00\x00\x00\x00\x00"s, "2147483648");    // 2^31
  refuse(std::int64_t{}, Element::f64, "\x43\xe0\x00\x00\x00\x00\x00\x00"s, "whole number");  // 2^63
  refuse(std::int32_t{}, Element::i64, "\x00\x00\x00\x00\x80\x00\x00\x00"s, "2147483648");
  refuse(float{}, Element::f64, "\x7f\xef\xff\xff\xff\xff\xff\xff"s, "largest float");
  refuse(float{}, Element::boolean, "\x00\x01\x02"s, "element 2 is 2");
  EXPECT_EQ(convert<std::int32_t>(bytes_of("\xc1\xe0\x00\x00\x00\x00\x00\x00"s), Element::f64,
                                  std::endian::big, "x")[0],
            std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(convert<std::int64_t>(bytes_of("\x80\x00\x00\x00\x00\x00\x00\x00"s), Element::i64,
                                  std::endian::big, "x")[0],
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(convert<std::int32_t>(bytes_of("\xff\xfe"s), Element::i16, std::endian::big, "x")[0], -2);
  EXPECT_EQ(convert<float>(bytes_of("\x80"s), Element::i8, std::endian::big, "x")[0], -128.0f);
}

TEST(Elements, CountOverflowsSafely) {
  const auto count = [](std::vector<std::int64_t> shape) { return element_count(shape); };
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({3, 4}), 12);
  EXPECT_EQ(count({3, 0, 5}), 0);
  EXPECT_FALSE(count({-1}));
  EXPECT_FALSE(count({INT64_MAX, 2}));
  EXPECT_FALSE(count({std::int64_t{1} << 32, std::int64_t{1} << 31}));
  EXPECT_EQ(count({std::int64_t{1} << 31, std::int64_t{1} << 31}), std::int64_t{1} << 62);
}

// ------------------------------------------------------------------------------------------------ IDX

const string two_images =
    "\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03"s + "\x00\x33\x66\x99\xcc\xff"s + "\xff\0\0\0\0\x01"s;
const string two_labels = "\0\0\x08\x01\0\0\0\x02\x07\x03"s;

TEST(Idx, ReadsEveryType) {
  const std::tuple<char, Element, string, double> cases[] = {
      {'\x08', Element::u8, "\xc8"s, 200},
      {'\x09', Element::i8, "\xc8"s, -56},
      {'\x0b', Element::i16, "\xff\x38"s, -200},
      {'\x0c', Element::i32, "\xff\xfe\x79\x60"s, -100000},
      {'\x0d', Element::f32, "\xbf\x40\0\0"s, -0.75},
      {'\x0e', Element::f64, "\x3f\xb9\x99\x99\x99\x99\x99\x9a"s, 0.1}};
  for (const auto& [type, element, payload, value] : cases) {
    const std::vector<std::byte> bytes = bytes_of("\0\0"s + type + "\x02\0\0\0\x01\0\0\0\x01"s + payload);
    const IdxArray a = parse_idx(bytes, "x");
    EXPECT_EQ(a.element, element);
    EXPECT_EQ(a.shape, (std::vector<std::int64_t>{1, 1}));
    EXPECT_EQ(convert<double>(a.elements, a.element, std::endian::big, "x"), std::vector<double>{value});
  }
}

TEST(Idx, ImagesAndLabelsBecomeADataset) {
  const Dataset s = idx_images(bytes_of(two_images), "images", bytes_of(two_labels), "labels");
  EXPECT_EQ(s.count, 2);
  EXPECT_EQ(s.item_shape, (std::vector<std::int64_t>{2, 3, 1}));
  EXPECT_EQ(s.labels, (std::vector<std::int32_t>{7, 3}));
  EXPECT_EQ(s.classes, 8);
  EXPECT_FLOAT_EQ(s.values[1], 0.2f);
  EXPECT_EQ(s.values[5], 1.0f);
  EXPECT_EQ(original(s, s.values)[1], 51.0f);
  EXPECT_TRUE(idx_images(bytes_of(two_images), "images", {}, "").labels.empty());
}

TEST(Idx, EveryTruncationAndEveryLongerFileIsRefused) {
  for (std::size_t n = 0; n < two_images.size(); ++n)
    expect_error(
        Fault::data, "file", [&] { parse_idx(bytes_of(two_images.substr(0, n)), "file"); },
        std::to_string(n));
  expect_error(Fault::data, "13 bytes follow", [&] { parse_idx(bytes_of(two_images + "x"), "file"); });
}

TEST(Idx, MalformedFilesAreRefused) {
  const std::pair<string, string> cases[] = {
      {"\x01\0\x08\x01\0\0\0\0"s, "begins with 0, 0"},
      {"\x1f\x8b\x08\0\0\0"s, "gzip"},
      {"\0\0\x0a\x01\0\0\0\0"s, "IDX type 10"},
      {"\0\0\x08\x00"s, "0 axes"},
      {"\0\0\x08\x09"s + string(40, '\0'), "9 axes"},
      {"\0\0\x08\xff"s + string(2000, '\0'), "255 axes"},
      {"\0\0\x0e\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s, "63 bits"},
      {"\0\0\x0e\x02\x7f\xff\xff\xff\x7f\xff\xff\xff"s,
       "63 bits"},  // the product fits, times 8 bytes it does not
      {"\0\0\x08\x01\xff\xff\xff\xff"s, "4294967295 bytes, but 0"},
      {"\0\0\x08\x02\0\0\0\0\xff\xff\xff\xff\x01"s, "0 bytes, but 1"}};
  for (const auto& c : cases)
    expect_error(
        Fault::data, c.second, [&] { parse_idx(bytes_of(c.first), "file"); }, c.second);
  const std::pair<std::pair<string, string>, string> pairs[] = {
      {{two_labels, two_labels}, "looks like a file of labels"},
      {{two_images, two_images}, "labels are u8 of one axis"},
      {{two_images, "\0\0\x08\x01\0\0\0\x01\x07"s}, "1 labels, but images holds 2"},
      {{"\0\0\x09\x03\0\0\0\x01\0\0\0\x01\0\0\0\x01\x01"s, ""}, "images are u8"},
      {{"\0\0\x08\x03\0\0\0\0\0\0\0\x01\0\0\0\x01"s, ""}, "holds no item"},
      {{"\0\0\x08\x03\0\0\0\x01\0\0\0\0\0\0\0\x01"s, ""}, "holds no value"}};
  for (const auto& c : pairs)
    expect_error(
        Fault::data, c.second,
        [&] { idx_images(bytes_of(c.first.first), "images", bytes_of(c.first.second), "labels"); }, c.second);
}

// ------------------------------------------------------------------------------------------------ NPY

string header(const string& dict, int major = 1) {
  string out = "\x93NUMPY"s + static_cast<char>(major) + '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) out += static_cast<char>(dict.size() >> (8 * i) & 255);
  return out + dict;
}

// numpy.save of NumPy 1.24.2, as printed by Python.
const string golden_2x2 =
    "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"s + string(58, ' ') +
    "\n\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@"s;
const string golden_1 = "\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"s +
                        string(60, ' ') + "\n\0\0\0\0\0\0\xf8?"s;
const string golden_scalar =
    "\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (), }"s + string(62, ' ') +
    "\n\x07\0\0\0"s;
const string golden_fortran =
    "\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': True, 'shape': (2, 3), }"s + string(59, ' ') +
    "\n\0\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0"s;

TEST(Npy, WritesTheBytesOfNumpy) {
  const std::vector<std::int64_t> square{2, 2}, one{1}, scalar;
  EXPECT_EQ(text_of(npy_bytes(std::vector<float>{1, 2, 3, 4}, square)), golden_2x2);
  EXPECT_EQ(text_of(npy_bytes(std::vector<double>{1.5}, one)), golden_1);
  EXPECT_EQ(text_of(npy_bytes(std::vector<std::int32_t>{7}, scalar)), golden_scalar);
  // A dict that ends exactly at a multiple of 64 still gets a whole block of padding (20 spaces of room, then
  // 64).
  std::vector<std::int64_t> exact(14, 1);
  exact[0] = 0, exact[13] = 100;
  EXPECT_EQ(
      text_of(npy_bytes(std::vector<float>{}, exact)),
      "\x93NUMPY\x01\x00\xb6\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 100), }"s +
          string(84, ' ') + "\n");
}

TEST(Npy, ReadsWhatNumpyWrites) {
  const auto bytes = bytes_of(golden_fortran);
  const NpyArray a = parse_npy(bytes, "x");
  EXPECT_TRUE(a.fortran_order);
  EXPECT_EQ(a.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(npy_values<std::int64_t>(a, "x"), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(npy_values<float>(a, "x"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
}

TEST(Npy, FortranOrderOfThreeAxes) {
  // a[i][j][k] = 100 i + 10 j + k lies at i + 2 j + 6 k.
  string payload(24, '\0');
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 4; ++k)
        payload[static_cast<std::size_t>(i + 2 * j + 6 * k)] = static_cast<char>(100 * i + 10 * j + k);
  const auto bytes =
      bytes_of(header("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4)}\n") + payload);
  const auto values = npy_values<std::int32_t>(parse_npy(bytes, "x"), "x");
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 4; ++k)
        EXPECT_EQ(values[static_cast<std::size_t>(12 * i + 4 * j + k)], 100 * i + 10 * j + k);
}

TEST(Npy, RoundTripsEveryBit) {
  const std::vector<std::int64_t> shape{3, 2};
  const std::vector<double> doubles{0.1, -0.0, 1e-310, 1.7976931348623157e308, INFINITY, 3};
  const auto d = npy_bytes(doubles, shape);
  const auto back = npy_values<double>(parse_npy(d, "x"), "x");
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_EQ(std::bit_cast<std::uint64_t>(back[i]), std::bit_cast<std::uint64_t>(doubles[i]));
  const std::vector<std::int32_t> ints{1, -1, INT32_MAX, INT32_MIN, 0, 5};
  const auto i = npy_bytes(ints, shape);
  EXPECT_EQ(npy_values<std::int32_t>(parse_npy(i, "x"), "x"), ints);
  const std::vector<std::int64_t> none{0, 5};
  const auto e = npy_bytes(std::vector<float>{}, none);
  EXPECT_EQ(parse_npy(e, "x").shape, none);
}

TEST(Npy, AcceptsOtherSpellings) {
  const string dicts[] = {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
                          "{'shape':(2,),'fortran_order':False,'descr':'<f4'}",
                          "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2L,)}\n",
                          "  { 'descr' : '<f4' , 'shape' : ( 2 , ) , 'fortran_order' : False , }   \n"};
  for (const string& dict : dicts)
    for (const int version : {1, 2, 3}) {
      const auto bytes = bytes_of(header(dict, version) + "\0\0\x80?\0\0\0@"s);
      EXPECT_EQ(npy_values<float>(parse_npy(bytes, "x"), "x"), (std::vector<float>{1, 2})) << dict;
    }
  for (const auto& [descr, payload, value] : {std::tuple{"<f2", "\x00\x3c"s, 1.0},
                                              {"<f8", "\0\0\0\0\0\0\xf8?"s, 1.5},
                                              {"<i4", "\xff\xff\xff\xff"s, -1.0},
                                              {"|u1", "\xff"s, 255.0},
                                              {"|b1", "\x01"s, 1.0}}) {
    const auto bytes =
        bytes_of(header("{'descr': '"s + descr + "', 'fortran_order': False, 'shape': ()}\n") + payload);
    EXPECT_EQ(npy_values<double>(parse_npy(bytes, "x"), "x"), std::vector<double>{value}) << descr;
  }
}

TEST(Npy, EveryTruncationIsRefused) {
  for (const string& file : {golden_2x2, golden_fortran,
                             header("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}\n", 2) + "x"})
    for (std::size_t n = 0; n < file.size(); ++n)
      expect_error(
          Fault::data, "file", [&] { parse_npy(bytes_of(file.substr(0, n)), "file"); }, std::to_string(n));
  expect_error(Fault::data, "17 bytes follow", [&] { parse_npy(bytes_of(golden_2x2 + "x"), "file"); });
}

TEST(Npy, MalformedHeadersAreRefused) {
  const auto of = [](const string& descr, const string& order, const string& shape) {
    return header("{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n") +
           "\0\0\0\0"s;
  };
  string deep = "(";
  for (int i = 0; i < 40; ++i) deep += "1, ";
  const std::pair<string, string> cases[] = {
      {"\x93NUMPX\x01\0\x02\0{}"s, "93 'NUMPY'"},
      {"\x93NUMPY\x04\0\x02\0{}"s, "version 4.0"},
      {"\x93NUMPY\x01\x01\x02\0{}"s, "version 1.1"},
      {"\x93NUMPY\x02\0\x00\0\x01\x00"s + string(70000, ' '), "NPY header"},
      {"\x93NUMPY\x02\0\xff\xff\xff\xff"s, "at most 65536"},
      {"\x93NUMPY\x02\0\xff\xff"s, "header"},
      {header(""), "'{'"},
      {header("{}"), "lacks the key descr"},
      {header("{'descr': '<f4'}"), "lacks the key fortran_order"},
      {header("{'descr': '<f4', 'fortran_order': False}"), "lacks the key shape"},
      {header("{'descr': '<f4', 'descr': '<f4'}"), "second or unknown key 'descr'"},
      {header("{'magic': 1}"), "unknown key 'magic'"},
      {header("{'descr' '<f4'}"), "':'"},
      {header("{'descr': '<f4' 'shape': ()}"), "',' or '}'"},
      {header("{'descr': '<f4"), "closing quote"},
      {header("{descr: 1}"), "quoted string"},
      {header("{'de\\x73cr': '<f4'}"), "without escapes"},
      {of("'>f4'", "False", "(1,)"), "big-endian"},
      {of("'|O'", "False", "(1,)"), "Python objects"},
      {of("'<u4'", "False", "(1,)"), "'<u4'"},
      {of("'<c8'", "False", "(1,)"), "'<c8'"},
      {of("''", "False", "(1,)"), "''"},
      {of("[('a', '<f4')]", "False", "(1,)"), "several fields"},
      {of("'<f4'", "0", "(1,)"), "True or False"},
      {of("'<f4'", "false", "(1,)"), "True or False"},
      {of("'<f4'", "False", "(1)"), "no tuple"},
      {of("'<f4'", "False", "[1]"), "'('"},
      {of("'<f4'", "False", "(-1,)"), "not negative"},
      {of("'<f4'", "False", "(1.0,)"), "','"},
      {of("'<f4'", "False", "(,)"), "extent"},
      {of("'<f4'", "False", "(1, 1 1)"), "','"},
      {of("'<f4'", "False", "(9223372036854775808,)"), "below 2^63"},
      {of("'<f4'", "False", "("s + string(50000, '9') + ",)"), "below 2^63"},
      {of("'<f4'", "False", "(9223372036854775807,)"), "63 bits"},
      {of("'<f4'", "False", "(4294967296, 4294967296)"), "63 bits"},
      {of("'<f4'", "False", "(4611686018427387904, 0, 4611686018427387904)"), "63 bits"},
      {of("'<f4'", "False", deep + ")"), "32 axes"},
      {of("'<f4'", "False", "(2,)"), "8 bytes, but 4"},
      {of("'<f4'", "False", "(0,)"), "0 bytes, but 4"},
      {of("__import__('os')", "False", "(1,)"), "quoted string"},
      {header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x") + "\0\0\0\0"s, "padding"},
      {header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)"), "',' or '}'"},
      {header(string(60000, '{')), "quoted string"}};
  for (const auto& c : cases)
    expect_error(
        Fault::data, c.second, [&] { parse_npy(bytes_of(c.first), "file"); }, c.second);
}

TEST(Npy, WriterRefusesAShapeThatDoesNotFit) {
  const std::vector<float> three(3);
  const std::vector<std::int64_t> shape{2, 2}, negative{-3};
  expect_error(Fault::argument, "3 values do not fill the shape (2, 2)", [&] { npy_bytes(three, shape); });
  expect_error(Fault::argument, "do not fill", [&] { npy_bytes(three, negative); });
}

}  // namespace
}  // namespace costate::data
