// What the tests of the data room share.
#pragma once
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace costate::testing {

// The call must throw costate::Error of this fault, and its sentence must contain `part`.
template <class Call>
void expect_error(Fault fault, const std::string& part, const Call& call, const std::string& about = "") {
  try {
    call();
    ADD_FAILURE() << about << ": no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.fault()), static_cast<int>(fault)) << about << ": " << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << about << ": " << error.what();
  }
}

inline std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return {p, p + text.size()};
}

inline std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A file of the shared data folder, or "" when it is not there: COSTATE_SHARED_DATA, else ../shared/data
// beside the source folder.
inline std::string shared_file(const std::string& name) {
  const char* folder = std::getenv("COSTATE_SHARED_DATA");
  const std::string path =
      (folder ? std::string(folder) : std::string(COSTATE_SOURCE_DIR) + "/../shared/data") + "/" + name;
  std::error_code ignored;
  return std::filesystem::exists(path, ignored) ? path : std::string();
}

// A folder of its own for one test, removed at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = ::testing::TempDir() + "costate_test_XXXXXX";
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace costate::testing
