// What the emulator finds in kernels with planted mistakes. Where a barrier is missing, the result depends on the order of
// the threads: the comparison of orders, which every test of a kernel makes, is what catches it.
#include <dlfcn.h>

#include "on_device.h"

namespace costate {
namespace {

enum Mistake { none, missing_barrier, missing_warp_barrier, divergent_barrier, early_return, wrong_mask, overrun };

// What the emulator's plugin exports beside the backend; null where it does not.
void* exported(const char* name) {
  backend_of(device());
  void* library = dlopen(COSTATE_EMULATED_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  EXPECT_TRUE(library) << dlerror();
  return library ? dlsym(library, name) : nullptr;
}

// The sum of 1 .. 64, by a kernel with a mistake.
class Planted : public testing::Test {
 protected:
  void SetUp() override {
    if (!emulated()) GTEST_SKIP() << "the mistakes are planted in the emulator's plugin";
    kernel = reinterpret_cast<void (*)(int, const void*, void*)>(exported("costate_planted_kernel"));
    ASSERT_TRUE(kernel);
  }
  double run(Mistake mistake, const char* order) const {
    setenv("COSTATE_EMULATED_ORDER", order, 1);
    std::vector<float> x(64);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
    const Tensor in = Tensor::from(x, {64}, device()), out = Tensor::empty({1}, DType::f32, device());
    kernel(mistake, in.raw(), out.raw_mutable());
    setenv("COSTATE_EMULATED_ORDER", "forward", 1);
    return out.item();
  }
  std::string error(Mistake mistake) const {
    try {
      run(mistake, "forward");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  void (*kernel)(int, const void*, void*) = nullptr;
};

TEST_F(Planted, TheKernelWithoutAMistakeIsRightInEveryOrder) {
  for (const char* order : {"forward", "reverse", "shuffled"}) EXPECT_EQ(run(none, order), 64 * 65 / 2) << order;
}

TEST_F(Planted, AMissingBarrierShowsInTheOrders) {
#ifdef COSTATE_SANITIZED
  GTEST_SKIP() << "a sanitizer reports the mistakes itself, and fails the process";
#endif
  // Each order alone must not give the right sum by chance in all three.
  int right = 0;
  for (const char* order : {"forward", "reverse", "shuffled"}) right += run(missing_barrier, order) == 64 * 65 / 2;
  EXPECT_LT(right, 3);
  // Thread 0 reads what thread 1 writes: in ascending order that is NaN still.
  EXPECT_TRUE(std::isnan(run(missing_warp_barrier, "forward")));
}

TEST_F(Planted, MisusedBarriersAndMasksAreNamed) {
#ifdef COSTATE_SANITIZED
  GTEST_SKIP() << "a sanitizer reports the mistakes itself, and fails the process";
#endif
  EXPECT_NE(error(divergent_barrier).find("different __syncthreads"), std::string::npos) << error(divergent_barrier);
  EXPECT_NE(error(early_return).find("returned"), std::string::npos) << error(early_return);
  EXPECT_NE(error(wrong_mask), "");
  EXPECT_NE(error(overrun).find("past the end"), std::string::npos) << error(overrun);
  // A failed launch leaves nothing behind.
  EXPECT_EQ(run(none, "forward"), 64 * 65 / 2);
  EXPECT_NE(error(divergent_barrier).find("planted.cu"), std::string::npos) << error(divergent_barrier);
}

enum Way { by_elements, by_matrices, by_transposes, by_half_a_warp, from_global, from_odd_address };

// A product of matrices by a warp, whose lanes bring fragments in the layouts of the instruction.
class MatrixInstructions : public testing::Test {
 protected:
  void SetUp() override {
    if (!emulated()) GTEST_SKIP() << "the kernel is in the emulator's plugin";
    kernel = reinterpret_cast<decltype(kernel)>(exported("costate_multiplied_matrices"));
    ASSERT_TRUE(kernel);
    std::vector<float> x(16 * 16), y(16 * 8), z(16 * 8);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) - 100;  // of 8 bits, all different
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(2 * i) - 77, z[i] = static_cast<float>(1000 * i);
    for (std::size_t i = 0; i < 16; ++i)
      for (std::size_t j = 0; j < 8; ++j) {
        float s = z[8 * i + j];
        for (std::size_t k = 0; k < 16; ++k) s += x[16 * i + k] * y[8 * k + j];  // exact: integers below 2^24
        expected.push_back(s);
      }
    a = Tensor::from(x, {16, 16}).to(DType::bf16).to(device()), b = Tensor::from(y, {16, 8}).to(DType::bf16).to(device());
    c = Tensor::from(z, {16, 8}).to(device());
  }
  std::vector<double> product(Way way, int threads = 32) const {
    const Tensor out = unwritten({16, 8}, DType::f32, device());
    kernel(way, threads, a.raw(), b.raw(), c.raw(), out.raw_mutable());
    return out.to_doubles();
  }
  std::string error(Way way, int threads = 32) const {
    try {
      product(way, threads);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  void (*kernel)(int, int, const void*, const void*, const void*, void*) = nullptr;
  Tensor a, b, c;
  std::vector<double> expected;
};

TEST_F(MatrixInstructions, MultiplyWhatALayoutHoldsHoweverItWasLoaded) {
  for (const char* order : {"forward", "reverse", "shuffled"}) {
    setenv("COSTATE_EMULATED_ORDER", order, 1);
    for (const Way way : {by_elements, by_matrices, by_transposes})
      EXPECT_EQ(product(way), expected) << order << ", way " << way;
  }
  setenv("COSTATE_EMULATED_ORDER", "forward", 1);
}

TEST_F(MatrixInstructions, RefuseWhatADeviceWouldNotForgive) {
#ifdef COSTATE_SANITIZED
  GTEST_SKIP() << "a sanitizer reports the mistakes itself, and fails the process";
#endif
  EXPECT_NE(error(by_half_a_warp), "");
  EXPECT_NE(error(by_elements, 16).find("not whole"), std::string::npos) << error(by_elements, 16);
  EXPECT_NE(error(from_global).find("not shared memory"), std::string::npos) << error(from_global);
  EXPECT_NE(error(from_odd_address).find("16 bytes"), std::string::npos) << error(from_odd_address);
  EXPECT_EQ(product(by_matrices), expected);
}

// Copies that a kernel begins, and waits for or not.
TEST(CopyInstructions, HappenWhenTheyAreWaitedForOrBefore) {
  if (!emulated()) GTEST_SKIP() << "the kernel is in the emulator's plugin";
  enum CopyWay { with_a_wait, without_a_wait, to_global, of_odd_address };
  const auto kernel = reinterpret_cast<void (*)(int, const void*, void*)>(exported("costate_copied_numbers"));
  ASSERT_TRUE(kernel);
  std::vector<float> x(36);
  std::vector<double> expected(32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
  for (std::size_t i = 0; i < 32; ++i) expected[31 - i] = i < 16 && i % 3 == 0 ? 0.0 : static_cast<double>(i + 1);
  const Tensor in = Tensor::from(x, {36}, device());
  const auto run = [&](int way, const char* order) {
    setenv("COSTATE_EMULATED_ORDER", order, 1);
    const Tensor out = unwritten({32}, DType::f32, device());
    std::string error;
    try {
      kernel(way, in.raw(), out.raw_mutable());
    } catch (const Error& e) {
      error = e.what();
    }
    setenv("COSTATE_EMULATED_ORDER", "forward", 1);
    return std::pair{out.to_doubles(), error};
  };
  for (const char* order : {"forward", "reverse", "shuffled"}) EXPECT_EQ(run(with_a_wait, order).first, expected) << order;
  // Nothing has come where all copies are put off; that it comes where none is makes the orders differ.
  for (const double v : run(without_a_wait, "forward").first) EXPECT_TRUE(std::isnan(v));
  EXPECT_EQ(run(without_a_wait, "reverse").first, expected);
#ifndef COSTATE_SANITIZED
  EXPECT_NE(run(to_global, "forward").second.find("not shared memory"), std::string::npos);
  EXPECT_NE(run(of_odd_address, "forward").second.find("aligned"), std::string::npos);
#endif
}

}  // namespace
}  // namespace costate
