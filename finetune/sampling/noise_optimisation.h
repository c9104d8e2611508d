// Direct noise optimisation: gradient ascent on all the noises z = (x_0, e_0, ..., e_{K-1}) that a chain turns into one sample,
//   max_z r(M(z)) - gamma R(z),
// which needs no training and reaches rewards that no law near the base has: an upper end for comparisons, and a way to see
// what a reward can be fooled into. R keeps z from becoming noise that no Gaussian would give. With the n numbers of z,
// permuted at random and cut into m vectors z_i of k numbers,
//   p_1 = 2 exp(-m |mean|^2/(2 k)),  mean = sum z_i/m,
//   p_2 = 2 exp(-m max(sqrt(1 + M) - 1 - sqrt(k/m), 0)^2/2),  M = |sum z_i z_i^T/m - I| (largest singular value)
// bound the probabilities of a mean and a covariance as far off, and R = -E[log min(p_1, 1) + log min(p_2, 1)] over
// permutations. Gradients go through the steps by pullbacks, with the K states in memory. Reference: Tang, Peng, Tang, Hong,
// Wang, Zhang: arXiv 2405.18881, Sections 3 and 4 (concentration bounds: Wainwright, High-Dimensional Statistics, 2019).
#pragma once
#include <costate/finetune/reward.h>
#include <costate/nn/optim.h>
#include <costate/sde/sampler.h>

#include <span>
#include <vector>

namespace costate::finetune {

// R and its gradient for the n numbers of one sample; `vector` is k. What does not fill a last vector of a permutation is
// left out of it. Permutations are numbers first, first + 1, ... of the seed. Throws Error(argument) unless
// 1 <= vector <= n and permutations >= 1.
struct Improbability {
  double value = 0;
  std::vector<double> gradient;  // (n)
};
Improbability improbability(std::span<const double> z, int vector, int permutations, std::uint64_t seed,
                            std::uint64_t first = 0);

struct NoiseOptimisationOptions {
  int iterations = 50;
  double gamma = 0.0;      // 0: R is neither used nor computed
  int vector = 4;          // k
  int permutations = 100;  // an iteration
  nn::AdamWOptions adamw{.lr = 1e-2};
  double clip_norm = 1.0;  // of each sample's gradient; 0: none
};

struct NoiseOptimisation {
  Tensor x;                           // (count, ...): the samples of the last noises
  std::vector<double> reward;         // (count), of them
  std::vector<double> improbability;  // (count), of their noises; empty with gamma = 0
  std::vector<double> history;        // mean reward before each iteration: history[0] is that of the chain's own samples
};

// Each of `count` samples on its own, from the noises of sde::sample with the same key; steps without noise have none to
// optimise. The reward must have a gradient. Throws Error(argument) for multistep chains and options out of range,
// Error(numerical) where rewards or gradients are not finite. `progress`, if given, is called before each iteration with its
// number and the mean reward. On the meta device the same memory is asked for.
NoiseOptimisation optimise_noise(const sde::Field& field, const sde::Chain& chain, const Shape& shape, std::int64_t count,
                                 const Reward& reward, const Tensor& labels, const sde::NoiseKey& key,
                                 const NoiseOptimisationOptions& options, DType dtype = DType::f32, Device device = Device::cpu,
                                 const std::function<void(int iteration, double reward)>& progress = nullptr);

}  // namespace costate::finetune
