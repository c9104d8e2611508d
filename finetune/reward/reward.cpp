#include <costate/finetune/reward/reward.h>
#include <costate/tensor/hooks.h>

#include <costate/autograd/ops.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <new>

namespace costate::finetune {
namespace {

// Rows whose gradient is asked for by gradient.defined().
struct Raw {
  Tensor value, gradient;
};

void check_shape(const Reward& r, const Tensor& v, std::int64_t rows) {
  require(v.shape() == Shape{rows}, "reward '", r.name, "': the value has shape ", v.shape(), " for ", rows, " samples");
}

Raw evaluate(const Reward& r, const Tensor& x, bool with_gradient) {
  require(r.defined(), "reward '", r.name, "' is empty: it has neither a differentiable value nor a black box");
  const std::int64_t rows = x.extent(0);
  if (!with_gradient) return {r(x), {}};
  require(r.differentiable(), "reward '", r.name,
          "' is a black box: it has no gradient, which this objective needs; objectives without reward gradients, such as "
          "policy gradients, take it");
  Tape tape;
  const Var tracked = tape.watch(x);
  const Var v = r.value(tracked);
  check_shape(r, v.value(), rows);
  Tensor gradient = std::move(tape).vjp(v, Tensor::full(v.shape(), 1.0, v.dtype(), v.device()), {&tracked, 1})[0];
  return {v.value(), std::move(gradient)};
}

// f(row of the values, row of the gradient); the latter is empty without one.
template <class T, class F>
void each_row(const Raw& raw, const F& f) {
  const std::int64_t rows = raw.value.extent(0), n = raw.gradient.defined() && rows > 0 ? raw.gradient.numel() / rows : 0;
  const Tensor value = raw.value.to(Device::cpu), gradient = raw.gradient.defined() ? raw.gradient.to(Device::cpu) : Tensor();
  const auto v = value.values<T>();
  const auto g = gradient.defined() ? gradient.values<T>() : std::span<const T>();
  for (std::int64_t i = 0; i < rows; ++i) f(i, static_cast<double>(v[i]), g.subspan(i * n, n));
}

template <class T>
std::vector<std::uint8_t> rows_not_finite(const Raw& raw) {
  std::vector<std::uint8_t> bad(static_cast<std::size_t>(raw.value.extent(0)));
  each_row<T>(raw, [&](std::int64_t i, double v, std::span<const T> g) {
    bad[i] = !std::isfinite(v) || !std::all_of(g.begin(), g.end(), [](T e) { return std::isfinite(e); });
  });
  return bad;
}
// On a device 0 times the gradient, 0 or NaN, is summed by rows there: the host reads one number a row.
std::vector<std::uint8_t> rows_not_finite_there(const Raw& raw) {
  Var numbers(raw.value);
  if (raw.gradient.defined())
    numbers = add(numbers, sum(affine(reshape(Var(raw.gradient), {raw.value.extent(0), -1}), 0.0, 0.0), 1));
  std::vector<std::uint8_t> bad;
  for (const double v : numbers.value().to_doubles()) bad.push_back(!std::isfinite(v));
  return bad;
}
std::vector<std::uint8_t> rows_not_finite(const Raw& raw) {
  if (raw.value.is_meta()) return {};
  if (raw.value.device().kind == DeviceKind::cuda && raw.value.numel() > 0) return rows_not_finite_there(raw);
  return raw.value.dtype() == DType::f32 ? rows_not_finite<float>(raw) : rows_not_finite<double>(raw);
}

[[noreturn]] void not_finite(const Reward& r, std::int64_t bad, std::int64_t rows, bool with_gradient) {
  fail(Fault::numerical, {"reward '", r.name, "': the value ", with_gradient ? "or gradient " : "", "of ", bad, " of ", rows,
                          " samples is not finite"});
}

// Whether an error is of some samples, which a policy deals with, rather than of the call or the machine.
bool of_samples(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Cancelled&) {
    return false;
  } catch (const Error& e) {
    return e.fault() != Fault::argument && e.fault() != Fault::memory;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const std::exception&) {
    return true;
  } catch (...) {
    return false;
  }
}

// Row by row, with NaN where the reward throws. Throws what came first when the reward is broken.
Raw evaluate_rows(const Reward& r, const Tensor& x, bool with_gradient, const std::exception_ptr& first) {
  constexpr std::int64_t enough = 4;
  const std::int64_t rows = x.extent(0);
  Raw out{Tensor::full({rows}, std::numeric_limits<double>::quiet_NaN(), x.dtype(), x.device()), {}};
  if (with_gradient) out.gradient = Tensor::zeros(x.shape(), x.dtype(), x.device());
  if (rows == 1) return out;
  std::int64_t thrown = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    try {
      const Raw row = evaluate(r, x.slice(i, 1), with_gradient);
      out.value.slice(i, 1).copy_from(row.value);
      if (with_gradient) out.gradient.slice(i, 1).copy_from(row.gradient);
    } catch (...) {
      if (!of_samples(std::current_exception())) throw;
      ++thrown;
    }
    if (thrown == i + 1 && (thrown == enough || thrown == rows)) std::rethrow_exception(first);
  }
  return out;
}

template <class T>
void zero_row(Tensor& gradient, std::int64_t row, std::int64_t rows) {
  if (!gradient.defined()) return;
  const std::int64_t n = gradient.numel() / rows;
  std::fill_n(gradient.mutate<T>().begin() + row * n, n, T(0));
}

template <class T>
void apply(const Reward& r, const std::vector<std::uint8_t>& bad, Reward::Scores& s) {
  const std::int64_t rows = s.value.extent(0);
  if (r.on_failure == Reward::Policy::skip) {
    s.valid.assign(static_cast<std::size_t>(rows), 1);
    for (std::int64_t i = 0; i < rows; ++i)
      if (bad[i]) s.valid[i] = 0, s.value.mutate<T>()[i] = 0, zero_row<T>(s.gradient, i, rows);
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    const double v = static_cast<double>(s.value.values<T>()[i]);
    const bool outside = !(v >= r.clip_low && v <= r.clip_high);
    if (outside) s.value.mutate<T>()[i] = static_cast<T>(v > r.clip_high ? r.clip_high : r.clip_low);
    if (outside || bad[i]) zero_row<T>(s.gradient, i, rows);
  }
}

}  // namespace

Tensor Reward::operator()(const Tensor& x) const {
  require(defined(), "reward '", name, "' is empty: it has neither a differentiable value nor a black box");
  if (value) {
    const Tensor v = value(Var(x)).value();
    check_shape(*this, v, x.extent(0));
    return v;
  }
  if (x.is_meta()) return Tensor::zeros({x.extent(0)}, x.dtype(), x.device());
  const Tensor v = black_box(x.to(Device::cpu));
  check_shape(*this, v, x.extent(0));
  return v.to(x.dtype()).to(x.device());
}

Reward::ValueAndGradient Reward::value_and_gradient(const Tensor& x) const {
  Raw raw = evaluate(*this, x, true);
  const auto bad = rows_not_finite(raw);
  if (const std::int64_t n = std::count(bad.begin(), bad.end(), 1)) not_finite(*this, n, x.extent(0), true);
  return {std::move(raw.value), std::move(raw.gradient)};
}

Reward::Scores Reward::scores(const Tensor& x, bool with_gradient) const {
  require(on_failure != Policy::clip || (std::isfinite(clip_low) && std::isfinite(clip_high) && clip_low <= clip_high),
          "reward '", name, "': values are to be clipped into [", clip_low, ", ", clip_high,
          "], expected two finite bounds, the lower one first");
  const std::int64_t rows = x.extent(0);
  Raw raw;
  std::exception_ptr thrown;
  try {
    raw = evaluate(*this, x, with_gradient);
  } catch (...) {
    thrown = std::current_exception();
    if (on_failure == Policy::stop || !of_samples(thrown)) throw;
  }
  if (thrown) raw = evaluate_rows(*this, x, with_gradient, thrown);
  const auto bad = rows_not_finite(raw);
  Scores s{std::move(raw.value), std::move(raw.gradient), {}, std::count(bad.begin(), bad.end(), 1)};
  if (s.value.is_meta()) return s;
  if (s.failed > 0 && (on_failure == Policy::stop || (s.failed == rows && rows > 1)))
    not_finite(*this, s.failed, rows, with_gradient);
  if (s.failed > 0)
    log(Severity::warning, {"reward '", name, "': ", s.failed, " of ", rows, " samples failed and were ",
                            on_failure == Policy::skip ? "left out" : "clipped"});
  if (on_failure == Policy::stop || (on_failure == Policy::skip && s.failed == 0)) return s;
  const Device device = s.value.device();
  const auto move_to = [&s](Device d) {
    s.value = s.value.to(d);
    if (s.gradient.defined()) s.gradient = s.gradient.to(d);
  };
  move_to(Device::cpu);
  if (s.value.dtype() == DType::f32)
    apply<float>(*this, bad, s);
  else
    apply<double>(*this, bad, s);
  move_to(device);
  return s;
}

}  // namespace costate::finetune
