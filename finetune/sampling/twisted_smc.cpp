#include <costate/finetune/sampling/twisted_smc.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

void check(const sde::Chain& chain, const SmcOptions& o) {
  sde::require_one_step(chain, "twisted_smc");
  require(o.particles >= 1, "twisted_smc: the number of particles is ", o.particles, ", expected at least 1");
  require(std::isfinite(o.reward_multiplier), "twisted_smc: the multiplier of the reward is ", o.reward_multiplier);
  require(o.resample_below >= 0 && o.resample_below <= 1, "twisted_smc: resampling below an effective share of ",
          o.resample_below, ", expected a number from 0 to 1");
  require((o.proposal == SmcProposal::tuned) == static_cast<bool>(o.tuned),
          "twisted_smc: the tuned field belongs to the tuned proposal, and to no other");
  require(!o.potential || o.proposal != SmcProposal::guided,
          "twisted_smc: the guided proposal follows the tempered reward and takes no other potential");
  require(o.tempering.empty() || (!o.potential && static_cast<int>(o.tempering.size()) == chain.steps()),
          "twisted_smc: there are ", o.tempering.size(), " numbers of tempering for ", chain.steps(),
          " steps; expected one a step, and none beside a potential");
  for (const double v : o.tempering) require(std::isfinite(v), "twisted_smc: the tempering contains ", v);
}

std::vector<double> multipliers(const sde::Chain& chain, const SmcOptions& o) {
  const int steps = chain.steps();
  std::vector<double> lambda(static_cast<std::size_t>(steps));
  for (int k = 0; k < steps; ++k)
    lambda[k] = o.reward_multiplier * (o.tempering.empty() ? static_cast<double>(k) / steps : o.tempering[k]);
  return lambda;
}

// The numbers of a population between two steps.
struct Population {
  Tensor x, mean, control, denoised;  // control undefined without one, denoised where the potential is the user's
};

// (dx1hat/dx)^T g at step k.
Tensor pull_denoised(const sde::Field& field, const sde::Chain& chain, int k, const Tensor& x, const Tensor& labels,
                     const Tensor& g) {
  const sde::Affine d = sde::conversion(chain.prediction, sde::Parametrisation::x1, chain.schedule, chain.t[k]);
  Tape tape;
  const Var tracked = tape.watch(x);
  const Var prediction = field(tracked, Var(sde::step_time(chain, k, x)), labels);
  const Tensor pulled = std::move(tape).vjp(prediction, g, {&tracked, 1})[0];
  return axpby(d.x, Var(g), d.prediction, Var(pulled)).value();
}

// Rows first, ... of x_{k+1} from their ancestors' means and controls, and what the step adds to log w.
template <class T>
void propose(const Population& p, double std, const std::vector<std::int64_t>& ancestors, std::int64_t first,
             const Tensor& noise, const Tensor& rows, std::vector<double>& log_weights) {
  const std::int64_t count = rows.extent(0), dim = rows.numel() / count;
  const auto mean = p.mean.values<T>(), control = p.control.defined() ? p.control.values<T>() : std::span<const T>();
  const auto e = noise.defined() ? noise.values<T>() : std::span<const T>();
  T* x = static_cast<T*>(rows.raw_mutable());
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t from = ancestors[static_cast<std::size_t>(first + i)] * dim;
    double product = 0, square = 0;
    for (std::int64_t j = 0; j < dim; ++j) {
      const double u = control.empty() ? 0 : static_cast<double>(control[from + j]), noise_j = e.empty() ? 0 : e[i * dim + j];
      x[i * dim + j] = static_cast<T>(mean[from + j] + std * (u + noise_j));
      product += u * noise_j, square += u * u;
    }
    if (std > 0) log_weights[static_cast<std::size_t>(first + i)] -= product + square / 2;
  }
}

void add(std::vector<double>& log_weights, const std::vector<double>& psi, const std::vector<double>& before) {
  for (std::size_t i = 0; i < log_weights.size(); ++i) log_weights[i] += psi[i] - before[i];
}

Tensor host(const Tensor& t) { return t.defined() ? t.to(Device::cpu) : t; }

std::vector<double> scaled(const Tensor& v, double factor) {
  std::vector<double> out = v.to_doubles();
  for (double& e : out) e *= factor;
  return out;
}

}  // namespace

std::vector<std::int64_t> systematic_resampling(std::span<const double> weights, std::int64_t count, double uniform) {
  require(!weights.empty() && count >= 1, "systematic_resampling: ", count, " draws from ", weights.size(), " weights");
  require(uniform > 0 && uniform < 1, "systematic_resampling: the offset is ", uniform, ", expected a number within (0, 1)");
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(count));
  double below = weights[0];
  std::size_t i = 0, last = 0;
  for (std::size_t j = 0; j < weights.size(); ++j)
    if (weights[j] > 0) last = j;
  for (std::int64_t n = 0; n < count; ++n) {
    const double at = (static_cast<double>(n) + uniform) / static_cast<double>(count);
    while (below < at && i < last) below += weights[++i];  // rounding may leave the sum of all below 1
    out.push_back(static_cast<std::int64_t>(i));
  }
  return out;
}

SmcResult twisted_smc(const sde::Field& base, const sde::Chain& chain, const Shape& shape, const Reward& reward,
                      const Tensor& labels, const sde::NoiseKey& key, const SmcOptions& o, DType dtype, Device device) {
  check(chain, o);
  const std::int64_t n = o.particles;
  require(!labels.defined() || (labels.rank() == 1 && labels.extent(0) == n), "twisted_smc: labels of shape ", labels.shape(),
          " for ", n, " particles");
  const std::vector<double> lambda = multipliers(chain, o);
  const bool meta = device == Device::meta;
  const auto full = [&] { return Tensor::empty(shape.with_front(n), dtype, device); };
  Population p{full(), full(), {}, {}};
  if (o.proposal != SmcProposal::base) p.control = full();
  if (!o.potential) p.denoised = full();
  sde::each_chunk(n, [&](std::int64_t first, std::int64_t rows) {
    p.x.slice(first, rows).copy_from(sde::initial_noise(shape, rows, key.from(first), dtype, device));
  });

  const auto size = static_cast<std::size_t>(n);
  SmcResult out;
  out.least_ess = 1;
  std::vector<double> log_weights(size, 0.0), psi_before(size, 0.0), psi(size, 0.0);
  std::vector<std::int64_t> ancestors(size);
  const auto look = [&](int k) {  // at the weights; -1: at the end
    if (!std::all_of(log_weights.begin(), log_weights.end(), [](double w) { return w < HUGE_VAL; }))
      fail(Fault::numerical, {"twisted_smc: a log weight at step ", k < 0 ? chain.steps() : k, " is not finite"});
    const double ess = effective_sample_size(log_weights) / static_cast<double>(n);
    out.least_ess = std::min(out.least_ess, ess);
    return ess;
  };
  for (int k = 0; k < chain.steps(); ++k) {
    const bool tempered = !o.potential && lambda[k] != 0;
    const sde::Affine denoise =
        tempered ? sde::conversion(chain.prediction, sde::Parametrisation::x1, chain.schedule, chain.t[k]) : sde::Affine{};
    sde::each_chunk(n, [&](std::int64_t first, std::int64_t rows) {
      const Tensor x = p.x.slice(first, rows), own_labels = sde::rows_of(labels, first, rows);
      const Tensor prediction = base(Var(x), Var(sde::step_time(chain, k, x)), own_labels).value();
      require(prediction.shape() == x.shape(), "twisted_smc: the base maps shape ", x.shape(), " to ", prediction.shape());
      p.mean.slice(first, rows).copy_from(axpby(chain.A[k], Var(x), chain.C[k], Var(prediction)).value());
      if (tempered)
        p.denoised.slice(first, rows).copy_from(axpby(denoise.x, Var(x), denoise.prediction, Var(prediction)).value());
      if (o.tuned && chain.std[k] > 0) {
        const Tensor other = o.tuned(Var(x), Var(sde::step_time(chain, k, x)), own_labels).value();
        require(other.shape() == x.shape(), "twisted_smc: the tuned field maps shape ", x.shape(), " to ", other.shape());
        const double scale = chain.C[k] / chain.std[k];
        p.control.slice(first, rows).copy_from(axpby(scale, Var(other), -scale, Var(prediction)).value());
      }
    });
    if (o.potential) {
      const Tensor value = o.potential(k, p.x);
      require(value.shape() == Shape{n}, "twisted_smc: the potential has shape ", value.shape(), " for ", n, " particles");
      if (!meta) psi = value.to_doubles();
    } else if (tempered && o.proposal == SmcProposal::guided && chain.std[k] > 0) {
      const Reward::ValueAndGradient r = reward.value_and_gradient(p.denoised);
      if (!meta) psi = scaled(r.value, lambda[k]);
      sde::each_chunk(n, [&](std::int64_t first, std::int64_t rows) {
        const Tensor pulled = pull_denoised(base, chain, k, p.x.slice(first, rows), sde::rows_of(labels, first, rows),
                                            r.gradient.slice(first, rows));
        p.control.slice(first, rows).copy_from(affine(Var(pulled), chain.std[k] * lambda[k], 0.0).value());
      });
    } else if (tempered) {
      const Tensor r = reward(p.denoised);
      if (!meta) psi = scaled(r, lambda[k]);
    } else {
      std::fill(psi.begin(), psi.end(), 0.0);
    }
    const bool controlled = p.control.defined() && chain.std[k] > 0 && (o.proposal == SmcProposal::tuned || tempered);
    if (!meta) {
      add(log_weights, psi, psi_before);
      for (std::size_t i = 0; i < size; ++i) ancestors[i] = static_cast<std::int64_t>(i);
      if (look(k) < o.resample_below) {
        out.log_z += log_sum_exp(log_weights) - std::log(static_cast<double>(n));
        const double offset = Philox{key.seed, Stream::subset}.uniform(key.first_sample, static_cast<std::uint32_t>(k), 0);
        ancestors = systematic_resampling(normalised_weights(log_weights), n, offset);
        std::fill(log_weights.begin(), log_weights.end(), 0.0);
        ++out.resampled;
      }
      for (std::size_t i = 0; i < size; ++i) psi_before[i] = psi[static_cast<std::size_t>(ancestors[i])];
    }
    // The host moves particles from their ancestors.
    const Population seen = meta ? p : Population{{}, host(p.mean), controlled ? host(p.control) : Tensor(), {}};
    sde::each_chunk(n, [&](std::int64_t first, std::int64_t rows) {
      const Tensor x = p.x.slice(first, rows), next = Tensor::empty(x.shape(), dtype, meta ? device : Device::cpu);
      const Tensor noise = chain.std[k] > 0 ? sde::step_noise(k, x, key.from(first)) : Tensor();
      if (meta) return;
      const auto step = dtype == DType::f64 ? propose<double> : propose<float>;
      step(seen, chain.std[k], ancestors, first, host(noise), next, log_weights);
      x.copy_from(next.to(device));
    });
  }
  const Tensor r = reward(p.x);
  out.x = p.x;
  if (meta) {
    out.log_weights.assign(size, -std::log(static_cast<double>(n))), out.reward.assign(size, 0.0);
    return out;
  }
  out.reward = r.to_doubles();
  add(log_weights, scaled(r, o.reward_multiplier), psi_before);
  out.ess = look(-1);
  const double total = log_sum_exp(log_weights);
  out.log_z += total - std::log(static_cast<double>(n));
  out.log_weights = std::move(log_weights);
  for (double& w : out.log_weights) w -= total;
  return out;
}

}  // namespace costate::finetune
