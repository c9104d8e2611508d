// The hot kernels of the built plugin keep everything in registers, and docs/cuda.md tells what they take.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

#include "cubins.h"

namespace costate {
namespace {

struct Hot {
  std::string file, kernel, what;
};

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// cuda/kernels/hot.txt: "file | kernel | what" a line, behind an empty one.
std::vector<Hot> hot_kernels() {
  std::vector<Hot> list;
  std::istringstream text(contents(COSTATE_SOURCE_DIR "/cuda/kernels/hot.txt"));
  const std::regex row(R"(\s*(\S+)\s*\|\s*(.*\S)\s*\|\s*(.*\S)\s*)");
  for (std::string line; std::getline(text, line);)
    if (std::smatch m; std::regex_match(line, m, row)) list.push_back({m[1], m[2], m[3]});
  return list;
}

class CudaResources : public testing::Test {
 protected:
  void SetUp() override {
#ifdef COSTATE_CUDA_PLUGIN_BUILT
    if (!std::filesystem::exists(COSTATE_CUDA_PLUGIN_BUILT)) GTEST_SKIP() << "the CUDA plugin has not been built yet";
    kernels = resources_in(contents(COSTATE_CUDA_PLUGIN_BUILT));
#else
    GTEST_SKIP() << "CMake found no CUDA compiler: there is no plugin whose kernels could be read";
#endif
  }
  const Resources* find(const Hot& hot, int architecture) const {
    const bool open = hot.kernel.ends_with("...");
    for (const Resources& r : kernels)
      if (r.architecture == architecture && r.file == hot.file &&
          (open ? r.kernel.starts_with(hot.kernel.substr(0, hot.kernel.size() - 3)) : r.kernel == hot.kernel))
        return &r;
    return nullptr;
  }
  std::vector<Resources> kernels;
};

TEST_F(CudaResources, HotKernelsDoNotSpill) {
  EXPECT_GE(hot_kernels().size(), 10u);
  std::set<int> architectures;
  for (const Resources& r : kernels) architectures.insert(r.architecture);
  ASSERT_FALSE(architectures.empty()) << "no kernel was found in " << COSTATE_SOURCE_DIR << "'s plugin";
  for (const int architecture : architectures)
    for (const Hot& hot : hot_kernels()) {
      const Resources* const r = find(hot, architecture);
      std::string names;
      if (!r)
        for (const Resources& other : kernels)
          if (other.architecture == architecture && other.file == hot.file) names += "\n  " + other.kernel;
      ASSERT_TRUE(r) << hot.file << " has no kernel " << hot.kernel << " for sm_" << architecture << "; it has" << names;
      EXPECT_EQ(r->stack, 0u) << hot.kernel << " keeps " << r->stack << " bytes a thread in local memory on sm_"
                              << architecture;
      EXPECT_GT(r->registers, 0u);
      EXPECT_LE(r->registers, 255u);
    }
}

// One table, by one compiler: with another one the numbers are others. (sm_90's shared arrays
// are counted with 1 KiB that the system takes.)
TEST_F(CudaResources, TheTableInTheDocumentationIsThisCompilers) {
#ifdef COSTATE_NVCC_VERSION
  const std::string page = contents(COSTATE_SOURCE_DIR "/docs/cuda.md"), version = COSTATE_NVCC_VERSION;
  std::ostringstream table;
  table << "<!-- resources: nvcc " << version << " -->\n"
        << "| kernel | | registers, sm_80 | sm_90 | bytes of shared arrays |\n| --- | --- | --- | --- | --- |\n";
  for (const Hot& hot : hot_kernels()) {
    const Resources *const a = find(hot, 80), *const b = find(hot, 90);
    if (!a || !b) GTEST_SKIP() << "the plugin was not built for sm_80 and sm_90";
    table << "| " << hot.what << " | `" << hot.kernel.substr(0, hot.kernel.find('<')) << "` | "
          << a->registers << " | " << b->registers << " | " << a->shared << " |\n";
  }
  table << "<!-- end -->";
  const std::size_t begin = page.find("<!-- resources: nvcc "), end = page.find("<!-- end -->", begin);
  ASSERT_NE(begin, std::string::npos);
  ASSERT_NE(end, std::string::npos);
  const std::string found = page.substr(begin, end + 12 - begin);
  if (found.find("nvcc " + version) == std::string::npos && page.find("nvcc ") != std::string::npos)
    GTEST_SKIP() << "the table is another compiler's than nvcc " << version;
  EXPECT_EQ(found, table.str()) << "docs/cuda.md; the table should be\n" << table.str();
#endif
}

// The reader itself: names with and without template arguments, and something that is no device code.
TEST(Cubins, NamesOfKernels) {
  const auto named = [](const std::string& symbol) {
    Resources r;
    detail::name_kernel(symbol, r);
    return r.file + ": " + r.kernel;
  };
  EXPECT_EQ(named("_ZN7costate4cuda40_GLOBAL__N__20c7f844_8_adamw_cu_4cf35f566updateIfEEvlNS1_6UpdateIT_EEPKS4_PS4_S8_S8_"),
            "adamw.cu: update<float>");
  EXPECT_EQ(named("_ZN7costate4cuda45_GLOBAL__N__0d961991_12_attention_cu_691905d912attention_dqILi32EdEEvNS1_9"
                  "AttentionIT0_EEPKS4_S7_S7_PS4_"),
            "attention.cu: attention_dq<32, double>");
  EXPECT_TRUE(resources_in("no device code").empty());
  std::string cut_short("\x7f" "ELF", 4);  // of the right machine, and nothing behind it
  cut_short += std::string(14, '\0') + '\xbe' + std::string(1, '\0');
  EXPECT_TRUE(resources_in(cut_short).empty());
}

}  // namespace
}  // namespace costate
