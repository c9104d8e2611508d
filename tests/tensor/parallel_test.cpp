#include <costate/tensor/error.h>
#include <costate/tensor/memory.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace costate {
namespace {

struct Threads {
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(1); }
};

TEST(Parallel, EveryTaskRunsOnceOnItsThread) {
  for (const int n : {1, 2, 3, 7}) {
    const Threads scope(n);
    for (const std::int64_t tasks : {0, 1, 2, 5, 64, 1001}) {
      std::vector<int> runs(static_cast<std::size_t>(tasks));
      std::vector<std::thread::id> who(static_cast<std::size_t>(tasks));
      parallel(tasks, [&](std::int64_t i) {
        ++runs[static_cast<std::size_t>(i)];
        who[static_cast<std::size_t>(i)] = std::this_thread::get_id();
      });
      for (const int r : runs) EXPECT_EQ(r, 1);
      const std::int64_t workers = std::min<std::int64_t>(n, tasks);
      for (std::int64_t w = 0; w < workers; ++w)
        for (std::int64_t i = tasks * w / workers; i < tasks * (w + 1) / workers; ++i)
          EXPECT_EQ(who[static_cast<std::size_t>(i)], who[static_cast<std::size_t>(tasks * w / workers)]);
    }
  }
}

TEST(Parallel, PiecesDoNotDependOnThreads) {
  const auto pieces = [](int n) {
    const Threads scope(n);
    std::vector<std::int64_t> ends(11, -1);
    parallel_for(1050, 100, [&](std::int64_t begin, std::int64_t end) { ends[static_cast<std::size_t>(begin / 100)] = end; });
    return ends;
  };
  EXPECT_EQ(pieces(1), pieces(2));
  EXPECT_EQ(pieces(1), pieces(5));
  EXPECT_EQ(pieces(1)[10], 1050);
  int calls = 0;
  parallel_for(0, 10, [&](std::int64_t, std::int64_t) { ++calls; });
  EXPECT_EQ(calls, 0);
}

TEST(Parallel, TheFirstExceptionByTaskIsThrown) {
  for (const int n : {1, 2, 3}) {
    const Threads scope(n);
    for (int run = 0; run < 50; ++run) {
      try {
        parallel(30, [](std::int64_t i) {
          if (i == 7 || i == 12 || i == 29) fail(Fault::numerical, {"task ", i});
        });
        FAIL();
      } catch (const Error& e) {
        EXPECT_STREQ(e.what(), "task 7");
        EXPECT_EQ(e.fault(), Fault::numerical);
      }
    }
  }
}

TEST(Parallel, NestedCallsRunOnTheirThread) {
  const Threads scope(3);
  std::atomic<int> total{0};
  parallel(6, [&](std::int64_t) {
    const auto self = std::this_thread::get_id();
    parallel(10, [&](std::int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      ++total;
    });
  });
  EXPECT_EQ(total, 60);
}

TEST(Parallel, TagsReachTheWorkers) {
  const Threads scope(3);
  const memory::TagScope tag(memory::Tag::data);
  parallel(9, [](std::int64_t) { EXPECT_EQ(memory::current_tag(), memory::Tag::data); });
}

TEST(Parallel, HostThreadsShareThePool) {
  std::atomic<std::int64_t> total{0};
  std::vector<std::thread> hosts;
  for (int h = 0; h < 4; ++h)
    hosts.emplace_back([&] {
      set_threads(2);
      for (int run = 0; run < 200; ++run) parallel(8, [&](std::int64_t i) { total += i; });
    });
  for (std::thread& t : hosts) t.join();
  EXPECT_EQ(total, 4 * 200 * 28);
  EXPECT_EQ(threads(), 1);  // each host thread has its own setting
}

TEST(Parallel, CountsOfThreadsAreChecked) {
  EXPECT_THROW(set_threads(0), Error);
  EXPECT_THROW(set_threads(1025), Error);
  EXPECT_EQ(threads(), 1);
}

}  // namespace
}  // namespace costate
