// The ledger: bytes are exact, peaks do not depend on timing, nothing is left behind.
#include <costate/autograd/ops.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

namespace costate {
namespace {

using memory::Tag;

struct OneThread {
  ~OneThread() { set_threads(1); }
};

TEST(Memory, BytesAreRoundedToLines) {
  const auto before = memory::live().total;
  std::int64_t expected = 0;
  std::vector<Tensor> keep;
  for (const std::int64_t n : {0, 1, 16, 17, 255, 256, 257, 4096, 5000, 70001}) {
    keep.push_back(Tensor::empty({n}));
    expected += (4 * n + 63) / 64 * 64;
    EXPECT_EQ(memory::live().total - before, expected) << n;
    // The whole block can be written: classes are never smaller than what was asked for.
    keep.back().fill(1);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(keep.back().raw()) % 64, 0u);
  }
  keep.clear();
  EXPECT_EQ(memory::live().total, before);
}

TEST(Memory, PeakHasItsOwnBreakdown) {
  const memory::PeakScope scope;
  const auto base = memory::live();
  {
    const memory::TagScope tag(Tag::gradients);
    const Tensor a = Tensor::empty({256});  // 1 KiB
    {
      const memory::TagScope inner(Tag::adjoint);
      const Tensor b = Tensor::empty({512});  // 2 KiB
    }
    EXPECT_EQ(memory::current_tag(), Tag::gradients);
  }
  const Tensor later = Tensor::empty({512});
  const auto peak = scope.peak();
  EXPECT_EQ(peak.total - base.total, 3072);
  EXPECT_EQ(peak.by_tag[int(Tag::gradients)] - base.by_tag[int(Tag::gradients)], 1024);
  EXPECT_EQ(peak.by_tag[int(Tag::adjoint)] - base.by_tag[int(Tag::adjoint)], 2048);
  EXPECT_EQ(peak.by_tag[int(Tag::activations)], base.by_tag[int(Tag::activations)]);
}

TEST(Memory, PeakScopesNest) {
  const memory::PeakScope outer;
  const auto base = memory::live().total;
  { const Tensor t = Tensor::empty({1024}); }
  {
    const memory::PeakScope inner;
    { const Tensor t = Tensor::empty({256}); }
    EXPECT_EQ(inner.peak().total - base, 1024);
  }
  EXPECT_EQ(outer.peak().total - base, 4096);
  {
    const memory::PeakScope inner;
    { const Tensor t = Tensor::empty({2048}); }
  }
  EXPECT_EQ(outer.peak().total - base, 8192);
}

TEST(Memory, UsageInWords) {
  memory::Usage u;
  u.total = 3 << 20;
  u.by_tag[int(Tag::parameters)] = 2 << 20;
  u.by_tag[int(Tag::activations)] = 1 << 20;
  EXPECT_EQ(memory::to_string(u), "3 MiB (parameters 2 MiB, activations 1 MiB)");
}

TEST(Memory, AfterTheLimitEverythingStillWorks) {
  const auto before = memory::live();
  const memory::PeakScope scope;
  memory::set_limit(before.total + 10'000);
  Tape tape;
  const Var x = tape.watch(Tensor::full({1000}, 0.5));
  try {
    const Var y = sum(mul(exp(x), x));
    ADD_FAILURE() << "12000 bytes within 10000";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::memory);
    EXPECT_NE(std::string(e.what()).find("activations"), std::string::npos) << e.what();
  }
  EXPECT_LE(scope.peak().total, before.total + 10'000);
  memory::set_limit(0);
  const Tensor g = tape.vjp(sum(mul(exp(x), x)), x);
  EXPECT_NEAR(g.to_doubles()[0], std::exp(0.5) * 1.5, 1e-5);
  EXPECT_THROW(memory::set_limit(-1), Error);
}

TEST(Memory, LimitsHoldInParallelRegions) {
  const OneThread restore;
  for (const int n : {1, 2, 3}) {
    set_threads(n);
    const auto before = memory::live();
    memory::set_limit(before.total + 64 * 1024);
    EXPECT_THROW(parallel(6, [](std::int64_t) { const Tensor t = Tensor::empty({20'000}); }), Error) << n;
    EXPECT_NO_THROW(parallel(6, [](std::int64_t) { const Tensor t = Tensor::empty({1'000}); }));
    memory::set_limit(0);
    EXPECT_EQ(memory::live(), before);
  }
}

// Every task makes tensors of its own size; what outlives the region is made in one thread and freed in another.
std::vector<Tensor> region(Device device) {
  std::vector<Tensor> out(8);
  parallel(8, [&](std::int64_t i) {
    const memory::TagScope tag(Tag::trajectory);
    const Tensor scratch = Tensor::empty({1000 * (i + 1)}, DType::f32, device);
    out[static_cast<std::size_t>(i)] = Tensor::zeros({100 * (8 - i)}, DType::f32, device);
  });
  return out;
}

TEST(Memory, ParallelPeaksDependOnTheNumberOfThreadsAlone) {
  const OneThread restore;
  for (const int n : {1, 2, 3, 8}) {
    set_threads(n);
    memory::Usage first{};
    const auto before = memory::live();
    for (int run = 0; run < 50; ++run) {
      const memory::PeakScope scope;
      region(run % 2 ? Device::meta : Device::cpu);
      if (run == 0) first = scope.peak();
      EXPECT_EQ(scope.peak(), first) << n << " threads, run " << run;
      EXPECT_EQ(memory::live(), before);
    }
    // All that is kept, and each worker's largest scratch, is within.
    EXPECT_GE(first.by_tag[int(Tag::trajectory)], 8 * 4 * 450);
  }
}

// Resident pages of this process: growth is what the system sees, not what the ledger says.
std::int64_t resident_bytes() {
  std::int64_t size = 0, resident = 0;
  if (FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%ld %ld", &size, &resident) != 2) resident = 0;
    std::fclose(f);
  }
  return resident * 4096;
}

TEST(Memory, BlocksMadeByOneThreadAndFreedByAnotherAreUsedAgain) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep memory of their own";
#endif
  const OneThread restore;
  set_threads(2);
  const auto once = [] {
    std::vector<Tensor> out(2);
    parallel(2, [&](std::int64_t i) { out[static_cast<std::size_t>(i)] = Tensor::zeros({50'000}); });
  };
  for (int i = 0; i < 20; ++i) once();
  const auto before = resident_bytes();
  for (int i = 0; i < 1000; ++i) once();
  // Without reuse: 1000 x 200 KB. A tenth of that is far above noise.
  EXPECT_LT(resident_bytes() - before, 20 << 20);
}

TEST(Memory, ThreadsThatEndLeaveTheirBlocksUsable) {
  std::vector<Tensor> kept;
  for (int i = 0; i < 10; ++i)
    std::thread([&] { kept.push_back(Tensor::full({100}, i)); }).join();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(kept[static_cast<std::size_t>(i)].to_doubles()[99], i);
  std::thread([&] { kept.clear(); }).join();
  memory::trim();
}

Tensor program(Device device, int steps) {
  Tape tape;
  Tensor weight;
  {
    const memory::TagScope scope(Tag::parameters);
    weight = Tensor::full({32, 32}, 0.01, DType::f32, device);
  }
  const Var w = tape.watch(weight), bias = tape.watch(Tensor::zeros({32}, DType::f32, device));
  Var h = tape.watch(Tensor::full({64, 32}, 0.5, DType::f32, device));
  for (int i = 0; i < steps; ++i) {
    h = linear(h, w, bias, Activation::silu);
    h = add(layer_norm(h, 1e-5), mul(h, sum(h, 1, true)));
    h = concat({&h, &h}, 1);
    h = narrow(h, 1, 16, 32);
  }
  const Var wrt[] = {w, bias};
  return std::move(tape).vjp(mean(log_softmax(h)), wrt)[0];
}

TEST(Memory, MetaPredictsThePeakToTheByte) {
  const OneThread restore;
  for (const int n : {1, 2}) {
    set_threads(n);
    memory::Usage peak[2];
    for (const Device d : {Device::cpu, Device::meta}) {
      const memory::PeakScope scope;
      const Tensor g = program(d, 7);
      EXPECT_EQ(g.shape(), (Shape{32, 32}));
      peak[d == Device::meta] = scope.peak();
    }
    EXPECT_EQ(peak[0], peak[1]) << memory::to_string(peak[0]) << " against " << memory::to_string(peak[1]);
  }
}

TEST(Memory, NothingLeaksAndNothingGrows) {
  program(Device::cpu, 3);
  const auto live = memory::live();
  const auto before = resident_bytes();
  for (int i = 0; i < 1000; ++i) {
    program(Device::cpu, 3);
    ASSERT_EQ(memory::live(), live);
  }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(resident_bytes() - before, 4 << 20);
#else
  (void)before;
#endif
}

}  // namespace
}  // namespace costate
