#include <costate/finetune/regression/value_network.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/regression/path_weights.h>
#include <costate/nn/mlp.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace costate::finetune {
namespace {

// (x, t, label) -> (rows,)
struct ValueMlp {
  std::int64_t dim = 1;
  int time_frequencies = 4;
  nn::ClassEmbedding embedding;  // undefined without labels
  std::vector<nn::Linear> layers;
  nn::Linear output;

  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    const std::int64_t rows = x.extent(0);
    const Var flat = reshape(x, {rows, dim});
    const Var time = time_frequencies > 0 ? nn::time_features(t, time_frequencies) : reshape(t, {rows, 1});
    Var h;
    if (embedding.table.defined()) {
      const Var c = embedding(labels, rows);
      h = concat({&flat, &time, &c}, 1);
    } else {
      h = concat({&flat, &time}, 1);
    }
    for (const nn::Linear& layer : layers) h = layer(h);
    return reshape(output(h), {rows});
  }
  void visit(const nn::Visitor& v) {
    v("embedding", embedding);
    v("layers", layers);
    v("output", output);
  }
};

nn::Network make_value_mlp(const ControlProblem& problem, const ValueOptions& o, std::uint64_t seed) {
  require(o.hidden >= 1 && o.depth >= 1 && o.time_frequencies >= 0, "value network: hidden ", o.hidden, ", depth ", o.depth,
          ", time_frequencies ", o.time_frequencies, " are out of range");
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(seed, DType::f32, problem.device);
  ValueMlp m;
  m.dim = problem.sample_shape.numel(), m.time_frequencies = o.time_frequencies;
  std::int64_t in = m.dim + (o.time_frequencies > 0 ? 2 * o.time_frequencies : 1);
  if (!problem.labels.empty()) {
    constexpr std::int64_t width = 8;
    m.embedding = nn::make_class_embedding(init, *std::max_element(problem.labels.begin(), problem.labels.end()) + 1, width);
    in += width;
  }
  for (int i = 0; i < o.depth; ++i, in = o.hidden)
    m.layers.push_back(nn::make_linear(init, in, o.hidden, Activation::silu, std::sqrt(2.0)));
  m.output = nn::make_linear(init, in, 1, Activation::none, 0.0);
  return m;
}

// t_k, k = 0..K, one entry a row.
Tensor time_of(const sde::Chain& chain, int k, const Tensor& x) {
  return Tensor::full({x.extent(0)}, chain.t[static_cast<std::size_t>(k)], x.dtype(), x.device());
}

// From x_k and a prediction there to the estimate of x_1.
sde::Affine to_x1(const sde::Chain& chain, int k) {
  return sde::conversion(chain.prediction, sde::Parametrisation::x1, chain.schedule, chain.t[static_cast<std::size_t>(k)]);
}

// Rows whose reward failed become zeros.
Tensor without(const Tensor& x, const std::vector<std::uint8_t>& valid) {
  if (valid.empty()) return x;
  const Tensor on_host = x.to(Device::cpu);
  std::vector<float> values(on_host.values<float>().begin(), on_host.values<float>().end());
  const auto rows = static_cast<std::size_t>(x.extent(0)), n = values.size() / rows;
  for (std::size_t i = 0; i < rows; ++i)
    if (!valid[i]) std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(i * n), n, 0.0f);
  return Tensor::from(values, x.shape(), x.device());
}

}  // namespace

ValueFunction::ValueFunction(const ControlProblem& problem, const ValueOptions& options, std::uint64_t seed)
    : problem_(problem),
      options_(options),
      seed_(seed),
      learner_("value network", make_value_mlp(problem, options, seed), options.learner),
      averaged_(nn::clone(learner_.network())) {
  require(options.updates >= 1, "value network: updates is ", options.updates, "; expected at least 1");
  require(options.target_decay >= 0 && options.target_decay < 1, "value network: target_decay is ", options.target_decay,
          "; expected 0 <= target_decay < 1");
  require(options.pairs >= 0 && options.contraction_every >= 0 && options.contraction_rows >= 1 &&
              options.contraction_iterations >= 1,
          "value network: pairs, contraction_every, contraction_rows and contraction_iterations must not be negative, the last "
          "two not 0");
  require(!options.damping || options.contraction_every > 0,
          "value network: damping needs a measured curvature (contraction_every above 0)");
  require(options.form == ValueOptions::Form::plain || problem.reward.differentiable(), "value network: the form `skip` takes "
          "gradients of the reward '", problem.reward.name, "', which has values only; take `plain`");
}

void ValueFunction::visit_state(StateVisitor& v) {
  v("learner", learner_), v("averaged", averaged_), v("offset", offset_), v("unit", unit_), v("scaled", scaled_);
}

double ValueFunction::skip_weight(int k) const {
  return options_.form == ValueOptions::Form::skip
             ? std::sin(std::numbers::pi / 2 * problem_.chain.t[static_cast<std::size_t>(k)])
             : 0.0;
}

Tensor ValueFunction::network_value(const nn::Network& network, int k, const Tensor& x, const Tensor& labels) const {
  const Tensor out = Tensor::empty({x.extent(0)}, x.dtype(), x.device());
  sde::each_chunk(x.extent(0), [&](std::int64_t begin, std::int64_t n) {
    const Tensor part = x.slice(begin, n);
    const Var v = network(Var(part), Var(time_of(problem_.chain, k, part)), sde::rows_of(labels, begin, n));
    out.slice(begin, n).copy_from(affine(v, unit_, offset_).value());
  });
  return out;
}

Tensor ValueFunction::reward_value(const Tensor& x, double scale) const {
  const Reward::Scores s = problem_.reward.scores(x, false);
  return affine(Var(without(s.value, s.valid)), scale, 0.0).value();
}

Tensor ValueFunction::estimate(int k, const Tensor& x, const Tensor& labels) const {
  const sde::Chain& chain = problem_.chain;
  const sde::Affine x1 = to_x1(chain, k);
  const Tensor out = Tensor::empty_like(x);
  sde::each_chunk(x.extent(0), [&](std::int64_t begin, std::int64_t n) {
    const Tensor part = x.slice(begin, n);
    const Var v = problem_.base(Var(part), Var(sde::step_time(chain, k, part)), sde::rows_of(labels, begin, n));
    out.slice(begin, n).copy_from(axpby(x1.x, Var(part), x1.prediction, v).value());
  });
  return out;
}

Tensor ValueFunction::value(int k, const Tensor& x, const Tensor& labels) const {
  const double lambda = problem_.reward_multiplier;
  if (k == problem_.chain.steps()) return reward_value(x, lambda);
  const Tensor v = network_value(learner_.network(), k, x, labels);
  const double s = skip_weight(k);
  if (s == 0) return v;
  return axpby(std::sqrt(1 - s * s), Var(v), 1.0, Var(reward_value(estimate(k, x, labels), s * lambda))).value();
}

Tensor ValueFunction::gradient(int k, const Tensor& x, const Tensor& labels) const {
  const sde::Chain& chain = problem_.chain;
  const double lambda = problem_.reward_multiplier;
  if (k == chain.steps() && exact_end()) {
    const Reward::Scores s = problem_.reward.scores(x, true);
    return affine(Var(without(s.gradient, s.valid)), lambda, 0.0).value();
  }
  const double s = k == chain.steps() ? 0.0 : skip_weight(k);
  const Tensor out = Tensor::empty_like(x);
  sde::each_chunk(x.extent(0), [&](std::int64_t begin, std::int64_t n) {
    const Tensor part = x.slice(begin, n);
    Tape tape;
    const Var tracked = tape.watch(part);
    const Var v = learner_.network()(tracked, Var(time_of(chain, k, part)), sde::rows_of(labels, begin, n));
    const Tensor seed = Tensor::full({n}, unit_ * std::sqrt(1 - s * s), part.dtype(), part.device());
    out.slice(begin, n).copy_from(std::move(tape).vjp(v, seed, {&tracked, 1})[0]);
  });
  if (s == 0) return out;
  // The reward sees all rows at once.
  const sde::Affine x1 = to_x1(chain, k);
  Tape tape;
  const Var tracked = tape.watch(x);
  const Var guess = axpby(x1.x, tracked, x1.prediction, problem_.base(tracked, Var(sde::step_time(chain, k, x)), labels));
  const Reward::Scores scores = problem_.reward.scores(guess.value(), true);
  const Tensor seed = affine(Var(without(scores.gradient, scores.valid)), s * lambda, 0.0).value();
  return add(Var(out), Var(std::move(tape).vjp(guess, seed, {&tracked, 1})[0])).value();
}

// What the form `skip` adds to the network at steps 0..K-1, sin(pi t/2) lambda r(x1); empty where that is 0.
std::vector<std::vector<double>> ValueFunction::guesses(const CostateBatch& batch) const {
  const sde::Chain& chain = problem_.chain;
  std::vector<std::vector<double>> out(static_cast<std::size_t>(chain.steps()) + 1);
  for (int k = 0; k < chain.steps(); ++k) {
    const auto at = static_cast<std::size_t>(k);
    const double s = skip_weight(k);
    if (s == 0) continue;
    const Tensor& x = batch.paths.states[at];
    Tensor x1;
    if (chain.std[at] > 0) {  // the base has been asked there
      const sde::Affine to = to_x1(chain, k);
      x1 = axpby(to.x, Var(x), to.prediction, Var(batch.paths.base_predictions[at])).value();
    } else {
      x1 = estimate(k, x, batch.paths.labels);
    }
    const Tensor r = reward_value(x1, s * problem_.reward_multiplier);
    out[at] = r.is_meta() ? std::vector<double>(static_cast<std::size_t>(batch.rows())) : r.to_doubles();
  }
  return out;
}

std::vector<Tensor> ValueFunction::targets(const CostateBatch& batch, std::span<const double> kl_weights) {
  const sde::Chain& chain = problem_.chain;
  const int last = chain.steps();
  const auto rows = static_cast<std::size_t>(batch.rows());
  const auto kl = step_likelihoods(problem_, batch.paths).control_cost;
  const auto guess = guesses(batch);
  std::vector<double> to_go(rows);  // V_{k+1}(x_{k+1}), then V_k(x_k)
  for (std::size_t i = 0; i < rows; ++i) to_go[i] = problem_.reward_multiplier * batch.reward[i];
  if (!scaled_) {
    double mean = 0, square = 0;
    for (const double v : to_go) mean += v / static_cast<double>(rows);
    for (const double v : to_go) square += (v - mean) * (v - mean) / static_cast<double>(rows);
    offset_ = mean, unit_ = square > 1e-6 ? std::sqrt(square) : 1.0, scaled_ = true;
  }
  std::vector<Tensor> result(static_cast<std::size_t>(last) + 1);
  const auto set = [&](int k) {
    const auto at = static_cast<std::size_t>(k);
    const double s = k < last ? skip_weight(k) : 0.0, c = std::sqrt(1 - s * s);
    std::vector<float> y(rows);
    for (std::size_t i = 0; i < rows; ++i)
      y[i] = static_cast<float>((to_go[i] - (guess[at].empty() ? 0.0 : guess[at][i]) - c * offset_) / unit_);
    result[at] = Tensor::from(y, {batch.rows()}, problem_.device);
  };
  if (!exact_end()) set(last);
  for (int k = last - 1; k >= 0; --k) {
    const auto at = static_cast<std::size_t>(k);
    if (options_.target == ValueOptions::Target::td && k + 1 < last) {
      const Tensor v = network_value(averaged_, k + 1, batch.paths.states[at + 1], batch.paths.labels);
      const double s = skip_weight(k + 1), c = std::sqrt(1 - s * s);
      if (!v.is_meta()) {
        to_go = v.to_doubles();
        for (std::size_t i = 0; i < rows; ++i) to_go[i] = c * to_go[i] + (guess[at + 1].empty() ? 0.0 : guess[at + 1][i]);
      }
    }
    if (problem_.state_cost) {
      const Tensor f = problem_.state_cost(k, Var(batch.paths.states[at])).value();
      if (!f.is_meta()) {
        const auto values = f.to_doubles();
        for (std::size_t i = 0; i < rows; ++i) to_go[i] -= values[i];
      }
    }
    for (std::size_t i = 0; i < rows; ++i) to_go[i] -= kl_weights[at] * kl[at][i];
    set(k);
  }
  return result;
}

double ValueFunction::fit(const CostateBatch& batch, std::span<const double> kl_weights) {
  const sde::Chain& chain = problem_.chain;
  const std::vector<Tensor> y = targets(batch, kl_weights);
  const std::int64_t rows = batch.rows(), steps = chain.steps() + (exact_end() ? 0 : 1);
  const Chunks chunks(rows, training_rows(problem_.sample_shape.numel()));
  Tensor valid;
  if (!batch.valid.empty()) {
    const std::vector<float> mask(batch.valid.begin(), batch.valid.end());
    valid = Tensor::from(mask, {rows}, problem_.device);
  }
  double loss = 0;
  for (int update = 0; update < options_.updates; ++update) {
    const auto chunk_loss = [&](const nn::Network& network, std::int64_t c) {
      const auto k = static_cast<int>(c / chunks.count());
      const std::int64_t begin = chunks.first(c % chunks.count()), n = chunks.rows(c % chunks.count());
      const Tensor x = batch.paths.states[static_cast<std::size_t>(k)].slice(begin, n);
      const double s = k < chain.steps() ? skip_weight(k) : 0.0;
      const Var f = network(Var(x), Var(time_of(chain, k, x)), sde::rows_of(batch.paths.labels, begin, n));
      Var error = axpby(std::sqrt(1 - s * s), f, -1.0, Var(y[static_cast<std::size_t>(k)].slice(begin, n)));
      if (valid.defined()) error = mul(error, Var(valid.slice(begin, n)));
      return affine(sum(square(error)), 1.0 / static_cast<double>(rows * steps), 0.0);
    };
    const Gradients g = sum_gradients(learner_.network(), steps * chunks.count(), chunk_loss);
    learner_.update(g);
    loss = g.loss * unit_ * unit_;
    const std::vector<Tensor> now = nn::parameters(learner_.network());
    std::size_t i = 0;
    nn::visit(averaged_, [&](const std::string&, Var& p) { lerp_in_place(p.value(), now[i++], 1 - options_.target_decay); });
  }
  return loss;
}

Curvature ValueFunction::curvature(int k, const Tensor& x, const Tensor& labels) const {
  const std::int64_t rows = x.extent(0), dim = x.numel() / rows;
  const auto n = static_cast<std::size_t>(rows), d = static_cast<std::size_t>(dim);
  constexpr double step = 0.02;  // rounding, 1e-7 |grad V|/step, and truncation, step^2/6 of a fourth derivative, are small
  const std::vector<double> centre = x.is_meta() ? std::vector<double>(n * d) : x.to_doubles();
  const Philox philox{seed_, Stream::probe};
  // The power method on the Hessian less shift times the identity; Rayleigh quotients of each row.
  const auto dominant = [&](const std::vector<double>& shift) {
    std::vector<double> v(n * d), quotient(n);
    for (std::size_t i = 0; i < v.size(); ++i)
      v[i] = philox.normal(i / d, static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(i % d));
    for (int iteration = 0; iteration < options_.contraction_iterations; ++iteration) {
      std::vector<float> up(v.size()), down(v.size());
      for (std::size_t r = 0; r < n; ++r) {
        double norm = 0;
        for (std::size_t i = r * d; i < (r + 1) * d; ++i) norm += v[i] * v[i];
        norm = std::sqrt(norm);
        for (std::size_t i = r * d; i < (r + 1) * d; ++i) {
          v[i] = norm > 0 ? v[i] / norm : 0.0;
          up[i] = static_cast<float>(centre[i] + step * v[i]), down[i] = static_cast<float>(centre[i] - step * v[i]);
        }
      }
      const Tensor high = gradient(k, Tensor::from(up, x.shape(), x.device()), labels),
                   low = gradient(k, Tensor::from(down, x.shape(), x.device()), labels);
      if (high.is_meta()) continue;
      const auto a = high.to_doubles(), b = low.to_doubles();
      for (std::size_t r = 0; r < n; ++r) {
        quotient[r] = 0;
        for (std::size_t i = r * d; i < (r + 1) * d; ++i) {
          const double product = (a[i] - b[i]) / (2 * step) - shift[r] * v[i];
          quotient[r] += v[i] * product;
          v[i] = product;
        }
      }
    }
    return quotient;
  };
  const std::vector<double> first = dominant(std::vector<double>(n));
  std::vector<double> second = dominant(first);
  if (x.is_meta()) return {};
  Curvature c{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (std::size_t r = 0; r < n; ++r) {
    second[r] += first[r];
    c.lowest = std::min({c.lowest, first[r], second[r]}), c.highest = std::max({c.highest, first[r], second[r]});
  }
  return c;
}

}  // namespace costate::finetune
