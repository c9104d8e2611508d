// Files without a name, and what reading refuses. Atomic writing is tested with the formats that use it.
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <gtest/gtest.h>

#include <stdlib.h>

#include <cstdlib>
#include <filesystem>

namespace costate {
namespace {

TEST(ScratchFile, HoldsWhatWasWrittenAndHasNoName) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "costate-scratch-test";
  std::filesystem::create_directories(folder);
  {
    ScratchFile file(folder.string());
    EXPECT_TRUE(std::filesystem::is_empty(folder));
    file.write(0, as_bytes("first"));
    file.write(100, as_bytes("second"));
    std::string text(6, ' ');
    file.read(100, std::as_writable_bytes(std::span(text)));
    EXPECT_EQ(text, "second");
    file.read(0, std::as_writable_bytes(std::span(text).first(5)));
    EXPECT_EQ(text.substr(0, 5), "first");
    EXPECT_THROW(file.read(200, std::as_writable_bytes(std::span(text))), Error);  // nothing was written there
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
  try {
    ScratchFile file(folder.string());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::io);
    EXPECT_NE(std::string(e.what()).find(folder.string()), std::string::npos);
  }
}

TEST(ScratchFile, LiesWhereTheEnvironmentSaysOrInTmp) {
  const char* const given = std::getenv("TMPDIR");
  const std::string before = given ? given : "";
  for (const char* folder : {"/nowhere/at/all", "", "/tmp"}) {
    ::setenv("TMPDIR", folder, 1);
    if (*folder == '/' && folder[1] == 'n') {
      EXPECT_THROW(ScratchFile(""), Error);
    } else {
      EXPECT_NO_THROW(ScratchFile("").write(0, as_bytes("x"))) << folder;
    }
  }
  ::unsetenv("TMPDIR");
  EXPECT_NO_THROW(ScratchFile(""));
  if (given) ::setenv("TMPDIR", before.c_str(), 1);
}

// The sentence of an error.
template <class Body>
std::string sentence_of(const Body& body, Fault fault) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), fault) << e.what();
    return e.what();
  }
  return "nothing was thrown";
}

TEST(File, OnlySoMuchIsRead) {
  const std::string path = (std::filesystem::path(testing::TempDir()) / "costate-file-test").string();
  write_file_atomically(path, as_bytes("12345"));
  EXPECT_EQ(as_text(read_file(path, 5)), "12345");
  EXPECT_NE(sentence_of([&] { read_file(path, 4); }, Fault::data).find("holds 5 bytes, but at most 4"), std::string::npos);
  // What has no size of its own is read to its end, or to the limit.
  EXPECT_NE(sentence_of([] { read_file("/dev/zero", 100000); }, Fault::data).find("holds more bytes"), std::string::npos);
  EXPECT_TRUE(read_file("/dev/null", 0).empty());
  const InputFile file(path);
  std::vector<std::byte> out(3);
  file.read(2, out);
  EXPECT_EQ(as_text(out), "345");
  for (const std::uint64_t offset : {3, 6})
    EXPECT_NE(sentence_of([&] { file.read(offset, out); }, Fault::argument).find("were asked for of 5"), std::string::npos);
  std::filesystem::remove(path);
}

TEST(File, PathsThatNameNoFileAreRefused) {
  for (const std::string& path : {std::string(), std::string("a\0b", 3)}) {
    EXPECT_NE(sentence_of([&] { read_file(path); }, Fault::argument).find("must not be empty"), std::string::npos);
    EXPECT_NE(sentence_of([&] { InputFile file(path); }, Fault::argument).find("must not be empty"), std::string::npos);
  }
  EXPECT_NE(sentence_of([] { write_file_atomically("/dev/null", as_bytes("x")); }, Fault::io).find("not a regular file"), std::string::npos);
  EXPECT_NE(sentence_of([] { InputFile file("/dev/null"); }, Fault::io).find("not a regular file"), std::string::npos);
}

}  // namespace
}  // namespace costate
