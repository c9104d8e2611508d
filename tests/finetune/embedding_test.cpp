// Training inside another program: several trainers at once, cancellation at every point, progress, and nothing of the
// process touched.
#include <costate/autograd/ops.h>
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/reward.h>
#include <costate/finetune/training.h>
#include <costate/nn/mlp.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cfenv>
#include <clocale>
#include <cmath>
#include <limits>
#include <filesystem>
#include <locale>
#include <thread>

extern char** environ;

namespace costate::finetune {
namespace {

constexpr int steps = 6;
constexpr std::int64_t batch = 80;  // two chunks of rows

nn::Network network(std::uint64_t seed) {
  nn::Init init(seed);
  nn::VelocityMlp mlp = nn::make_velocity_mlp({.dim = 2, .hidden = 16, .depth = 2}, init);
  mlp.output.weight = Var(init.normal(mlp.output.weight.shape(), 0.3));  // a base that does something
  return mlp;
}
ControlProblem problem(const nn::Network& base) {
  return {.chain = sde::exact_memoryless({}, sde::uniform_grid(steps)),
          .base = field_of(base),
          .sample_shape = {2},
          .reward = linear_reward({0.8, -0.4})};
}

using Make = std::function<std::unique_ptr<Objective>(ControlProblem, nn::Network, std::uint64_t seed)>;
const Make regression = [](ControlProblem p, nn::Network tuned, std::uint64_t seed) {
  return std::make_unique<ValueGradientRegression>(std::move(p), std::move(tuned), ValueGradientOptions{.batch = batch, .seed = seed});
};
const Make backpropagation = [](ControlProblem p, nn::Network tuned, std::uint64_t seed) {
  BackpropagationOptions o;
  o.batch = batch, o.seed = seed, o.kl_weight = 1, o.adjoint.method = sde::AdjointMethod::binomial;
  return std::make_unique<Backpropagation>(std::move(p), std::move(tuned), o);
};
const Make policy_gradient = [](ControlProblem p, nn::Network tuned, std::uint64_t seed) {
  PolicyGradientOptions o;
  o.batch = batch, o.seed = seed;
  return std::make_unique<PolicyGradient>("reinforce", std::move(p), std::move(tuned), o);
};
// Four updates an iteration.
const Make many_updates = [](ControlProblem p, nn::Network tuned, std::uint64_t seed) {
  PolicyGradientOptions o;
  o.batch = batch, o.seed = seed, o.epochs = 2, o.minibatches = 2;
  return std::make_unique<PolicyGradient>("ddpo", std::move(p), std::move(tuned), o);
};
const Make value_network = [](ControlProblem p, nn::Network tuned, std::uint64_t seed) {
  ValueGradientOptions o;
  o.batch = batch, o.seed = seed, o.costate = ValueGradientOptions::Costate::value;
  return std::make_unique<ValueGradientRegression>(std::move(p), std::move(tuned), o);
};

std::vector<float> parameters_of(const nn::Network& network) {
  std::vector<float> all;
  for (const Tensor& t : nn::parameters(network)) all.insert(all.end(), t.values<float>().begin(), t.values<float>().end());
  return all;
}
std::vector<float> trained(const Make& make, std::uint64_t seed, int iterations) {
  const nn::Network base = network(seed);
  const auto objective = make(problem(base), base, seed);
  EXPECT_EQ(train(*objective, iterations), iterations);
  return parameters_of(objective->network());
}

struct OneThread {
  ~OneThread() { set_threads(1); }
};

TEST(Embedding, TrainersOnTheirOwnThreadsGiveTheBitsOfEachAlone) {
  const std::vector<std::vector<float>> alone{trained(regression, 1, 4), trained(policy_gradient, 2, 4),
                                              trained(backpropagation, 3, 4)};
  const Make makes[] = {regression, policy_gradient, backpropagation};
  for (const bool own_pools : {false, true}) {
    std::vector<std::vector<float>> together(3);
    std::vector<std::thread> hosts;
    for (std::size_t i = 0; i < 3; ++i)
      hosts.emplace_back([&, i] {
        ThreadPool pool;
        const HookScope scope({.executor = own_pools ? &pool : nullptr});
        set_threads(static_cast<int>(i) + 1);
        together[i] = trained(makes[i], i + 1, 4);
      });
    for (std::thread& t : hosts) t.join();
    EXPECT_EQ(together, alone);
  }
}

// Stops training when the base has been asked for the n-th time, for every n, and trains on.
void interrupted_everywhere(const Make& make, bool exactly) {
  const nn::Network base = network(5);
  const std::vector<float> whole = trained(make, 5, 3);
  int stops = 0;
  for (int n = 1;; n += exactly ? 1 : 3) {
    std::stop_source stop;
    int calls = 0;
    ControlProblem p = problem(base);
    p.base = [inner = p.base, &calls, &stop, n](const Var& x, const Var& t, const Tensor& labels) {
      if (++calls == n) stop.request_stop();
      return inner(x, t, labels);
    };
    const auto objective = make(std::move(p), base, 5);
    std::int64_t done = 0;
    {
      const HookScope scope({.stop = stop.get_token()});
      done = train(*objective, 3);
    }
    if (!stop.stop_requested()) break;
    if (done < 3) {
      ++stops;
      EXPECT_EQ(train(*objective, 3 - done), 3 - done);
    }
    const std::vector<float> after = parameters_of(objective->network());
    if (exactly) {
      ASSERT_EQ(after, whole) << "stopped at call " << n << " of the base, after " << done << " iterations";
    } else {
      for (const float v : after) ASSERT_TRUE(std::isfinite(v)) << "stopped at call " << n;
    }
  }
  EXPECT_GT(stops, exactly ? 20 : 8);
}

TEST(Embedding, AnInterruptedTrainingGoesOnWithTheSameBits) {
  interrupted_everywhere(regression, true);
  interrupted_everywhere(policy_gradient, true);
  interrupted_everywhere(backpropagation, true);
}
TEST(Embedding, ObjectivesOfSeveralUpdatesGoOnFromTheLastOne) {
  interrupted_everywhere(many_updates, false);
  interrupted_everywhere(value_network, false);
}

TEST(Embedding, PretrainingStopsBetweenUpdates) {
  data::Dataset set;
  set.count = 64, set.item_shape = {2}, set.description = "a line";
  for (int i = 0; i < 128; ++i) set.values.push_back(static_cast<float>(i) / 64 - 1);
  const auto make = [&] { return FlowMatching(network(7), set, false, {.batch = 300, .ema_decay = 0}); };
  FlowMatching whole = make(), interrupted = make();
  EXPECT_EQ(train(whole, 5), 5);
  std::stop_source stop;
  {
    const HookScope scope({.stop = stop.get_token()});
    EXPECT_EQ(train(interrupted, 5, [&](std::int64_t done, const FlowMatchingMetrics& m) {
      EXPECT_TRUE(std::isfinite(m.loss));
      if (done == 2) stop.request_stop();
    }), 2);
    EXPECT_THROW(interrupted.step(), Cancelled);
  }
  EXPECT_EQ(train(interrupted, 3), 3);
  EXPECT_EQ(parameters_of(interrupted.network()), parameters_of(whole.network()));
}

TEST(Embedding, SamplersReportEveryRowAndStopInTheMiddle) {
  const OneThread restore;
  const sde::Field field = field_of(network(1));
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(steps));
  for (const int n : {1, 3}) {
    set_threads(n);
    std::int64_t last = 0;
    std::stop_source stop;
    const HookScope scope({.stop = stop.get_token(), .progress = [&](const Progress& p) {
      EXPECT_EQ(p.task, "sample");
      EXPECT_EQ(p.total, 500);
      EXPECT_GE(p.done, last);
      last = p.done;
    }});
    (void)sde::sample(field, chain, {2}, 500, {}, {1, 0});
    EXPECT_EQ(last, 500);
    last = 0;
    std::atomic<int> calls{0};
    const sde::Field stopping = [&](const Var& x, const Var& t, const Tensor& labels) {
      if (++calls == 10) stop.request_stop();
      return field(x, t, labels);
    };
    EXPECT_THROW((void)sde::sample(stopping, chain, {2}, 500, {}, {1, 0}), Cancelled);
    EXPECT_LT(calls, 14);
  }
}

TEST(Embedding, ARewardThatFailsIsLogged) {
  std::vector<std::string> heard;
  const HookScope scope({.log = [&](Severity s, std::string_view text) {
    EXPECT_EQ(s, Severity::warning);
    heard.emplace_back(text);
  }});
  Reward r;
  r.name = "picky", r.on_failure = Reward::Policy::skip;
  r.black_box = [](const Tensor& x) {
    std::vector<float> values;
    for (const float v : x.values<float>()) values.push_back(v > 0 ? v : std::numeric_limits<float>::quiet_NaN());
    return Tensor::from(values, {x.extent(0)});
  };
  (void)r.scores(Tensor::from(std::vector<float>{1, -1, 2, 3}, {4, 1}), false);
  EXPECT_EQ(heard, std::vector<std::string>{"reward 'picky': 1 of 4 samples failed and were left out"});
}

// Cancellation passes through a reward whose failures are forgiven.
TEST(Embedding, ARewardMayBeStopped) {
  std::stop_source stop;
  const HookScope scope({.stop = stop.get_token()});
  Reward r;
  r.name = "patient", r.on_failure = Reward::Policy::skip;
  r.black_box = [&](const Tensor& x) {
    stop.request_stop();
    check_cancelled("the reward");
    return Tensor::zeros({x.extent(0)});
  };
  EXPECT_THROW((void)r.scores(Tensor::zeros({8, 1}), false), Cancelled);
}

// What belongs to the process: every disposition of a signal, the mask, environment, locale, rounding, folder, creation mask.
struct Process {
  std::vector<std::string> state;
  Process() {
    for (int s = 1; s < 32; ++s) {
      struct sigaction a {};
      if (sigaction(s, nullptr, &a) == 0)
        state.push_back(std::to_string(s) + " " + std::to_string(reinterpret_cast<std::uintptr_t>(a.sa_handler)) + " " +
                        std::to_string(a.sa_flags));
    }
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    for (int s = 1; s < 32; ++s) state.push_back(sigismember(&mask, s) ? "held" : "let");
    for (char** e = environ; *e; ++e) state.emplace_back(*e);
    state.emplace_back(std::setlocale(LC_ALL, nullptr));
    state.emplace_back(std::locale().name());
    state.push_back(std::to_string(std::fegetround()));
    state.push_back(std::filesystem::current_path().string());
    const mode_t m = umask(0);
    umask(m);
    state.push_back(std::to_string(m));
  }
};

TEST(Embedding, NothingOfTheProcessIsTouchedAndNothingIsPrinted) {
  const OneThread restore;
  // Streams 1 and 2 become a file for a while.
  const std::filesystem::path file = std::filesystem::temp_directory_path() / ("costate-said-" + std::to_string(getpid()));
  std::fflush(stdout), std::fflush(stderr);
  const int said = open(file.c_str(), O_CREAT | O_RDWR | O_TRUNC, 0600), out = dup(1), err = dup(2);
  dup2(said, 1), dup2(said, 2);
  const Process before;
  set_threads(2);
  for (const Make& make : {regression, backpropagation, policy_gradient, value_network}) trained(make, 1, 1);
  SubprocessOptions scorer;
  scorer.command = {COSTATE_SCORER, "good"};
  EXPECT_EQ(subprocess_reward(scorer)(Tensor::zeros({4, 2})).numel(), 4);
  EXPECT_THROW((void)nn::Network()(Var(), Var(), Tensor()), Error);
  const Process after;
  std::fflush(stdout), std::fflush(stderr);
  dup2(out, 1), dup2(err, 2), close(out), close(err);
  EXPECT_EQ(before.state, after.state);
  EXPECT_EQ(lseek(said, 0, SEEK_END), 0) << "bytes were written to stdout or stderr";
  close(said);
  std::filesystem::remove(file);
}

// A host whose numbers have commas and thousands.
struct Commas : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(Embedding, TheLocaleOfTheHostChangesNothing) {
  const auto everything = [] {
    std::string text;
    try {
      fail(Fault::runtime, {"a ", 1234567, " b ", 0.5, " c ", Shape{1000, 2000}});
    } catch (const Error& e) {
      text = e.what();
    }
    return text + std::to_string(trained(regression, 1, 1)[0]);
  };
  const std::string plain = everything();
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Commas));
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"})  // where one is installed, C's numbers too
    if (std::setlocale(LC_ALL, name)) break;
  std::string there = everything();
  std::locale::global(before);
  std::setlocale(LC_ALL, "C");
  for (char& c : there)
    if (c == ',') c = '.';  // std::to_string, of this test
  std::string expected = plain;
  for (char& c : expected)
    if (c == ',') c = '.';
  EXPECT_EQ(there, expected);
}

}  // namespace
}  // namespace costate::finetune
