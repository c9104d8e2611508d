// Samples of the tilted law without training: sequential Monte Carlo on a Gaussian chain. N particles follow a proposal with
// the base's noise and another mean, q: x_{k+1} = m_k(x_k) + std_k (u_k + e_k); potentials psi_k, psi_K = lambda r, look ahead
// to the reward; and log weights account for both,
//   log w += -(u_k . e_k + |u_k|^2/2) + psi_{k+1}(x_{k+1}) - psi_k(x_k),   log w_0 = psi_0(x_0),
// so that for any proposal and any potentials the weighted particles are consistent for p_base exp(lambda r)/Z as N grows,
// and the product of the mean weights is an unbiased estimate of Z = E_base exp(lambda r) for every N. That holds for chains
// which remember x_0 as well. With u = u* and psi = the value function the weights are constant: how far they are from that
// says how far a tuned network is from the optimum. References: Wu, Trippe, Naesseth, Blei, Cunningham, arXiv 2306.17775
// (twisted diffusion sampler); Singhal et al., arXiv 2501.06848 (potentials); Kim, Kim, Park, arXiv 2501.05803 (tempering).
//
// Weights are carried on when there is no resampling, and reset to equal ones by resampling alone.
#pragma once
#include <costate/finetune/reward.h>
#include <costate/sde/sampler.h>

#include <vector>

namespace costate::finetune {

enum class SmcProposal : std::uint8_t {
  base,    // u = 0
  guided,  // u_k = std_k lambda_k grad_x r(x1hat(x_k)), with one pullback through the base network a step
  tuned,   // u_k = C_k (tuned - base)/std_k
};

struct SmcOptions {
  std::int64_t particles = 256;
  double reward_multiplier = 1.0;  // lambda
  SmcProposal proposal = SmcProposal::base;
  sde::Field tuned{};  // proposal tuned only
  // lambda_k/lambda of psi_k = lambda_k r(x1hat(x_k)), (K) numbers for k = 0..K-1; psi_K has 1. Empty: 0, then rising linearly
  // in k to 1, as the estimate of x_1 from noise says nothing. All zeros: importance sampling, resampled.
  std::vector<double> tempering{};
  // psi_k(x), (particles,), instead of the tempered reward, for k = 0..K-1: a value function, times lambda as psi_K = lambda r
  // is. It is given the whole population. Not with the guided proposal, which follows the tempered reward.
  std::function<Tensor(int k, const Tensor& x)> potential{};
  double resample_below = 0.5;  // systematic resampling when ESS < this share of the particles; 0: never, 1: (almost) always
};

struct SmcResult {
  Tensor x;                         // (particles, ...)
  std::vector<double> log_weights;  // normalised: log of shares that sum to 1
  std::vector<double> reward;       // (particles), without lambda
  double log_z = 0;                 // the logarithm of the unbiased estimate of Z
  double ess = 0;                   // of the final weights, a share of the particles
  double least_ess = 0;             // the smallest before any resampling
  int resampled = 0;                // how many times
};

// x1hat is read from the base's prediction, whose parametrisation must give it at every time of the chain but the last.
// Steps without noise follow the base. labels (particles,) or undefined. The noises of particle i are those of sample i of
// the key. Throws Error(argument) for multistep chains and options of the wrong size, Error(numerical) where weights are NaN
// or all 0. On the meta device the same memory is asked for, and numbers are zeros.
SmcResult twisted_smc(const sde::Field& base, const sde::Chain& chain, const Shape& shape, const Reward& reward,
                      const Tensor& labels, const sde::NoiseKey& key, const SmcOptions& options, DType dtype = DType::f32,
                      Device device = Device::cpu);

// Indices of `count` draws from weights by systematic resampling with the offset uniform in (0, 1): index i is drawn
// floor(count w_i) or ceil(count w_i) times, in rising order. Weights sum to 1.
std::vector<std::int64_t> systematic_resampling(std::span<const double> weights, std::int64_t count, double uniform);

}  // namespace costate::finetune
