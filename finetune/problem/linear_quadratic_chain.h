// Fine-tuning of a Gaussian chain where everything is Gaussian: data N(mean, variance) in one dimension (each coordinate of an
// isotropic problem is one), the exact prediction, a quadratic reward. With the base step x' = J x + h + s e and a mean shift
// d, maximise
//   J(d) = E[r(x_K)] - a sum_k E d_k(x_k)^2/(2 s_k^2),   a the temperature,
// over all d, with the width s of every step held fixed. V_k = Q x^2/2 + b x + c, V_K = r, obeys with kappa = s^2 Q/a (the
// primed numbers are those of step k + 1)
//   d_k = (s^2/a)(Q' (J x + h) + b')/(1 - kappa),   Q = J^2 Q'/(1 - kappa),   b = J (Q' h + b')/(1 - kappa),
//   c = c' + Q' s^2/2 + (s^2 b'^2/(2a) + Q' h^2/2 + h b')/(1 - kappa);
// where kappa >= 1 no shift is the best one: the value is infinite. Policy iteration d <- (s^2/a) E[V'(x')] contracts by
// |kappa| a step (arXiv 2412.18164, PI-FT). The optimum of the fixed widths misses the tilted law by O(1/K): there the width
// is s^2/(1 - kappa).
#pragma once
#include <costate/finetune/problem/gaussian_moments.h>
#include <costate/finetune/problem/kl_penalty.h>
#include <costate/sde/chain.h>

#include <vector>

namespace costate::finetune {

// r(x) = -curvature (x - centre)^2/2 + slope x.
struct ScalarQuadraticReward {
  double curvature = 0, centre = 0, slope = 0;
};

struct LinearQuadraticOptions {
  double temperature = 1;  // a: the shift is small where a is large
  KlPenalty penalty = KlPenalty::in_return;
  int first_step = 0;          // steps before it stay the base's: the window of arXiv 2410.08315 (HRF)
  bool initial_law = false;    // the law of x_0 is tuned as well, at the price a KL(nu || N(0, 1)) (arXiv 2402.15194)
};

class LinearQuadraticChain {
 public:
  // Throws Error(argument) naming the step and kappa where kappa_k >= 1, for a chain of several steps' memory, and for options
  // out of range.
  LinearQuadraticChain(const sde::Chain& chain, GaussianMoments data, ScalarQuadraticReward reward,
                       LinearQuadraticOptions options = {});

  struct Value {
    double Q, b, c;  // V_k(x) = Q x^2/2 + b x + c; of KlPenalty::in_loss, W_k
  };
  struct Step {
    double J, h, s;             // the base
    double kappa;               // s^2 Q_{k+1}/a; 0 in steps that are not tuned
    double gain = 0, shift = 0; // d_k(x) = gain x + shift
  };
  const std::vector<Value>& values() const { return values_; }  // (K + 1)
  const std::vector<Step>& steps() const { return steps_; }     // (K)
  double max_kappa() const;

  // What the shifts lead to, by the recursion of the moments.
  struct Outcome {
    GaussianMoments initial, terminal;
    double path_kl = 0;     // sum_k E d_k^2/(2 s_k^2)
    double initial_kl = 0;  // KL(nu || N(0, 1))
    double reward = 0;      // E r(x_K)
    double objective = 0;   // J = reward - a (path_kl + initial_kl)
  };
  const Outcome& base() const { return base_; }
  const Outcome& tuned() const { return tuned_; }

  // The tilt p e^{r/a}/Z of the chain's own base law p of x_K, not of the data's. J <= a log Z for every d.
  GaussianMoments tilt() const { return tilt_; }
  double log_z() const { return log_z_; }
  double tilt_kl() const { return tilt_kl_; }  // KL(tilt || p)

 private:
  Outcome outcome(bool tuned) const;

  ScalarQuadraticReward reward_;
  LinearQuadraticOptions options_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  Outcome base_, tuned_;
  GaussianMoments tilt_;
  double log_z_ = 0, tilt_kl_ = 0;
};

// Joint control of drift and initial law in continuous time, in closed form: dX = -X/2 dt + dB from N(0, 1) on [0, T],
// r = b x, temperature a; rho = e^{-T/2} is the correlation of X_0 and X_T. Reference: arXiv 2402.15194; here with the
// control u added to the drift and the price a E int u^2/2.
struct StationaryOrnsteinUhlenbeck {
  double b = 1, temperature = 1, horizon = 1;

  double correlation() const;
  double initial_value(double x) const;  // v_0(x) = a log E[e^{r/a} | X_0 = x] = b rho x + b^2 (1 - rho^2)/(2 a)
  double control(double t) const;        // u*_t = (b/a) e^{-(T - t)/2}, whatever the state
  GaussianMoments initial() const;       // nu* = N(b rho/a, 1)
  GaussianMoments terminal(bool tuned_initial) const;  // N(b/a, 1), or N((b/a)(1 - rho^2), 1) from N(0, 1)
  double initial_kl() const;                           // KL(nu* || N(0, 1)) = b^2 rho^2/(2 a^2)
  double path_kl() const;                              // int u*^2/2 = b^2 (1 - rho^2)/(2 a^2)
};

}  // namespace costate::finetune
