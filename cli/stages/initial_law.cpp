#include "stages/initial_law.h"

#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/distributed/sampling.h>
#include <costate/finetune/initial_law/noise_control.h>
#include <costate/finetune/initial_law/value_of_noise.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>

#include <chrono>
#include <cmath>

#include "distributed/ranks.h"

namespace costate::cli {
namespace {

using finetune::InitialMethod;

// Seeds of their own beside that of the finetune stage.
std::uint64_t seed_of_value(const Config& c) { return seed_of(c, Purpose::finetune) ^ 0x8CB92BA72F3D8DD7u; }
std::uint64_t seed_of_control(const Config& c) { return seed_of(c, Purpose::finetune) ^ 0xAAF65D2D91C2F6E9u; }

finetune::ValueOfNoiseOptions value_options(const Config& c) {
  const InitialLawConfig& i = c.finetune.initial_law;
  finetune::ValueOfNoiseOptions o;
  o.hidden = i.hidden, o.depth = static_cast<int>(i.depth), o.iterations = i.iterations, o.batch = i.batch;
  o.rollouts = static_cast<int>(i.rollouts), o.regression = finetune::noise_regression(i.regression), o.seed = seed_of_value(c);
  o.learner.lr = {.peak = i.lr, .total = i.iterations, .decay = nn::LearningRate::Decay::cosine, .final = 0.01};
  return o;
}

nn::Network fresh_value(const Config& c, const data::Dataset& data, Device device) {
  return finetune::make_value_of_noise(item_shape(data), c.finetune.labels.empty() ? 0 : data.classes, value_options(c),
                                       device);
}

nn::Network fresh_control(const Config& c, const data::Dataset& data, Device device) {
  const InitialLawConfig& i = c.finetune.initial_law;
  nn::MlpOptions o;
  o.dim = data::item_size(data), o.hidden = i.hidden, o.depth = static_cast<int>(i.depth), o.time_frequencies = 2;
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(seed_of_control(c), DType::f32, device);
  return nn::Network(nn::make_velocity_mlp(o, init));
}

finetune::TiltedNoise tilted(const Config& c, const data::Dataset& data, nn::Network value, nn::Network control,
                             Device device) {
  const InitialLawConfig& i = c.finetune.initial_law;
  finetune::TiltedNoiseOptions o;
  o.method = i.kind == "sir" ? InitialMethod::sir : i.kind == "mcmc" ? InitialMethod::mcmc : InitialMethod::flow;
  o.particles = static_cast<int>(i.particles), o.moves = static_cast<int>(i.moves), o.move_size = i.move_size;
  o.control_steps = static_cast<int>(i.control_steps);
  return {std::move(value), std::move(control), item_shape(data), o, device};
}

// Ten rows of the metrics a phase, and one step of the progress each.
class Phase {
 public:
  Phase(Session& s, const char* name, std::int64_t total)
      : s_(s), name_(name), total_(total), start_(std::chrono::steady_clock::now()) {
    s_.begin(name, total);
  }
  void look(std::int64_t n, const finetune::Metrics& m, const char* shown) {
    if (n % std::max<std::int64_t>(1, total_ / 10) != 0 && n != total_) return;
    Values row;
    for (const auto& e : m.entries()) row.emplace_back(e.name, e.value);
    s_.log(name_, n, row, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
    s_.step(n, "loss " + short_number(m["loss"]) + "  " + shown + " " + short_number(m[shown]));
  }

 private:
  Session& s_;
  const char* name_;
  std::int64_t total_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

namespace {

void learn(Session& s, const data::Dataset& data, finetune::ControlProblem& problem) {
  const Config& c = s.config;
  const InitialLawConfig& i = c.finetune.initial_law;
  const std::int64_t total = s.iterations(i.iterations);
  nn::Network value;
  {
    finetune::ValueOfNoiseOptions o = value_options(c);
    o.iterations = total;
    Phase phase(s, "noise_value", total);
    s.rounds(total, i.iterations, [&] {
      value = finetune::train_value_of_noise(problem, fresh_value(c, data, s.device), o,
                                             [&](std::int64_t n, const finetune::Metrics& m) { phase.look(n, m, "log_z"); });
    });
    if (!s.planning()) save_checkpoint(*s.directory, noise_value_checkpoint, value, c, Json(), "noise_value", total);
    s.end("the value of the noise");
  }
  nn::Network control;
  if (i.kind == "flow") {
    const std::int64_t updates = s.iterations(i.control_iterations);
    finetune::BackpropagationOptions o;
    o.batch = i.batch, o.seed = seed_of_control(c), o.kl_weight = 1;
    o.learner.lr = {.peak = i.lr, .total = i.control_iterations, .decay = nn::LearningRate::Decay::cosine, .final = 0.01};
    finetune::Backpropagation trainer(
        finetune::noise_control_problem(value, item_shape(data), static_cast<int>(i.control_steps), s.device),
        fresh_control(c, data, s.device), o);
    Phase phase(s, "noise_control", updates);
    s.rounds(updates, i.control_iterations, [&] {
      for (std::int64_t n = 1; n <= updates; ++n) phase.look(n, trainer.step(), "control_cost");
    });
    control = trainer.network();
    if (!s.planning()) save_checkpoint(*s.directory, noise_control_checkpoint, control, c, Json(), "noise_control", updates);
    s.end("the control of the noise");
  }
  const finetune::TiltedNoise law = tilted(c, data, std::move(value), std::move(control), s.device);
  problem.initial = law.law(problem);
  const sde::NoiseKey key{seed_of_value(c), 0};
  const Tensor labels = problem.draw_labels(2048, key);
  const double efficiency = law.draw(256, key, sde::rows_of(labels, 0, 256)).efficiency,
               divergence = law.divergence(2048, key, labels);
  if (!s.progress || s.planning()) return;
  s.progress->note("note: the initial law is N(0, I) tilted by " + short_number(divergence) + " nats" +
                   (i.kind == "sir"    ? "; " + short_number(100 * efficiency) + " % of its draws are effective"
                    : i.kind == "mcmc" ? "; " + short_number(100 * efficiency) + " % of its moves are accepted"
                                       : std::string()));
}

}  // namespace

void learn_initial_law(Session& s, const data::Dataset& data, finetune::ControlProblem& problem) {
  const auto load = [&] {
    if (const auto law = load_initial_law(s, data)) problem.initial = law->law(problem);
  };
  if (s.goes_on("finetune")) return load();  // it was learnt before the first update
  if (!s.planning()) s.directory->remove({noise_value_checkpoint, noise_control_checkpoint});  // of an earlier run
  if (s.config.finetune.initial_law.kind == "noise") return;
  by_first_rank([&] { learn(s, data, problem); });
  if (!first_rank()) load();
}

std::optional<finetune::TiltedNoise> load_initial_law(Session& s, const data::Dataset& data) {
  const std::string& kind = s.config.finetune.initial_law.kind;
  if (kind == "noise") return {};
  nn::Network value = fresh_value(s.config, data, s.device), control;
  read_network(s, value, noise_value_checkpoint, tuned_sections);
  if (kind == "flow") {
    control = fresh_control(s.config, data, s.device);
    read_network(s, control, noise_control_checkpoint, tuned_sections);
  }
  return tilted(s.config, data, std::move(value), std::move(control), s.device);
}

Tensor sample_from(const Tensor& x0, const sde::Field& field, const sde::Chain& chain, const Tensor& labels,
                   const sde::NoiseKey& key) {
  const auto chunk = [&](std::int64_t first, std::int64_t rows) {
    return sde::rollout(field, chain, x0.slice(first, rows), sde::rows_of(labels, first, rows), key.from(first));
  };
  return finetune::shared_rows(x0[0].shape(), x0.extent(0), x0.dtype(), x0.device(), chunk);
}

}  // namespace costate::cli
