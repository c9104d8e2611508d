// Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364) in
// our terms. Its state is x_1 + sigma x_0; ours is alpha times that with sigma = beta/alpha, on every path: on the edm path
// x_ours = x_theirs/sqrt(1 + sigma^2).
#pragma once
#include <costate/sde/chain.h>

namespace costate::sde {

// Its network F(c_in x, c_noise) at one noise level, of which the denoiser is D(x) = c_skip x + c_out F (Table 1).
struct EdmPreconditioning {
  double c_skip;   // sigma_data^2/(sigma^2 + sigma_data^2)
  double c_out;    // sigma sigma_data/sqrt(sigma^2 + sigma_data^2)
  double c_in;     // 1/sqrt(sigma^2 + sigma_data^2)
  double c_noise;  // log(sigma)/4
};
// Throws Error(argument) unless sigma >= 0 and sigma_data > 0.
EdmPreconditioning edm_preconditioning(double sigma, double sigma_data = 0.5);

// The estimate of x_1 from (our x_t, F): (c_skip/alpha) x + c_out F, to be composed with a conversion from x1. The network
// is given c_in/alpha times our x_t. For sigma_data = 1 on a variance-preserving path c_in/alpha = 1 and F is minus our
// v_prediction. Throws Error(argument) at alpha = 0.
Affine edm_x1(const PathPoint& point, double sigma_data = 0.5);

// Algorithm 2 with Euler steps. At the levels sigma_k in [S_tmin, S_tmax] noise of standard deviation S_noise
// sqrt(sigma_hat^2 - sigma_k^2) raises the level to sigma_hat = (1 + gamma) sigma_k, gamma = min(S_churn/K, sqrt(2) - 1),
// and the step goes from there to sigma_{k+1}. The network is asked after the noise, so that the chain is that of the
// raised states: t[k] is the time of sigma_hat_k, and std[k] the noise put in at level k + 1. The first level, which is
// noise already, and the last, sigma = 0, are not raised. S_churn = 0 is `exponential`, Euler's step in this variable.
// S_noise != 1 does not keep the marginals. Throws Error(argument) unless S_churn, S_tmin, S_noise >= 0 and S_tmax >=
// S_tmin, where the path has no time for a raised level (lower S_tmax), and for a grid that starts at alpha = 0.
Chain churned(const Schedule& schedule, const std::vector<double>& t, const Churn& churn,
              Parametrisation prediction = Parametrisation::velocity);

}  // namespace costate::sde
