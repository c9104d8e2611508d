#include "check_grad/problem.h"

#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "run/directory.h"

namespace costate::cli {
namespace {

Tensor drawn_like(const Tensor& t, std::uint64_t seed, std::uint32_t number) {
  const Tensor drawn = Tensor::empty_like(t);
  random_normal(drawn, seed, Stream::parameters, 0, number);
  return drawn;
}

// Fresh adapters change nothing, and what they are multiplied by has no gradient: B from N(0, 0.02^2) instead of 0.
void draw_adapters(nn::Network& network, std::uint64_t seed) {
  const memory::TagScope scope(memory::Tag::parameters);
  std::uint32_t number = 0x50000000u;
  nn::visit_layers(network, [&](const std::string&, Var&, nn::Lora& lora, int) {
    if (lora.defined()) lora.up = Var(affine(Var(drawn_like(lora.up.value(), seed, ++number)), 0.02, 0.0).value());
  });
}

// Every parameter moved by one percent of its root mean square.
nn::Network moved(nn::Network network, std::uint64_t seed) {
  const memory::TagScope scope(memory::Tag::parameters);
  std::uint32_t number = 0x60000000u;
  nn::visit(network, [&](const std::string&, Var& p) {
    double squares = 0;
    for (const double v : p.value().to_doubles()) squares += v * v;
    const double rms = std::sqrt(squares / static_cast<double>(std::max<std::int64_t>(1, p.numel())));
    p = Var(axpby(1.0, p, 0.01 * rms, Var(drawn_like(p.value(), seed, ++number))).value());
  });
  return network;
}

nn::Network with_parameters(nn::Network network, const std::vector<Tensor>& values) {
  std::size_t i = 0;
  nn::visit(network, [&](const std::string&, Var& p) { p = Var(values.at(i++)); });
  return network;
}

// sum_rows |C_k (prediction - base)/std_k|^2/2 of a step of the chain.
double control_cost(const sde::Field& field, const sde::Field& base, const sde::Chain& chain, int k, const Tensor& x,
                    const Tensor& labels) {
  const auto step = static_cast<std::size_t>(k);
  if (!(chain.std[step] > 0)) return 0;
  const Var t(sde::step_time(chain, k, x));
  const double u = chain.C[step] / chain.std[step];
  double squares = 0;
  for (const double d : sub(field(Var(x), t, labels), base(Var(x), t, labels)).value().to_doubles()) squares += d * d;
  return u * u / 2 * squares;
}

}  // namespace

RunProblem::RunProblem(const Config& config, const CheckGradOptions& o) : config_(config) {
  const Config& c = config_;
  require(c.device == "cpu", "device: found \"", c.device,
          "\", but check-grad compares gradients on the cpu; give --set device=cpu");
  for (const auto& [name, value] : {std::pair{"--rows", o.rows}, {"--directions", o.directions}})
    require(value >= 1 && value <= 100000, name, ": found ", value, ", expected an integer in [1, 100000]");
  require(o.steps >= 0 && o.steps <= 100000, "--steps: found ", o.steps, ", expected an integer in [1, 100000]");
  require(o.model == "base" || o.model == "tuned", "--model: found \"", o.model, "\", expected base or tuned");
  steps_ = o.steps ? o.steps : std::min<std::int64_t>(c.sampler.steps, 16);
  rows_ = o.rows, directions_ = static_cast<int>(o.directions);
  seed_ = o.seed.value_or(static_cast<std::uint64_t>(c.seed));

  const data::Dataset data = load_run_data(c, true).model;
  item_ = item_shape(data);
  labels_ = make_labels(c.finetune.labels, rows_, data, "finetune.labels", Device::cpu);
  const RunDirectory directory(c.out.empty() ? "runs/" + c.name : c.out);
  const bool lora = c.finetune.lora.rank > 0, tuned = o.model == "tuned", pretrained = c.network.kind == "pretrained";
  const bool finished = std::filesystem::exists(directory.file(base_checkpoint));

  nn::Network base = make_network(c, data, Device::cpu);
  if (!pretrained && (finished || tuned)) {
    load_checkpoint(directory, base_checkpoint, base, c, base_sections);
  } else if (!pretrained) {
    base = with_zeros_drawn(std::move(base), static_cast<std::uint64_t>(c.seed));
    notes_.push_back("there is no '" + directory.file(base_checkpoint) +
                     "': the weights are fresh ones, of which those that start at zero are drawn from N(0, 0.02^2)");
  }
  weights_ = pretrained ? "of '" + c.network.path + "'" : finished ? "of '" + directory.file(base_checkpoint) + "'" : "fresh";
  nn::Network network = base;
  if (tuned) {
    weights_ = "of '" + directory.file(tuned_file(c)) + "'";
    if (lora) {
      load_adapters(directory, adapters_checkpoint, network, c, tuned_sections);
    } else {
      network = nn::clone(base);
      load_checkpoint(directory, tuned_checkpoint, network, c, tuned_sections);
    }
  } else if (lora) {
    network = nn::with_lora(base, lora_options(c));
    draw_adapters(network, static_cast<std::uint64_t>(c.seed));
    weights_ = "adapters on weights " + weights_;
    notes_.push_back("the adapters are fresh ones, of which those that start at zero are drawn from N(0, 0.02^2)");
  } else if (o.control_cost) {
    network = moved(base, static_cast<std::uint64_t>(c.seed));
    notes_.push_back("the control cost of the base against itself is zero: every parameter is moved by one percent of its size");
  }
  narrow_ = side(network, base, o.control_cost);
  wide_ = side(in_double(network), in_double(base), o.control_cost);

  if (c.reward.kind != "none") {
    std::vector<nn::Classifier> classifiers, wide;
    const std::int64_t members = c.reward.kind == "classifier" ? c.reward.ensemble.members : 0;
    for (std::int64_t i = 0; i < members; ++i) {
      nn::Classifier classifier = make_classifier(member_config(c.reward_classifier, i), data, Device::cpu);
      const std::string checkpoint = member_checkpoint(i);
      if (std::filesystem::exists(directory.file(checkpoint)))
        load_checkpoint(directory, checkpoint, classifier, c, classifier_sections);
      else
        notes_.push_back("there is no '" + directory.file(checkpoint) + "': the classifier of the reward is a fresh one");
      wide.push_back(in_double(classifier)), classifiers.push_back(std::move(classifier));
    }
    const finetune::Reward reward = make_reward(c.reward, data, classifiers);
    if (reward.differentiable()) {
      narrow_.reward = reward, wide_.reward = make_reward(c.reward, data, wide);
      if (c.reward.f_divergence.kind != "none")
        notes_.push_back("reward.f_divergence is not applied: the gradient of the reward is checked as it is before");
    } else {
      notes_.push_back("the reward '" + reward.name + "' is a black box without a gradient: the terminal cost is another");
    }
  }
  if (o.control_cost) notes_.push_back("the control cost is of the chain alone");
}

RunProblem::Side RunProblem::side(const nn::Network& tuned, const nn::Network& base, bool control_cost) const {
  const FinetuneConfig& f = config_.finetune;
  const auto used = [&](const nn::Network& n) {
    return finetune::guided(n, f.guidance).recompute_blocks(f.recompute == "blocks");
  };
  Side s;
  s.network = f.lora.rank > 0 ? nn::Network(nn::Adapters{used(tuned)}) : used(tuned);
  if (control_cost) s.base = used(base);
  return s;
}

CheckedPath RunProblem::path(const StudyProcess& process, const std::vector<Tensor>& parameters) const {
  const Side& s = of(parameters.at(0).dtype());
  const nn::Network network = with_parameters(s.network, parameters);
  sde::RunningCost cost;
  const bool chain = process.name == "chain";
  if (chain && s.base.defined()) cost.base = finetune::field_of(s.base);
  CheckedPath path{make_process(config_, process, steps_, network, labels_, {seed_, 0}, cost), nullptr};
  if (cost.base)
    path.running_cost = [field = finetune::field_of(network), base = cost.base, chain = make_chain(config_, steps_),
                         labels = labels_](int k, const Tensor& x) { return control_cost(field, base, chain, k, x, labels); };
  return path;
}

CheckedProblem RunProblem::along(const StudyProcess& process) const {
  CheckedProblem p;
  p.process = process.label();
  p.x0 = sde::initial_noise(item_, rows_, {seed_, 0}).to(DType::f64);
  p.parameters = nn::parameters(wide_.network);
  p.path = [this, process](const std::vector<Tensor>& parameters) { return path(process, parameters); };
  if (wide_.reward) {
    const double multiplier = config_.reward.multiplier;
    p.terminal.name = wide_.reward->name + " reward";
    if (config_.reward.kind == "command") p.terminal.rounding = 0x1p-24;  // programs are given, and answer, single precision
    p.terminal.value = [this, multiplier](const Tensor& x) {
      return affine(Var((*of(x.dtype()).reward)(x)), -multiplier, 0.0).value();
    };
    p.terminal.gradient = [this, multiplier](const Tensor& x) {
      return affine(Var(of(x.dtype()).reward->value_and_gradient(x).gradient), -multiplier, 0.0).value();
    };
  } else {
    p.terminal.value = [](const Tensor& x) {
      return affine(sum(square(reshape(Var(x), {x.extent(0), -1})), 1), 0.5, 0.0).value();
    };
    p.terminal.gradient = [](const Tensor& x) { return x.clone(); };
  }
  return p;
}

std::string RunProblem::undetermined(const StudyProcess& process) const {
  try {
    const CheckedProblem p = along(process);
    const sde::Process steps = p.path(p.parameters).process;
    sde::State state = steps.start(p.x0);
    for (int k = 0; k < steps.steps; ++k) state = steps.step(k, state);
    // The continuous adjoints evaluate at the end, too.
    if (steps.increment) steps.increment(steps.steps - 1, true, state[0], state[0]);
  } catch (const Error& e) {
    if (e.fault() != Fault::argument) throw;
    return e.what();
  }
  return {};
}

CheckSettings RunProblem::settings() const {
  CheckSettings s;
  s.directions = directions_, s.seed = seed_;
  // Products of rounded operands, and gradients from rounded activations, are another arithmetic by design.
  if (config_.precision != "f32" || config_.activations != "f32") s.single_precision = std::numeric_limits<double>::infinity();
  return s;
}

std::string RunProblem::description() const {
  const std::string cost = wide_.reward ? sentence({"the ", wide_.reward->name, " reward times ", -config_.reward.multiplier})
                                        : std::string("|x|^2/2");
  return sentence({config_.name, ": ", rows_, " samples of shape ", item_, " in ", steps_, " steps, terminal cost ", cost, "; ",
                   nn::parameter_count(wide_.network), " parameters, ", weights_});
}

}  // namespace costate::cli
