#include <costate/finetune/reward.h>

#include <costate/autograd/ops.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace costate::finetune {
namespace {

std::int64_t count_not_finite(const Tensor& t) {
  if (t.is_meta()) return 0;
  std::int64_t bad = 0;
  const std::int64_t rows = t.extent(0), n = rows ? t.numel() / rows : 0;
  const auto count = [&](auto values) {
    for (std::int64_t r = 0; r < rows; ++r)
      bad += !std::all_of(values.begin() + r * n, values.begin() + (r + 1) * n, [](auto v) { return std::isfinite(v); });
  };
  if (t.dtype() == DType::f32) count(t.values<float>());
  else count(t.values<double>());
  return bad;
}

Var flat(const Var& x, std::size_t dim, const char* name) {
  require(x.extent(0) > 0 && x.numel() == x.extent(0) * static_cast<std::int64_t>(dim), name, " reward: x has shape ",
          x.shape(), "; expected rows of ", dim, " features");
  return reshape(x, {x.extent(0), static_cast<std::int64_t>(dim)});
}

Var constant(const std::vector<double>& v, const Shape& shape, const Var& like) {
  return Var(Tensor::from(v, shape, like.device()).to(like.dtype()));
}

}  // namespace

Tensor Reward::operator()(const Tensor& x) const {
  const Tensor v = value ? value(Var(x)).value() : black_box(x);
  require(v.shape() == Shape{x.extent(0)}, "reward '", name, "': the value has shape ", v.shape(), " for ", x.extent(0),
          " samples");
  return v;
}

Reward::Scores Reward::scores(const Tensor& x, bool with_gradient) const {
  if (with_gradient) {
    ValueAndGradient both = value_and_gradient(x);
    return {std::move(both.value), std::move(both.gradient), {}, 0};
  }
  Tensor v = (*this)(x);
  const std::int64_t bad = count_not_finite(v);
  if (bad) fail(Fault::numerical, {"reward '", name, "': the value of ", bad, " of ", x.extent(0), " samples is not finite"});
  return {std::move(v), {}, {}, 0};
}

Reward::ValueAndGradient Reward::value_and_gradient(const Tensor& x) const {
  require(differentiable(), "reward '", name, "': it has values only; an objective that needs no gradient of the reward takes it");
  Tape tape;
  const Var tracked = tape.watch(x);
  const Var v = value(tracked);
  require(v.shape() == Shape{x.extent(0)}, "reward '", name, "': the value has shape ", v.shape(), " for ", x.extent(0),
          " samples");
  Tensor gradient = std::move(tape).vjp(v, Tensor::full(v.shape(), 1.0, v.dtype(), v.device()), {&tracked, 1})[0];
  const std::int64_t bad = std::max(count_not_finite(v.value()), count_not_finite(gradient));
  if (bad)
    fail(Fault::numerical, {"reward '", name, "': the value or gradient of ", bad, " of ", x.extent(0),
                            " samples is not finite"});
  return {v.value(), std::move(gradient)};
}

Reward linear_reward(std::vector<double> c) {
  require(!c.empty(), "linear reward: no coefficients");
  return {"linear", [c = std::move(c)](const Var& x) {
            const Var y = flat(x, c.size(), "linear");
            return sum(mul(y, constant(c, {1, y.extent(1)}, y)), 1);
          }};
}

Reward quadratic_reward(std::vector<double> centre, std::vector<double> q, std::vector<double> c) {
  const std::size_t dim = centre.size();
  require(dim > 0 && (q.size() == dim || q.size() == dim * dim), "quadratic reward: q has ", q.size(),
          " entries; expected ", dim, " (a diagonal) or ", dim * dim);
  require(c.empty() || c.size() == dim, "quadratic reward: c has ", c.size(), " entries; expected ", dim);
  if (q.size() == dim * dim)
    for (std::size_t i = 0; i < dim; ++i)
      for (std::size_t j = 0; j < i; ++j)
        require(q[i * dim + j] == q[j * dim + i], "quadratic reward: q is not symmetric at (", i, ", ", j, ")");
  return {"quadratic", [centre = std::move(centre), q = std::move(q), c = std::move(c), dim](const Var& x) {
            const Var y = flat(x, dim, "quadratic");
            const auto n = static_cast<std::int64_t>(dim);
            const Var d = sub(y, constant(centre, {1, n}, y));
            const Var qd = q.size() == dim ? mul(d, constant(q, {1, n}, y)) : matmul(d, constant(q, {n, n}, y));
            Var r = affine(sum(mul(d, qd), 1), -0.5, 0.0);
            if (!c.empty()) r = add(r, sum(mul(y, constant(c, {1, n}, y)), 1));
            return r;
          }};
}

namespace {
// log sum_i w_i N(x; m_i, s_i I), by a shifted log-sum-exp over components.
Var log_density(const IsotropicMixture& p, std::int64_t dim, const Var& x) {
  const auto n = static_cast<std::int64_t>(p.weights.size());
  const double total = std::accumulate(p.weights.begin(), p.weights.end(), 0.0);
  std::vector<double> inverse, offset;
  for (std::int64_t i = 0; i < n; ++i) {
    inverse.push_back(-0.5 / p.variances[i]);
    offset.push_back(std::log(p.weights[i] / total) - 0.5 * static_cast<double>(dim) * std::log(2 * M_PI * p.variances[i]));
  }
  const Var d = sub(reshape(x, {x.extent(0), 1, dim}), constant(p.means, {1, n, dim}, x));
  const Var terms = multiply_add(sum(square(d), 2), constant(inverse, {1, n}, x), constant(offset, {1, n}, x));
  // logsumexp(z) = z_j - log_softmax(z)_j for every j; j = 0.
  return reshape(sub(narrow(terms, 1, 0, 1), narrow(log_softmax(terms), 1, 0, 1)), {x.extent(0)});
}
void check_mixture(const IsotropicMixture& p, std::int64_t dim, const char* which) {
  const std::size_t n = p.weights.size();
  require(n > 0 && p.variances.size() == n && p.means.size() == n * static_cast<std::size_t>(dim), "log-density ratio: mixture ",
          which, " has ", n, " weights, ", p.variances.size(), " variances and ", p.means.size(), " mean entries for dimension ",
          dim);
  for (std::size_t i = 0; i < n; ++i)
    require(p.weights[i] > 0 && p.variances[i] > 0, "log-density ratio: component ", i, " of mixture ", which,
            " has weight ", p.weights[i], " and variance ", p.variances[i], "; both must be positive");
}
}  // namespace

Reward log_density_ratio_reward(IsotropicMixture a, IsotropicMixture b, std::int64_t dim) {
  check_mixture(a, dim, "a"), check_mixture(b, dim, "b");
  return {"log_density_ratio", [a = std::move(a), b = std::move(b), dim](const Var& x) {
            const Var y = flat(x, static_cast<std::size_t>(dim), "log-density ratio");
            return sub(log_density(a, dim, y), log_density(b, dim, y));
          }};
}

Reward classifier_reward(nn::Classifier classifier, std::vector<std::int32_t> targets) {
  const std::int64_t classes = classifier.output.weight.extent(0);
  require(!targets.empty(), "classifier reward: no target class");
  for (const std::int32_t t : targets)
    require(t >= 0 && t < classes, "classifier reward: target ", t, " is outside 0 to ", classes - 1);
  return {"classifier", [classifier = std::move(classifier), targets = std::move(targets)](const Var& x) {
            const Var logits = classifier(x);
            const std::int64_t rows = x.extent(0);
            if (targets.size() == 1)
              return nn::log_likelihood(logits, Tensor::full({rows}, targets[0], DType::i32, x.device()));
            std::vector<double> mask(static_cast<std::size_t>(logits.extent(1)));
            for (const std::int32_t t : targets) mask[t] = 1;
            return log(sum(mul(softmax(logits), constant(mask, {1, logits.extent(1)}, logits)), 1));
          }};
}

Reward callback_reward(std::string name, RewardCallback callback) {
  require(static_cast<bool>(callback), "reward '", name, "': the callback is empty");
  return {name, [name, callback = std::move(callback)](const Var& x) {
            const auto gradient = std::make_shared<Tensor>();
            const CustomRule rule{
                name,
                [&callback, gradient](std::span<const Tensor> in) {
                  const std::int64_t rows = in[0].extent(0);
                  Tensor value = Tensor::zeros({rows}, DType::f32, in[0].device());
                  *gradient = Tensor::zeros(in[0].shape(), DType::f32, in[0].device());
                  if (!value.is_meta())
                    callback(in[0].to(DType::f32).values<float>(), rows, value.mutate<float>(), gradient->mutate<float>());
                  return value.to(in[0].dtype());
                },
                [gradient](const Tensor& cotangent, std::span<const Tensor> in, const Tensor&) {
                  const std::int64_t rows = in[0].extent(0);
                  const Var g = reshape(Var(gradient->to(in[0].dtype())), {rows, -1});
                  return std::vector<Tensor>{
                      mul(g, Var(cotangent.reshape({rows, 1}))).value().reshape(in[0].shape())};
                }};
            return custom(rule, {&x, 1});
          }};
}

}  // namespace costate::finetune
