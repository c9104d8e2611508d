// costate check-grad: right gradients hold, and every kind of wrong one is found.
#include "check_grad/check.h"

#include <costate/autograd/ops.h>
#include <costate/finetune/reward.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/sde_process.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cli/program.h"
#include "config/json.h"

namespace costate::cli {
namespace {

using testing::costate;
using testing::Folder;
using testing::Result;
using Verdict = CheckRow::Verdict;

TerminalCost cost_of(const finetune::Reward& reward, double rounding = 0x1p-53) {
  TerminalCost t;
  t.name = reward.name;
  t.value = [reward](const Tensor& x) { return affine(Var(reward(x)), -1, 0).value(); };
  t.gradient = [reward](const Tensor& x) { return affine(Var(reward.value_and_gradient(x).gradient), -1, 0).value(); };
  t.rounding = rounding;
  return t;
}
finetune::Reward quadratic() { return finetune::quadratic_reward({0.3, -0.2}, {1.0, 0.5}, {0.4, 0.1}); }

// A small field tanh(x W + t b), 2 x 2 + 2 numbers, along a chain of five steps or a solver's; `wrap` may spoil the process.
CheckedProblem problem_of(const finetune::Reward& reward, const std::string& solver = "",
                          const std::function<void(sde::Process&)>& wrap = {}) {
  CheckedProblem p;
  p.process = solver.empty() ? "chain" : solver;
  p.x0 = sde::initial_noise({2}, 3, {5, 0}).to(DType::f64);
  p.parameters = {Tensor::from(std::vector<double>{0.4, -0.7, 0.9, 0.2}, {2, 2}), Tensor::from(std::vector<double>{0.3, -0.5}, {2})};
  p.path = [solver, wrap](const std::vector<Tensor>& parameters) {
    const auto field = [](const Var& w, const Var& b) -> sde::Field {
      return [w, b](const Var& x, const Var& t, const Tensor&) {
        return tanh(matmul(x, w) + reshape(t, {t.extent(0), 1}) * b);
      };
    };
    const sde::ParametricField f{field(parameters[0], parameters[1]), [parameters, field](Tape& tape, std::vector<Var>& watched) {
                                   for (const Tensor& t : parameters) watched.push_back(tape.watch(t));
                                   return field(watched[watched.size() - 2], watched.back());
                                 }};
    const std::vector<double> grid = sde::uniform_grid(5);
    CheckedPath path;
    if (solver.empty())
      path.process = sde::chain_process(f, sde::exact_memoryless({}, grid), {}, {5, 0});
    else
      path.process = sde::sde_process(sde::probability_flow(f, {}, sde::Parametrisation::velocity), sde::solver(solver), grid,
                                      sde::BrownianPath(grid, {5, 0}));
    if (wrap) wrap(path.process);
    return path;
  };
  p.terminal = cost_of(reward);
  return p;
}

std::vector<CheckRow> check(const CheckedProblem& problem, int directions = 4) {
  Progress progress(true);
  return check_methods(problem, {directions, 1, 1e-3}, progress);
}
const CheckRow& row(const std::vector<CheckRow>& rows, const std::string& method, const std::string& against) {
  for (const CheckRow& r : rows)
    if (r.method == method && r.against == against) return r;
  throw std::runtime_error("no row " + method + " against " + against);
}

TEST(CheckGrad, RightGradientsHold) {
  for (const char* solver : {"", "heun", "reversible_heun", "rk4"}) {
    const std::vector<CheckRow> rows = check(problem_of(quadratic(), solver));
    EXPECT_EQ(first_failure(rows), "") << solver;
    for (const char* what : {"differences in x_0", "differences in parameters"}) {
      // Extrapolated differences of a smooth cost of order one are good to about 1e-11.
      EXPECT_LT(row(rows, "store_all", what).distance, 1e-9) << solver;
      EXPECT_LT(row(rows, "store_all", what).tolerance, 2e-6) << solver;
    }
    for (const char* exact : {"segments", "binomial", "binomial_online", "two_level"})
      EXPECT_EQ(verdict_text(row(rows, exact, "store_all")), "same bits") << solver << exact;
    // Each method is compared or refused in words.
    const bool undone = std::string(solver) == "reversible_heun", continuous = *solver != 0;
    EXPECT_EQ(verdict_text(row(rows, "reversible", "store_all")), undone ? "holds" : "refused") << solver;
    EXPECT_EQ(verdict_text(row(rows, "forward", "store_all")), undone ? "refused" : "holds") << solver;
    EXPECT_EQ(verdict_text(row(rows, "backsolve", "store_all")), continuous ? "not judged" : "refused") << solver;
    for (const CheckRow& r : rows) EXPECT_EQ(r.verdict == Verdict::refused, !r.refusal.empty()) << r.method;
    const CheckRow& narrow = row(rows, "store_all, single precision", "store_all");
    EXPECT_GT(narrow.distance, 1e-9);
    EXPECT_LT(narrow.distance, 1e-5);
  }
}

// A user's rule, right in its value and wrong by 0.1 % in its derivative.
finetune::Reward wrongly_differentiated(double factor) {
  return {"user's", [factor](const Var& x) {
            const CustomRule rule{"user's",
                                  [](std::span<const Tensor> in) { return sum(sin(Var(in[0])), 1).value(); },
                                  [factor](const Tensor& a, std::span<const Tensor> in, const Tensor&) {
                                    const Var column = reshape(Var(a), {a.numel(), 1});
                                    return std::vector<Tensor>{(column * affine(cos(Var(in[0])), factor, 0)).value()};
                                  }};
            return custom(rule, {&x, 1});
          }};
}

TEST(CheckGrad, WrongRewardGradientsAreFound) {
  EXPECT_EQ(first_failure(check(problem_of(wrongly_differentiated(1)))), "");
  const std::vector<CheckRow> rows = check(problem_of(wrongly_differentiated(1.001)), 400);
  // The distance estimates |wrong - right|/|wrong| = 0.001/1.001. In n = 6 dimensions <e, u>^2 n/|e|^2 has the mean 1 and the
  // variance 2 (n - 1)/(n + 2) = 1.25, so that 400 directions have it to 3 sqrt(1.25/400) = 17 %, its root to 8.4 %.
  const CheckRow& end = row(rows, "user's", "differences in x_K");
  EXPECT_NEAR(end.distance, 0.001 / 1.001, 0.084e-3);
  EXPECT_EQ(end.verdict, Verdict::fails);
  EXPECT_EQ(row(rows, "store_all", "differences in x_0").verdict, Verdict::fails);
  // The adjoint methods are all equally right about a wrong cost.
  EXPECT_EQ(row(rows, "binomial", "store_all").verdict, Verdict::holds);
  const std::string sentence = first_failure(rows);
  EXPECT_NE(sentence.find("the gradient of user's is"), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("off differences in x_K"), std::string::npos) << sentence;
}

TEST(CheckGrad, CallbacksAreJudgedInSinglePrecision) {
  const auto callback = [](float factor) {
    return finetune::callback_reward("callback", [factor](std::span<const float> x, std::int64_t rows, std::span<float> value,
                                                          std::span<float> gradient) {
      const std::size_t dim = x.size() / static_cast<std::size_t>(rows);
      for (std::size_t i = 0; i < x.size(); ++i) value[i / dim] += std::sin(x[i]), gradient[i] = factor * std::cos(x[i]);
    });
  };
  const auto rows = [&](float factor) {
    CheckedProblem p = problem_of(callback(factor));
    p.terminal = cost_of(callback(factor), 0x1p-24);
    return check(p);
  };
  const std::vector<CheckRow> right = rows(1);
  EXPECT_EQ(first_failure(right), "");
  EXPECT_LT(row(right, "callback", "differences in x_K").tolerance, 1e-2);
  EXPECT_NE(first_failure(rows(1.05f)), "");
}

// r = floor(4 x_1) jumps: its derivative is zero wherever it has one, and no slope that smooths the jumps passes.
TEST(CheckGrad, SmoothedGradientsOfJumpsAreFound) {
  const auto steps = [](double claimed) {
    return finetune::Reward{"jumps", [claimed](const Var& x) {
                              const CustomRule rule{"jumps",
                                                    [](std::span<const Tensor> in) {
                                                      Tensor r = Tensor::zeros({in[0].extent(0)}, in[0].dtype());
                                                      const std::vector<double> v = in[0].to_doubles();
                                                      for (std::size_t i = 0; i < v.size() / 2; ++i) {
                                                        const double value = std::floor(4 * v[2 * i]);
                                                        if (r.dtype() == DType::f64) r.mutate<double>()[i] = value;
                                                        else r.mutate<float>()[i] = static_cast<float>(value);
                                                      }
                                                      return r;
                                                    },
                                                    [claimed](const Tensor&, std::span<const Tensor> in, const Tensor&) {
                                                      return std::vector<Tensor>{Tensor::full(in[0].shape(), claimed, in[0].dtype())};
                                                    }};
                              return custom(rule, {&x, 1});
                            }};
  };
  EXPECT_EQ(first_failure(check(problem_of(steps(0)))), "");
  EXPECT_NE(first_failure(check(problem_of(steps(4)))), "");
}

TEST(CheckGrad, WrongPullbacksAreFound) {
  const auto scaled = [](const Tensor& t, double c) { return affine(Var(t), c, 0).value(); };
  const auto in_x = problem_of(quadratic(), "", [&](sde::Process& p) {
    p.pullback = [pull = p.pullback, scaled](int k, const sde::State& s, const sde::State& a) {
      sde::StepPullback r = pull(k, s, a);
      if (k == 2) r.costate[0] = scaled(r.costate[0], 1 + 1e-4);
      return r;
    };
  });
  std::vector<CheckRow> rows = check(in_x);
  EXPECT_EQ(row(rows, "quadratic", "differences in x_K").verdict, Verdict::holds);
  EXPECT_EQ(row(rows, "store_all", "differences in x_0").verdict, Verdict::fails);
  EXPECT_EQ(row(rows, "store_all", "differences in parameters").verdict, Verdict::fails);
  EXPECT_EQ(row(rows, "forward", "store_all").verdict, Verdict::fails);
  // One number of the six, at one step.
  rows = check(problem_of(quadratic(), "", [&](sde::Process& p) {
    p.pullback = [pull = p.pullback](int k, const sde::State& s, const sde::State& a) {
      sde::StepPullback r = pull(k, s, a);
      if (k == 4 && r.parameters[1].dtype() == DType::f64) r.parameters[1].mutate<double>()[0] *= 1 + 1e-3;
      return r;
    };
  }));
  EXPECT_EQ(row(rows, "store_all", "differences in x_0").verdict, Verdict::holds);
  EXPECT_EQ(row(rows, "store_all", "differences in parameters").verdict, Verdict::fails);
}

TEST(CheckGrad, MethodsThatDifferAreFound) {
  // A step that is undone 1e-6 beside.
  std::vector<CheckRow> rows = check(problem_of(quadratic(), "reversible_heun", [](sde::Process& p) {
    p.unstep = [back = p.unstep](int k, const sde::State& next) {
      sde::State s = back(k, next);
      if (k == 3) s[0] = affine(Var(s[0]), 1, 1e-6).value();
      return s;
    };
  }));
  EXPECT_EQ(row(rows, "reversible", "store_all").verdict, Verdict::fails);
  EXPECT_NE(first_failure(rows).find("\"reversible_heun\" the gradient of reversible is"), std::string::npos);
  // A step that is not the same when it is taken again, as with noise from a generator with a state.
  const auto calls = std::make_shared<int>(0);
  rows = check(problem_of(quadratic(), "", [calls](sde::Process& p) {
    p.step = [step = p.step, calls](int k, const sde::State& s) {
      sde::State next = step(k, s);
      next[0] = affine(Var(next[0]), 1, 1e-13 * (++*calls % 7)).value();
      return next;
    };
  }));
  EXPECT_EQ(row(rows, "segments", "store_all").verdict, Verdict::fails);
  EXPECT_EQ(verdict_text(row(rows, "binomial", "store_all")), "other bits");
}

TEST(CheckGrad, KinksDoNotDisturb) {
  // |x| has a kink in every element; smaller steps find the slope beside it.
  const finetune::Reward kinks{"kinks", [](const Var& x) { return sum(abs(affine(x, 1, -0.25)), 1); }};
  EXPECT_EQ(first_failure(check(problem_of(kinks))), "");
  // Three thousand of them in each row, so that only steps below 1e-4 cross few.
  const finetune::Reward many{"many", [](const Var& x) {
                                const std::int64_t n = 3000;
                                Tensor places = Tensor::empty({1, n}, DType::f64);
                                random_normal(places, 3, Stream::user, 0, 0);
                                const Var first = narrow(x, 1, 0, 1);
                                return affine(sum(relu(sub(first, Var(places.to(x.dtype())))), 1), 1e-3, 0);
                              }};
  EXPECT_EQ(first_failure(check(problem_of(many))), "");
}

// dX = -a X dt: undoing a step of reversible_heun multiplies one of its modes by sqrt(q^2 + 1) + q, q = a h. With a = 20 and
// h = 1/20 that is 2.4^20 = 4e7, and rounding of 1e-16 comes back as some 1e-8 of a gradient that is right.
TEST(CheckGrad, RoundingThatUndoingAmplifiesIsNoMistake) {
  CheckedProblem p = problem_of(quadratic());
  p.parameters = {Tensor::from(std::vector<double>{-20.0}, {1})};
  const auto with = [](double mistake) {
    return [mistake](const std::vector<Tensor>& parameters) {
      const auto field = [](const Var& a) -> sde::Field {
        return [a](const Var& x, const Var&, const Tensor&) { return a * sin(x); };
      };
      const sde::ParametricField f{field(parameters[0]), [=](Tape& tape, std::vector<Var>& watched) {
                                     watched.push_back(tape.watch(parameters[0]));
                                     return field(watched.back());
                                   }};
      const std::vector<double> grid = sde::uniform_grid(20);
      CheckedPath path{sde::sde_process(sde::probability_flow(f, {}, sde::Parametrisation::velocity),
                                        sde::solver("reversible_heun"), grid, sde::BrownianPath(grid, {5, 0})),
                       nullptr};
      path.process.unstep = [back = path.process.unstep, mistake](int k, const sde::State& next) {
        sde::State s = back(k, next);
        if (k == 10) s[0] = affine(Var(s[0]), 1 + mistake, 0).value();
        return s;
      };
      return path;
    };
  };
  p.path = with(0);
  const CheckRow right = row(check(p), "reversible", "store_all");
  EXPECT_GT(right.tolerance, 2e-9);
  EXPECT_LT(right.tolerance, 1e-4);
  EXPECT_EQ(right.verdict, Verdict::holds) << right.distance;
  p.path = with(1e-3);
  EXPECT_EQ(row(check(p), "reversible", "store_all").verdict, Verdict::fails);
}

TEST(CheckGrad, CostsThatAreNoNumbersAreNamed) {
  const finetune::Reward roots{"roots", [](const Var& x) { return sum(sqrt(affine(square(x), -1, -1)), 1); }};
  try {
    check(problem_of(roots));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    EXPECT_NE(std::string(e.what()).find("expected a number"), std::string::npos) << e.what();
  }
}

Json run(const Folder& folder, std::vector<std::string> more) {
  std::vector<std::string> words{"check-grad", "config.json", "--json", "--quiet"};
  words.insert(words.end(), more.begin(), more.end());
  const Result r = costate(folder, words);
  EXPECT_EQ(r.code, 0) << r.err;
  return r.code == 0 ? Json::parse(r.out) : Json();
}
bool notes_say(const Json& result, const std::string& what) { return result["notes"].dump().find(what) != std::string::npos; }

TEST(CheckGradCommand, FreshProblemsOfEveryNetwork) {
  for (const char* name : {"points", "digits", "unet", "dit"}) {
    const Folder folder;
    folder.file("config.json", testing::tiny(name));
    const Json result = run(folder, {"--steps", "3", "--rows", "2", "--directions", "2"});
    ASSERT_TRUE(result.is_object()) << name;
    EXPECT_TRUE(result["holds"]) << name;
    EXPECT_TRUE(notes_say(result, "fresh")) << name;
    int differences = 0, bits = 0;
    for (const Json& r : result["rows"]) {
      differences += r["against"].get<std::string>().starts_with("differences") && r["verdict"] == "holds";
      bits += r["verdict"] == "same bits";
      if (r["verdict"] != "refused") {
        EXPECT_LT(r["distance"].get<double>(), 1.0) << r.dump();
      }
    }
    EXPECT_EQ(differences, 2 * 3) << name;
    EXPECT_EQ(bits, 2 * 4) << name;
    for (const auto& entry : testing::fs::recursive_directory_iterator(folder.path())) {
      const std::string file = entry.path().filename().string();
      EXPECT_TRUE(file == "config.json" || file == ".out" || file == ".err") << file;
    }
  }
}

TEST(CheckGradCommand, OfAFinishedRunWithControlCost) {
  for (const char* rank : {"0", "2"}) {
    const Folder folder;
    folder.file("config.json", testing::tiny_digits);
    const std::string lora = std::string("finetune.lora.rank=") + rank;
    const Result made = costate(folder, {"run", "config.json", "--quiet", "--set", lora});
    ASSERT_EQ(made.code, 0) << made.err;
    const Json base = run(folder, {"--set", lora, "--set", "finetune.guidance=0.5"});
    ASSERT_TRUE(base.is_object());
    EXPECT_NE(base["problem"].get<std::string>().find("runs/tiny/checkpoints/base.safetensors"), std::string::npos);
    EXPECT_FALSE(notes_say(base, "there is no"));
    for (const char* model : {"base", "tuned"}) {
      const Json result = run(folder, {"--set", lora, "--model", model, "--control-cost", "--directions", "3"});
      ASSERT_TRUE(result.is_object()) << model;
      EXPECT_TRUE(result["holds"]) << model;
      EXPECT_EQ(notes_say(result, "moved by one percent"), std::string(model) == "base" && std::string(rank) == "0");
    }
    // Weights of another network are refused.
    const Result other = costate(folder, {"check-grad", "config.json", "--set", lora, "--set", "network.hidden=8"});
    EXPECT_EQ(other.code, 2);
    EXPECT_NE(other.err.find("network.hidden"), std::string::npos) << other.err;
  }
}

// The control cost is part of what is differentiated: it changes the gradient of the parameters.
TEST(CheckGradCommand, ControlCostChangesTheGradient) {
  const Folder folder;
  folder.file("config.json", testing::tiny_points);
  const auto slope = [](const Json& result) {
    for (const Json& r : result["rows"])
      if (r["against"] == "differences in parameters") return r["directions"][0]["difference"].get<double>();
    return 0.0;
  };
  const Json with = run(folder, {"--control-cost", "--processes", "chain"});
  const Json without = run(folder, {"--processes", "chain"});
  ASSERT_TRUE(with.is_object() && without.is_object());
  EXPECT_GT(std::abs(slope(with) - slope(without)), 1e-3 * std::abs(slope(without)));
}

// 1024 numbers at most are counted first; what then takes second derivatives through a fused activation says so itself.
TEST(CheckGradCommand, ForwardTangentsAreRefusedInWords) {
  const Folder folder;
  folder.file("config.json", testing::tiny_points);
  const auto refusal = [&](const std::string& hidden) {
    const Json result = run(folder, {"--set", "network.hidden=" + hidden, "--set", "network.depth=1", "--processes", "chain"});
    for (const Json& r : result["rows"])
      if (r["gradient_of"] == "forward" && r.contains("refusal")) return r["refusal"].get<std::string>();
    return std::string();
  };
  EXPECT_NE(refusal("4").find("second derivatives"), std::string::npos) << refusal("4");
  EXPECT_NE(refusal("400").find("expected at most 1024"), std::string::npos) << refusal("400");
}

TEST(CheckGradCommand, WhatIsWrongIsNamed) {
  const Folder folder;
  folder.file("config.json", testing::tiny_points);
  const struct {
    std::vector<std::string> words;
    int code;
    const char* expected;
  } cases[] = {
      {{}, 2, "config"},
      {{"missing.json"}, 6, "missing.json"},
      {{"config.json", "--rows", "0"}, 2, "--rows: found 0"},
      {{"config.json", "--steps", "-2"}, 2, "--steps: found -2"},
      {{"config.json", "--directions", "0"}, 2, "--directions: found 0"},
      {{"config.json", "--model", "best"}, 2, "expected base or tuned"},
      {{"config.json", "--model", "tuned"}, 6, "does not exist"},
      {{"config.json", "--processes", "hoin"}, 2, "did you mean"},
      {{"config.json", "--processes", "chain:2"}, 2, "section sampler"},
      {{"config.json", "--processes", "heun:x"}, 2, "sigma"},
      {{"config.json", "--processes", "heun:-1"}, 2, "at least 0"},
      {{"config.json", "--processes", "rk4:1"}, 2, "rk4"},
      {{"config.json", "--row", "2"}, 2, "did you mean '--rows'"},
      {{"config.json", "--set", "sampler.stps=3"}, 2, "sampler.steps"},
      {{"config.json", "--set", "reward.multiplier=1e306", "--set", "reward.precision=[[1e5,1e5]]"}, 4, "expected a number"},
  };
  for (const auto& c : cases) {
    std::vector<std::string> words{"check-grad"};
    words.insert(words.end(), c.words.begin(), c.words.end());
    const Result r = costate(folder, words);
    EXPECT_EQ(r.code, c.code) << r.err;
    EXPECT_NE(r.err.find(c.expected), std::string::npos) << c.expected << ": " << r.err;
  }
}

}  // namespace
}  // namespace costate::cli
