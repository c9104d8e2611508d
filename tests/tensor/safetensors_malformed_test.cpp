// Malformed safetensors files: a table of one file a rule, every truncation, every changed byte.
#include "safetensors_support.h"

#include <costate/tensor/memory.h>

namespace costate {
namespace {

using namespace testing_files;
using std::string;

string entry(const string& type, const string& shape, const string& offsets) {
  return R"({"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}
string tensor(const string& name, const string& type, const string& shape, const string& offsets) {
  return "\"" + name + "\":" + entry(type, shape, offsets);
}
// One tensor of four bytes, U8 [4], with `inside` in the place of its description.
string one(const string& inside) { return file_of("{\"a\":{" + inside + "}}", "0123"); }
string described(const string& shape, const string& offsets, const string& type = "U8") {
  return one("\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets);
}

struct Case {
  string title;
  string file;
  string words;  // must occur in the sentence
};

std::vector<Case> cases() {
  const string a = tensor("a", "U8", "[4]", "[0,4]");
  const string data = "01234567";
  string deep = "{\"a\":";
  deep += string(1000000, '[');
  return {
      // 1. sizes
      {"empty file", "", "0 bytes are too few"},
      {"seven bytes", string(7, '\0'), "7 bytes are too few"},
      {"no header", length_of(0), "must begin with '{'"},
      {"header beyond the file", length_of(3) + "{}", "truncated"},
      {"100 MB plus one", length_of(100000001) + "{}", "too large"},
      {"length 2^63", length_of(std::uint64_t{1} << 63) + "{}", "too large"},
      {"length 2^64 - 1", length_of(~std::uint64_t{0}) + "{}", "too large"},
      {"length that wraps with 8", length_of(~std::uint64_t{0} - 7) + "{}", "too large"},
      {"a picture", "\x89PNG\r\n\x1a\n" + string(100, 'x'), "too large"},
      // 2. encoding
      {"byte order mark", file_of("\xEF\xBB\xBF{}"), "must begin with '{'"},
      {"leading space", file_of(" {}"), "must begin with '{'"},
      {"not an object", file_of("[]"), "must begin with '{'"},
      {"UTF-8: lone tail", file_of("{\"\x80\":1}"), "not UTF-8"},
      {"UTF-8: overlong", file_of("{\"\xC0\xAF\":1}"), "not UTF-8"},
      {"UTF-8: overlong of three", file_of("{\"\xE0\x80\x80\":1}"), "not UTF-8"},
      {"UTF-8: surrogate", file_of("{\"\xED\xA0\x80\":1}"), "not UTF-8"},
      {"UTF-8: beyond U+10FFFF", file_of("{\"\xF4\x90\x80\x80\":1}"), "not UTF-8"},
      {"UTF-8: cut short", file_of("{\"\xE6\x97\":1}"), "not UTF-8"},
      {"UTF-8: 0xFF", file_of("{\"\xFF\":1}"), "not UTF-8"},
      // 3. JSON
      {"unclosed object", file_of("{"), "the header ends"},
      {"unclosed name", file_of("{\"a"), "closing"},
      {"name without quotes", file_of("{a:1}"), "a tensor's name was expected, found 'a'"},
      {"no colon", file_of("{\"a\" 1}"), "':'"},
      {"trailing comma", file_of("{" + a + ",}", "0123"), "a tensor's name was expected, found '}'"},
      {"missing comma", file_of("{" + a + tensor("b", "U8", "[4]", "[4,8]") + "}", data), "',' or '}'"},
      {"text behind the object", file_of("{} x"), "padding was expected, found 'x'"},
      {"zero padding", file_of(string("{}\0\0", 4)), "padding was expected, found byte 0"},
      {"comment", file_of("{}//"), "padding was expected"},
      {"second object", file_of("{}{}"), "padding was expected"},
      {"value is a number", file_of("{\"a\":1}"), "'{' of tensor 'a' was expected, found '1'"},
      {"value is null", file_of("{\"a\":null}"), "'{' of tensor 'a'"},
      {"value is an array", file_of("{\"a\":[]}"), "'{' of tensor 'a'"},
      {"a million brackets", file_of(deep), "'{' of tensor 'a'"},
      {"nested deeper", one(R"("dtype":"U8","shape":[[4]],"data_offsets":[0,4])"), "non-negative integer"},
      {"control character", file_of("{\"a\n\":1}"), "control character"},
      {"unknown escape", file_of("{\"\\x41\":1}"), "escape"},
      {"bad hexadecimal", file_of("{\"\\u00g0\":1}"), "hexadecimal"},
      {"escape at the end", file_of("{\"\\"), "the header ends"},
      {"lone high surrogate", file_of("{\"\\ud83dx\":1}"), "stands alone"},
      {"lone low surrogate", file_of("{\"\\ude00\":1}"), "stands alone"},
      {"high surrogate before a later code", file_of("{\"\\ud83d\\ue000\":1}"), "stands alone"},
      {"high surrogate twice", file_of("{\"\\ud83d\\ud83d\":1}"), "stands alone"},
      {"zero byte in a name", file_of("{\"a\\u0000b\":" + entry("U8", "[4]", "[0,4]") + "}", "0123"),
       "zero byte"},
      {"name of 1025 bytes", file_of("{" + tensor(string(1025, 'n'), "U8", "[4]", "[0,4]") + "}", "0123"),
       "1025 bytes"},
      // the description of a tensor
      {"empty description", one(""), "'dtype' of tensor 'a' is missing"},
      {"no shape", one(R"("dtype":"U8","data_offsets":[0,4])"), "'shape' of tensor 'a' is missing"},
      {"no offsets", one(R"("dtype":"U8","shape":[4])"), "'data_offsets' of tensor 'a' is missing"},
      {"unknown key", one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"strides":[1])"),
       "unknown key 'strides'"},
      {"key twice", one(R"("dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4])"),
       "'shape' of tensor 'a' occurs twice"},
      {"dtype is a number", one(R"("dtype":4,"shape":[4],"data_offsets":[0,4])"), "a string for the dtype"},
      {"unknown dtype", described("[4]", "[0,4]", "F7"), "unknown dtype 'F7'"},
      {"lower-case dtype", described("[1]", "[0,4]", "f32"), "unknown dtype 'f32'"},
      {"empty dtype", described("[4]", "[0,4]", ""), "unknown dtype ''"},
      {"negative extent", described("[-4]", "[0,4]"), "negative"},
      {"negative zero", described("[-0]", "[0,0]"), "negative"},
      {"fractional extent", described("[4.0]", "[0,4]"), "not an integer"},
      {"exponent", described("[4e0]", "[0,4]"), "not an integer"},
      {"1e308", described("[1e308]", "[0,4]"), "not an integer"},
      {"leading zero", described("[04]", "[0,4]"), "begins with a zero"},
      {"plus", described("[+4]", "[0,4]"), "non-negative integer"},
      {"extent in quotes", described("[\"4\"]", "[0,4]"), "non-negative integer"},
      {"true as extent", described("[true]", "[0,4]"), "non-negative integer"},
      {"extent 2^64", described("[18446744073709551616]", "[0,4]"), "does not fit 64 bits"},
      {"extent of 30 digits", described("[999999999999999999999999999999]", "[0,4]"), "does not fit 64 bits"},
      {"comma before the bracket", described("[4,]", "[0,4]"), "non-negative integer"},
      {"shape not closed", one(R"("dtype":"U8","shape":[4 "data_offsets":[0,4])"), "',' or ']' in the shape"},
      {"shape is a number", described("4", "[0,4]"), "'[' of the shape"},
      {"17 axes", described("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", "[0,4]"), "more than 16"},
      {"no offset", described("[4]", "[]"), "exactly two"},
      {"one offset", described("[4]", "[4]"), "exactly two"},
      {"three offsets", described("[4]", "[0,4,4]"), "more than 2"},
      {"offset 2^64", described("[4]", "[0,18446744073709551616]"), "does not fit 64 bits"},
      {"offset -1", described("[4]", "[0,-1]"), "negative"},
      // metadata
      {"metadata is a string", file_of(R"({"__metadata__":"x"})"), "__metadata__"},
      {"metadata is null", file_of(R"({"__metadata__":null})"), "__metadata__"},
      {"metadata value is a number", file_of(R"({"__metadata__":{"step":1}})"), "a string as metadata value"},
      {"metadata value is an object", file_of(R"({"__metadata__":{"step":{}}})"),
       "a string as metadata value"},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "'__metadata__' occurs twice"},
      {"metadata key twice", file_of(R"({"__metadata__":{"k":"1","k":"2"}})"),
       "metadata key 'k' occurs twice"},
      {"metadata not closed", file_of(R"({"__metadata__":{"k":"1")"), "__metadata__"},
      // names
      {"name twice", file_of("{" + a + "," + tensor("a", "U8", "[4]", "[4,8]") + "}", data),
       "'a' occurs twice"},
      {"name twice, aliasing", file_of("{" + a + "," + a + "}", "0123"), "'a' occurs twice"},
      {"name twice by an escape",
       file_of("{" + a + "," + tensor("\\u0061", "U8", "[4]", "[4,8]") + "}", data), "'a' occurs twice"},
      // 4. layout
      {"begins late", described("[3]", "[1,4]"), "hole"},
      {"hole",
       file_of("{" + tensor("a", "U8", "[2]", "[0,2]") + "," + tensor("b", "U8", "[2]", "[4,6]") + "}",
               "012345"),
       "'b' begins at byte 4, but the one before it ends at 2: there is a hole"},
      {"overlap", file_of("{" + a + "," + tensor("b", "U8", "[4]", "[2,6]") + "}", "012345"), "overlap"},
      {"aliases", file_of("{" + a + "," + tensor("b", "U8", "[4]", "[0,4]") + "}", "0123"), "overlap"},
      {"empty tensor inside another",
       file_of("{" + a + "," + tensor("b", "U8", "[0]", "[2,2]") + "}", "0123"), "overlap"},
      {"ends before it begins", described("[4]", "[4,0]"), "before its begin"},
      // 5. sizes of tensors
      {"too few bytes", described("[3]", "[0,4]"), "needs 3 bytes, but its data_offsets span 4"},
      {"too many bytes", described("[2]", "[0,4]", "F32"), "needs 8 bytes, but its data_offsets span 4"},
      {"scalar of wrong size", described("[]", "[0,4]", "F64"), "needs 8 bytes"},
      {"no element, four bytes", described("[0]", "[0,4]"), "needs 0 bytes"},
      {"2^62 x 4", described("[4611686018427387904,4]", "[0,4]"), "overflows"},
      {"2^32 x 2^32", described("[4294967296,4294967296]", "[0,4]"), "overflows"},
      {"bits overflow", described("[4611686018427387904]", "[0,4]"), "overflows"},
      {"overflow before a zero", described("[4611686018427387904,4,0]", "[0,0]"), "overflows"},
      {"product that wraps to 4", described("[4294967297,4294967297,4]", "[0,4]"), "overflows"},
      {"half a byte", described("[1]", "[0,1]", "F4"), "whole number of bytes"},
      {"six bits", described("[2]", "[0,2]", "F6_E2M3"), "whole number of bytes"},
      // 6. end of the file
      {"data truncated", file_of("{" + a + "}", "012"), "truncated"},
      {"no data", file_of("{" + a + "}"), "truncated"},
      {"trailing byte", file_of("{" + a + "}", "01234"), "1 bytes follow the last tensor"},
      {"data without tensors", file_of("{}", "0123"), "4 bytes follow"},
      {"claims 2^60 bytes", described("[1152921504606846976]", "[0,1152921504606846976]"), "truncated"},
  };
}

TEST(SafetensorsMalformed, EveryRuleHasItsSentence) {
  const auto all = cases();
  ASSERT_GT(all.size(), 90u);
  const TemporaryFolder folder;
  const string path = folder / "bad.safetensors";
  for (const Case& c : all) {
    try {
      SafetensorsFile{as_bytes(c.file)};
      ADD_FAILURE() << c.title << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data) << c.title;
      EXPECT_NE(string(e.what()).find(c.words), string::npos) << c.title << ": " << e.what();
      EXPECT_LT(string(e.what()).size(), 600u) << c.title;
    }
    // From the disk the same, and the sentence names the file.
    write_file_atomically(path, c.file);
    try {
      load_safetensors(path);
      ADD_FAILURE() << c.title << " was accepted from a file";
    } catch (const Error& e) {
      EXPECT_EQ(string(e.what()).find("safetensors file '" + path + "'"), 0u) << e.what();
      EXPECT_NE(string(e.what()).find(c.words), string::npos) << c.title << ": " << e.what();
    }
  }
}

TEST(SafetensorsMalformed, WhatTheFormatAllowsIsAccepted) {
  const string a = tensor("a", "U8", "[4]", "[0,4]");
  const std::pair<string, string> files[] = {
      {"empty", file_of("{}")},
      {"padding", file_of("{}      ")},
      {"space between tokens",
       file_of("{ \"a\" :\t{\"shape\" : [ 4 ] , \"data_offsets\":[0,\n4],\"dtype\":\"U8\"}\r}", "0123")},
      {"empty name", file_of("{" + tensor("", "U8", "[4]", "[0,4]") + "}", "0123")},
      {"name of 1024 bytes", file_of("{" + tensor(string(1024, 'n'), "U8", "[4]", "[0,4]") + "}", "0123")},
      {"empty metadata", file_of("{\"__metadata__\":{}," + a + "}", "0123")},
      {"metadata last", file_of("{" + a + ",\"__metadata__\":{\"k\":\"v\"}}", "0123")},
      {"header order is not the order of bytes",
       file_of("{" + tensor("b", "U8", "[4]", "[4,8]") + "," + a + "}", "01234567")},
      {"tensors without bytes", file_of("{" + tensor("z", "F32", "[0,7]", "[0,0]") + "," + a + "," +
                                            tensor("e", "F64", "[3,0]", "[4,4]") + "}",
                                        "0123")},
      {"scalar", file_of("{" + tensor("s", "F32", "[]", "[0,4]") + "}", "0123")},
      {"16 axes",
       file_of("{" + tensor("r", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", "[0,4]") + "}", "0123")},
  };
  for (const auto& [title, file] : files) EXPECT_NO_THROW(SafetensorsFile{as_bytes(file)}) << title;
  const string escaped = file_of(
      "{\"\\u0041\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00E9\\u2603\\uE000\\uffff\\ud83d\\ude00\":" + entry("U8", "[4]", "[0,4]") + "}",
      "0123");
  EXPECT_EQ(SafetensorsFile(as_bytes(escaped)).entries()[0].name, "A\"\\/\b\f\n\r\té☃\xEE\x80\x80\xEF\xBF\xBF😀");
}

TEST(SafetensorsMalformed, TrailingBytesAreIgnoredOnRequestOnly) {
  const string file = file_of("{" + tensor("a", "U8", "[4]", "[0,4]") + "}", "0123xyz!");
  EXPECT_THROW(SafetensorsFile{as_bytes(file)}, Error);
  SafetensorsOptions lenient;
  lenient.lenient_trailing = true;
  const SafetensorsFile read(as_bytes(file), lenient);
  EXPECT_EQ(read.ignored_bytes(), 4u);
  EXPECT_EQ(text_of(read.bytes(read.entries()[0])), "0123");
  // Truncation stays an error.
  EXPECT_THROW(SafetensorsFile(as_bytes(file).first(file.size() - 5), lenient), Error);
}

string valid_file() {
  return text_of(safetensors_bytes(std::vector<NamedTensor>{{"layers.0.weight", Tensor::zeros({2, 3})},
                                                            {"é\"\\", Tensor::full({2}, 1, DType::f64)},
                                                            {"index", Tensor::full({}, 3, DType::i32)}},
                                   {{"format", "pt"}, {"note", "a\nb"}}));
}

TEST(SafetensorsMalformed, EveryPrefixIsRefused) {
  const string file = valid_file();
  ASSERT_NO_THROW(load_safetensors(as_bytes(file)));
  for (std::size_t n = 0; n < file.size(); ++n) {
    // A copy of exactly this length, so that a sanitizer sees any access behind it.
    const std::vector<std::byte> prefix(as_bytes(file).begin(),
                                        as_bytes(file).begin() + static_cast<std::ptrdiff_t>(n));
    try {
      load_safetensors(prefix);
      ADD_FAILURE() << n << " bytes of " << file.size() << " were accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data) << n;
    }
  }
}

TEST(SafetensorsMalformed, EveryChangedHeaderByteIsReadOrRefused) {
  const string file = valid_file();
  const auto data_begin = file.size() - (24 + 16 + 4);
  int accepted = 0, refused = 0;
  for (std::size_t i = 0; i < data_begin; ++i)
    for (int value = 0; value < 256; ++value) {
      string changed = file;
      if (changed[i] == static_cast<char>(value)) continue;
      changed[i] = static_cast<char>(value);
      try {
        for (const auto& [name, t] : load_safetensors(as_bytes(changed))) ASSERT_LE(t.bytes(), 64);
        ++accepted;
      } catch (const Error& e) {
        ++refused;
        ASSERT_FALSE(string(e.what()).empty());
      }
    }
  EXPECT_GT(accepted, 1000);  // other letters in names and metadata
  EXPECT_GT(refused, 10000);
}

// Bytes deleted, doubled and exchanged for tokens at every place: whatever comes out is read or refused in
// words.
TEST(SafetensorsMalformed, EditedHeadersAreReadOrRefused) {
  const string file = valid_file();
  const std::size_t data_begin = file.size() - (24 + 16 + 4);
  const string header = file.substr(8, data_begin - 8), data = file.substr(data_begin);
  const string tokens[] = {"",
                           "{",
                           "}",
                           "[",
                           "]",
                           ",",
                           ":",
                           "\"",
                           "\\",
                           "-",
                           "0",
                           "9",
                           "1e9",
                           "null",
                           "{}",
                           "[]",
                           "99999999999999999999",
                           "\"\"",
                           "\\u0000",
                           "\"a\":",
                           "\xC3",
                           " "};
  int refused = 0;
  for (std::size_t i = 0; i <= header.size(); ++i)
    for (const string& token : tokens)
      for (std::size_t removed = 0; removed <= 1 && i + removed <= header.size(); ++removed) {
        const string edited = header.substr(0, i) + token + header.substr(i + removed);
        try {
          load_safetensors(as_bytes(file_of(edited, data)));
        } catch (const Error&) {
          ++refused;
        }
      }
  EXPECT_GT(refused, 5000);
}

TEST(SafetensorsMalformed, HugeClaimsTakeNoMemory) {
  const auto before = memory::live().total;
  memory::reset_peak();
  for (const string extent : {"1000000000000", "1152921504606846975"}) {
    const string file = described("[" + extent + "]", "[0," + extent + "]");
    EXPECT_THROW(load_safetensors(as_bytes(file)), Error);
  }
  EXPECT_EQ(memory::peak().total, before);
}

TEST(SafetensorsMalformed, TooManyTensorsAreRefused) {
  string header = "{";
  for (int i = 0; i <= 1000000; ++i) {
    if (i) header += ',';
    header.append("\"").append(std::to_string(i)).append("\":") +=
        R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  header += '}';
  try {
    SafetensorsFile{as_bytes(file_of(header))};
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(string(e.what()).find("more than 1000000 tensors"), string::npos) << e.what();
  }
}

}  // namespace
}  // namespace costate
