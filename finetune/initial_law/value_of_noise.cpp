#include <costate/finetune/initial_law/value_of_noise.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/nn/linear.h>
#include <costate/sde/sampler.h>
#include <costate/sde/words.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace costate::finetune {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"gamma", "least_squares", "log_mean"};
constexpr const char* kWhat = "value of the noise";

struct ValueOfNoise {
  nn::Linear slope;
  std::vector<nn::Linear> layers;
  nn::Linear output;
  Tensor identity;  // (classes, classes): rows pick a class's output; undefined without classes

  Var operator()(const Var& x, const Var&, const Tensor& labels) const {
    const std::int64_t rows = x.extent(0);
    const Var flat = reshape(x, {rows, -1});
    Var h = flat;
    for (const nn::Linear& layer : layers) h = layer(h);
    const Var all = add(slope(flat), output(h));  // (rows, outputs)
    if (!identity.defined()) return reshape(all, {rows});
    require(labels.defined(), kWhat, ": the value depends on the class, but there are no labels");
    return sum(mul(all, gather_rows(Var(identity), labels)), 1);
  }
  void visit(const nn::Visitor& v) {
    v("slope", slope);
    v("layers", layers);
    v("output", output);
  }
};

// Paths from the same x_0, number j: noise of its own, unrelated to that of other numbers.
sde::NoiseKey replica(const sde::NoiseKey& key, int j) {
  return {key.seed ^ (0xD1B54A32D192ED03ull * static_cast<std::uint64_t>(j + 1)), key.first_sample};
}

// lambda r - sum f of one path from every x_0 (rows,); NaN where the reward is not valid.
std::vector<double> exponents(const ControlProblem& problem, const Tensor& x0, const Tensor& labels, const sde::NoiseKey& key) {
  const std::int64_t rows = x0.extent(0);
  std::vector<double> y(static_cast<std::size_t>(rows));
  const Tensor end = Tensor::empty_like(x0);
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    sde::StepVisitor visit;
    if (problem.state_cost)
      visit = [&](int k, const Tensor& x, const Tensor&) {
        const Tensor f = problem.state_cost(k, Var(x)).value();
        if (f.is_meta()) return;
        const std::vector<double> values = f.to_doubles();
        for (std::int64_t i = 0; i < n; ++i) y[static_cast<std::size_t>(begin + i)] -= values[static_cast<std::size_t>(i)];
      };
    end.slice(begin, n).copy_from(sde::rollout(problem.base, problem.chain, x0.slice(begin, n), sde::rows_of(labels, begin, n),
                                               key.from(begin), visit));
  });
  const Reward::Scores scores = problem.reward.scores(end, false);
  if (end.is_meta()) return y;
  const std::vector<double> r = scores.value.to_doubles();
  for (std::size_t i = 0; i < y.size(); ++i)
    y[i] = !scores.valid.empty() && !scores.valid[i] ? std::numeric_limits<double>::quiet_NaN()
                                                     : y[i] + problem.reward_multiplier * r[i];
  return y;
}

// log mean e^y over what is a number; NaN where nothing is.
double log_mean_exp(const std::vector<double>& y) {
  double top = -std::numeric_limits<double>::infinity(), total = 0, count = 0;
  for (const double v : y) top = std::isnan(v) ? top : std::max(top, v);
  for (const double v : y)
    if (!std::isnan(v)) total += std::exp(v - top), count += 1;
  return count > 0 ? top + std::log(total / count) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::string_view name(NoiseRegression regression) { return kNames[static_cast<std::size_t>(regression)]; }
NoiseRegression noise_regression(std::string_view word) {
  return static_cast<NoiseRegression>(sde::word_index(word, kNames, "a regression of the value of the noise"));
}

nn::Network make_value_of_noise(const Shape& sample, std::int64_t classes, const ValueOfNoiseOptions& o, Device device) {
  require(o.hidden >= 1 && o.depth >= 1 && classes >= 0, kWhat, ": hidden ", o.hidden, ", depth ", o.depth, ", classes ",
          classes, " are out of range");
  const memory::TagScope scope(memory::Tag::parameters);
  const std::int64_t dim = sample.numel(), outputs = std::max<std::int64_t>(1, classes);
  nn::Init init(o.seed, DType::f32, device);
  ValueOfNoise v;
  v.slope = nn::make_linear(init, dim, outputs, Activation::none, 0.0);
  for (int i = 0; i < o.depth; ++i)
    v.layers.push_back(nn::make_linear(init, i == 0 ? dim : o.hidden, o.hidden, Activation::silu, std::sqrt(2.0)));
  v.output = nn::make_linear(init, o.hidden, outputs, Activation::none, 0.0, false);
  if (classes > 0) {
    std::vector<float> identity(static_cast<std::size_t>(classes * classes));
    for (std::int64_t i = 0; i < classes; ++i) identity[static_cast<std::size_t>(i * (classes + 1))] = 1;
    v.identity = Tensor::from(identity, {classes, classes}, device);
  }
  return nn::Network(std::move(v));
}

nn::Network train_value_of_noise(const ControlProblem& problem, nn::Network value, const ValueOfNoiseOptions& o,
                                 const std::function<void(std::int64_t, const Metrics&)>& on_step) {
  problem.check(kWhat);
  require(o.iterations >= 1 && o.batch >= 1 && o.rollouts >= 1, kWhat, ": iterations ", o.iterations, ", batch ", o.batch,
          ", rollouts ", o.rollouts, " are out of range");
  const bool meta = problem.device == Device::meta;
  Learner learner(kWhat, std::move(value), o.learner);
  double offset = 0;  // log mean e^y of the first batch
  const auto count = static_cast<std::size_t>(o.batch);
  for (std::int64_t n = 0; n < o.iterations; ++n) {
    const sde::NoiseKey key{o.seed, static_cast<std::uint64_t>(n * o.batch)};
    const Tensor labels = problem.draw_labels(o.batch, key);
    const Tensor x0 = sde::initial_noise(problem.sample_shape, o.batch, key, DType::f32, problem.device);
    std::vector<std::vector<double>> y;
    std::vector<double> all;
    for (int j = 0; j < o.rollouts; ++j) {
      y.push_back(exponents(problem, x0, labels, replica(key, j)));
      all.insert(all.end(), y.back().begin(), y.back().end());
    }
    const double log_z = log_mean_exp(all);
    if (std::isnan(log_z))
      fail(Fault::numerical, {kWhat, ": iteration ", n, ": not one of ", all.size(), " rewards could be computed"});
    if (n == 0) {
      offset = log_z;
      nn::visit(learner.network(), [&](const std::string& key_name, Var& p) {
        if (key_name == "slope.bias") p = Var(Tensor::full(p.shape(), offset, DType::f32, problem.device));
      });
    }
    // By x_0: the logarithm of its mean e^y over valid paths, and for least squares the mean of e^y in units of e^offset.
    std::vector<float> target(count), weight(count, 1.0f);
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<double> own;
      for (const auto& path : y) own.push_back(path[i]);
      const double log_mean = log_mean_exp(own);
      weight[i] = std::isnan(log_mean) ? 0.0f : 1.0f;
      target[i] = std::isnan(log_mean) ? 0.0f : static_cast<float>(log_mean);
    }
    double used = 0;
    for (const float w : weight) used += w;
    const Tensor targets = Tensor::from(target, {o.batch}, problem.device),
                 weights = Tensor::from(weight, {o.batch}, problem.device);
    const Chunks chunks(o.batch, training_rows(problem.sample_shape.numel()));
    std::vector<double> values(static_cast<std::size_t>(chunks.count()));
    const Gradients g = sum_gradients(learner.network(), chunks.count(), [&](const nn::Network& network, std::int64_t c) {
      const std::int64_t begin = chunks.first(c), rows = chunks.rows(c);
      const Var v = network(Var(x0.slice(begin, rows)), Var(Tensor::full({rows}, 0.0, DType::f32, problem.device)),
                            sde::rows_of(labels, begin, rows));
      const Var aim(targets.slice(begin, rows)), w(weights.slice(begin, rows));
      if (!meta) values[static_cast<std::size_t>(c)] = sum(mul(Var(v.value()), w)).value().item();
      // e^y enters two of the losses through its mean over the paths of an x_0 alone: what else there is in them does not
      // depend on v.
      Var loss;
      switch (o.regression) {
        case NoiseRegression::gamma:
          loss = add(exp(sub(aim, v)), sub(v, aim));
          break;
        case NoiseRegression::least_squares:
          loss = square(sub(exp(affine(v, 1.0, -offset)), exp(affine(aim, 1.0, -offset))));
          break;
        case NoiseRegression::log_mean:
          loss = square(sub(v, aim));
          break;
      }
      return affine(sum(mul(loss, w)), 1.0 / used, 0.0);
    });
    const Learner::Update update = learner.update(g);
    if (!on_step) continue;
    Metrics m;
    double total = 0;
    for (const double v : values) total += v;
    m.set("loss", g.loss), m.set("gradient_norm", update.gradient_norm), m.set("lr", update.lr);
    m.set("value", total / used), m.set("log_z", log_z);
    on_step(n + 1, m);
  }
  return learner.average();
}

}  // namespace costate::finetune
