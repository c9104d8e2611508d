// Linear-quadratic control, whose optimum is a matrix Riccati equation:
//   dX = (A X + sigma u) dt + sigma dB,   min E[int_0^T (|u|^2/2 + x^T P x) dt + x_T^T Q x_T + w^T x_T].
// With D = sigma sigma^T the value is V(x, t) = x^T F x + p^T x + c and the optimal control u* = -sigma^T (2 F x + p),
//   F' = -A^T F - F A + 2 F D F - P,   p' = -A^T p + 2 F D p,   c' = -tr(D F) + p^T D p/2,   (F, p, c)(T) = (Q, w, 0).
// The moments of X under a linear control obey linear equations, so that costs are known without sampling.
// Reference: arXiv 2312.02027, Section 5 (quadratic Ornstein-Uhlenbeck); the equations are the classical ones.
#pragma once
#include <costate/sde/grid.h>

#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

// Matrices are (dim, dim), row-major. P and Q are symmetric; sigma is invertible.
struct QuadraticControlProblem {
  int dim = 1;
  std::vector<double> A, sigma, P, Q;
  std::vector<double> w{};  // (dim), or empty for zero
  double horizon = 1;       // T

  // Throws Error(argument) naming the part that has another size, is not finite, or is not as above.
  void check() const;
};

class QuadraticControl {
 public:
  // Integrates the equations once by `steps` classical Runge-Kutta steps and interpolates them by cubic Hermite
  // polynomials: both errors are O((T/steps)^4), below 1e-10 for the coefficients of order 1 of the benchmark. Throws
  // Error(numerical) where the solution leaves every bound: with indefinite P or Q the value may be infinite.
  explicit QuadraticControl(QuadraticControlProblem problem, int steps = 1024);

  const QuadraticControlProblem& problem() const { return problem_; }

  // F(t) (dim, dim), p(t) (dim) and c(t), 0 <= t <= T.
  struct Coefficients {
    std::vector<double> F, p;
    double c = 0;
  };
  Coefficients at(double t) const;

  double value(std::span<const double> x, double t) const;
  // u*(x, t): x and out (rows, dim), T is float or double, the arithmetic is in double.
  template <class T>
  void control(double t, std::int64_t rows, const T* x, T* out) const;

  // The parts of the cost from X_0 = x0, from the moments of X.
  struct Cost {
    double energy = 0;    // E int |u|^2 dt, twice its part of the cost
    double running = 0;   // E int f dt
    double terminal = 0;  // E g(X_T)
    double total() const { return energy / 2 + running + terminal; }
  };
  Cost optimal_cost(std::span<const double> x0) const;  // of u*: total() is V(x0, 0)
  Cost zero_cost(std::span<const double> x0) const;     // of u = 0

 private:
  Cost cost(std::span<const double> x0, bool controlled) const;

  QuadraticControlProblem problem_;
  int steps_;
  std::vector<double> nodes_, slopes_;  // (steps + 1, dim dim + dim + 1): (F, p, c) and their derivatives on the grid
};

// The same problem in the coordinates y = sigma^{-1} x, in which the noise is isotropic: A, P, Q and w become sigma^{-1} A
// sigma, sigma^T P sigma, sigma^T Q sigma and sigma^T w. Controls and costs are what they were.
QuadraticControlProblem isotropic(const QuadraticControlProblem& problem);

// The least cost of the Euler-Maruyama chain x_{k+1} = x_k + h (A x_k + sigma u_k) + sqrt(h) sigma e_k, h = T/steps, with the
// running costs h (|u_k|^2/2 + x_k^T P x_k), over all controls u_k(x): what learning on the chain can reach, by the Riccati
// recursion. It tends to V(x0, 0) as O(h).
double chain_optimal_cost(const QuadraticControlProblem& problem, std::span<const double> x0, int steps);

// P = Q = 0 in closed form: u*(t) = -sigma^T e^{A^T (T - t)} w wherever the state is. (dim) numbers.
std::vector<double> linear_control(const QuadraticControlProblem& problem, double t);

}  // namespace costate::finetune
