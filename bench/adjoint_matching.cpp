// One iteration of adjoint matching with a multilayer perceptron, as bench/peers/adjoint_matching_torch.py does it: the same
// network ([x, t], hidden layers with SiLU, x), batch, steps and loss steps; reward 2 x_0.
//
//   bench_adjoint_matching [--hidden 256] [--depth 3] [--dim 2] [--batch 256] [--steps 40] [--loss-steps 20] [--threads 1]
//                          [--iterations 30] [--device cpu] [--graphs] [--serve]
//
// --device cuda:0: the same on a CUDA device, by the wall clock. --graphs: recorded iterations (docs/cuda.md).
// --serve: for every line "run" on standard input one iteration is timed and "seconds sample adjoint regress optimise" is
// printed, so that bench/compare_adjoint_matching.py can interleave programs.
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/network_field.h>
#include <costate/nn/mlp.h>
#include <costate/tensor/backend.h>
#include <costate/tensor/parallel.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "clock.h"

using namespace costate;

int main(int argc, char** argv) {
  std::int64_t hidden = 256, depth = 3, dim = 2, batch = 256, steps = 40, loss_steps = 20, threads = 1, iterations = 30;
  bool serve = false, keep = false, graphs = false;
  std::string where = "cpu";
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const auto take = [&](const char* name, std::int64_t& v) {
      if (a != name || i + 1 >= argc) return false;
      v = std::atoll(argv[++i]);
      return true;
    };
    if (a == "--serve") serve = true;
    else if (a == "--keep-activations") keep = true;
    else if (a == "--graphs") graphs = true;
    else if (a == "--device" && i + 1 < argc) where = argv[++i];
    else if (!(take("--hidden", hidden) || take("--depth", depth) || take("--dim", dim) || take("--batch", batch) ||
               take("--steps", steps) || take("--loss-steps", loss_steps) || take("--threads", threads) ||
               take("--iterations", iterations))) {
      std::fprintf(stderr, "unknown option %s\n", argv[i]);
      return 2;
    }
  }
  set_threads(static_cast<int>(threads));
  const Device device = device_named(where, "--device");
  const int clock = device == Device::cpu ? static_cast<int>(threads) : 2;  // 2: the wall clock
  nn::Init init(1, DType::f32, device);
  nn::MlpOptions mlp;
  mlp.dim = dim, mlp.hidden = hidden, mlp.depth = static_cast<int>(depth), mlp.time_frequencies = 0;
  nn::VelocityMlp network = nn::make_velocity_mlp(mlp, init);
  network.output = nn::make_linear(init, hidden, dim);
  std::vector<double> c(static_cast<std::size_t>(dim));
  c[0] = 2;
  finetune::ValueGradientOptions options;
  options.batch = batch;
  options.learner.lr.peak = 1e-4;
  options.learner.clip_norm = 0;
  options.keep_activations = keep, options.graphs = graphs;
  options.late_steps = static_cast<int>(std::min(steps / 4, loss_steps));
  options.early_steps = static_cast<int>(loss_steps) - options.late_steps;
  finetune::ControlProblem problem{sde::euler_maruyama(sde::Schedule{}, sde::uniform_grid(static_cast<int>(steps))),
                                   finetune::field_of(network), {dim}, finetune::linear_reward(c)};
  problem.device = device;
  finetune::ValueGradientRegression trainer(problem, network, options);
  const auto iteration = [&](double& seconds) {
    const double start = now(clock);
    trainer.step();
    synchronise(device);
    const auto m = trainer.last();
    seconds = now(clock) - start;
    return m;
  };
  double seconds = 0;
  if (serve) {
    char line[64];
    while (std::fgets(line, sizeof line, stdin)) {
      if (std::strncmp(line, "run", 3) != 0) break;
      const auto m = iteration(seconds);
      std::printf("%.9f %.9f %.9f %.9f %.9f\n", seconds, m.seconds.sample, m.seconds.adjoint, m.seconds.regress,
                  m.seconds.optimise);
      std::fflush(stdout);
    }
    return 0;
  }
  std::vector<double> times;
  finetune::ValueGradientMetrics m;
  const auto launches = [&] { return device.kind == DeviceKind::cuda ? backend_of(device).launches() : 0; };
  std::int64_t launched = 0;
  for (std::int64_t i = 0; i < iterations + 3; ++i) {
    const std::int64_t before = launches();
    m = iteration(seconds);
    launched = launches() - before;
    if (i >= 3) times.push_back(seconds);
  }
  std::sort(times.begin(), times.end());
  // Forward equivalents: sampling K, adjoint 2K, regression 3L.
  const double forward = 2.0 * static_cast<double>(batch * ((dim + 1) * hidden + (depth - 1) * hidden * hidden + hidden * dim));
  const double flops = forward * static_cast<double>(3 * steps + 3 * loss_steps);
  std::printf("hidden %lld x %lld, batch %lld, K %lld, L %lld, threads %lld: median %.3f ms, least %.3f ms, %.1f GFLOP/s"
              " (sample %.3f adjoint %.3f regress %.3f optimise %.3f), loss %.4f, reward %.4f\n",
              static_cast<long long>(hidden), static_cast<long long>(depth), static_cast<long long>(batch),
              static_cast<long long>(steps), static_cast<long long>(loss_steps), static_cast<long long>(threads),
              1e3 * times[times.size() / 2], 1e3 * times[0], flops / times[times.size() / 2] * 1e-9, 1e3 * m.seconds.sample,
              1e3 * m.seconds.adjoint, 1e3 * m.seconds.regress, 1e3 * m.seconds.optimise, m.loss, m.reward);
  if (device.kind == DeviceKind::cuda) {
    const std::string why = trainer.not_recorded();
    std::printf("%lld launches an iteration, %s\n", static_cast<long long>(launched), why.empty() ? "recorded" : why.c_str());
  }
  return 0;
}
