// The heap of large blocks: no two overlap, neighbours join, and what is asked for in vain is refused.
#include <costate/tensor/heap.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

namespace costate::memory::detail {
namespace {

constexpr std::int64_t mib = std::int64_t{1} << 20;

TEST(Heap, BlocksNeverOverlapAndJoinAgain) {
  Heap heap(1024 * mib);
  std::mt19937 random(7);
  std::map<std::byte*, std::int64_t> live;  // begin, bytes
  std::int64_t bytes = 0, most = 0;
  for (int i = 0; i < 20000; ++i) {
    const bool grow = i < 15000 ? random() % 100 < (live.size() < 60 ? 60u : 40u) : false;
    if (grow || live.empty()) {
      if (i >= 15000) break;
      const std::int64_t want = 1 + static_cast<std::int64_t>(random() % (2 * mib));
      auto* p = static_cast<std::byte*>(heap.take(want));
      ASSERT_NE(p, nullptr);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 64, 0u);
      const auto next = live.lower_bound(p);
      if (next != live.end()) {
        ASSERT_LE(p + want, next->first);
      }
      if (next != live.begin()) {
        ASSERT_LE(std::prev(next)->first + std::prev(next)->second, p);
      }
      p[0] = p[want - 1] = std::byte{1};
      live[p] = want;
      most = std::max(most, bytes += want);
    } else {
      const auto it = std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size()));
      bytes -= it->second;
      heap.give(it->first);
      live.erase(it);
    }
  }
  for (const auto& [p, size] : live) heap.give(p);
  // Random sizes in random order are the worst there is, and even they cost less than half as much again.
  const std::int64_t extent = heap.extent();
  EXPECT_LT(extent, most * 3 / 2);
  // All is free, so all is one block.
  void* whole = heap.take(extent - 1024);
  EXPECT_NE(whole, nullptr);
  EXPECT_EQ(heap.extent(), extent);
  heap.give(whole);
}

TEST(Heap, TakesTheSmallestBlockThatFits) {
  Heap heap(64 * mib);
  void *a = heap.take(4 * mib), *fence = heap.take(1), *b = heap.take(2 * mib), *end = heap.take(1);
  heap.give(a), heap.give(b);
  EXPECT_EQ(heap.take(2 * mib - 5000), b);
  EXPECT_EQ(heap.take(3 * mib), a);
  EXPECT_NE(fence, end);
}

TEST(Heap, RefusesWhatItHasNotAndGoesOn) {
  Heap heap(64 * mib);
  EXPECT_EQ(heap.take(65 * mib), nullptr);
  void* a = heap.take(40 * mib);
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(heap.take(30 * mib), nullptr);
  heap.give(a);
  EXPECT_NE(heap.take(60 * mib), nullptr);
  Heap none(0);
  EXPECT_EQ(none.take(1), nullptr);
}

TEST(Heap, TrimmedPagesReadAsZero) {
  Heap heap(64 * mib);
  auto* a = static_cast<unsigned char*>(heap.take(8 * mib));
  std::memset(a, 1, 8 * mib);
  heap.give(a);
  heap.trim();
  auto* b = static_cast<unsigned char*>(heap.take(8 * mib));
  EXPECT_EQ(b, a);
  EXPECT_EQ(b[4 * mib], 0);
  EXPECT_NE(heap.take(16 * mib), nullptr);
}

TEST(Heap, ThreadsShareIt) {
  Heap heap(1024 * mib);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&heap, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        const std::int64_t want = 1 + static_cast<std::int64_t>(random() % (1 << 20));
        auto* p = static_cast<unsigned char*>(heap.take(want));
        ASSERT_NE(p, nullptr);
        p[0] = p[want - 1] = static_cast<unsigned char>(t);
        EXPECT_EQ(p[0], t);
        heap.give(p);
      }
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace costate::memory::detail
