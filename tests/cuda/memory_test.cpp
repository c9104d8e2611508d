// Memory of a device: under the ledger, from a pool, and refused in words that leave the process usable.
#include <costate/tensor/memory.h>

#include "on_device.h"

namespace costate {
namespace {

TEST(CudaMemory, TheLedgerCountsItByTag) {
  const memory::Usage before = memory::live();
  {
    const memory::TagScope scope(memory::Tag::parameters);
    const Tensor t = Tensor::zeros({1000}, DType::f32, device());
    EXPECT_EQ(memory::live().total - before.total, 4032);  // rounded up to 64
    EXPECT_EQ(memory::live().by_tag[static_cast<int>(memory::Tag::parameters)] -
                  before.by_tag[static_cast<int>(memory::Tag::parameters)],
              4032);
  }
  EXPECT_EQ(memory::live(), before);
}

TEST(CudaMemory, TheLimitHolds) {
  memory::set_limit(memory::live().total + 10'000);
  EXPECT_THROW(Tensor::empty({100'000}, DType::f32, device()), Error);
  memory::set_limit(0);
  EXPECT_EQ(Tensor::full({100'000}, 2.0, DType::f32, device()).slice(99'999, 1).item(), 2.0);
}

TEST(CudaMemory, ADeviceThatIsFullSaysWhatHoldsIt) {
  if (!emulated()) GTEST_SKIP() << "filling a device's memory takes a small device";
  const memory::Usage before = memory::live();
  const auto trajectory = [] {
    const memory::TagScope scope(memory::Tag::trajectory);
    return Tensor::zeros({10 << 18}, DType::f32, device());  // 10 of 16 MiB
  };
  Tensor held = trajectory();
  try {
    trajectory();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::memory);
    const std::string s = e.what();
    EXPECT_NE(s.find("cuda:0 refused 10485760 bytes"), std::string::npos) << s;
    EXPECT_NE(s.find("trajectory"), std::string::npos) << s;
  }
  // Nothing of the refused request is left, and what was freed can be had again.
  EXPECT_EQ(memory::live().total - before.total, 10 << 20);
  held = Tensor();
  EXPECT_EQ(memory::live(), before);
  EXPECT_EQ(trajectory().slice(12345, 1).item(), 0.0);
  memory::trim();
}

TEST(CudaMemory, FreeBlocksAreTakenAgainAndJoined) {
  if (!emulated()) GTEST_SKIP() << "addresses are the pool's own affair on a device that others may use";
  memory::trim();
  const void* first = nullptr;
  {
    // Three neighbours, given back in an order that joins them from both sides.
    Tensor a = Tensor::empty({10'000}, DType::f32, device()), b = Tensor::empty({10'000}, DType::f32, device()),
           c = Tensor::empty({10'000}, DType::f32, device());
    first = a.raw();
    EXPECT_NE(a.raw(), b.raw());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.raw()) % 256, 0u);
    a = Tensor(), c = Tensor(), b = Tensor();
  }
  EXPECT_EQ(Tensor::empty({30'000}, DType::f32, device()).raw(), first);
}

TEST(CudaMemory, CopiesGoThereAndBack) {
  for (const std::int64_t n : {1, 1000, 1'500'000}) {  // the last in several pieces
    const Tensor x = noise({n}, DType::f32, Device::cpu, 1), there = x.to(device()), again = there.clone();
    there.fill(0);
    const Tensor back = again.to(Device::cpu);
    EXPECT_EQ(std::memcmp(back.raw(), x.raw(), static_cast<std::size_t>(x.bytes())), 0) << n;
  }
  memory::trim();
  Tensor shared = Tensor::full({4}, 1.0, DType::f32, device());
  const Tensor copy = shared;
  shared.unshare();
  shared.fill(3);
  EXPECT_EQ(copy.to_doubles(), std::vector<double>(4, 1.0));
}

TEST(CudaMemory, ADeviceIsAnArgument) {
  device();
  // docs/cuda.md shows these two lines.
  const costate::Tensor there = costate::Tensor::full({2, 3}, 1.0, costate::DType::f32, costate::Device::cuda(0));
  const std::vector<double> values = there.to_doubles();  // waits, and copies
  EXPECT_EQ(values, std::vector<double>(6, 1.0));
}

TEST(CudaMemory, TheHostReadsCopiesOnly) {
  const Tensor t = Tensor::full({2}, 1.0, DType::f32, device());
  try {
    t.values<float>();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("to(Device::cpu)"), std::string::npos) << e.what();
  }
  EXPECT_THROW(t.to(Device::cuda(1)), Error);
  EXPECT_THROW(Tensor::empty({1}, DType::f32, Device::cuda(7)), Error);
  EXPECT_EQ(device_named("cuda:3", "device"), Device::cuda(3));
  EXPECT_THROW(device_named("gpu", "device"), Error);
  EXPECT_THROW(device_named("cuda:x", "device"), Error);
}

}  // namespace
}  // namespace costate
