// Drawing x_0 from nu* = N(0, I) exp(v_0)/Z, v_0 the value of the noise (value_of_noise.h).
//
//   sir   one of M draws of the noise, chosen with probability in proportion to exp(v_0) (sampling, importance resampling):
//         the law of the choice is nu* up to O(1/M)
//   mcmc  preconditioned Crank-Nicolson moves x' = sqrt(1 - s^2) x + s xi, which leave N(0, I) invariant, so that x' is
//         accepted with probability min(1, exp(v_0(x') - v_0(x))): nu* is invariant, and approached geometrically
//         (Cotter, Roberts, Stuart, White, Statistical Science 28, 2013)
//   flow  the end of a control problem of its own (noise_control.h), learnt beforehand: one network call a step and no v_0
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/nn/network.h>

#include <string_view>

namespace costate::finetune {

enum class InitialMethod : std::uint8_t { sir, mcmc, flow };
std::string_view name(InitialMethod method);

struct TiltedNoiseOptions {
  InitialMethod method = InitialMethod::sir;
  int particles = 32;      // sir: M
  int moves = 50;          // mcmc
  double move_size = 0.5;  // mcmc: s, in (0, 1]
  int control_steps = 16;  // flow
};

class TiltedNoise {
 public:
  // `value` maps (x_0, t, labels) to (rows,); `control` is the network of the control problem (flow only; undefined
  // otherwise). Samples have `sample_shape` without the axis of rows. Throws Error(argument) for options out of range.
  TiltedNoise(nn::Network value, nn::Network control, Shape sample_shape, const TiltedNoiseOptions& options, Device device);

  struct Draw {
    Tensor x;  // (rows, ...) of f32
    // sir: mean over rows of (sum w)^2/(M sum w^2), the share of its draws that a row makes use of; mcmc: the share of moves
    // that were accepted; flow: NaN.
    double efficiency;
  };
  // Row i depends on (key, i) and its label alone. Calls of v_0 a row: sir M, mcmc 1 + moves, flow 0 (and control_steps of
  // the control). labels (rows,) or undefined; flow refuses labels, as its control knows of none.
  Draw draw(std::int64_t rows, const sde::NoiseKey& key, const Tensor& labels) const;

  // The same as the initial law of a problem, whose labels it takes.
  InitialLaw law(const ControlProblem& problem) const;

  // log dnu*/dN(0, I) = v_0(x) - log Z by row, log Z by as many noises of the key as there are rows.
  std::vector<double> log_ratio(const Tensor& x, const sde::NoiseKey& key, const Tensor& labels) const;

  // KL(nu* || N(0, I)) = E_nu*[v_0] - log E exp(v_0) by the noises of `rows` rows, weighted.
  double divergence(std::int64_t rows, const sde::NoiseKey& key, const Tensor& labels) const;

 private:
  std::vector<double> values(const Tensor& x, const Tensor& labels) const;
  Tensor noise(std::int64_t rows, const sde::NoiseKey& key, std::uint32_t number) const;
  double resample(const Tensor& out, const sde::NoiseKey& key, const Tensor& labels) const;
  double move(const Tensor& out, const sde::NoiseKey& key, const Tensor& labels) const;

  nn::Network value_, control_;
  Shape sample_shape_;
  TiltedNoiseOptions options_;
  Device device_;
};

}  // namespace costate::finetune
