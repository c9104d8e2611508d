// Densities of paths with respect to each other. Two drifts with the same noise give one path x_0, ..., x_K the densities
// P_u ("tuned") and P ("base"); with the controls and the noises of the tuned steps
//   u_k = (tuned mean - base mean)/std_k,   x_{k+1} = tuned mean + std_k e_k,
// it is, exactly for Gaussian steps of equal std (Girsanov's theorem in the limit of small ones),
//   log dP_u/dP = sum_k [u_k . e_k + |u_k|^2/2].
// Its mean under P_u is KL(P_u || P), which is also that of sum_k |u_k|^2/2, with less variance; the mean of its
// exponential under P is 1. On a chain u_k = C_k (tuned - base)/std_k; for dX = b dt + sigma(t) dB by Euler-Maruyama steps
// u_k = sqrt(h) (b_u - b)/sigma. References: arXiv 2409.08861, eq. 18; Oksendal, Stochastic Differential Equations,
// Theorem 8.6.8.
//
// A step of a chain with std_k = 0 has no control and is left out (the last of exact_memoryless, for instance): the number
// is the ratio of the laws of the steps with noise, 0 on a chain that has none.
#pragma once
#include <costate/sde/sampler.h>

#include <cstdint>
#include <span>
#include <vector>

namespace costate::sde {

// The sums along the paths of a batch, in double precision.
class PathRatio {
 public:
  explicit PathRatio(std::int64_t rows);  // throws unless rows >= 1

  // One step of all paths: controls u_k and the noises e_k of the tuned steps, both (rows, dim) row-major; T is float or
  // double. Where sigma depends on the state or on the element, the caller divides by what it is.
  template <class T>
  void add(int dim, const T* control, const T* noise);

  std::int64_t rows() const { return static_cast<std::int64_t>(cost_.size()); }
  std::span<const double> cost() const { return cost_; }            // sum |u|^2/2, one a path
  std::span<const double> log_ratio() const { return log_ratio_; }  // sum u . e + |u|^2/2, one a path

 private:
  std::vector<double> cost_, log_ratio_;
};

struct Paths {
  Tensor terminal;                // x_K, (count, ...)
  std::vector<double> cost;       // sum_k |u_k|^2/2, one a path
  std::vector<double> log_ratio;  // log dP_u/dP, one a path
};

// `visit(k, first, x_k, tuned prediction, base prediction)`, if given, sees every step with noise of every chunk of rows
// first, first + 1, ...; it is called by several threads at once.
using PathVisitor =
    std::function<void(int k, std::int64_t first, const Tensor& x, const Tensor& tuned, const Tensor& base)>;

struct PathOptions {
  enum class Law : std::uint8_t { tuned, base } sampled = Law::tuned;  // whose paths they are
  DType dtype = DType::f32;
  Device device = Device::cpu;  // on the meta device the numbers are zeros
  PathVisitor visit{};
  Tensor start{};  // of a chain's paths: x_0 (count, ...); undefined: N(0, I)
};

// `count` paths of a chain from N(0, I), or from options.start, of samples of the given shape; labels (count,) or undefined.
// Both networks have the chain's prediction. Chunks of rows in parallel; the noises are those of sample() with the same key.
Paths sample_paths(const Field& tuned, const Field& base, const Chain& chain, const Shape& shape, std::int64_t count,
                   const Tensor& labels, const NoiseKey& key, const PathOptions& options = {});

// Euler-Maruyama paths from x0 (rows, ...), whose type and device they have, of
//   dX = b_u(X, t) dt + sigma(t) dB   and   dX = b(X, t) dt + sigma(t) dB
// on a grid of K + 1 increasing times of any range; both drifts have the shape of x. Throws unless sigma is finite and
// above 0 at every time but the last: without noise the laws of two drifts have no ratio.
Paths sample_paths(const Field& tuned, const Field& base, const std::function<double(double t)>& sigma,
                   const std::vector<double>& t, const Tensor& x0, const Tensor& labels, const NoiseKey& key,
                   const PathOptions& options = {});

}  // namespace costate::sde
