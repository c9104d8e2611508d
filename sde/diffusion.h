// Discrete diffusion models (DDPM: Ho, Jain, Abbeel, arXiv 2006.11239; DDIM: Song, Meng, Ermon, arXiv
// 2010.02502) on our paths: the schedules and samplers of their checkpoints.
//
// A model with timesteps 0..T-1, of data to noise, and betas b_i has alpha bar_i = prod_{j <= i} (1 - b_j)
// and
//   x_i = sqrt(alpha bar_i) x_1 + sqrt(1 - alpha bar_i) x_0.
// Our time of timestep i (time_of_timestep, grid.h) is t = 1 - (i + 1)/T: 0 at the noisiest timestep T - 1;
// t = 1, "timestep -1", is data itself. So a network that wants timesteps is asked at T (1 - t) - 1, and the K uniform steps of
// uniform_grid(K) visit the timesteps that diffusers calls "trailing" (T/K - 1 apart from the end of each of
// K equal pieces). Its prediction_type is our Parametrisation: epsilon, sample = x1, v_prediction.
//
// Flow-matching checkpoints of that library count sigma = 1 - t from noise (1) to data (0) on the linear
// path, are asked at 1000 sigma, and predict noise - data: minus our velocity.
#pragma once
#include <costate/sde/chain.h>

namespace costate::sde {

// The laws of beta, as checkpoints name them; computed and stored in single precision as there (torch rounds
// a linspace within one unit of the last place of ours).
enum class BetaLaw {
  linear,             // b from beta_start to beta_end
  scaled_linear,      // sqrt(b) from sqrt(beta_start) to sqrt(beta_end)
  squaredcos_cap_v2,  // b_i = min(1 - c((i+1)/T)/c(i/T), 0.999), c(u) = cos^2((u + 0.008)/1.008 pi/2)
  sigmoid,            // beta_start + (beta_end - beta_start) sigmoid(u), u from -6 to 6
};
std::string_view name(BetaLaw law);
// The law of this name; any other word is an Error(argument) with a suggestion.
BetaLaw beta_law(std::string_view name);

// T betas. Throws unless T >= 1 and 0 < beta_start <= beta_end < 1 (the last two unused by
// squaredcos_cap_v2).
std::vector<float> betas(BetaLaw law, int timesteps, double beta_start = 1e-4, double beta_end = 0.02);
// The running products of 1 - b, carried in double precision and rounded to single.
std::vector<float> alphas_cumprod(const std::vector<float>& betas);

// The vp_table path of a model.
Schedule diffusion_schedule(BetaLaw law, int timesteps, double beta_start = 1e-4, double beta_end = 0.02);
// The same of betas of one's own; each in (0, 1), and alpha bar must stay above 0.
Schedule diffusion_schedule(const std::vector<float>& betas, std::string description);

// DDIM with any eta in [0, 1] on any path: with primes for t_{k+1},
//   x' = alpha' x1 + sqrt(beta'^2 - s^2) epsilon + s e,  s = eta (beta'/beta) sqrt(beta^2 - (alpha
//   beta'/alpha')^2).
// eta = 1 is exact_memoryless, the DDPM step with variance fixed_small; eta = 0 has no noise. In the limit of
// small steps sigma^2 = eta^2 2 eta(t).
Chain ddim(const Schedule& schedule, const std::vector<double>& t, double eta,
           Parametrisation prediction = Parametrisation::velocity);

// The DDPM step with variance fixed_large, the beta of the (strided) step: s^2 = 1 - (alpha/alpha')^2, and no
// noise in the step to t = 1; the mean is that of exact_memoryless. On variance-preserving paths.
Chain ddpm_fixed_large(const Schedule& schedule, const std::vector<double>& t,
                       Parametrisation prediction = Parametrisation::velocity);

// The DDPM step with one of its variances: fixed_small is exact_memoryless (the variance of the posterior), and so is
// fixed_small_log, the same number computed in logarithms. A learned variance (Nichol and Dhariwal's learned_range) is no
// chain of this kind: its std depends on x through the network, while objectives compare two predictions under one std.
enum class DdpmVariance { fixed_small, fixed_small_log, fixed_large };
std::string_view name(DdpmVariance variance);
// The variance of this name. learned, learned_range and fixed_large_log are refused with the reason, any other word with a
// suggestion, by an Error(argument).
DdpmVariance ddpm_variance(std::string_view name);
Chain ddpm(const Schedule& schedule, const std::vector<double>& t, DdpmVariance variance = DdpmVariance::fixed_small,
           Parametrisation prediction = Parametrisation::velocity);

}  // namespace costate::sde
