// Linear-Gaussian problems, whose lean adjoints are deterministic: the first tests of signs, scales and
// transposes.
//   dX = A X dt + sigma dB, terminal cost g:            a(t) = e^{A^T (T - t)} grad g        (A need not be
//   symmetric) data N(mean, variance), reward r = c x, memoryless: a(t) = grad V = -c alpha variance/(alpha^2
//   variance + beta^2)
// Reference: arXiv 2409.08861, eqs. 38-39 (lean adjoint); arXiv 2312.02027, Section 5 (linear
// Ornstein-Uhlenbeck).
#pragma once
#include <costate/sde/chain.h>
#include <costate/sde/schedule.h>

#include <span>
#include <vector>

namespace costate::finetune {

// e^A, both (dim, dim) row-major.
std::vector<double> matrix_exponential(int dim, std::span<const double> A);

// e^{A^T remaining} terminal, the exact lean adjoint `remaining` time before the end. A (dim, dim), terminal
// (dim).
std::vector<double> linear_lean_adjoint(int dim, std::span<const double> A, double remaining,
                                        std::span<const double> terminal);

// One-dimensional data N(mean, variance) with reward r(x) = c x, so that p* = N(mean + c variance, variance).
// Each coordinate of an isotropic Gaussian is one such problem.
struct GaussianLinear {
  double mean = 0, variance = 1, c = 1;

  double lean_adjoint(const sde::Schedule& schedule, double t) const;  // = dV/dx, whatever x
  double value(const sde::Schedule& schedule, double x, double t) const;
  double velocity(const sde::Schedule& schedule, double x, double t) const;
  double optimal_velocity(const sde::Schedule& schedule, double x, double t) const;
  double optimal_cost() const { return c * c * variance / 2; }  // KL(p* || p)
};

// The lean adjoint on a chain's own grid: a_K = -c, a_k = (A_k + C_k d prediction/dx) a_{k+1}; (K+1) numbers.
std::vector<double> chain_lean_adjoint(const sde::Chain& chain, const GaussianLinear& problem);

// Where adjoint matching on this chain settles, without sampling: the control of step k is -std_k times
// a_{k+1} (pairing "next", the stationary point of the discrete control problem) or a_k (pairing "same").
struct LinearFixedPoint {
  double sde_mean, sde_variance;  // law of X_K on the chain
  double ode_mean;                // after converting the tuned velocity to Euler steps of dX = v dt
  double cost;                    // E sum |control|^2/2
};
// Throws Error(argument) unless the chain's prediction is the velocity.
LinearFixedPoint linear_fixed_point(const sde::Chain& chain, const GaussianLinear& problem,
                                    bool pair_next = true);

}  // namespace costate::finetune
