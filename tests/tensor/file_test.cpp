// Files without a name. Whole files and atomic writing are tested with the formats that use them.
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace costate
