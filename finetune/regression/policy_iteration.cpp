#include <costate/finetune/regression/policy_iteration.h>

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

Matrix matrix(const std::vector<double>& v, int dim) { return Eigen::Map<const Matrix>(v.data(), dim, dim); }
Vector vector(const std::vector<double>& v) { return Eigen::Map<const Vector>(v.data(), static_cast<Eigen::Index>(v.size())); }
template <class E>
std::vector<double> numbers(const E& e) {
  return {e.data(), e.data() + e.size()};
}

void check(const AffineMap& map, int dim, const char* what) {
  const auto d = static_cast<std::size_t>(dim);
  require(map.M.size() == d * d && map.m.size() == d, "iterate_policy: ", what, " has ", map.M.size(), " and ", map.m.size(),
          " numbers; expected ", d * d, " and ", d);
}

[[noreturn]] void no_optimum(int k, double kappa) {
  fail(Fault::numerical, {"iterate_policy: at step ", k, " std^2/b times the curvature of the value is ", kappa,
                          "; from 1 on the step has no optimum"});
}
[[noreturn]] void no_convergence(int k, double kappa, int iterations) {
  fail(Fault::numerical, {"iterate_policy: step ", k, " has not converged in ", iterations, " iterations; kappa reaches ",
                          kappa, ", and below -1 the iteration needs damping"});
}

double kl_weight(const PolicyIterationOptions& o, std::size_t k, std::size_t steps) {
  require(o.kl_weights.size() <= 1 || o.kl_weights.size() == steps, "iterate_policy: found ", o.kl_weights.size(),
          " kl_weights; expected none, one, or one a step, ", steps);
  const double b = o.kl_weights.empty() ? 1.0 : o.kl_weights[o.kl_weights.size() == 1 ? 0 : k];
  require(b > 0, "iterate_policy: found ", b, " among kl_weights; expected numbers above 0");
  return b;
}

}  // namespace

AffineChain affine_chain(const sde::Chain& chain, std::span<const double> mean, std::span<const double> variance) {
  sde::require_one_step(chain, "affine_chain");
  require(!mean.empty() && mean.size() == variance.size(), "affine_chain: found ", mean.size(), " means and ", variance.size(),
          " variances; expected as many, at least one");
  const std::size_t dim = mean.size();
  AffineChain out{static_cast<int>(dim), {}, chain.std};
  for (int k = 0; k < chain.steps(); ++k) {
    AffineMap map{std::vector<double>(dim * dim), std::vector<double>(dim)};
    for (std::size_t i = 0; i < dim; ++i) {
      const sde::AffineModel model =
          sde::gaussian_prediction(chain.prediction, chain.schedule.at(chain.t[k]), mean[i], variance[i]);
      map.M[i * dim + i] = chain.A[k] + chain.C[k] * model.slope;
      map.m[i] = chain.C[k] * model.intercept;
    }
    out.mean.push_back(std::move(map));
  }
  return out;
}

AffinePolicy iterate_policy(const AffineChain& chain, const Quadratic& terminal, const PolicyIterationOptions& o,
                            std::span<const Quadratic> costs) {
  const int dim = chain.dim;
  const std::size_t steps = chain.mean.size();
  require(chain.std.size() == steps && (costs.empty() || costs.size() == steps), "iterate_policy: ", steps, " means, ",
          chain.std.size(), " standard deviations and ", costs.size(), " costs do not belong together");
  check({terminal.Q, terminal.b}, dim, "the terminal value");
  AffinePolicy out{std::vector<Quadratic>(steps + 1), std::vector<AffineMap>(steps), std::vector<double>(steps),
                   std::vector<AffinePolicy::Extremes>(steps)};
  out.value[steps] = terminal;
  Matrix Q = matrix(terminal.Q, dim);
  Vector b = vector(terminal.b);
  double c = terminal.c;
  for (std::size_t k = steps; k-- > 0;) {
    check(chain.mean[k], dim, "a mean");
    const Matrix J = matrix(chain.mean[k].M, dim);
    const Vector h = vector(chain.mean[k].m);
    const double std = chain.std[k], weight = kl_weight(o, k, steps), s = std * std / weight;
    Matrix G = Matrix::Zero(dim, dim);
    Vector g = Vector::Zero(dim);
    if (std > 0) {
      const Eigen::SelfAdjointEigenSolver<Matrix> spectrum(Q, Eigen::EigenvaluesOnly);
      out.kappa[k] = {s * spectrum.eigenvalues().minCoeff(), s * spectrum.eigenvalues().maxCoeff()};
      if (out.kappa[k].highest >= 1) no_optimum(static_cast<int>(k), out.kappa[k].highest);
      const double w = o.damping && out.kappa[k].lowest < 0 ? 1 / (1 - out.kappa[k].lowest) : 1.0;
      double before = 0;
      bool stands = false;
      for (int i = 0; i < o.iterations && !stands; ++i) {
        const Matrix dG = w * (s * (Q * J + Q * G) - G);
        const Vector dg = w * (s * (Q * (h + g) + b) - g);
        G += dG, g += dg;
        const double change = std::sqrt(dG.squaredNorm() + dg.squaredNorm()),
                     size = 1 + std::sqrt(G.squaredNorm() + g.squaredNorm());
        if (o.visit) o.visit(static_cast<int>(k), i, change);
        if (before > 0 && change > 1e-10 * size) out.contraction[k] = change / before;
        before = change;
        stands = change <= o.tolerance * size;
        if (!std::isfinite(change)) break;
      }
      if (!stands) no_convergence(static_cast<int>(k), out.kappa[k].lowest, o.iterations);
    }
    // The value of the policy.
    const Matrix M = J + G;
    const Vector m = h + g;
    const double price = std > 0 ? 1 / s : 0.0;
    c += 0.5 * m.dot(Q * m) + b.dot(m) + 0.5 * std * std * Q.trace() - 0.5 * price * g.squaredNorm();
    b = (M.transpose() * (Q * m + b) - price * (G.transpose() * g)).eval();
    Q = (M.transpose() * Q * M - price * (G.transpose() * G)).eval();
    if (!costs.empty()) {
      check({costs[k].Q, costs[k].b}, dim, "a cost");
      Q -= matrix(costs[k].Q, dim), b -= vector(costs[k].b), c -= costs[k].c;
    }
    Q = (0.5 * (Q + Q.transpose())).eval();
    out.shift[k] = {numbers(G), numbers(g)};
    out.value[k] = {numbers(Q), numbers(b), c};
  }
  return out;
}

PolicyLaw law_of(const AffineChain& chain, std::span<const AffineMap> shift) {
  require(shift.size() == chain.mean.size(), "law_of: ", shift.size(), " shifts for ", chain.mean.size(), " steps");
  const int dim = chain.dim;
  Vector mean = Vector::Zero(dim);
  Matrix covariance = Matrix::Identity(dim, dim);
  double kl = 0;
  for (std::size_t k = 0; k < shift.size(); ++k) {
    const Matrix G = matrix(shift[k].M, dim), M = matrix(chain.mean[k].M, dim) + G;
    const Vector g = vector(shift[k].m), m = vector(chain.mean[k].m) + g;
    const double variance = chain.std[k] * chain.std[k];
    if (variance > 0) kl += ((G * mean + g).squaredNorm() + (G * covariance * G.transpose()).trace()) / (2 * variance);
    mean = (M * mean + m).eval();
    covariance = (M * covariance * M.transpose() + variance * Matrix::Identity(dim, dim)).eval();
  }
  return {numbers(mean), numbers(covariance), kl};
}

}  // namespace costate::finetune
