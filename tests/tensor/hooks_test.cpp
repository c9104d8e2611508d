// What a host lends: its threads give the same bits, its memory is given back, its sinks hear, its children of fork compute.
#include <costate/autograd/ops.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cstdlib>
#include <map>
#include <numeric>
#include <thread>

namespace costate {
namespace {

struct Threads {
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(1); }
};

// Executors of three kinds: the last piece first on the calling thread; a thread a piece; one that forgets a piece.
struct Backwards final : Executor {
  int regions = 0;
  void run(int pieces, const std::function<void(int)>& work) override {
    ++regions;
    for (int i = pieces - 1; i >= 0; --i) work(i);
  }
};
struct ThreadAPiece final : Executor {
  void run(int pieces, const std::function<void(int)>& work) override {
    std::vector<std::thread> threads;
    for (int i = 0; i < pieces; ++i) threads.emplace_back([&work, i] { work(i); });
    for (std::thread& t : threads) t.join();
  }
};
struct Forgetful final : Executor {
  void run(int pieces, const std::function<void(int)>& work) override {
    for (int i = 0; i + 1 < pieces; ++i) work(i);
  }
};

std::vector<float> computed() {
  std::vector<float> v(300 * 200);
  std::iota(v.begin(), v.end(), 0.0f);
  Tape tape;
  const Var a = tape.watch(Tensor::from(v, {300, 200}));
  const Var y = sum(square(matmul(affine(a, 1e-5, -0.3), transpose(a))));
  const Tensor g = std::move(tape).vjp(y, a);
  return {g.values<float>().begin(), g.values<float>().end()};
}

TEST(Hooks, EveryExecutorGivesTheSameBits) {
  const std::vector<float> alone = computed();
  const Threads three(3);
  EXPECT_EQ(computed(), alone);
  Backwards backwards;
  ThreadAPiece threads;
  ThreadPool pool;
  for (Executor* e : std::initializer_list<Executor*>{&backwards, &threads, &pool}) {
    const HookScope scope({.executor = e});
    EXPECT_EQ(computed(), alone);
  }
  EXPECT_GT(backwards.regions, 3);
}

TEST(Hooks, TheLedgerDoesNotKnowTheExecutor) {
  const auto peak = [](Executor* e) {
    const Threads three(3);
    const HookScope scope({.executor = e});
    const memory::PeakScope measured;
    computed();
    return measured.peak();
  };
  Backwards backwards;
  ThreadAPiece threads;
  EXPECT_EQ(peak(nullptr), peak(&backwards));
  EXPECT_EQ(peak(nullptr), peak(&threads));
}

TEST(Hooks, AnExecutorThatLosesAPieceIsNamed) {
  const Threads three(3);
  Forgetful forgetful;
  const HookScope scope({.executor = &forgetful});
  try {
    parallel(6, [](std::int64_t) {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "parallel: the host's executor returned when 2 of 3 pieces were done");
  }
}

TEST(Hooks, TheFirstExceptionByTaskCrossesAnExecutor) {
  const Threads three(3);
  ThreadAPiece threads;
  const HookScope scope({.executor = &threads});
  EXPECT_THROW(
      {
        try {
          parallel(30, [](std::int64_t i) {
            if (i == 7 || i == 29) fail(Fault::numerical, {"task ", i});
          });
        } catch (const Error& e) {
          EXPECT_STREQ(e.what(), "task 7");
          throw;
        }
      },
      Error);
}

// Four pieces of two regions meet: were the pool shared, one region would run alone on its thread and wait for ever.
TEST(Hooks, PoolsOfTheirOwnWorkAtTheSameTime) {
  std::barrier all(4);
  const auto host = [&all] {
    ThreadPool pool;
    const HookScope scope({.executor = &pool});
    set_threads(2);
    for (int run = 0; run < 20; ++run) parallel(2, [&all](std::int64_t) { all.arrive_and_wait(); });
  };
  std::thread one(host), other(host);
  one.join(), other.join();
}

// Counts what is lent; blocks are larger than they were asked for, with a mark behind them.
struct Lender final : Allocator {
  std::mutex mutex;
  std::map<void*, std::size_t> out;
  std::size_t blocks = 0, limit = SIZE_MAX;
  void* allocate(std::size_t bytes, std::size_t alignment) override {
    const std::lock_guard lock(mutex);
    if (bytes > limit) return nullptr;
    auto* p = static_cast<unsigned char*>(std::aligned_alloc(alignment, (bytes + 2 * alignment) / alignment * alignment));
    p[bytes] = 0xA5;
    out[p] = bytes, ++blocks;
    return p;
  }
  void release(void* block, std::size_t bytes) noexcept override {
    const std::lock_guard lock(mutex);
    const auto found = out.find(block);
    EXPECT_TRUE(found != out.end() && found->second == bytes);
    EXPECT_EQ(static_cast<unsigned char*>(block)[bytes], 0xA5);
    out.erase(found);
    std::free(block);
  }
};

TEST(Hooks, TensorsLiveInTheMemoryOfTheHost) {
  const std::vector<float> alone = computed();
  for (const int n : {1, 3}) {
    const Threads threads(n);
    Lender lender;
    Tensor kept;
    {
      const HookScope scope({.allocator = &lender});
      EXPECT_EQ(computed(), alone);
      EXPECT_TRUE(lender.out.empty());
      for (const std::int64_t elements : {0, 1, 17, 5000, 300000}) {  // empty, small, cached, large
        kept = Tensor::empty({elements});
        kept.fill(1);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(kept.raw()) % 64, 0u);
        EXPECT_EQ(lender.out.size(), 1u);
      }
    }
    const Tensor own = Tensor::empty({4});  // outside the scope
    EXPECT_EQ(lender.out.size(), 1u);
    EXPECT_GT(lender.blocks, 10u);
    std::thread([t = std::move(kept)]() mutable { t = Tensor(); }).join();  // given back by another thread
    EXPECT_TRUE(lender.out.empty());
  }
}

TEST(Hooks, TheLedgerDoesNotKnowTheAllocator) {
  Lender lender;
  const auto peak = [](Allocator* a) {
    const HookScope scope({.allocator = a});
    const memory::PeakScope measured;
    computed();
    return measured.peak();
  };
  EXPECT_EQ(peak(nullptr), peak(&lender));
}

TEST(Hooks, AnAllocatorThatHasNoMoreIsNamed) {
  Lender lender;
  lender.limit = 1000;
  const HookScope scope({.allocator = &lender});
  const auto before = memory::live();
  try {
    const Tensor t = Tensor::empty({1000});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::memory);
    EXPECT_EQ(std::string(e.what()).find("allocation: the host's allocator refused 4000 bytes; live now: "), 0u) << e.what();
  }
  EXPECT_EQ(memory::live(), before);
}

TEST(Hooks, ScopesNestAndReachTheWorkers) {
  const Threads three(3);
  std::vector<std::string> outer_log, inner_log;
  std::stop_source stop;
  log(Severity::note, {"nobody hears this"});
  EXPECT_FALSE(cancelled());
  {
    const HookScope outer({.stop = stop.get_token(),
                           .log = [&](Severity, std::string_view s) { outer_log.emplace_back(s); }});
    {
      Lender lender;
      const HookScope inner({.allocator = &lender});  // the rest is the outer scope's
      parallel(6, [](std::int64_t i) { log(Severity::note, {"task ", i}); });
      const HookScope innermost({.log = [&](Severity s, std::string_view text) {
        inner_log.emplace_back(text);
        EXPECT_EQ(s, Severity::warning);
      }});
      log(Severity::warning, {"inside"});
      EXPECT_FALSE(cancelled());
      stop.request_stop();
      EXPECT_TRUE(cancelled());
      std::thread([] { EXPECT_FALSE(cancelled()); }).join();  // another thread has its own
      EXPECT_THROW(parallel(6, [](std::int64_t) { check_cancelled("task"); }), Cancelled);
    }
    log(Severity::note, {"outside"});
  }
  EXPECT_FALSE(cancelled());
  EXPECT_EQ(outer_log.size(), 7u);
  EXPECT_EQ(outer_log.back(), "outside");
  EXPECT_EQ(inner_log, std::vector<std::string>{"inside"});
}

TEST(Hooks, ProgressNeverGoesBack) {
  const Threads three(3);
  std::vector<std::int64_t> heard;
  const HookScope scope({.progress = [&](const Progress& p) {
    EXPECT_EQ(p.task, "counting");
    EXPECT_EQ(p.total, 1000);
    heard.push_back(p.done);
  }});
  ProgressReport report("counting", 1000);
  parallel(100, [&](std::int64_t) { report.add(10); });
  EXPECT_EQ(heard.size(), 100u);
  EXPECT_TRUE(std::is_sorted(heard.begin(), heard.end()));
  EXPECT_EQ(heard.back(), 1000);
}

// A child of fork has one thread; what it computes does not change, and it ends like any process.
TEST(Hooks, AChildOfForkComputesAlone) {
  const Threads three(3);
  const std::vector<float> here = computed();  // the pool has its threads now
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool same = computed() == here, threw = false;
    try {
      (void)Tensor::from(std::vector<float>{1}, {2});
    } catch (const Error&) {
      threw = true;
    }
    {
      ThreadPool own;  // of the child's
      const HookScope scope({.executor = &own});
      same = same && computed() == here;
    }
    _exit(same && threw ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace costate
