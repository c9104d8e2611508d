#include <costate/sde/likelihood.h>

#include <costate/autograd/ops.h>
#include <costate/sde/sampler.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace costate::sde {

namespace {

constexpr std::array<std::string_view, 3> kNames = {"euler", "heun", "rk4"};

// Stage s is evaluated at x + h slope[s] k_{s-1}, t + slope[s] h; the step adds h sum_s weight[s] k_s.
struct Tableau {
  int stages;
  std::array<double, 4> slope, weight;
};
constexpr std::array<Tableau, 3> kTableaux = {{
    {1, {0}, {1}},
    {2, {0, 1}, {0.5, 0.5}},
    {4, {0, 0.5, 0.5, 1}, {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6}},
}};

struct Slope {
  Tensor velocity;
  std::vector<double> divergence;  // (rows)
};

Slope slope(const ProbabilityFlow& flow, const Tensor& x, double t, const Tensor& labels, const LikelihoodOptions& o,
            const NoiseKey& key, std::uint32_t first_probe) {
  const Affine to_velocity = conversion(flow.prediction, Parametrisation::velocity, flow.schedule, t);
  Tape tape;
  const Var tracked = tape.watch(x);
  const Var prediction = flow.field(tracked, Var(Tensor::full({x.extent(0)}, t, x.dtype(), x.device())), labels);
  require(prediction.shape() == x.shape(), "log_likelihood: the field maps shape ", x.shape(), " to ", prediction.shape());
  Slope s;
  s.divergence = trace([&](const Tensor& a) { return tape.vjp(prediction, a, {&tracked, 1})[0]; }, x, o.trace, key,
                       first_probe);
  const double dim = static_cast<double>(x.numel()) / static_cast<double>(x.extent(0));
  for (double& v : s.divergence) v = to_velocity.x * dim + to_velocity.prediction * v;
  s.velocity = to_velocity.x == 0 && to_velocity.prediction == 1
                   ? prediction.value()
                   : axpby(to_velocity.x, Var(x), to_velocity.prediction, Var(prediction.value())).value();
  return s;
}

// From the grid's end `from` to the other one, for one chunk of rows; adds int div v dt to `integral`, with the sign of dt.
Tensor integrate(const ProbabilityFlow& flow, Tensor x, bool towards_data, const Tensor& labels,
                 const LikelihoodOptions& o, const NoiseKey& key, std::span<double> integral) {
  const Tableau& m = kTableaux[static_cast<std::size_t>(o.method)];
  const int steps = static_cast<int>(o.t.size()) - 1;
  const std::int64_t dim = x.numel() / x.extent(0);
  const auto fresh = static_cast<std::uint32_t>(o.fresh_probes ? trace_products(o.trace, dim) : 0);
  std::uint32_t first_probe = 0;
  for (int i = 0; i < steps; ++i) {
    const double from = towards_data ? o.t[i] : o.t[steps - i], to = towards_data ? o.t[i + 1] : o.t[steps - i - 1];
    const double h = to - from;
    Tensor next = x, velocity;
    for (int s = 0; s < m.stages; ++s) {
      const double c = m.slope[s], t = c == 1 ? to : from + c * h;  // the ends exactly, never beyond them
      const Tensor at = s == 0 ? x : axpby(1, Var(x), c * h, Var(velocity)).value();
      Slope k = slope(flow, at, t, labels, o, key, first_probe);
      first_probe += fresh;
      for (std::size_t r = 0; r < integral.size(); ++r) integral[r] += h * m.weight[s] * k.divergence[r];
      next = axpby(1, Var(next), h * m.weight[s], Var(k.velocity)).value();
      velocity = std::move(k.velocity);
    }
    x = std::move(next);
  }
  return x;
}

// log N(x; 0, I), row by row.
void add_log_normal(const Tensor& x, std::span<double> out) {
  const std::vector<double> v = x.to(Device::cpu).to_doubles();
  const std::size_t dim = v.size() / out.size();
  for (std::size_t i = 0; i < out.size(); ++i) {
    double square = 0;
    for (std::size_t j = i * dim; j < (i + 1) * dim; ++j) square += v[j] * v[j];
    out[i] -= 0.5 * square + 0.5 * static_cast<double>(dim) * std::log(2 * std::numbers::pi);
  }
}

void check(const ProbabilityFlow& flow, const Tensor& x, const Tensor& labels, bool towards_data,
           const LikelihoodOptions& o) {
  require(x.defined() && x.rank() >= 2 && x.numel() >= 1 && computes(x.dtype()),
          "log_likelihood: x must be (rows, ...) of f32 or f64 with at least one row");
  require(!labels.defined() || (labels.rank() == 1 && labels.extent(0) == x.extent(0)), "log_likelihood: labels of shape ",
          labels.shape(), " for ", x.extent(0), " rows");
  require(o.t.size() >= 2 && o.t.front() >= 0 && o.t.back() <= 1,
          "log_likelihood: a grid needs at least two times within [0, 1], found ", o.t.size(), " from ",
          o.t.empty() ? 0.0 : o.t.front(), " to ", o.t.empty() ? 0.0 : o.t.back());
  for (std::size_t k = 0; k + 1 < o.t.size(); ++k)
    require(o.t[k] < o.t[k + 1], "log_likelihood: the grid must increase, found ", o.t[k], " before ", o.t[k + 1]);
  // The times at which the network is asked: the grid's, but euler leaves out the one that it moves to last.
  const bool all = o.method != FlowMethod::euler;
  const std::size_t first = all || towards_data ? 0 : 1, last = o.t.size() - (all || !towards_data ? 0 : 1);
  for (std::size_t k = first; k < last; ++k) conversion(flow.prediction, Parametrisation::velocity, flow.schedule, o.t[k]);
  const double probes = static_cast<double>(trace_products(o.trace, x.numel() / x.extent(0))) *
                        (o.fresh_probes ? static_cast<double>(4 * (o.t.size() - 1)) : 1.0);
  require(probes < static_cast<double>(std::numeric_limits<std::uint32_t>::max()), "log_likelihood: ", probes,
          " probes a row; at most 2^32 can be told apart");
}

Likelihood transport(const ProbabilityFlow& flow, const Tensor& x, const Tensor& labels, bool towards_data,
                     const LikelihoodOptions& o) {
  check(flow, x, labels, towards_data, o);
  const std::int64_t count = x.extent(0);
  Likelihood out;
  out.x = Tensor::empty_like(x);
  out.log_likelihood.assign(static_cast<std::size_t>(count), 0.0);
  out.evaluations = static_cast<std::int64_t>(o.t.size() - 1) * kTableaux[static_cast<std::size_t>(o.method)].stages;
  out.pullbacks = out.evaluations * trace_products(o.trace, x.numel() / count);
  each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const std::span<double> own(out.log_likelihood.data() + first, static_cast<std::size_t>(rows));
    const Tensor start = x.slice(first, rows);
    const Tensor end = integrate(flow, start, towards_data, rows_of(labels, first, rows), o, o.key.from(first), own);
    out.x.slice(first, rows).copy_from(end);
    if (x.is_meta()) return;
    // Towards noise dt is negative and the integral is already minus int_0^1.
    if (towards_data)
      for (double& v : own) v = -v;
    add_log_normal(towards_data ? start : end, own);
  });
  return out;
}

}  // namespace

std::string_view name(FlowMethod method) { return kNames[static_cast<std::size_t>(method)]; }

Likelihood log_likelihood(const ProbabilityFlow& flow, const Tensor& x1, const Tensor& labels,
                          const LikelihoodOptions& options) {
  return transport(flow, x1, labels, false, options);
}

Likelihood sample_with_likelihood(const ProbabilityFlow& flow, const Tensor& x0, const Tensor& labels,
                                  const LikelihoodOptions& options) {
  return transport(flow, x0, labels, true, options);
}

double bits_per_dim(double log_likelihood, std::int64_t dim, double bin) {
  require(dim >= 1 && bin > 0, "bits_per_dim: dimension ", dim, " and bin ", bin, "; expected at least 1 and above 0");
  return -log_likelihood / (static_cast<double>(dim) * std::numbers::ln2) - std::log2(bin);
}

}  // namespace costate::sde
