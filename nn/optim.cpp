#include <costate/nn/optim.h>

#include <costate/autograd/ops.h>

#include <algorithm>
#include <cmath>

namespace costate::nn {

void AdamW::step(std::span<Tensor* const> parameters, std::span<const Tensor> gradients, double lr, double gradient_scale) {
  require(parameters.size() == gradients.size(), "AdamW: ", gradients.size(), " gradients for ", parameters.size(),
          " parameters");
  if (m_.empty()) {
    const memory::TagScope scope(memory::Tag::optimiser);
    for (const Tensor* p : parameters) {
      m_.push_back(Tensor::zeros(p->shape(), p->dtype(), p->device()));
      v_.push_back(Tensor::zeros(p->shape(), p->dtype(), p->device()));
    }
  }
  require(m_.size() == parameters.size(), "AdamW: the state is for ", m_.size(), " parameters, not ", parameters.size());
  ++steps_;
  const auto n = static_cast<double>(steps_);
  const Kernels::AdamW k{lr, options_.beta1, options_.beta2, options_.eps, options_.weight_decay,
                         1 - std::pow(options_.beta1, n), 1 - std::pow(options_.beta2, n), gradient_scale};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Tensor& p = *parameters[i];
    require(gradients[i].shape() == p.shape() && gradients[i].dtype() == p.dtype(), "AdamW: gradient ", i, " is ",
            gradients[i].dtype(), " of shape ", gradients[i].shape(), "; its parameter is ", p.dtype(), " of shape ",
            p.shape());
    p.unshare();
    kernels(p).adamw(p.dtype(), p.numel(), k, gradients[i].raw(), m_[i].raw_mutable(), v_[i].raw_mutable(), p.raw_mutable());
  }
}

void AdamW::restore(std::int64_t steps, std::vector<Tensor> m, std::vector<Tensor> v) {
  require(steps >= 0 && m.size() == v.size(), "AdamW: a state of ", m.size(), " first and ", v.size(), " second moments");
  steps_ = steps, m_ = std::move(m), v_ = std::move(v);
}

double LearningRate::operator()(std::int64_t update) const {
  if (update < warmup) return peak * static_cast<double>(update + 1) / static_cast<double>(warmup);
  if (decay == Decay::constant || total <= warmup) return peak;
  const double done = std::min(1.0, static_cast<double>(update - warmup) / static_cast<double>(total - warmup));
  return peak * (final + (1 - final) * 0.5 * (1 + std::cos(M_PI * done)));
}

double gradient_norm(std::span<const Tensor> gradients) {
  double squares = 0;
  for (const Tensor& g : gradients) squares += kernels(g).sum_squares(g.dtype(), g.numel(), g.raw());
  return std::sqrt(squares);
}

double clip_factor(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1.0; }

Ema::Ema(double decay, bool warmup) : decay_(decay), warmup_(warmup) {
  require(decay >= 0 && decay < 1, "EMA: decay ", decay, " is outside [0, 1)");
}

void Ema::update(std::span<const Tensor> parameters) {
  if (!enabled()) return;
  if (average_.empty()) {
    const memory::TagScope scope(memory::Tag::optimiser);
    for (const Tensor& p : parameters) average_.push_back(p.clone());
    ++updates_;
    return;
  }
  require(average_.size() == parameters.size(), "EMA: ", parameters.size(), " parameters; the average has ", average_.size());
  const auto n = static_cast<double>(updates_++);
  const double decay = warmup_ ? std::min(decay_, (1 + n) / (10 + n)) : decay_;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    average_[i].unshare();
    lerp_in_place(average_[i], parameters[i], 1 - decay);
  }
}

void Ema::restore(std::int64_t updates, std::vector<Tensor> average) {
  updates_ = updates, average_ = std::move(average);
}

}  // namespace costate::nn
