#include <costate/autograd/ops.h>
#include <costate/finetune/reward/f_divergence.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace costate::finetune {
namespace {

using Kind = FDivergence::Kind;
constexpr double infinity = std::numeric_limits<double>::infinity();

struct Name {
  std::string_view name;
  Kind kind;
};
constexpr Name names[] = {{"reverse_kl", Kind::reverse_kl},
                          {"forward_kl", Kind::forward_kl},
                          {"jensen_shannon", Kind::jensen_shannon},
                          {"pearson", Kind::pearson},
                          {"neyman", Kind::neyman},
                          {"squared_hellinger", Kind::squared_hellinger},
                          {"alpha", Kind::alpha}};

std::string_view name_of(Kind kind) { return names[static_cast<int>(kind)].name; }

// s -> 1 + (A - 1) s, of which the alpha family is made.
double alpha_base(double alpha, double s) { return 1 + (alpha - 1) * s; }

}  // namespace

double FDivergence::f(double t) const {
  const double log_t = std::log(t);  // -infinity at 0
  const double t_log_t = t > 0 ? t * log_t : 0;
  switch (kind) {
    case Kind::reverse_kl: return t_log_t;
    case Kind::forward_kl: return -log_t;
    case Kind::jensen_shannon: return t_log_t - (t + 1) * std::log((t + 1) / 2);
    case Kind::pearson: return (t - 1) * (t - 1);
    case Kind::neyman: return (1 - t) * (1 - t) / t;
    case Kind::squared_hellinger: return (std::sqrt(t) - 1) * (std::sqrt(t) - 1);
    case Kind::alpha: break;
  }
  const double A = alpha;
  if (A == 1) return t_log_t - t + 1;
  if (A == 0) return t - 1 - log_t;
  if (t == 0) return A > 0 ? 1 / A : infinity;
  // Two forms of the numerator, each without cancellation on its side of A = 1/2.
  const double numerator = A < 0.5 ? std::expm1(A * log_t) - A * (t - 1) : t * std::expm1((A - 1) * log_t) - (A - 1) * (t - 1);
  return numerator / (A * (A - 1));
}

double FDivergence::slope(double t) const {
  switch (kind) {
    case Kind::reverse_kl: return std::log(t) + 1;
    case Kind::forward_kl: return -1 / t;
    case Kind::jensen_shannon: return std::log(2 * t / (1 + t));
    case Kind::pearson: return 2 * (t - 1);
    case Kind::neyman: return 1 - 1 / (t * t);
    case Kind::squared_hellinger: return 1 - 1 / std::sqrt(t);
    case Kind::alpha: break;
  }
  return alpha == 1 ? std::log(t) : std::expm1((alpha - 1) * std::log(t)) / (alpha - 1);
}

double FDivergence::supremum() const {
  switch (kind) {
    case Kind::forward_kl: return 0;
    case Kind::jensen_shannon: return std::numbers::ln2;
    case Kind::neyman:
    case Kind::squared_hellinger: return 1;
    case Kind::alpha: return alpha < 1 ? 1 / (1 - alpha) : infinity;
    default: return infinity;
  }
}

double FDivergence::conjugate(double s) const {
  if (!(s < supremum())) return infinity;
  switch (kind) {
    case Kind::reverse_kl: return std::exp(s - 1);
    case Kind::forward_kl: return -1 - std::log(-s);
    case Kind::jensen_shannon: return -std::log(2 - std::exp(s));
    case Kind::pearson: return s > -2 ? s + s * s / 4 : -1;
    case Kind::neyman: return 2 - 2 * std::sqrt(1 - s);
    case Kind::squared_hellinger: return s / (1 - s);
    case Kind::alpha: break;
  }
  const double A = alpha;
  if (A == 1) return std::expm1(s);
  if (A == 0) return -std::log1p(-s);
  if (alpha_base(A, s) <= 0) return -1 / A;
  return std::expm1(A / (A - 1) * std::log1p((A - 1) * s)) / A;
}

double FDivergence::density(double s) const {
  if (!(s < supremum())) return infinity;
  switch (kind) {
    case Kind::reverse_kl: return std::exp(s - 1);
    case Kind::forward_kl: return -1 / s;
    case Kind::jensen_shannon: return std::exp(s) / (2 - std::exp(s));
    case Kind::pearson: return std::max(0.0, 1 + s / 2);
    case Kind::neyman: return 1 / std::sqrt(1 - s);
    case Kind::squared_hellinger: return 1 / ((1 - s) * (1 - s));
    case Kind::alpha: break;
  }
  if (alpha == 1) return std::exp(s);
  return alpha_base(alpha, s) > 0 ? std::exp(std::log1p((alpha - 1) * s) / (alpha - 1)) : 0;
}

double FDivergence::log_density(double s) const {
  if (kind == Kind::reverse_kl) return s - 1;
  if (kind == Kind::alpha && alpha == 1) return s;
  if (kind == Kind::jensen_shannon && s < supremum()) return s - std::log(2 - std::exp(s));
  return std::log(density(s));
}

double FDivergence::log_density_slope(double s) const {
  if (!(s < supremum())) return 0;
  switch (kind) {
    case Kind::reverse_kl: return 1;
    case Kind::forward_kl: return -1 / s;
    case Kind::jensen_shannon: return 2 / (2 - std::exp(s));
    case Kind::pearson: return s > -2 ? 1 / (2 + s) : 0;
    case Kind::neyman: return 1 / (2 * (1 - s));
    case Kind::squared_hellinger: return 2 / (1 - s);
    case Kind::alpha: break;
  }
  const double base = alpha_base(alpha, s);
  return base > 0 ? 1 / base : 0;
}

FDivergence f_divergence(std::string_view name, double alpha) {
  for (const Name& n : names)
    if (n.name == name) {
      require(n.kind != Kind::alpha || std::isfinite(alpha), "f-divergence: alpha is ", alpha, ", expected a number");
      return {n.kind, alpha};
    }
  require(name != "total_variation",
          "f-divergence: total variation has no optimal density: its optimum is the base where r is within a of the largest "
          "reward, and an atom of all other mass at the largest reward, which no control realises; expected one of reverse_kl, "
          "forward_kl, jensen_shannon, pearson, neyman, squared_hellinger, alpha");
  fail(Fault::argument, {"f-divergence: found '", name,
                         "', expected one of reverse_kl, forward_kl, jensen_shannon, pearson, neyman, "
                         "squared_hellinger, alpha"});
}

double DivergenceTilt::log_density(double reward) const {
  if (std::isnan(reward)) return reward;
  return std::clamp(divergence.log_density((reward - lambda) / temperature), std::log(floor), std::log(ceiling));
}

double DivergenceTilt::log_density_slope(double reward) const {
  const double s = (reward - lambda) / temperature, w = divergence.density(s);
  return w > floor && w < ceiling ? divergence.log_density_slope(s) / temperature : 0;
}

DivergenceTilt divergence_tilt(const FDivergence& divergence, std::span<const double> rewards, const DivergenceTiltOptions& o,
                               std::span<const double> weights) {
  const std::size_t n = rewards.size();
  const double a = o.temperature;
  require(n >= 2, "f-divergence: found ", n, " rewards of base samples, expected at least 2");
  require(std::isfinite(a) && a > 0, "f-divergence: the temperature is ", a, ", expected a positive number");
  require(o.floor > 0 && o.floor < 1 && o.ceiling > 1 && std::isfinite(o.ceiling),
          "f-divergence: the density is to lie between ", o.floor, " and ", o.ceiling,
          ", expected a floor in (0, 1) and a finite ceiling above 1");
  require(weights.empty() || weights.size() == n, "f-divergence: ", weights.size(), " weights for ", n, " rewards");
  for (const double r : rewards)
    if (!std::isfinite(r)) fail(Fault::numerical, {"f-divergence: a base sample has the reward ", r, ", which is not finite"});
  std::vector<double> v(n, 1.0 / static_cast<double>(n));
  if (!weights.empty()) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (std::size_t i = 0; i < n; ++i) {
      require(weights[i] >= 0 && std::isfinite(total) && total > 0, "f-divergence: weight ", i, " is ", weights[i],
              " of a sum of ", total, "; expected numbers of at least 0 with a finite sum above 0");
      v[i] = weights[i] / total;
    }
  }
  // A sample without weight is not there: it bounds neither lambda nor anything else.
  double low = infinity, high = -infinity;
  std::size_t best = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (v[i] == 0) continue;
    low = std::min(low, rewards[i]);
    if (rewards[i] > high) high = rewards[i], best = i;
  }
  const auto s_of = [&](std::size_t i, double lambda) { return (rewards[i] - lambda) / a; };
  const auto mass = [&](double lambda) {
    double m = 0;
    for (std::size_t i = 0; i < n; ++i)
      if (v[i] > 0) m += v[i] * divergence.density(s_of(i, lambda));
    return m;
  };
  const double top = divergence.supremum();
  if (top < infinity && low < high) {
    const double least = high - a * top;
    double rest = 0;
    for (std::size_t i = 0; i < n; ++i)
      if (v[i] > 0 && rewards[i] < high) rest += v[i] * divergence.density(s_of(i, least));
    // Samples that share the largest reward, such as those at a limit that the reward reaches, take the rest between them.
    const bool alone = std::count_if(rewards.begin(), rewards.end(), [&](double r) { return r == rewards[best]; }) == 1;
    if (rest < 1 && alone)
      fail(Fault::numerical, {"f-divergence: ", name_of(divergence.kind), " with temperature ", a,
                              " has no optimal density here: at the smallest multiplier that the largest reward, ", high,
                              ", allows, all base samples but that one have the mass ", rest,
                              ", and the rest of 1 would sit on one sample; a larger temperature or reverse_kl has one"});
  }
  // Where every s is at least f'(1) every density is at least 1, and the reverse.
  const double one = divergence.slope(1);
  double below = low - a * one, above = high - a * one;
  if (top < infinity) below = std::max(below, high - a * top);
  for (;;) {
    const double middle = below + (above - below) / 2;
    if (!(middle > below && middle < above)) break;
    (mass(middle) >= 1 ? below : above) = middle;
  }
  DivergenceTilt t;
  t.divergence = divergence, t.temperature = a, t.floor = o.floor, t.ceiling = o.ceiling;
  // Just above the root: there the density of every sample is finite.
  t.lambda = above;
  double deviation = 0, slope = 0, squares = 0, dual = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (v[i] == 0) continue;
    const double s = s_of(i, t.lambda), w = divergence.density(s), share = v[i] * w;
    t.mean_reward += share * rewards[i];
    t.divergence_value += v[i] * divergence.f(w);
    dual += v[i] * divergence.conjugate(s);
    slope += share * divergence.log_density_slope(s) / a;
    deviation += v[i] * v[i] * (w - 1) * (w - 1), squares += share * share;
    t.largest_share = std::max(t.largest_share, share);
    t.floor_share += w <= o.floor ? v[i] : 0, t.ceiling_share += w >= o.ceiling ? v[i] : 0;
  }
  t.value = t.mean_reward - a * t.divergence_value, t.dual_value = a * dual + t.lambda;
  t.effective_samples = 1 / squares;
  t.standard_error = slope > 0 ? std::sqrt(deviation) / slope : 0;
  return t;
}

namespace {
template <class T, class F>
Tensor mapped(const Tensor& r, const F& f) {
  Tensor out = Tensor::empty_like(r);
  const auto in = r.values<T>();
  const auto to = out.mutate<T>();
  for (std::size_t i = 0; i < in.size(); ++i) to[i] = static_cast<T>(f(static_cast<double>(in[i])));
  return out;
}
template <class F>
Tensor map_rewards(const Tensor& r, const F& f) {
  if (r.is_meta()) return Tensor::empty_like(r);
  const Tensor host = r.to(Device::cpu);
  return (r.dtype() == DType::f32 ? mapped<float>(host, f) : mapped<double>(host, f)).to(r.device());
}
}  // namespace

Reward f_divergence_reward(const Reward& r, const DivergenceTilt& tilt, double temperature) {
  require(r.defined(), "f-divergence: the reward '", r.name, "' is empty");
  require(std::isfinite(temperature) && temperature > 0, "f-divergence: the temperature of the transformed reward is ",
          temperature, ", expected a positive number");
  Reward out;
  out.name = r.name + " under " + std::string(name_of(tilt.divergence.kind));
  out.on_failure = r.on_failure;
  // The density rises with the reward: bounds of one are bounds of the other.
  if (r.on_failure == Reward::Policy::clip)
    out.clip_low = temperature * tilt.log_density(r.clip_low), out.clip_high = temperature * tilt.log_density(r.clip_high);
  const auto value = [tilt, temperature](const Tensor& rewards) {
    return map_rewards(rewards, [&](double v) { return temperature * tilt.log_density(v); });
  };
  if (!r.differentiable()) {
    out.black_box = [r, value](const Tensor& x) { return value(r(x)); };
    return out;
  }
  out.value = [r, value, tilt, temperature, name = out.name](const Var& x) {
    const Var rewards = r.value(x);
    const CustomRule rule{name, [&value](std::span<const Tensor> in) { return value(in[0]); },
                          [tilt, temperature](const Tensor& cotangent, std::span<const Tensor> in, const Tensor&) {
                            const Tensor slope =
                                map_rewards(in[0], [&](double v) { return temperature * tilt.log_density_slope(v); });
                            return std::vector<Tensor>{mul(Var(slope), Var(cotangent)).value()};
                          }};
    return custom(rule, {&rewards, 1});
  };
  return out;
}

}  // namespace costate::finetune
