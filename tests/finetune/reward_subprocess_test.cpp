// Rewards that are programs: the protocol, and everything that a program can do wrong.
#include <costate/finetune/reward/subprocess.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;

Reward scorer(const std::string& mode, bool gradient = false) {
  return subprocess_reward({.command = {COSTATE_SCORER, mode}, .gradient = gradient, .timeout = 20});
}
Reward shell(const std::string& script, double timeout = 20) {
  return subprocess_reward({.command = {"sh", "-c", script}, .timeout = timeout});
}
Tensor samples() { return Tensor::from(std::vector<float>{1, 2, 3, 4, 5, -6}, {2, 3, 1}); }

std::string words_of(const Reward& r, Fault fault = Fault::io, const Tensor& x = samples()) {
  try {
    r(x);
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), fault) << e.what();
    return e.what();
  }
  ADD_FAILURE() << r.name << ": no error";
  return {};
}
void expect_words(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(SubprocessReward, ScoresAndGradients) {
  const Reward r = scorer("good");
  EXPECT_FALSE(r.differentiable());
  EXPECT_EQ(r(samples()).to_doubles(), (Values{8, -7}));
  EXPECT_EQ(r(samples().slice(1, 1)).to_doubles(), (Values{-7}));
  EXPECT_EQ(r(samples().to(DType::f64)).dtype(), DType::f64);
  const Reward g = scorer("good", true);
  const Reward::ValueAndGradient both = g.value_and_gradient(samples());
  EXPECT_EQ(both.value.to_doubles(), (Values{8, -7}));
  EXPECT_EQ(both.gradient.to_doubles(), (Values{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(both.gradient.shape(), samples().shape());
  EXPECT_EQ(g(samples()).to_doubles(), (Values{8, -7}));
}

TEST(SubprocessReward, LargeBatchesPassThroughThePipes) {
  // 4 MiB either way, many times what a pipe holds.
  const std::int64_t rows = 1024, n = 1024;
  const Reward r = scorer("good", true);
  const Reward::ValueAndGradient both = r.value_and_gradient(Tensor::full({rows, n}, 1.0));
  EXPECT_EQ(both.value.to_doubles(), Values(rows, n * (n - 1) / 2.0));
  EXPECT_EQ(both.gradient.to_doubles()[n + 3], 3);
}

TEST(SubprocessReward, SamplesThatCannotBeScoredFallUnderThePolicy) {
  Reward r = scorer("nan");
  const Tensor x = Tensor::from(std::vector<float>{-1, 2, 3, 4}, {2, 2});
  EXPECT_THROW(r.scores(x, false), Error);
  r.on_failure = Reward::Policy::skip;
  const Reward::Scores s = r.scores(x, false);
  EXPECT_EQ(s.valid, (std::vector<std::uint8_t>{0, 1}));
  EXPECT_EQ(s.value.to_doubles(), (Values{0, 4}));
}

TEST(SubprocessReward, AnErrorOfTheProgramIsPassedOnAndItLivesOn) {
  const Reward r = scorer("error");
  expect_words(words_of(r, Fault::runtime), {"scorer error' reports an error: no tape"});
  EXPECT_EQ(r(samples()).to_doubles(), (Values{8, -7})) << "the same process: a new one would report again";
}

TEST(SubprocessReward, WhatAProgramCanDoWrongIsSaid) {
  expect_words(words_of(subprocess_reward({.command = {"there-is-no-such-program"}})),
               {"reward command: 'there-is-no-such-program' cannot be started"});
  expect_words(words_of(shell("exit 3")), {"sh -c exit 3", "exited with status 3 before it had", "nothing had come from it"});
  expect_words(words_of(shell("kill -9 $$")), {"ended by signal 9"});
  expect_words(words_of(shell("read l; echo good morning")),
               {"answered \"good morning\"", "expected the line \"costate-reward 1\""});
  expect_words(words_of(shell("read l; printf good; exit 4")),
               {"exited with status 4 before it had said hello", "begins with \"good\""});
  expect_words(words_of(shell("cat", 5)), {"answered \"score 2 2 3 1\"", "expected \"ok\" or \"error\""});
  expect_words(words_of(shell("echo costate-reward 1; exec >&-; sleep 9")), {"closed its output before"});
  expect_words(words_of(scorer("short")), {"exited with status 0 after 4 of the 8 bytes of its answer"});
  expect_words(words_of(scorer("long")), {"expected nothing behind the 2 floats"});
  expect_words(words_of(scorer("chatty"), Fault::io, Tensor::zeros({1024, 1024})), {"expected a line", "\\x00\\x00"});
  // Its input is closed while megabytes are under way: SIGPIPE would end this process.
  expect_words(
      words_of(shell("read l; echo costate-reward 1; read l; exec <&-; sleep 9"), Fault::io, Tensor::zeros({1024, 1024})),
      {"closed its input before it had read its samples"});
  EXPECT_THROW(subprocess_reward({}), Error);
  EXPECT_THROW(subprocess_reward({.command = {"true"}, .timeout = 0}), Error);
  EXPECT_THROW(subprocess_reward({.command = {"true"}, .timeout = NAN}), Error);
}

TEST(SubprocessReward, ASlowProgramIsGivenUpAndStartedAnew) {
  const std::string flag = testing::TempDir() + "costate-reward-slow-" + std::to_string(getpid());
  // Sleeps the first time only.
  const Reward r = shell("[ -e " + flag + " ] || { : > " + flag + "; sleep 60; }; exec " COSTATE_SCORER " good", 0.5);
  const auto start = std::chrono::steady_clock::now();
  expect_words(words_of(r), {"gave no answer within 0.5 s before it had said hello"});
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_EQ(r(samples()).to_doubles(), (Values{8, -7}));
  std::remove(flag.c_str());
}

// Nothing is left: neither the program nor what it started in its group, nor a child that was not waited for; and nobody's
// handling of signals changes.
TEST(SubprocessReward, NothingIsLeftBehind) {
  const std::string file = testing::TempDir() + "costate-reward-left-" + std::to_string(getpid());
  struct sigaction before, after;
  sigaction(SIGPIPE, nullptr, &before);
  {
    const Reward r = shell("sleep 60 & echo $! > " + file + "; exec " COSTATE_SCORER " good");
    EXPECT_EQ(r(samples()).to_doubles(), (Values{8, -7}));
  }
  sigaction(SIGPIPE, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
  sigset_t mask, pending;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask), sigpending(&pending);
  EXPECT_FALSE(sigismember(&mask, SIGPIPE) || sigismember(&pending, SIGPIPE));
  EXPECT_TRUE(waitpid(-1, nullptr, WNOHANG) <= 0);
  pid_t sleeper = 0;
  std::ifstream(file) >> sleeper;
  ASSERT_GT(sleeper, 0);
  // A killed grandchild may stay a zombie until its new parent waits for it: gone, or a zombie.
  const auto gone = [&] {
    std::ifstream status("/proc/" + std::to_string(sleeper) + "/stat");
    std::string pid, name, state;
    return !(status >> pid >> name >> state) || state == "Z";
  };
  for (int i = 0; i < 200 && !gone(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(gone());
  std::remove(file.c_str());
}

TEST(SubprocessReward, TheShippedExampleInPython) {
  if (std::system("python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2> /dev/null") != 0)
    GTEST_SKIP() << "no python3";
  const Reward r = subprocess_reward({.command = {"python3", COSTATE_SOURCE_DIR "/examples/brightness.py"}});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(r(samples()).to_doubles(), (Values{2, 1}));
}

}  // namespace
}  // namespace costate::finetune
