#include <costate/autograd/ops.h>
#include <costate/finetune/problem/control_benchmark.h>
#include <costate/finetune/problem/scalar_control.h>
#include <costate/sde/words.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

namespace costate::finetune {
namespace {

using Options = ControlBenchmarkOptions;

Var constant(const std::vector<double>& v, const Shape& shape, const Var& like) {
  return Var(Tensor::from(v, shape, like.device()).to(like.dtype()));
}

void check_rows(const std::string& name, const Shape& shape, int dim) {
  require(shape.rank() == 2 && shape[1] == dim && shape[0] > 0, "control benchmark ", name, ": the state has shape ", shape,
          ", expected (rows, ", dim, ")");
}

// y_{k+1} = y_k + h drift + sqrt(h) e_k on [0, 1].
sde::Chain chain_of(const std::string& name, int steps) {
  require(steps >= 1, "control benchmark ", name, ": ", steps, " steps, expected at least 1");
  const double h = 1.0 / steps;
  const std::size_t K = static_cast<std::size_t>(steps);
  sde::Chain chain;
  chain.noise = {sde::NoiseLaw::Kind::constant, 1};
  chain.step = sde::Step::euler_maruyama;
  chain.t = sde::uniform_grid(steps);
  chain.A.assign(K, 1), chain.C.assign(K, h), chain.std.assign(K, std::sqrt(h));
  chain.description = sentence({"Euler-Maruyama step of the control problem ", name, ", ", steps, " steps"});
  return chain;
}

// u*(t, row, out) as a function of tensors.
template <class Control>
std::function<Tensor(double, const Tensor&)> rows_of_control(const std::string& name, int dim, Control control) {
  return [name, dim, control = std::move(control)](double t, const Tensor& x) {
    check_rows(name, x.shape(), dim);
    if (x.is_meta()) return Tensor::empty_like(x);
    const Tensor on_host = x.to(Device::cpu);
    Tensor out = Tensor::empty_like(on_host);
    if (x.dtype() == DType::f32)
      control(t, x.extent(0), on_host.values<float>().data(), out.mutate<float>().data());
    else
      control(t, x.extent(0), on_host.values<double>().data(), out.mutate<double>().data());
    return out.to(x.device());
  };
}

bool is_zero(const std::vector<double>& v) {
  return std::all_of(v.begin(), v.end(), [](double x) { return x == 0; });
}

std::vector<double> scaled_identity(int dim, double scale) {
  const auto d = static_cast<std::size_t>(dim);
  std::vector<double> m(d * d, 0.0);
  for (std::size_t i = 0; i < d; ++i) m[i * d + i] = scale;
  return m;
}

enum Draw : std::uint32_t { start_draw = 0, matrix_draw = 1 };  // the steps of Philox that the drawn parts take

ControlBenchmark quadratic_ou(std::string name, double A, double P, double Q, const Options& o) {
  const int d = 20;
  const Philox draw{o.seed, Stream::data};
  std::vector<double> x0;
  for (int i = 0; i < d; ++i) x0.push_back(0.5 * draw.normal(0, start_draw, static_cast<std::uint32_t>(i)));
  return quadratic_benchmark(std::move(name),
                             {d, scaled_identity(d, A), scaled_identity(d, 1), scaled_identity(d, P), scaled_identity(d, Q)},
                             x0, o.steps > 0 ? o.steps : 50);
}

ControlBenchmark quadratic_ou_easy(const Options& o) {
  ControlBenchmark b = quadratic_ou("quadratic_ou_easy", 0.2, 0.2, 0.1, o);
  b.published = {50, 128, 60000};
  return b;
}

// Published without a warm start at 50 steps, and with one, of a spline fitted first, at 150.
ControlBenchmark quadratic_ou_hard(const Options& o) {
  ControlBenchmark b = quadratic_ou("quadratic_ou_hard", 1, 1, 0.5, o);
  b.published = {50, 128, 80000};
  return b;
}

ControlBenchmark linear_ou(const Options& o) {
  const int d = 10;
  const Philox draw{o.seed, Stream::data};
  std::vector<double> A = scaled_identity(d, -1), sigma = scaled_identity(d, 1);
  for (std::uint32_t i = 0; i < A.size(); ++i) {
    const double xi = 0.1 * draw.normal(0, matrix_draw, i);  // the same in both
    A[i] += xi, sigma[i] += xi;
  }
  const std::vector<double> zero = scaled_identity(d, 0);
  ControlBenchmark b = quadratic_benchmark("linear_ou", {d, A, sigma, zero, zero, std::vector<double>(d, 1.0)},
                                           std::vector<double>(d, 0.0), o.steps > 0 ? o.steps : 100);
  b.published = {100, 64, 60000};
  return b;
}

// -4 kappa x (x^2 - 1) in every coordinate.
sde::Field well_drift(std::string name, std::vector<double> kappa) {
  for (double& k : kappa) k *= -4;
  return [name = std::move(name), kappa = std::move(kappa)](const Var& x, const Var&, const Tensor&) {
    check_rows(name, x.shape(), static_cast<int>(kappa.size()));
    return mul(mul(x, square(x) - 1.0), constant(kappa, {1, x.extent(1)}, x));
  };
}

// The solution at the times of a chain, by at least 800 implicit steps, which its accuracy needs (scalar_control_test.cpp).
std::shared_ptr<const ScalarControl> solved_at_steps(const ScalarControlProblem& problem, int steps) {
  const int levels = steps * ((steps + 199) / steps);
  return std::make_shared<const ScalarControl>(problem, levels, (levels + 799) / levels);
}

ControlBenchmark double_well_problem(const Options& o) {
  const std::vector<double> kappa = {5, 5, 5, 1, 1, 1, 1, 1, 1, 1}, nu = {3, 3, 3, 1, 1, 1, 1, 1, 1, 1};
  ControlBenchmark b;
  b.name = "double_well", b.dim = 10;
  const int steps = o.steps > 0 ? o.steps : 200;
  b.chain = chain_of(b.name, steps);
  b.base = well_drift(b.name, kappa);
  b.reward = {"double_well", [name = b.name, nu](const Var& x) {
                check_rows(name, x.shape(), static_cast<int>(nu.size()));
                return neg(sum(mul(square(square(x) - 1.0), constant(nu, {1, x.extent(1)}, x)), 1));
              }};
  b.x0.assign(10, 0.0);
  const auto narrow = solved_at_steps(double_well(5, 3), steps), wide = solved_at_steps(double_well(1, 1), steps);
  b.optimal_control = rows_of_control(b.name, b.dim, [narrow, wide](double t, std::int64_t rows, const auto* x, auto* out) {
    using T = std::remove_reference_t<decltype(*out)>;
    for (std::int64_t i = 0; i < rows * 10; ++i)
      out[i] = static_cast<T>((i % 10 < 3 ? narrow : wide)->control(static_cast<double>(x[i]), t));
  });
  b.optimal_cost = 3 * narrow->value(0, 0) + 7 * wide->value(0, 0);
  if (steps >= 100)  // longer Euler steps leap across the walls of the steep wells
    b.chain_optimal_cost = 3 * finetune::chain_optimal_cost(double_well(5, 3), 0, steps) +
                           7 * finetune::chain_optimal_cost(double_well(1, 1), 0, steps);
  b.published = {200, 128, 80000};
  return b;
}

ControlBenchmark molecular_dynamics(const Options& o) {
  ControlBenchmark b;
  b.name = "molecular_dynamics", b.dim = 1;
  const int steps = o.steps > 0 ? o.steps : 150;
  b.chain = chain_of(b.name, steps);
  b.base = well_drift(b.name, {1});
  const double h = b.step();
  b.state_cost = [name = b.name, h](int, const Var& x) {
    check_rows(name, x.shape(), 1);
    return sum(affine(x, 0, h), 1);
  };
  b.reward = {"molecular_dynamics", [name = b.name](const Var& x) {
                check_rows(name, x.shape(), 1);
                return sum(affine(x, 0, 0), 1);
              }};
  b.x0 = {-1};
  b.running = [name = b.name](const Tensor& x) {
    check_rows(name, x.shape(), 1);
    if (x.is_meta()) return Tensor::empty({x.extent(0)}, x.dtype(), x.device());
    const Tensor at = x.to(Device::cpu);
    Tensor on = Tensor::empty({x.extent(0)}, x.dtype());
    const auto fill = [&](auto from, auto to) {
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[i] < 0 ? 1 : 0;
    };
    if (x.dtype() == DType::f32)
      fill(at.values<float>(), on.mutate<float>());
    else
      fill(at.values<double>(), on.mutate<double>());
    return on.to(x.device());
  };
  b.pathwise = false;
  const auto solved = solved_at_steps(well_exit(1), steps);
  b.optimal_control = rows_of_control(b.name, 1, [solved](double t, std::int64_t rows, const auto* x, auto* out) {
    using T = std::remove_reference_t<decltype(*out)>;
    for (std::int64_t i = 0; i < rows; ++i) out[i] = static_cast<T>(solved->control(static_cast<double>(x[i]), t));
  });
  b.optimal_cost = solved->value(-1, 0);
  if (steps >= 30)  // longer Euler steps leap across the well's wall
    b.chain_optimal_cost = finetune::chain_optimal_cost(well_exit(1), -1, steps);
  b.published = {150, 64, 30000};
  return b;
}

constexpr std::array<std::string_view, 5> kNames = {"quadratic_ou_easy", "quadratic_ou_hard", "linear_ou", "double_well",
                                                    "molecular_dynamics"};
constexpr std::array<ControlBenchmark (*)(const Options&), 5> kFactories = {quadratic_ou_easy, quadratic_ou_hard, linear_ou,
                                                                            double_well_problem, molecular_dynamics};

}  // namespace

std::span<const std::string_view> control_benchmark_names() { return kNames; }

ControlBenchmark control_benchmark(std::string_view name, const ControlBenchmarkOptions& options) {
  const std::size_t i = sde::word_index(name, kNames, "a control benchmark");
  require(options.steps >= 0, "control benchmark ", name, ": ", options.steps,
          " steps, expected at least 1, or 0 for as published");
  return kFactories[i](options);
}

ControlBenchmark quadratic_benchmark(std::string name, const QuadraticControlProblem& problem, std::span<const double> x0,
                                     int steps) {
  const QuadraticControlProblem p = isotropic(problem);
  require(problem.horizon == 1, "quadratic_benchmark: the horizon is ", problem.horizon, ", but chains run from t = 0 to 1");
  require(x0.size() == static_cast<std::size_t>(p.dim), "quadratic_benchmark: x0 has ", x0.size(), " entries in dimension ",
          p.dim);
  ControlBenchmark b;
  b.name = std::move(name), b.dim = p.dim;
  b.chain = chain_of(b.name, steps);
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::VectorXd y0 = Eigen::Map<const Matrix>(problem.sigma.data(), p.dim, p.dim)
                                 .fullPivLu()
                                 .solve(Eigen::Map<const Eigen::VectorXd>(x0.data(), p.dim));
  b.x0.assign(y0.data(), y0.data() + y0.size());
  const auto shared = std::make_shared<const QuadraticControl>(p);
  b.base = [name = b.name, A = p.A, dim = p.dim](const Var& x, const Var&, const Tensor&) {
    check_rows(name, x.shape(), dim);
    return linear(x, constant(A, {dim, dim}, x), Var());
  };
  const double h = b.step();
  if (!is_zero(p.P))
    b.state_cost = [name = b.name, P = p.P, dim = p.dim, h](int, const Var& x) {
      check_rows(name, x.shape(), dim);
      return affine(sum(mul(x, matmul(x, constant(P, {dim, dim}, x))), 1), h, 0.0);
    };
  std::vector<double> twice_Q = p.Q, minus_w = p.w;
  for (double& v : twice_Q) v *= 2;
  for (double& v : minus_w) v = -v;
  b.reward = is_zero(p.Q) ? linear_reward(minus_w)
                          : quadratic_reward(std::vector<double>(static_cast<std::size_t>(p.dim), 0.0), twice_Q, minus_w);
  b.optimal_control = rows_of_control(b.name, b.dim, [shared](double t, std::int64_t rows, const auto* x, auto* out) {
    shared->control(t, rows, x, out);
  });
  b.optimal_cost = shared->value(b.x0, 0);
  b.chain_optimal_cost = finetune::chain_optimal_cost(p, b.x0, steps);
  b.published = {steps, 0, 0};
  return b;
}

sde::Field optimal_field(const ControlBenchmark& benchmark) {
  return [base = benchmark.base, control = benchmark.optimal_control](const Var& x, const Var& t, const Tensor& labels) {
    require(!x.tracked() && !t.tracked(), "optimal_field: the optimal control is known by its values; it has no derivatives");
    require(t.rank() == 1 && t.numel() == x.extent(0), "optimal_field: t has shape ", t.shape(), " for ", x.extent(0), " rows");
    double time = 0;
    if (!t.value().is_meta()) {
      const std::vector<double> times = t.value().to_doubles();
      time = times.front();
      require(std::all_of(times.begin(), times.end(), [&](double s) { return s == time; }),
              "optimal_field: the rows have different times; they share one in a rollout");
    }
    return add(base(x, t, labels), Var(control(time, x.value())));
  };
}

}  // namespace costate::finetune
