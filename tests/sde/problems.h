// Equations whose solution along a given Brownian path is known, in closed form or from a much finer grid.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/sde/solve.h>

#include <Eigen/Dense>
#include <cmath>
#include <vector>

namespace costate::sde {

using Eigen::MatrixXd;

struct Problem {
  const char* name;
  Sde sde;
  double x0;
  Shape shape;     // each row or element is a path
  int refine = 1;  // cells of the path per step of the finest grid
  std::function<Tensor(const Tensor& x0, const BrownianPath&)> exact;  // X(1) of the path
};

// X(1) of dX = A X dt + S dB along the cells of a path: x' = e^{Ah} x + E[int e^{A(h-r)} S dB(r) | w, H]. On a cell B is
// projected on 1 and 1/2 - r/h, the kernels of w and H:
//   E[...] = F S w + G S H,   F = sum_k (Ah)^k/(k+1)!,   G = 12 sum_k (Ah)^k/k! k/(2 (k+1)(k+2)).
// What is left out has mean zero and size O(h^{5/2}) a cell, independent of everything here.
inline Tensor linear_solution(const MatrixXd& A, const MatrixXd& S, const Shape& noise, const Tensor& x0, const BrownianPath& path) {
  const auto tensor = [](const MatrixXd& m) {
    std::vector<double> values;
    for (Eigen::Index i = 0; i < m.rows(); ++i)
      for (Eigen::Index j = 0; j < m.cols(); ++j) values.push_back(m(i, j));
    return Var(Tensor::from(values, {m.rows(), m.cols()}));
  };
  const auto& t = path.cells();
  const Shape flat = A.rows() == 1 ? Shape{x0.numel(), 1} : x0.shape();
  Var x(x0.reshape(flat));
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const double h = t[k + 1] - t[k];
    MatrixXd E = MatrixXd::Zero(A.rows(), A.rows()), F = E, G = E, term = MatrixXd::Identity(A.rows(), A.rows());
    for (int n = 0; n < 20; ++n) {
      E += term, F += term / (n + 1), G += term * (6.0 * n / ((n + 1) * (n + 2)));
      term = term * A * h / (n + 1);
    }
    const Increment i = path.increment(t[k], t[k + 1], noise, DType::f64, Device::cpu, true);
    const auto by = [&](const Var& v, const MatrixXd& m) { return matmul(v, tensor(m), false, true); };
    const Shape rows = A.rows() == 1 ? flat : noise;
    x = by(x, E) + by(Var(i.w.reshape(rows)), F * S) + by(Var(i.area.reshape(rows)), G * S);
  }
  return x.value().reshape(x0.shape());
}

inline Problem ornstein_uhlenbeck() {
  const double a = -1, s = 0.8;
  Problem p{"Ornstein-Uhlenbeck", {}, 1.0, {2000}, 1, {}};
  p.sde.drift = [a](const Var& x, const Var&, const Tensor&) { return affine(x, a, 0); };
  p.sde.diffusion = Diffusion::of([s](double) { return s; });
  p.exact = [=](const Tensor& x0, const BrownianPath& path) {
    return linear_solution(MatrixXd::Constant(1, 1, a), MatrixXd::Constant(1, 1, s), x0.shape(), x0, path);
  };
  return p;
}

// A rotation with shear: A is not normal, and does not commute with S S^T.
inline Problem shear() {
  Problem p{"shear", {}, 1.0, {2000, 2}, 1, {}};
  MatrixXd A(2, 2), S(2, 3);
  A << -0.5, 1, -2, -1;
  S << 0.6, 0.2, 0, -0.3, 0.4, 0.5;
  const Tensor a = Tensor::from(std::vector<double>{-0.5, 1, -2, -1}, {2, 2});
  const Var s = Tensor::from(std::vector<double>{0.6, 0.2, 0, -0.3, 0.4, 0.5}, {2, 3});
  p.sde.drift = [a](const Var& x, const Var&, const Tensor&) { return matmul(x, Var(a), false, true); };
  p.sde.diffusion = Diffusion::of_matrix([s](double) { return s; }, 3);
  p.exact = [A, S](const Tensor& x0, const BrownianPath& path) {
    return linear_solution(A, S, {x0.extent(0), 3}, x0, path);
  };
  return p;
}

// dX = m X dt + s X dB in either sense.
inline Problem geometric(Calculus calculus) {
  const double m = 0.5, s = 0.6;
  Problem p{calculus == Calculus::ito ? "geometric, Ito" : "geometric, Stratonovich", {}, 1.0, {4000}, 1, {}};
  p.sde.calculus = calculus;
  p.sde.drift = [m](const Var& x, const Var&, const Tensor&) { return affine(x, m, 0); };
  p.sde.diffusion = Diffusion::of_elements([s](const Var& x, const Var&, const Tensor&) { return affine(x, s, 0); });
  p.exact = [=](const Tensor& x0, const BrownianPath& path) {
    const Var w(path.increment(0, 1, x0.shape(), DType::f64).w);
    return mul(Var(x0), exp(affine(w, s, calculus == Calculus::ito ? m - s * s / 2 : m))).value();
  };
  return p;
}

// dX = sqrt(1 + X^2) (m dt + s o dB), Stratonovich: X = sinh(asinh X_0 + m t + s B). Its noise is not linear in the state.
inline Problem hyperbolic() {
  const double m = 0.3, s = 0.6;
  Problem p{"hyperbolic", {}, 0.5, {4000}, 1, {}};
  const auto root = [](double scale) {
    return [scale](const Var& x, const Var&, const Tensor&) { return affine(sqrt(affine(square(x), 1, 1)), scale, 0); };
  };
  p.sde.calculus = Calculus::stratonovich;
  p.sde.drift = root(m);
  p.sde.diffusion = Diffusion::of_elements(root(s));
  p.exact = [=, start = p.x0](const Tensor& x0, const BrownianPath& path) {
    const Var u = exp(affine(Var(path.increment(0, 1, x0.shape(), DType::f64).w), s, std::asinh(start) + m));
    return axpby(0.5, u, -0.5, reciprocal(u)).value();
  };
  return p;
}

// dX = (X - X^3) dt + sigma dB, or with the same wells but bounded slopes, dX = (2 tanh X - X) dt + sigma dB.
inline Problem double_well(bool cubic) {
  Problem p{cubic ? "cubic double well" : "double well", {}, 0.5, {1000}, 8, {}};
  p.sde.drift = [cubic](const Var& x, const Var&, const Tensor&) {
    return cubic ? x - x * square(x) : axpby(2, tanh(x), -1, x);
  };
  p.sde.diffusion = Diffusion::of([](double) { return 0.7; });
  p.exact = [sde = p.sde](const Tensor& x0, const BrownianPath& path) {
    return solve(sde, solver("sra1"), path.cells(), x0, {}, path);
  };
  return p;
}

// The least-squares slope of log(error) against log(h), the step halving from entry to entry.
inline double slope_of(const std::vector<double>& errors) {
  double numerator = 0, denominator = 0;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    const double d = static_cast<double>(i) - (static_cast<double>(errors.size()) - 1) / 2;
    numerator -= d * std::log2(errors[i]), denominator += d * d;
  }
  return numerator / denominator;
}

}  // namespace costate::sde
