#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/tensor/error.h>

#include <Eigen/Dense>
#include <unsupported/Eigen/MatrixFunctions>

namespace costate::finetune {

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Eigen::MatrixXd square(const char* what, int dim, std::span<const double> a) {
  require(dim >= 1 && a.size() == static_cast<std::size_t>(dim) * static_cast<std::size_t>(dim), what,
          ": a matrix of size ", dim, " x ", dim, " was expected, but ", a.size(), " numbers were given");
  const Eigen::MatrixXd m = Eigen::Map<const Matrix>(a.data(), dim, dim);
  require(m.allFinite(), what, ": the matrix has an entry that is not finite");
  return m;
}

// Slope of the mean of step k in x for the exact model.
double step_slope(const sde::Chain& chain, std::size_t k, const GaussianLinear& problem) {
  const auto model = sde::gaussian_prediction(chain.prediction, chain.schedule.at(chain.t[k]), problem.mean,
                                              problem.variance);
  return chain.A[k] + chain.C[k] * model.slope;
}

}  // namespace

std::vector<double> matrix_exponential(int dim, std::span<const double> A) {
  const Matrix e = square("matrix_exponential", dim, A).exp();
  return {e.data(), e.data() + e.size()};
}

std::vector<double> linear_lean_adjoint(int dim, std::span<const double> A, double remaining,
                                        std::span<const double> terminal) {
  const Eigen::MatrixXd scaled = square("linear_lean_adjoint", dim, A).transpose() * remaining;
  require(terminal.size() == static_cast<std::size_t>(dim), "linear_lean_adjoint: the terminal gradient has ",
          terminal.size(), " entries in dimension ", dim);
  const Eigen::VectorXd a = scaled.exp() * Eigen::Map<const Eigen::VectorXd>(terminal.data(), dim);
  return {a.data(), a.data() + dim};
}

double GaussianLinear::lean_adjoint(const sde::Schedule& schedule, double t) const {
  const sde::PathPoint p = schedule.at(t);
  return -c * p.alpha * variance / (p.alpha * p.alpha * variance + p.beta * p.beta);
}

// -c E[x_1|x] - c^2 Var(x_1|x)/2.
double GaussianLinear::value(const sde::Schedule& schedule, double x, double t) const {
  const sde::PathPoint p = schedule.at(t);
  const double total = p.alpha * p.alpha * variance + p.beta * p.beta;
  const auto x1 = sde::gaussian_prediction(sde::Parametrisation::x1, p, mean, variance);
  return -c * (x1.slope * x + x1.intercept) - c * c * variance * p.beta * p.beta / total / 2;
}

double GaussianLinear::velocity(const sde::Schedule& schedule, double x, double t) const {
  const auto v = sde::gaussian_prediction(sde::Parametrisation::velocity, schedule.at(t), mean, variance);
  return v.slope * x + v.intercept;
}

double GaussianLinear::optimal_velocity(const sde::Schedule& schedule, double x, double t) const {
  return GaussianLinear{mean + c * variance, variance, 0}.velocity(schedule, x, t);
}

std::vector<double> chain_lean_adjoint(const sde::Chain& chain, const GaussianLinear& problem) {
  sde::require_one_step(chain, "chain_lean_adjoint");
  std::vector<double> a(chain.A.size() + 1);
  a.back() = -problem.c;
  for (std::size_t k = chain.A.size(); k-- > 0;) a[k] = step_slope(chain, k, problem) * a[k + 1];
  return a;
}

LinearFixedPoint linear_fixed_point(const sde::Chain& chain, const GaussianLinear& problem, bool pair_next) {
  require(chain.prediction == sde::Parametrisation::velocity, "linear_fixed_point: the chain predicts ",
          sde::name(chain.prediction), ", but the conversion to an ODE needs the velocity");
  const std::vector<double> a = chain_lean_adjoint(chain, problem);
  const sde::GaussianLaw law = sde::gaussian_law(chain, problem.mean, problem.variance);
  double shift = 0, ode_mean = 0, cost = 0;
  for (std::size_t k = 0; k < chain.A.size(); ++k) {
    const double mean_shift = -chain.std[k] * chain.std[k] * a[pair_next ? k + 1 : k];
    const double h = chain.t[k + 1] - chain.t[k];
    shift = step_slope(chain, k, problem) * shift + mean_shift;
    ode_mean += h * (problem.velocity(chain.schedule, ode_mean, chain.t[k]) + mean_shift / chain.C[k]);
    if (chain.std[k] > 0) cost += mean_shift * mean_shift / (2 * chain.std[k] * chain.std[k]);
  }
  return {law.mean + shift, law.variance, ode_mean, cost};
}

}  // namespace costate::finetune
