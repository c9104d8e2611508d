// costate doctor, and the sentences of a machine without a CUDA device.
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.h"

namespace costate::cli {
namespace {

using testing::Folder;

// Runs the program with COSTATE_CUDA_PLUGIN naming a file.
testing::Result with_plugin(const std::string& path, const Folder& folder, const std::vector<std::string>& arguments) {
  setenv("COSTATE_CUDA_PLUGIN", path.c_str(), 1);
  const testing::Result result = testing::costate(folder, arguments);
  unsetenv("COSTATE_CUDA_PLUGIN");
  return result;
}

TEST(Doctor, NamesTheProcessorAndItsRates) {
  const Folder folder;
  const auto r = with_plugin(folder / "none.so", folder, {"doctor", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  const auto report = nlohmann::json::parse(r.out);
  EXPECT_EQ(report.at("cpu").at("kernels").get<std::string>().substr(0, 3), "cpu");
  EXPECT_GT(report.at("cpu").at("rates").at("copy_bytes_per_second").get<double>(), 1e6);
  EXPECT_GT(report.at("cpu").at("rates").at("f32_flops_per_second").get<double>(), 1e6);
  EXPECT_TRUE(report.at("cuda").at("devices").empty());
}

TEST(Doctor, SaysWhyThereIsNoCudaDevice) {
  const Folder folder;
  const auto absent = with_plugin(folder / "none.so", folder, {"doctor"});
  EXPECT_EQ(absent.code, 0) << absent.err;
  EXPECT_NE(absent.out.find("no cuda device: COSTATE_CUDA_PLUGIN names " + folder / "none.so" + ", which does not exist"),
            std::string::npos)
      << absent.out;
  const auto broken = with_plugin(folder.file("broken.so", "not a library"), folder, {"doctor"});
  EXPECT_EQ(broken.code, 0) << broken.err;
  EXPECT_NE(broken.out.find("could not be loaded"), std::string::npos) << broken.out;
}

TEST(Doctor, ListsDevices) {
  const Folder folder;
  const auto r = with_plugin(COSTATE_EMULATED_PLUGIN, folder, {"doctor"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("cuda:0: emulated device"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("GB/s"), std::string::npos) << r.out;
}

#ifdef COSTATE_CUDA_PLUGIN_BUILT
// Where there is a driver this is a list of devices, else one sentence about it: never a crash, never silence.
TEST(Doctor, LoadsThePluginThatWasBuilt) {
  const Folder folder;
  const auto r = with_plugin(COSTATE_CUDA_PLUGIN_BUILT, folder, {"doctor"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("cuBLASLt"), std::string::npos) << r.out;
  EXPECT_TRUE(r.out.find("cuda:0: ") != std::string::npos || r.out.find("no cuda device: ") != std::string::npos) << r.out;
}
#endif

}  // namespace
}  // namespace costate::cli
