// The limits of the options of the three loops: the last value within is taken, the first beyond is refused by a sentence that
// names it.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/nn/mlp.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::finetune {
namespace {

constexpr int kSteps = 8;  // all of them but the last have noise

nn::Network network() {
  nn::Init init(1);
  nn::MlpOptions o;
  o.hidden = 4, o.depth = 1;
  return nn::Network(nn::make_velocity_mlp(o, init));
}
ControlProblem problem_of(const nn::Network& base) {
  return {sde::exact_memoryless({}, sde::uniform_grid(kSteps)), field_of(base), {2}, linear_reward({1, 0})};
}

// make(options) with an option changed to what is within, and to what is not.
template <class Options, class Make>
struct Limits {
  Options plain;
  Make make;
  template <class Change, class T>
  void operator()(const char* name, Change change, T within, T beyond) const {
    Options o = plain;
    change(o, within);
    EXPECT_NO_THROW(make(o)) << name << " = " << +within;
    SCOPED_TRACE(beyond);
    refused(name, [&](Options& other) { change(other, beyond); });
  }
  // By a sentence with these words in it.
  template <class Change>
  void refused(const char* words, Change change) const {
    Options o = plain;
    change(o);
    try {
      make(o);
      ADD_FAILURE() << "taken: " << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  }
};
template <class Options, class Make>
Limits(Options, Make) -> Limits<Options, Make>;

TEST(OptionLimits, PolicyGradient) {
  using O = PolicyGradientOptions;
  const nn::Network net = network();
  O plain;
  plain.batch = 12;
  const Limits limits{plain, [&](const O& o) { PolicyGradient("test", problem_of(net), net, o); }};
  limits("batch", [](O& o, int v) { o.batch = v; }, 1, 0);
  limits("epochs", [](O& o, int v) { o.epochs = v; }, 1, 0);
  limits("minibatches", [](O& o, int v) { o.minibatches = v; }, 1, 0);
  limits("minibatches", [](O& o, int v) { o.minibatches = v; }, 12, 13);
  limits("replay", [](O& o, int v) { o.replay = v; }, 1, 0);
  limits("micro_batch", [](O& o, int v) { o.micro_batch = v; }, 0, -1);
  limits("train_steps", [](O& o, int v) { o.train_steps = v; }, 0, -1);
  limits("train_steps", [](O& o, int v) { o.train_steps = v; }, kSteps - 1, kSteps);
  limits("group_size", [](O& o, int v) { o.advantage.group_size = v; }, 1, 0);
  limits("group_size", [](O& o, int v) { o.advantage.group_size = v; }, 4, 5);
  limits("divergence_weight", [](O& o, double v) { o.divergence_weight = v; }, 0.0, -1e-9);
  limits("ratio_clip", [](O& o, double v) { o.ratio_clip = v; }, 1e-9, 0.0);
  limits("log_z_lr", [](O& o, double v) { o.log_z_lr = v; }, 1e-9, 0.0);
  limits("log_z_decay", [](O& o, double v) { o.log_z_decay = v; }, 0.0, -1e-9);
  limits("log_z_decay", [](O& o, double v) { o.log_z_decay = v; }, 0.999, 1.0);
  limits("label_buffer", [](O& o, int v) { o.label_buffer = o.label_minimum = v; }, 1, 0);
  limits("label_minimum", [](O& o, int v) { o.label_minimum = v; }, 1, 0);
  limits("label_minimum", [](O& o, int v) { o.label_buffer = 5, o.label_minimum = v; }, 5, 6);
  limits("noise_scale", [](O& o, double v) { o.loss = O::Loss::log_variance, o.noise_scale = v; }, 1e-9, 0.0);

  using Kind = WindowOptions::Kind;
  limits("iterations", [](O& o, int v) { o.window.iterations = v; }, 1, 0);
  limits("parts", [](O& o, int v) { o.window.kind = Kind::segments, o.window.count = v; }, 1, 0);
  limits("parts", [](O& o, int v) { o.window.kind = Kind::segments, o.window.count = v; }, kSteps, kSteps + 1);
  limits("parts", [](O& o, int v) { o.window.kind = Kind::dynamic, o.window.count = v; }, 1, 0);
  limits("low", [](O& o, int v) { o.window.kind = Kind::annealed, o.window.low = v; }, 1, 0);
  limits("low", [](O& o, int v) { o.window.kind = Kind::annealed, o.window.low = v; }, kSteps, kSteps + 1);
  limits("low", [](O& o, int v) { o.window.kind = Kind::annealed, o.window.high = 3, o.window.low = v; }, 3, 4);
  limits("high", [](O& o, int v) { o.window.kind = Kind::annealed, o.window.high = v; }, kSteps, kSteps + 1);
  limits("deviation", [](O& o, double v) { o.window.kind = Kind::annealed, o.window.deviation = v; }, 0.0, -1e-9);
  limits("centre", [](O& o, double v) { o.window.kind = Kind::annealed, o.window.centre = v; }, 0.0, -1e-9);
  limits("every", [](O& o, int v) { o.window.kind = Kind::dynamic, o.window.every = v; }, 1, 0);
  limits("probes", [](O& o, int v) { o.window.kind = Kind::dynamic, o.window.probes = v; }, 1, 0);
  limits("penalty", [](O& o, double v) { o.window.kind = Kind::dynamic, o.window.penalty = v; }, 0.0, -1e-9);
  const auto clusters = [](O& o, int first, int last, int iterations) {
    o.window.kind = Kind::clusters, o.window.iterations = 3;
    o.window.clusters = {{first, last, iterations}, {0, 1, 3 - iterations}};
  };
  limits("cluster", [&](O& o, int v) { clusters(o, v, 3, 1); }, 0, -1);
  limits("cluster", [&](O& o, int v) { clusters(o, v, 3, 1); }, 3, 4);
  limits("cluster", [&](O& o, int v) { clusters(o, 2, v, 1); }, kSteps - 1, kSteps);
  limits("cluster", [&](O& o, int v) { clusters(o, 2, 3, v); }, 0, -1);
  limits("clusters last", [&](O& o, int v) { clusters(o, 2, 3, 1), o.window.iterations = v; }, 3, 4);

  Limits learned = limits;
  learned.plain.advantage.baseline = Baseline::value;
  learned("hidden layer", [](O& o, int v) { o.critic.widths = {4, v}; }, 1, 0);
  learned("time_frequencies", [](O& o, int v) { o.critic.time_frequencies = v; }, 0, -1);
  learned("dropout", [](O& o, double v) { o.critic.dropout = v; }, 0.0, -1e-9);
  learned("dropout", [](O& o, double v) { o.critic.dropout = v; }, 0.999, 1.0);
  learned("lr", [](O& o, double v) { o.critic.lr = v; }, 1e-9, 0.0);
  learned("clip_norm", [](O& o, double v) { o.critic.clip_norm = v; }, 0.0, -1e-9);
  learned("updates", [](O& o, int v) { o.critic.updates = v; }, 0, -1);
  learned("batch", [](O& o, int v) { o.critic.batch = v; }, 1, 0);
  learned("warmup", [](O& o, int v) { o.critic.warmup = v; }, 0, -1);
  learned("value_clip", [](O& o, double v) { o.critic.value_clip = v; }, 0.0, -1e-9);
  learned("reset_every", [](O& o, int v) { o.critic.reset_every = v; }, 1, 0);
  learned("threshold", [](O& o, double v) { o.critic.threshold = v; }, 0.0, -1e-9);

  // What contradicts the problem or another option.
  const auto refused = [&](const char* words, auto change, bool own_start = false, bool stops = false) {
    O o = plain;
    o.advantage.group_size = 2;
    change(o);
    ControlProblem p = problem_of(net);
    if (own_start) p.initial = [](std::int64_t rows, const sde::NoiseKey&) { return Tensor::zeros({rows, 2}); };
    if (stops) p.running = [](const Tensor& x) { return Tensor::full({x.extent(0)}, 1); };
    try {
      PolicyGradient("test", p, net, o);
      ADD_FAILURE() << "taken: " << words;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  const auto siblings = [](O& o) { o.window.siblings = true, o.window.kind = Kind::segments; };
  refused("not from a shared x_0", [&](O& o) { siblings(o), o.shared_noise = true; });
  refused("an initial law of its own", [&](O& o) { siblings(o); }, true);
  refused("a path that stops has been", [&](O& o) { siblings(o); }, false, true);
  refused("a path that stops has been", [](O& o) { o.window.kind = Kind::dynamic; }, false, true);
  refused("siblings need a window", [](O& o) { o.window.siblings = true; });
  for (const bool sibling : {false, true})
    refused("cannot be trained in a window", [&](O& o) {
      o.loss = O::Loss::log_variance;
      if (sibling) o.window.siblings = true;
      else o.window.kind = Kind::segments;
    });
  refused("no updates by timestep", [](O& o) { o.loss = O::Loss::log_variance, o.update = O::Update::timestep; });
  refused("minibatches would split groups", [](O& o) { o.loss = O::Loss::log_variance, o.shared_noise = true, o.minibatches = 2; });
  refused("for cross entropy and variance only", [](O& o) { o.loss = O::Loss::log_variance, o.log_z = O::LogZ::running; });
  for (const int which : {0, 1, 2})
    refused("the score function without a ratio", [&](O& o) {
      o.loss = O::Loss::score_function;
      if (which == 0) o.minibatches = 2;
      if (which == 1) o.replay = 2;
      if (which == 2) o.update = O::Update::timestep;
    });
}

TEST(OptionLimits, Backpropagation) {
  using O = BackpropagationOptions;
  const nn::Network net = network();
  O plain;
  plain.batch = 4;
  const auto make = [&](const O& o) { Backpropagation(problem_of(net), net, o); };
  const Limits limits{plain, make};
  limits("batch", [](O& o, int v) { o.batch = v; }, 1, 0);
  limits("micro_batch", [](O& o, int v) { o.micro_batch = v; }, 0, -1);
  limits("last_steps", [](O& o, int v) { o.truncation = O::Truncation::last, o.last_steps = v; }, 1, 0);
  limits("last_steps", [](O& o, int v) { o.truncation = O::Truncation::last, o.last_steps = v; }, kSteps, kSteps + 1);
  limits("truncation N", [](O& o, double v) { o.truncation = O::Truncation::normal, o.normal_deviation = v; }, 0.0, -1e-9);
  limits("truncation N", [](O& o, double v) { o.truncation = O::Truncation::normal, o.normal_mean = v; }, 2.0, double(NAN));
  limits("stop", [](O& o, double v) { o.stop_to = 0.5, o.stop_from = v; }, 0.0, -1e-9);
  limits("stop", [](O& o, double v) { o.stop_to = 0.5, o.stop_from = v; }, 0.25, 0.5);
  limits("stop", [](O& o, double v) { o.stop_from = 0.5, o.stop_to = v; }, 1.0, 1.0001);
  limits("shares", [](O& o, double v) { o.stop_from = 0.126, o.stop_to = v; }, 0.2501, 0.25);  // step 2 is at .25
  limits("renoisings",
         [](O& o, int v) { o.truncation = O::Truncation::last, o.last_steps = 1, o.renoisings = v; }, 0, -1);
  limits("trained_steps", [](O& o, int v) { o.detached_inputs = true, o.trained_steps = v; }, 0, -1);
  limits("kl_weight", [](O& o, double v) { o.kl_weight = v; }, 0.0, -1e-9);

  const auto refused = [&](const char* words, auto change) { limits.refused(words, change); };
  refused("truncation `last` of one step", [](O& o) { o.truncation = O::Truncation::last, o.last_steps = 2, o.renoisings = 1; });
  refused("truncation `last` of one step", [](O& o) {
    o.truncation = O::Truncation::last, o.last_steps = 1, o.renoisings = 1, o.stop_to = 1;
  });
  refused("a stop or re-noised samples leave the path", [](O& o) {
    o.kl_weight = 1, o.truncation = O::Truncation::last, o.last_steps = 1, o.renoisings = 1;
  });
  refused("of single sweeps", [](O& o) { o.adjoint.visit = [](int, const Tensor&, const Tensor&) {}; });
}

TEST(OptionLimits, ValueGradientRegression) {
  using O = ValueGradientOptions;
  using Costate = O::Costate;
  const nn::Network net = network();
  O plain;
  plain.batch = 4;
  const auto make = [&](const O& o) { ValueGradientRegression r(problem_of(net), net, o); };
  const Limits limits{plain, make};
  limits("batch", [](O& o, int v) { o.batch = v; }, 1, 0);
  limits("micro_batch", [](O& o, int v) { o.micro_batch = v; }, 0, -1);
  limits("early_steps", [](O& o, int v) { o.late_steps = 1, o.early_steps = v; }, 0, -1);
  limits("late_steps", [](O& o, int v) { o.late_steps = v; }, 0, -1);
  limits("early_steps", [](O& o, int v) { o.late_steps = 3, o.early_steps = v; }, kSteps - 4, kSteps - 3);
  limits("loss_clip", [](O& o, double v) { o.loss_clip = v; }, 0.0, -1e-9);
  limits("kl_weights", [](O& o, std::size_t v) { o.kl_weights.assign(v, 1.0); }, std::size_t{kSteps}, std::size_t{kSteps + 1});
  limits("kl_weights", [](O& o, double v) { o.kl_weights.assign(1, v); }, 1e-9, 0.0);
  limits("kl_weights", [](O& o, double v) { o.kl_weights.assign(1, v); }, 1e9, double(INFINITY));

  Limits weighted = limits;
  weighted.plain.costate = Costate::reparametrised, weighted.plain.path_weights = true;
  weighted("decay", [](O& o, double v) { o.normaliser_decay = v; }, 0.0, -1e-9);
  weighted("decay", [](O& o, double v) { o.normaliser_decay = v; }, 0.999, 1.0);
  weighted("gamma", [](O& o, double v) { o.reparametrisation.gamma = v; }, 1e-9, 0.0);
  weighted("hidden", [](O& o, int v) { o.reparametrisation.hidden = v; }, 1, 0);
  weighted("scale", [](O& o, double v) { o.reparametrisation.scale = v; }, 0.0, -1e-9);

  Limits valued = limits;
  valued.plain.costate = Costate::value;
  valued("hidden", [](O& o, int v) { o.value.hidden = v; }, 1, 0);
  valued("depth", [](O& o, int v) { o.value.depth = v; }, 1, 0);
  valued("time_frequencies", [](O& o, int v) { o.value.time_frequencies = v; }, 0, -1);
  valued("updates", [](O& o, int v) { o.value.updates = v; }, 1, 0);
  valued("target_decay", [](O& o, double v) { o.value.target_decay = v; }, 0.0, -1e-9);
  valued("target_decay", [](O& o, double v) { o.value.target_decay = v; }, 0.999, 1.0);
  valued("pairs", [](O& o, int v) { o.value.pairs = v; }, 0, -1);
  valued("contraction_every", [](O& o, int v) { o.value.contraction_every = v; }, 0, -1);
  valued("contraction_rows", [](O& o, int v) { o.value.contraction_rows = v; }, 1, 0);
  valued("contraction_iterations", [](O& o, int v) { o.value.contraction_iterations = v; }, 1, 0);
  valued("damping", [](O& o, int v) { o.value.damping = true, o.value.contraction_every = v; }, 1, 0);

  limits("replay: size", [](O& o, int v) { o.replay.size = v; }, 4, 3);
  limits("replay: size", [](O& o, int v) { o.replay.size = v; }, 8, 9);
  limits("replay: passes", [](O& o, int v) { o.replay.size = 4, o.replay.passes = v; }, 1, 0);
  limits("replay: least_ess", [](O& o, double v) { o.replay.size = 4, o.replay.least_ess = v; }, 0.0, -1e-9);
  limits("replay: least_ess", [](O& o, double v) { o.replay.size = 4, o.replay.least_ess = v; }, 0.999, 1.0);

  const auto refused = [&](const char* words, auto change) { limits.refused(words, change); };
  const auto weigh = [](O& o) { o.costate = Costate::reparametrised, o.path_weights = true; };
  for (const Costate costate : {Costate::reparametrised, Costate::value, Costate::stein})
    refused("pair with `next` only", [&](O& o) { o.pairing = O::Pairing::same, o.costate = costate, o.path_weights = true; });
  for (const Costate costate : {Costate::full, Costate::continuous, Costate::value})
    refused("pair with `next` only", [&](O& o) { o.pairing = O::Pairing::alg1, o.costate = costate; });
  refused("denoised_endpoint", [](O& o) { o.denoised_endpoint = true, o.costate = Costate::value; });
  refused("denoised_endpoint", [](O& o) { o.denoised_endpoint = true, o.path_weights = true; });
  refused("divided by the mean of a whole batch", [&](O& o) { weigh(o), o.micro_batch = 3; });
  refused("the value network is fitted to a whole batch", [](O& o) { o.costate = Costate::value, o.micro_batch = 3; });
  refused("kl_weights must be 1", [&](O& o) { weigh(o), o.kl_weights = {2}; });
  refused("a replay buffer keeps whole batches", [](O& o) { o.replay.size = 4, o.micro_batch = 2; });
  refused("replay must not be weighted", [&](O& o) { weigh(o), o.replay.size = 4, o.replay.weighted = true; });
  refused("early_steps must be 0", [&](O& o) { weigh(o), o.late_steps = o.early_steps = 1; });
  refused("its regression has two networks", [&](O& o) { weigh(o), o.keep_activations = true; });
  refused("whose cost must not depend on the draw", [](O& o) {
    o.costate = Costate::stein, o.value.form = ValueOptions::Form::skip, o.late_steps = o.early_steps = 1;
  });
  const auto fitting = [&] {
    O o = plain;
    weigh(o), o.micro_batch = 4;  // the whole batch
    make(o);
    o = plain, o.costate = Costate::value, o.micro_batch = 4;
    make(o);
    o = plain, o.costate = Costate::stein, o.late_steps = o.early_steps = 1;
    make(o);
    o.value.form = ValueOptions::Form::skip, o.value.pairs = 1;
    make(o);
  };
  EXPECT_NO_THROW(fitting());
}

}  // namespace
}  // namespace costate::finetune
