#include <costate/autograd/ops.h>
#include <costate/finetune/reward/analytic.h>
#include <costate/finetune/reward/features.h>

#include <cmath>
#include <numbers>
#include <numeric>

namespace costate::finetune {

Reward linear_reward(std::vector<double> c) {
  require(!c.empty(), "linear reward: no coefficients");
  return {"linear", [c = std::move(c)](const Var& x) {
            const Var y = features(x, c.size(), "linear");
            return sum(mul(y, constant_like(c, {1, y.extent(1)}, y)), 1);
          }};
}

Reward quadratic_reward(std::vector<double> centre, std::vector<double> q, std::vector<double> c) {
  const std::size_t dim = centre.size();
  require(dim > 0 && (q.size() == dim || q.size() == dim * dim), "quadratic reward: q has ", q.size(), " entries; expected ",
          dim, " (a diagonal) or ", dim * dim);
  require(c.empty() || c.size() == dim, "quadratic reward: c has ", c.size(), " entries; expected ", dim);
  if (q.size() == dim * dim)
    for (std::size_t i = 0; i < dim; ++i)
      for (std::size_t j = 0; j < i; ++j)
        require(q[i * dim + j] == q[j * dim + i], "quadratic reward: q is not symmetric at (", i, ", ", j, ")");
  return {"quadratic", [centre = std::move(centre), q = std::move(q), c = std::move(c), dim](const Var& x) {
            const Var y = features(x, dim, "quadratic");
            const auto n = static_cast<std::int64_t>(dim);
            const Var d = sub(y, constant_like(centre, {1, n}, y));
            const Var qd = q.size() == dim ? mul(d, constant_like(q, {1, n}, y)) : matmul(d, constant_like(q, {n, n}, y));
            Var r = affine(sum(mul(d, qd), 1), -0.5, 0.0);
            if (!c.empty()) r = add(r, sum(mul(y, constant_like(c, {1, n}, y)), 1));
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
    offset.push_back(std::log(p.weights[i] / total) -
                     0.5 * static_cast<double>(dim) * std::log(2 * std::numbers::pi * p.variances[i]));
  }
  const Var d = sub(reshape(x, {x.extent(0), 1, dim}), constant_like(p.means, {1, n, dim}, x));
  const Var terms = multiply_add(sum(square(d), 2), constant_like(inverse, {1, n}, x), constant_like(offset, {1, n}, x));
  // logsumexp(z) = z_j - log_softmax(z)_j for every j; j = 0.
  return reshape(sub(narrow(terms, 1, 0, 1), narrow(log_softmax(terms), 1, 0, 1)), {x.extent(0)});
}
void check_mixture(const IsotropicMixture& p, std::int64_t dim, const char* reward, const char* which) {
  const std::size_t n = p.weights.size();
  require(n > 0 && p.variances.size() == n && p.means.size() == n * static_cast<std::size_t>(dim), reward, ": ", which, " has ",
          n, " weights, ", p.variances.size(), " variances and ", p.means.size(), " mean entries for dimension ", dim);
  for (std::size_t i = 0; i < n; ++i)
    require(p.weights[i] > 0 && p.variances[i] > 0, reward, ": component ", i, " of ", which, " has weight ", p.weights[i],
            " and variance ", p.variances[i], "; both must be positive");
}
}  // namespace

Reward log_density_reward(IsotropicMixture p, std::int64_t dim) {
  check_mixture(p, dim, "log density", "the mixture");
  return {"log_density", [p = std::move(p), dim](const Var& x) {
            return log_density(p, dim, features(x, static_cast<std::size_t>(dim), "log-density"));
          }};
}

Reward log_density_ratio_reward(IsotropicMixture a, IsotropicMixture b, std::int64_t dim) {
  check_mixture(a, dim, "log-density ratio", "mixture a"), check_mixture(b, dim, "log-density ratio", "mixture b");
  return {"log_density_ratio", [a = std::move(a), b = std::move(b), dim](const Var& x) {
            const Var y = features(x, static_cast<std::size_t>(dim), "log-density ratio");
            return sub(log_density(a, dim, y), log_density(b, dim, y));
          }};
}

}  // namespace costate::finetune
