// Files made by hand for the tests of the safetensors reader.
#pragma once
#include <costate/tensor/file.h>
#include <costate/tensor/safetensors.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

namespace costate::testing_files {

// A folder of its own for a test, removed afterwards.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "costate-test-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

inline std::string length_of(std::uint64_t n) {
  std::string s;
  for (int i = 0; i < 8; ++i, n >>= 8) s.push_back(static_cast<char>(n & 0xFF));
  return s;
}

// Length, header, data.
inline std::string file_of(const std::string& header, const std::string& data = "") {
  return length_of(header.size()) + header + data;
}

inline std::string text_of(std::span<const std::byte> bytes) { return std::string(as_text(bytes)); }

}  // namespace costate::testing_files
