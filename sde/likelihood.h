// Log-likelihood by change of variables along the probability-flow equation dX = v(X, t) dt, which carries the law of
// noise at t = 0 to that of the model at t = 1:
//   log p(x_1) = log N(x_0; 0, I) - int_0^1 div v(x_t, t) dt,
// where x_t solves the equation through x_1. State and divergence are integrated together by an explicit Runge-Kutta
// method; the divergence is the trace of the Jacobian (trace.h), from pullbacks of the network alone. References: Chen et
// al., arXiv 1806.07366, eq. 8; Grathwohl et al., arXiv 1810.01367 (FFJORD: traces by probes); Song et al., arXiv 2011.13456,
// Section 4.3 and eq. 39 (the probability flow of a diffusion model).
//
// The number is the density of what the equation samples when it starts from N(0, I) at the grid's first time, at the
// grid's last time. With a grid strictly inside [0, 1] that is the density of the model up to the law of x_{t_0} and of the
// noise that is left at t_K.
#pragma once
#include <costate/sde/trace.h>

#include <span>

namespace costate::sde {

// A network with what its prediction means: v = a x + b prediction with (a, b) of `conversion`. The velocity has no
// singular end. epsilon and score have no velocity where alpha = 0 (t = 0 on linear and vp_cosine), x1 none where beta = 0
// (t = 1), and on vp_linear and vp_table, where beta' is infinite at t = 1, only the velocity itself is finite there. A
// method that would evaluate the network at such a time is refused before anything is computed: take a grid that stays
// inside.
struct ProbabilityFlow {
  Field field;
  Schedule schedule;
  Parametrisation prediction = Parametrisation::velocity;
};

// Explicit Runge-Kutta methods of order 1, 2, 4 with 1, 2, 4 evaluations a step. Towards noise, `euler` evaluates at the
// later time of a step, towards data at the earlier one.
enum class FlowMethod : std::uint8_t { euler, heun, rk4 };
std::string_view name(FlowMethod method);

struct LikelihoodOptions {
  std::vector<double> t = uniform_grid(50);  // (K+1): strictly increasing in [0, 1]
  FlowMethod method = FlowMethod::rk4;
  TraceOptions trace{};
  // Probes that stay the same along a trajectory keep the integrand smooth in time, so that the method keeps its order;
  // their errors add up over time, those of fresh ones (for every evaluation) average out. Both are unbiased up to the
  // error of the method, since no state depends on them.
  bool fresh_probes = false;
  NoiseKey key{};  // of the probes
};

struct Likelihood {
  Tensor x;                            // the other end: x_0 of log_likelihood, x_1 of sample_with_likelihood
  std::vector<double> log_likelihood;  // (rows), in nats: log p of the end at the grid's last time
  std::int64_t evaluations = 0;        // of the network, for each row
  std::int64_t pullbacks = 0;          // through it, for each row
};

// log p of the rows of x_1 (rows, ...), f32 or f64; labels (rows,) or undefined. The divergence is added in double
// precision whatever the type. Chunks of rows in parallel; results do not depend on threads. A row that leaves the range of
// its type has NaN or an infinity.
Likelihood log_likelihood(const ProbabilityFlow& flow, const Tensor& x1, const Tensor& labels = {},
                          const LikelihoodOptions& options = {});
// The same from x_0 to x_1: samples with their log-likelihoods.
Likelihood sample_with_likelihood(const ProbabilityFlow& flow, const Tensor& x0, const Tensor& labels = {},
                                  const LikelihoodOptions& options = {});

// -log2 of the probability that a density gives to a cell of side `bin`, per dimension: -log p/(d log 2) - log2 bin. For
// 8-bit images scaled to [-1, 1], bin = 2/256 (dequantised by uniform noise it is an upper bound for the discrete model:
// Theis, van den Oord, Bethge, arXiv 1511.01844, Section 3.1).
double bits_per_dim(double log_likelihood, std::int64_t dim, double bin = 1);

}  // namespace costate::sde
