// Fine-tuning and evaluation on a problem of the control benchmark.
#include <costate/finetune/evaluate/control_error.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/finetune/rollout.h>

#include "control/control.h"
#include "objectives/objectives.h"
#include "stages/evaluation.h"
#include "stages/train.h"

namespace costate::cli {
namespace {

using finetune::ControlBenchmark;
using finetune::Estimate;

const std::vector<std::string> control_sections{"seed", "control", "finetune"};

ControlBenchmark make_benchmark(const Config& c) {
  return finetune::control_benchmark(c.control.problem, {.steps = static_cast<int>(c.control.steps),
                                                         .seed = static_cast<std::uint64_t>(c.control.seed)});
}

finetune::ControlProblem control_problem(const ControlBenchmark& b, Session& s) {
  finetune::ControlProblem p;
  p.base = [base = b.base, counter = s.counter](const Var& x, const Var& t, const Tensor& labels) {
    counter->add(x.extent(0), x.tape() != nullptr, false);
    return base(x, t, labels);
  };
  p.chain = b.chain, p.sample_shape = {b.dim}, p.reward = counted(b.reward, s.counter);
  p.state_cost = b.state_cost, p.running = b.running, p.pathwise = b.pathwise;
  p.device = s.device;
  p.initial = [x0 = b.x0, device = s.device](std::int64_t rows, const sde::NoiseKey&) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < rows; ++i)
      for (const double v : x0) values.push_back(static_cast<float>(v));
    return Tensor::from(values, {rows, static_cast<std::int64_t>(x0.size())}, device);
  };
  return p;
}

nn::Network make_control(const Config& c, const ControlBenchmark& b, Device device) {
  nn::Init init(seed_of(c, Purpose::pretrain), DType::f32, device);
  finetune::ControlNetworkOptions o;
  o.dim = b.dim, o.hidden = c.control.hidden;
  o.activation = c.control.activation == "relu"   ? Activation::relu
                 : c.control.activation == "silu" ? Activation::silu
                                                  : Activation::gelu_tanh;
  o.time_frequencies = static_cast<int>(c.control.time_frequencies);
  o.state_powers = static_cast<int>(c.control.state_powers);
  o.products = c.control.products;
  if (c.control.terminal_gradient) o.reward = b.reward.value;
  return nn::Network(finetune::make_control_network(b.base, o, init));
}

// The network's control where the process would be under the optimal one: for every look the same paths.
finetune::ControlErrorEstimate error_of(Session& s, const ControlBenchmark& b, const nn::Network& network) {
  return finetune::control_error(b, finetune::field_of(network), s.config.control.paths,
                                 {seed_of(s.config, Purpose::evaluate), 0}, DType::f32, s.device);
}

}  // namespace

void control_finetune_stage(Session& s) {
  const Config& c = s.config;
  const ControlBenchmark b = make_benchmark(c);
  const nn::Network start = make_control(c, b, s.device);  // its control is zero: the base
  const auto objective = cli::objective(c.finetune.objective)
                             .make({c, control_problem(b, s), start, counted(nn::clone(start), s.counter)});
  TrainingHooks hooks;
  hooks.keep = [&](const std::string& name, const nn::Network& network, std::int64_t step) {
    save_checkpoint(*s.directory, name, network, c, nullptr, "finetune", step);
  };
  hooks.probe = [&](const nn::Network& network) -> Values {
    const Evaluations before = s.counter->now();
    const double error = error_of(s, b, network).relative();
    s.counter->restore(before);  // a look from outside, no cost of the objective
    return {{"control_error", error}};
  };
  train(s, *objective, tuned_checkpoint, hooks);
}

void control_evaluate_stage(Session& s) {
  const Config& c = s.config;
  const ControlBenchmark b = make_benchmark(c);
  const finetune::ControlProblem problem = control_problem(b, s);
  nn::Network network = make_control(c, b, s.device);
  s.begin("evaluate", 3);
  if (!s.planning()) load_checkpoint(*s.directory, tuned_checkpoint, network, c, control_sections);
  network = counted(std::move(network), s.counter);
  const sde::NoiseKey key{seed_of(c, Purpose::evaluate), static_cast<std::uint64_t>(c.control.paths)};
  const finetune::Trajectories paths = finetune::simulate(finetune::field_of(network), problem, c.evaluate.count, key);
  const finetune::StepLikelihoods steps = finetune::step_likelihoods(problem, paths);
  const std::vector<double> running = finetune::path_state_cost(problem, paths);
  const Tensor reward = problem.reward(paths.terminal());
  if (s.planning()) return;
  s.step(1, "paths");
  const std::vector<double> energy = steps.path_cost(), ratio = steps.path_log_ratio(), terminal = reward.to_doubles();
  std::vector<double> log_weights;
  for (std::size_t i = 0; i < terminal.size(); ++i) log_weights.push_back(terminal[i] - running[i] - ratio[i]);
  const auto objective_of = [&](const sde::Field& field) {
    return finetune::control_objective(b, field, c.evaluate.count, key, DType::f32, s.device);
  };
  const finetune::ControlObjective tuned = objective_of(finetune::field_of(network)), none = objective_of(b.base);
  s.step(2, "costs");
  const finetune::ControlErrorEstimate error = error_of(s, b, network);
  s.step(3, "error");
  const Estimate weights = finetune::mean_estimate(log_weights);
  Json out = Json::object();
  out["samples"] = Json::object();
  out["control_problem"] = {
      {"problem", c.control.problem},
      {"objective", c.finetune.objective},
      {"relative_control_error", json_number(error.relative())},
      {"control_error", json_estimate(error.error)},
      {"cost", json_estimate(tuned.cost)},
      {"cost_with_less_variance", json_estimate(tuned.certificate)},
      {"cost_without_control", json_estimate(none.cost)},
      {"optimal_cost", json_number(b.optimal_cost)},
      {"path_kl", json_estimate(finetune::mean_estimate(energy))},
      {"log_z_from_paths", json_estimate(finetune::log_z_estimate(log_weights))},
      {"variance_of_log_weights",
       json_number(weights.standard_error * weights.standard_error * static_cast<double>(log_weights.size()))},
      {"effective_samples", json_number(finetune::effective_sample_size(log_weights))}};
  if (b.chain_optimal_cost) out["control_problem"]["optimal_cost_of_the_chain"] = json_number(*b.chain_optimal_cost);
  out["count"] = c.evaluate.count;
  s.directory->write("evaluation.json", out.dump(2) + "\n");
  s.end("relative control error " + short_number(error.relative()) + ", cost " + short_number(tuned.cost.value) +
        " (optimum " + short_number(b.optimal_cost) + ")");
}

}  // namespace costate::cli
