#include <costate/nn/optim.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/backend.h>
#include <costate/tensor/sum_squares.h>

#include <algorithm>
#include <cmath>

namespace costate::nn {

AdamW::AdamW(const AdamWOptions& options) : options_(options) {
  const auto fraction = [](double beta) { return beta >= 0 && beta < 1; };
  require(fraction(options.beta1) && fraction(options.beta2) && options.eps >= 0 && options.weight_decay >= 0,
          "AdamW: beta1 ", options.beta1, ", beta2 ", options.beta2, ", eps ", options.eps, ", weight_decay ",
          options.weight_decay, "; expected betas in [0, 1) and no negative number");
}

namespace {

bool fits(const Tensor& t, const Tensor& p) {
  return t.defined() && t.shape() == p.shape() && t.dtype() == p.dtype() && t.device() == p.device();
}
void require_fitting(std::span<Tensor* const> parameters, std::span<const Tensor> gradients) {
  require(parameters.size() == gradients.size(), "AdamW: ", gradients.size(), " gradients for ",
          parameters.size(), " parameters");
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& p = *parameters[i];
    const Tensor& g = gradients[i];
    require(!p.defined() || fits(g, p), "AdamW: gradient ", i, " is ", g.defined() ? name(g.dtype()) : "undefined",
            " of shape ", g.shape(), " on the ", g.device(), "; its parameter is ", p.dtype(),
            " of shape ", p.shape(), " on the ", p.device());
  }
}

}  // namespace

void AdamW::step(std::span<Tensor* const> parameters, std::span<const Tensor> gradients, double lr,
                 double gradient_scale) {
  require_fitting(parameters, gradients);
  prepare(parameters, {lr, gradient_scale});
  launch(parameters, gradients, {}, Tensor(), Tensor());
  commit();
}

void AdamW::prepare(std::span<Tensor* const> parameters, const Now& now) {
  require(m_.empty() || m_.size() == parameters.size(), "AdamW: the state is for ", m_.size(),
          " parameters, not ", parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& p = *parameters[i];
    require(p.defined() && computes(p.dtype()), "AdamW: parameter ", i, " is ",
            p.defined() ? name(p.dtype()) : "undefined");
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
  if (parameters.empty()) return;
  const auto n = static_cast<double>(steps_ + 1);
  now_ = {now.lr / (1 - std::pow(options_.beta1, n)),
          1 / (1 - std::pow(options_.beta2, n)),
          1 - now.lr * options_.weight_decay,
          now.gradient_scale,
          now.limit,
          now.average_weight};
  const Device device = parameters[0]->device();
  if (device.kind != DeviceKind::cuda) return;
  static_assert(sizeof now_ % sizeof(double) == 0);
  if (!now_there_.defined()) {
    const memory::TagScope scope(memory::Tag::optimiser);
    now_there_ = Tensor::empty({static_cast<std::int64_t>(sizeof now_ / sizeof(double))}, DType::f64, device);
  }
  now_there_.unshare();
  backend_of(device).upload(&now_, now_there_.raw_mutable(), sizeof now_);
}

void AdamW::launch(std::span<Tensor* const> parameters, std::span<const Tensor> gradients, std::span<const Tensor> averages,
                   const Tensor& squares, const Tensor& check) {
  require_fitting(parameters, gradients);
  const AdamWRates rates{options_.beta1, options_.beta2, options_.eps};
  const auto number = [](const Tensor& t) { return t.defined() ? static_cast<const double*>(t.raw()) : nullptr; };
  std::vector<Optimised> list;
  for (std::size_t begin = 0, i = 0; i < parameters.size(); ++i) {
    Tensor& p = *parameters[i];
    list.push_back({p.numel(), gradients[i].raw(), m_[i].raw_mutable(), v_[i].raw_mutable(), p.raw_mutable(),
                    averages.empty() ? nullptr : averages[i].raw_mutable()});
    if (i + 1 < parameters.size() && parameters[i + 1]->dtype() == parameters[begin]->dtype()) continue;
    kernels(p).adamw(p.dtype(), static_cast<std::int64_t>(list.size()), list.data(), rates,
                     p.device().kind == DeviceKind::cuda ? static_cast<const AdamWNow*>(now_there_.raw()) : &now_,
                     number(squares), number(check));
    list.clear(), begin = i + 1;
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
  for (const Tensor& g : gradients)
    require(g.defined() && computes(g.dtype()), "gradient_norm: a gradient is ",
            g.defined() ? name(g.dtype()) : "undefined");
  return std::sqrt(sum_squares(gradients));
}

double clip_factor(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1.0; }

Ema::Ema(double decay, bool warmup) : decay_(decay), warmup_(warmup) {
  require(decay >= 0 && decay < 1, "EMA: decay ", decay, " is outside [0, 1)");
}

double Ema::prepare(std::span<const Tensor> parameters) {
  if (!enabled()) return 0;
  const bool first = average_.empty();
  if (first) {
    const memory::TagScope scope(memory::Tag::optimiser);
    std::vector<Tensor> made;
    for (const Tensor& p : parameters) made.push_back(Tensor::zeros(p.shape(), p.dtype(), p.device()));
    average_ = std::move(made);
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
  if (updates_ == 0) return 1;
  const auto n = static_cast<double>(updates_);
  return 1 - (warmup_ ? std::min(decay_, (1 + n) / (10 + n)) : decay_);
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
  const double weight = prepare(parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) lerp_in_place(average_[i], parameters[i], weight);
  commit();
}

void Ema::restore(std::int64_t updates, std::vector<Tensor> average) {
  updates_ = updates, average_ = std::move(average);
}

}  // namespace costate::nn
