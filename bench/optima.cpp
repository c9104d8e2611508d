// Where does each objective land? Problems whose optimum is known exactly, for the chain as it is and not for its limit of
// small steps: the objective of fixed widths
//   J(u) = E[lambda r(x_K)] - E sum_k |u_k|^2/2
// and its divergence at the optimum come from the Riccati recursion of Gaussian chains and from dynamic programming on a
// grid; what deliberately biased objectives settle at instead has a closed form of its own on the Gaussian chain.
//
//   bench_optima [--problem NAME] [--objective NAME] [--paths N] [--share X]   prints a table
//
// The base fields are exact, so that what is left is the objective, its optimiser and the class of controls. --share scales
// the number of iterations, for a quick look.
#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/grid_control.h>
#include <costate/finetune/problem/linear_quadratic_chain.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/rollout.h>
#include <costate/nn/mlp.h>
#include <costate/sde/diffusion.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "config/read.h"
#include "objectives/objectives.h"

namespace {

using namespace costate;
using finetune::GaussianMixture;
using finetune::KlPenalty;

// Controls of the chain: prediction = base + (std_k/C_k) u(x, t_k), so that `u` is the control of step k itself. Rows may
// belong to different steps.
struct StepsOf {
  std::vector<std::int32_t> step;  // (rows,)
  Tensor unit;                     // (rows, dim): std_k/C_k
};
StepsOf steps_of(const sde::Chain& chain, const Var& x, const Var& t) {
  StepsOf out;
  std::vector<float> units;
  const std::int64_t dim = x.numel() / x.extent(0);
  for (const float time : t.value().values<float>()) {
    int k = 0;
    while (k + 1 < chain.steps() && std::abs(chain.t[k + 1] - time) < std::abs(chain.t[k] - time)) ++k;
    out.step.push_back(k);
    units.insert(units.end(), static_cast<std::size_t>(dim), static_cast<float>(chain.std[k] / chain.C[k]));
  }
  out.unit = Tensor::from(units, {x.extent(0), dim});
  return out;
}

// u_k(x) = gain_k x + shift_k: every control that is optimal where everything is Gaussian.
struct AffineControl {
  sde::Field base;
  sde::Chain chain;
  Var gain, shift;  // (K, 1)
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    const StepsOf at = steps_of(chain, x, t);
    const Tensor index = Tensor::from(at.step, {x.extent(0)});
    const Var u = multiply_add(x, gather_rows(gain, index), gather_rows(shift, index));
    return multiply_add(u, Var(at.unit), base(x, t, labels));
  }
  void visit(const nn::Visitor& v) { v("gain", gain), v("shift", shift); }
};

// u = a network of (x, t).
struct LearnedControl {
  sde::Field base;
  sde::Chain chain;
  nn::VelocityMlp mlp;
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    return multiply_add(mlp(x, t, labels), Var(steps_of(chain, x, t).unit), base(x, t, labels));
  }
  void visit(const nn::Visitor& v) { mlp.visit(v); }
};

struct Optimum {
  double objective, path_kl;
};

struct Problem {
  std::string name, sentence;
  finetune::ControlProblem control;
  nn::Network start;
  std::function<Optimum(KlPenalty penalty, int first_step)> optimum;
};

constexpr int kSteps = 50;
sde::Chain ddpm() {
  return sde::ddpm(sde::diffusion_schedule(sde::BetaLaw::linear, 1000), sde::uniform_grid(kSteps),
                   sde::DdpmVariance::fixed_small, sde::Parametrisation::velocity);
}

nn::Network affine_start(const sde::Field& base, const sde::Chain& chain) {
  return nn::Network(AffineControl{base, chain, Var(Tensor::zeros({chain.steps(), 1})), Var(Tensor::zeros({chain.steps(), 1}))});
}
nn::Network learned_start(const sde::Field& base, const sde::Chain& chain, std::int64_t dim) {
  nn::Init init(5);
  nn::MlpOptions o;
  o.dim = dim, o.hidden = 64, o.depth = 2;
  return nn::Network(LearnedControl{base, chain, nn::make_velocity_mlp(o, init)});
}

// Data N(1/2, 0.8), r = -(x - 2)^2/2.
Problem gaussian() {
  const sde::Chain chain = ddpm();
  const auto data = std::make_shared<GaussianMixture>(1, std::vector{1.0}, std::vector{0.5}, std::vector{0.8});
  const sde::Field base = finetune::velocity_field(data, chain.schedule);
  Problem p{"gaussian", "data N(0.5, 0.8), r = -(x - 2)^2/2, affine controls", {}, affine_start(base, chain), {}};
  p.control.chain = chain, p.control.base = base, p.control.sample_shape = {1};
  p.control.reward = finetune::quadratic_reward({2.0}, {1.0});
  p.optimum = [chain](KlPenalty penalty, int first) {
    const finetune::LinearQuadraticChain lq(chain, {0.5, 0.8}, {1, 2, 0}, {.penalty = penalty, .first_step = first});
    return Optimum{lq.tuned().objective, lq.tuned().path_kl};
  };
  return p;
}

// Data N(0, 1), r = x, on a chain that remembers its noise: tuned or not, x_K keeps the share rho^2 of the shift.
Problem remembering() {
  const sde::Chain chain = sde::flow_sde({}, sde::uniform_grid(10), 0.7);
  const auto data = std::make_shared<GaussianMixture>(1, std::vector{1.0}, std::vector{0.0}, std::vector{1.0});
  const sde::Field base = finetune::velocity_field(data, chain.schedule);
  Problem p{"remembering", "data N(0, 1), r = x, ten steps of the flow equation with a = 0.7", {}, affine_start(base, chain), {}};
  p.control.chain = chain, p.control.base = base, p.control.sample_shape = {1};
  p.control.reward = finetune::linear_reward({1.0});
  p.optimum = [chain](KlPenalty penalty, int first) {
    const finetune::LinearQuadraticChain lq(chain, {0, 1}, {0, 0, 1}, {.penalty = penalty, .first_step = first});
    return Optimum{lq.tuned().objective, lq.tuned().path_kl};
  };
  return p;
}

// Data (N(-2, 1/4) + N(2, 1/4))/2 in every coordinate, r = c^T x: coordinates are problems of their own.
Problem modes(std::string name, std::vector<double> slopes) {
  const sde::Chain chain = ddpm();
  const int dim = static_cast<int>(slopes.size());
  std::vector<double> weights, means, covariances;
  for (int corner = 0; corner < 1 << dim; ++corner) {
    weights.push_back(1);
    for (int i = 0; i < dim; ++i) means.push_back(corner >> i & 1 ? 2 : -2);
    for (int i = 0; i < dim * dim; ++i) covariances.push_back(i % (dim + 1) == 0 ? 0.25 : 0);
  }
  const auto data = std::make_shared<GaussianMixture>(dim, weights, means, covariances);
  const auto one = std::make_shared<GaussianMixture>(1, std::vector{1.0, 1.0}, std::vector{-2.0, 2.0}, std::vector{0.25, 0.25});
  const sde::Field base = finetune::velocity_field(data, chain.schedule);
  Problem p{std::move(name), "data with modes at +-2 in each of " + std::to_string(dim) + " coordinates, linear reward",
            {}, learned_start(base, chain, dim), {}};
  p.control.chain = chain, p.control.base = base, p.control.sample_shape = {dim};
  p.control.reward = finetune::linear_reward(slopes);
  p.optimum = [chain, one, slopes](KlPenalty penalty, int first) {
    Optimum sum{0, 0};
    for (const double slope : slopes) {
      const finetune::GridControl grid(chain, finetune::mixture_prediction(one, chain), [slope](double x) { return slope * x; },
                                       {.penalty = penalty, .first_step = first});
      sum.objective += grid.tuned().objective, sum.path_kl += grid.tuned().path_kl;
    }
    return sum;
  };
  return p;
}

struct Target {
  KlPenalty penalty = KlPenalty::in_return;
  int first_step = 0;
  std::string sentence = "the optimum";
};

struct Entry {
  std::string objective;
  std::vector<std::string> settings{};
  Target target{};
  std::int64_t iterations = 400;
  std::int64_t network_iterations = 1600;  // with a network in place of affine controls
  bool everywhere = true;                  // false: on the Gaussian chains alone, whose controls of different steps share no parameters
};

std::vector<Entry> entries() {
  const std::string pg = "finetune.policy_gradient.", bp = "finetune.backpropagation.";
  const std::vector<std::string> in_return{pg + "divergence=in_return_and_loss", pg + "divergence_weight=1", pg + "baseline=batch",
                                           pg + "whitening=none", pg + "advantage_clip=0"};
  const std::vector<std::string> in_loss{pg + "divergence=in_loss", pg + "divergence_weight=1", pg + "whitening=none",
                                         pg + "advantage_clip=0"};
  const auto with = [](std::vector<std::string> settings, std::initializer_list<std::string> more) {
    settings.insert(settings.end(), more);
    return settings;
  };
  const Target loss{KlPenalty::in_loss, 0, "the penalty in the loss"};
  const Target window{KlPenalty::in_return, 40, "the optimum of the last ten steps"};
  return {
      {"adjoint_matching"},
      {"discrete_adjoint"},
      {"discrete_adjoint", {"finetune.regression.sticking_the_landing=true"}},
      {"continuous_adjoint"},
      {"socm_adjoint"},
      {"socm_constant"},
      {"socm"},
      {"pi_ft"},
      {"stein"},
      {"ddpo_sf", in_return, {}, 800},
      {"ddpo_is", with(in_return, {pg + "minibatches=1"}), {}, 800},
      {"score_as_action", with(in_return, {pg + "baseline=td", pg + "critic.skip=false"}), {}, 800},
      {"tdpo_r", with(in_return, {pg + "divergence=in_return", pg + "baseline=value", "finetune.lr.peak=2e-3", "finetune.ema_decay=0.998"}), {}, 160, 320},
      {"reinforce", {}, {}, 800},
      {"cross_entropy", {}, {}, 800},
      {"log_variance", {}, {}, 800},
      {"variance", {}, {}, 800},
      {"moment", {}, {}, 800},
      {"trajectory_balance", {}, {}, 800},
      {"relative_entropy"},
      {"draft", {bp + "kl_weight=1"}},
      {"draft_k", {bp + "kl_weight=1", bp + "last_steps=10"}, window, 400, 0, false},
      {"dpok", with(in_loss, {pg + "replay=1", pg + "minibatches=1"}), loss, 800},
      {"flow_grpo", with(in_loss, {pg + "baseline=batch", pg + "group_size=1", pg + "minibatches=1"}), loss, 800},
      {"hrf", with(in_return, {pg + "window.kind=clusters", pg + "window.clusters=[[40, 40, ITERATIONS]]", pg + "window.siblings=false",
                               pg + "group_size=1"}), window, 800, 0, false},
  };
}

}  // namespace

int main(int argc, char** argv) {
  std::string only_problem, only_objective;
  std::int64_t paths = 16384;
  double share = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!std::strcmp(argv[i], "--problem")) only_problem = argv[i + 1];
    else if (!std::strcmp(argv[i], "--objective")) only_objective = argv[i + 1];
    else if (!std::strcmp(argv[i], "--paths")) paths = std::atoll(argv[i + 1]);
    else if (!std::strcmp(argv[i], "--share")) share = std::atof(argv[i + 1]);
    else return std::fprintf(stderr, "unknown option %s\n", argv[i]), 2;
  }
  std::printf("| problem | objective | settings | where it should land | J | J measured | KL | KL measured | KL error |\n"
              "|---|---|---|---|---|---|---|---|---|\n");
  for (const Problem& problem : {gaussian(), modes("two_modes", {0.5}), modes("four_modes", {0.5, -0.3}), remembering()}) {
    if (!only_problem.empty() && problem.name != only_problem) continue;
    for (const Entry& e : entries()) {
      const bool affine = problem.name == "gaussian" || problem.name == "remembering";
      if ((!only_objective.empty() && e.objective != only_objective) || (!e.everywhere && !affine) ||
          (e.target.first_step > 0 && problem.name == "remembering"))
        continue;
      std::vector<std::string> settings{"finetune.objective=" + e.objective};
      const auto iterations = std::max<std::int64_t>(1, std::llround(share * static_cast<double>(affine ? e.iterations : e.network_iterations)));
      settings.push_back("finetune.iterations=" + std::to_string(iterations));
      settings.push_back("finetune.batch=512");
      settings.push_back("finetune.lr.peak=" + std::to_string(affine ? 1e-2 : 3e-3));
      settings.insert(settings.end(), {"finetune.lr.decay=cosine", "finetune.ema_decay=0.95", "finetune.clip_norm=0", "reward.kind=linear",
                                       "reward.coefficients=[1]"});
      for (std::string setting : e.settings) {
        if (const std::size_t at = setting.find("ITERATIONS"); at != std::string::npos)
          setting.replace(at, 10, std::to_string(iterations));
        settings.push_back(std::move(setting));
      }
      const cli::Config config = cli::read_config_text("{}", "bench_optima", settings).config;
      finetune::ControlProblem control = problem.control;
      const auto objective = cli::objective(e.objective).make({config, control, problem.start, nn::clone(problem.start)});
      for (std::int64_t n = 0; n < iterations; ++n) objective->step();
      const finetune::Trajectories t = finetune::simulate(finetune::field_of(objective->average()), control, paths,
                                                          {.seed = 99, .first_sample = 0});
      const std::vector<double> cost = finetune::step_likelihoods(control, t).path_cost(),
                                reward = control.reward(t.terminal()).to_doubles();
      std::vector<double> j;
      for (std::size_t i = 0; i < cost.size(); ++i) j.push_back(reward[i] - cost[i]);
      const finetune::Estimate value = finetune::mean_estimate(j), kl = finetune::mean_estimate(cost);
      const Optimum wanted = problem.optimum(e.target.penalty, e.target.first_step);
      std::string shown;  // without the name of the section
      for (const std::string& s : e.settings) shown += (shown.empty() ? "`" : ", `") + s.substr(s.find('.', s.find('.') + 1) + 1) + "`";
      std::printf("| %s | %s | %s | %s | %.4f | %.4f +- %.4f | %.4f | %.4f +- %.4f | %+.1f %% |\n", problem.name.c_str(),
                  e.objective.c_str(), shown.c_str(), e.target.sentence.c_str(), wanted.objective, value.value,
                  value.standard_error, wanted.path_kl, kl.value, kl.standard_error, 100 * (kl.value / wanted.path_kl - 1));
      std::fflush(stdout);
    }
  }
}
