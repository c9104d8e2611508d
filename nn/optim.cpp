#include <costate/nn/optim.h>

#include <costate/autograd/ops.h>

#include <algorithm>
#include <cmath>

namespace costate::nn {

AdamW::AdamW(const AdamWOptions& options) : options_(options) {
  const auto fraction = [](double beta) { return beta >= 0 && beta < 1; };
  require(fraction(options.beta1) && fraction(options.beta2) && options.eps >= 0 && options.weight_decay >= 0,
          "AdamW: beta1 ", options.beta1, ", beta2 ", options.beta2, ", eps ", options.eps, ", weight_decay ",
          options.weight_decay, "; expected betas in [0, 1) and no negative number");
}

void AdamW::step(std::span<Tensor* const> parameters, std::span<const Tensor> gradients, double lr,
                 double gradient_scale) {
  require(parameters.size() == gradients.size(), "AdamW: ", gradients.size(), " gradients for ",
          parameters.size(), " parameters");
  require(m_.empty() || m_.size() == parameters.size(), "AdamW: the state is for ", m_.size(),
          " parameters, not ", parameters.size());
  const auto fits = [](const Tensor& t, const Tensor& p) {
    return t.defined() && t.shape() == p.shape() && t.dtype() == p.dtype() && t.device() == p.device();
  };
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& p = *parameters[i];
    const Tensor& g = gradients[i];
    require(p.defined() && computes(p.dtype()), "AdamW: parameter ", i, " is ",
            p.defined() ? name(p.dtype()) : "undefined");
    require(fits(g, p), "AdamW: gradient ", i, " is ", g.defined() ? name(g.dtype()) : "undefined",
            " of shape ", g.shape(), " on the ", g.device(), "; its parameter is ", p.dtype(),
            " of shape ", p.shape(), " on the ", p.device());
    require(m_.empty() || (fits(m_[i], p) && fits(v_[i], p)), "AdamW: the moments of parameter ", i,
            " do not fit it: ", p.dtype(), " of shape ", p.shape());
  }
  if (m_.empty()) {
    const memory::TagScope scope(memory::Tag::optimiser);
    std::vector<Tensor> m, v;
    for (const Tensor* p : parameters) {
      m.push_back(Tensor::zeros(p->shape(), p->dtype(), p->device()));
      v.push_back(Tensor::zeros(p->shape(), p->dtype(), p->device()));
    }
    m_ = std::move(m), v_ = std::move(v);
  }
  // Whatever is shared, with a frozen model or a copy of this optimiser, is copied before anything is
  // written.
  for (std::size_t i = 0; i < parameters.size(); ++i)
    parameters[i]->unshare(), m_[i].unshare(), v_[i].unshare();
  ++steps_;
  const auto n = static_cast<double>(steps_);
  const Kernels::AdamW k{lr,
                         options_.beta1,
                         options_.beta2,
                         options_.eps,
                         options_.weight_decay,
                         1 - std::pow(options_.beta1, n),
                         1 - std::pow(options_.beta2, n),
                         gradient_scale};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Tensor& p = *parameters[i];
    kernels(p).adamw(p.dtype(), p.numel(), k, gradients[i].raw(), m_[i].raw_mutable(), v_[i].raw_mutable(),
                     p.raw_mutable());
  }
}

void AdamW::restore(std::int64_t steps, std::vector<Tensor> m, std::vector<Tensor> v) {
  require(steps >= 0 && m.size() == v.size(), "AdamW: a state of ", m.size(), " first and ", v.size(),
          " second moments after ", steps, " steps");
  steps_ = steps, m_ = std::move(m), v_ = std::move(v);
}

double LearningRate::operator()(std::int64_t update) const {
  if (update < warmup) return peak * static_cast<double>(update + 1) / static_cast<double>(warmup);
  if (decay == Decay::constant || total <= warmup) return peak;
  const double done =
      std::min(1.0, static_cast<double>(update - warmup) / static_cast<double>(total - warmup));
  return peak * (final + (1 - final) * 0.5 * (1 + std::cos(M_PI * done)));
}

double gradient_norm(std::span<const Tensor> gradients) {
  double squares = 0;
  for (const Tensor& g : gradients) {
    require(g.defined() && computes(g.dtype()), "gradient_norm: a gradient is ",
            g.defined() ? name(g.dtype()) : "undefined");
    squares += kernels(g).sum_squares(g.dtype(), g.numel(), g.raw());
  }
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
    std::vector<Tensor> first;
    for (const Tensor& p : parameters) first.push_back(p.clone());
    average_ = std::move(first);
    ++updates_;
    return;
  }
  require(average_.size() == parameters.size(), "EMA: ", parameters.size(), " parameters; the average has ",
          average_.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor &p = parameters[i], &a = average_[i];
    require(p.defined() && p.shape() == a.shape() && p.dtype() == a.dtype() && p.device() == a.device(),
            "EMA: parameter ", i, " has shape ", p.shape(), "; its average is ", a.dtype(), " of shape ",
            a.shape());
  }
  for (Tensor& a : average_) a.unshare();
  const auto n = static_cast<double>(updates_++);
  const double decay = warmup_ ? std::min(decay_, (1 + n) / (10 + n)) : decay_;
  for (std::size_t i = 0; i < parameters.size(); ++i) lerp_in_place(average_[i], parameters[i], 1 - decay);
}

void Ema::restore(std::int64_t updates, std::vector<Tensor> average) {
  updates_ = updates, average_ = std::move(average);
}

}  // namespace costate::nn
