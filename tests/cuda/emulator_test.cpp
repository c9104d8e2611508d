// What the emulator finds in kernels with planted mistakes. Where a barrier is missing, the result depends on the order of
// the threads: the comparison of orders, which every test of a kernel makes, is what catches it.
#include <dlfcn.h>

#include "on_device.h"

namespace costate {
namespace {

enum Mistake { none, missing_barrier, missing_warp_barrier, divergent_barrier, early_return, wrong_mask, overrun };

// The sum of 1 .. 64, by a kernel with a mistake.
class Planted : public testing::Test {
 protected:
  void SetUp() override {
    if (!emulated()) GTEST_SKIP() << "the mistakes are planted in the emulator's plugin";
    backend_of(device());
    void* library = dlopen(COSTATE_EMULATED_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    ASSERT_TRUE(library) << dlerror();
    kernel = reinterpret_cast<void (*)(int, const void*, void*)>(dlsym(library, "costate_planted_kernel"));
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

}  // namespace
}  // namespace costate
