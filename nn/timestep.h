// Time as the networks of the diffusion literature count it. Our t runs from noise, 0, to data, 1; those
// networks take a "timestep", usually 0..999 from data to noise, and turn it into sinusoids (Vaswani et al.
// 2017; Ho, Jain, Abbeel 2020).
#pragma once
#include <costate/nn/linear.h>

namespace costate::nn {

// timestep = scale t + offset. A network of our own counts 1000 t. One that was trained on the timesteps of a
// DDPM schedule of T steps sees t as T - 1 - (T - 1) t with {-(T - 1), T - 1}, and one that follows sigma = 1
// - t times 1000, as rectified-flow models in diffusers do, {-1000, 1000}.
struct TimestepMap {
  double scale = 1000.0, offset = 0.0;
  Var operator()(const Var& t) const { return affine(t, scale, offset); }
};

// Sinusoids of timesteps (rows,): angles a_k = timestep exp(-ln(10000) k / (half - frequency_shift)), k =
// 0..half-1, half = width/2, as [sin a, cos a], or [cos a, sin a] if `cosine_first`, and a zero behind them
// when the width is odd. -> (rows, width). Differentiable.
Var timestep_features(const Var& timestep, std::int64_t width, bool cosine_first, double frequency_shift);

// Timesteps that number the rows of a table of `n` rows, rounded to the nearest: (rows,) of i32. Throws when
// one is outside 0..n-1; `where` begins the sentence.
Tensor timestep_index(const Tensor& timestep, std::int64_t n, std::string_view where);

}  // namespace costate::nn
