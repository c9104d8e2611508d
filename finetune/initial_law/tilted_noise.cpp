#include <costate/finetune/initial_law/tilted_noise.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/initial_law/noise_control.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace costate::finetune {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"sir", "mcmc", "flow"};
constexpr const char* kWhat = "initial law";
constexpr Stream kChoice{static_cast<std::uint32_t>(Stream::user) + 1};  // which draw, and whether a move is accepted

// Row i of `from` into row i of `to`.
void take_row(const Tensor& to, const Tensor& from, std::int64_t i) { to.slice(i, 1).copy_from(from.slice(i, 1)); }

}  // namespace

std::string_view name(InitialMethod method) { return kNames[static_cast<std::size_t>(method)]; }

TiltedNoise::TiltedNoise(nn::Network value, nn::Network control, Shape sample_shape, const TiltedNoiseOptions& options,
                         Device device)
    : value_(std::move(value)), control_(std::move(control)), sample_shape_(sample_shape), options_(options), device_(device) {
  const TiltedNoiseOptions& o = options_;
  const bool flow = o.method == InitialMethod::flow;
  require(value_.defined() || flow, kWhat, ": ", name(o.method), " needs the value of the noise");
  require(control_.defined() == flow, kWhat, ": ",
          flow ? "flow needs the network of its control" : "a control is of flow only");
  require(o.particles >= 1 && o.moves >= 0 && o.control_steps >= 1, kWhat, ": particles ", o.particles, ", moves ", o.moves,
          ", control_steps ", o.control_steps, " are out of range");
  require(o.move_size > 0 && o.move_size <= 1, kWhat, ": move_size is ", o.move_size, "; expected a number in (0, 1]");
}

std::vector<double> TiltedNoise::values(const Tensor& x, const Tensor& labels) const {
  std::vector<double> out(static_cast<std::size_t>(x.extent(0)));
  sde::each_chunk(x.extent(0), [&](std::int64_t begin, std::int64_t rows) {
    const Tensor v = value_(Var(x.slice(begin, rows)), Var(Tensor::full({rows}, 0.0, DType::f32, device_)),
                            sde::rows_of(labels, begin, rows)).value();
    require(v.shape() == Shape{rows}, kWhat, ": the value of the noise has shape ", v.shape(), " for ", rows, " samples");
    if (v.is_meta()) return;
    const std::vector<double> own = v.to_doubles();
    std::copy(own.begin(), own.end(), out.begin() + begin);
  });
  return out;
}

Tensor TiltedNoise::noise(std::int64_t rows, const sde::NoiseKey& key, std::uint32_t number) const {
  const Tensor x = Tensor::empty(sample_shape_.with_front(rows), DType::f32, device_);
  random_normal(x, key.seed, Stream::initial, key.first_sample, number);
  return x;
}

// The choice is made while the draws come: draw j replaces what was chosen before with probability w_j/(w_0 + ... + w_j).
double TiltedNoise::resample(const Tensor& out, const sde::NoiseKey& key, const Tensor& labels) const {
  const std::int64_t rows = out.extent(0);
  const auto count = static_cast<std::size_t>(rows);
  const Philox philox{key.seed, kChoice};
  std::vector<double> top(count, -std::numeric_limits<double>::infinity()), total(count), squares(count);
  for (int j = 0; j < options_.particles; ++j) {
    const Tensor x = noise(rows, key, static_cast<std::uint32_t>(j));
    const std::vector<double> v = values(x, labels);
    if (out.is_meta()) continue;
    for (std::size_t i = 0; i < count; ++i) {
      if (v[i] > top[i]) {  // sums are in units of the largest weight so far
        const double scale = std::exp(top[i] - v[i]);
        total[i] *= scale, squares[i] *= scale * scale, top[i] = v[i];
      }
      const double w = std::exp(v[i] - top[i]);
      total[i] += w, squares[i] += w * w;
      if (j == 0 || philox.uniform(key.first_sample + i, static_cast<std::uint32_t>(j), 0) * total[i] < w)
        take_row(out, x, static_cast<std::int64_t>(i));
    }
  }
  double share = 0;
  for (std::size_t i = 0; i < count; ++i) share += total[i] * total[i] / squares[i] / options_.particles;
  return share;
}

double TiltedNoise::move(const Tensor& out, const sde::NoiseKey& key, const Tensor& labels) const {
  const std::int64_t rows = out.extent(0);
  const Philox philox{key.seed, kChoice};
  const double s = options_.move_size, keep = std::sqrt(1 - s * s);
  out.copy_from(noise(rows, key, 0));
  std::vector<double> v = values(out, labels);
  double accepted = 0;
  for (int m = 1; m <= options_.moves; ++m) {
    const auto number = static_cast<std::uint32_t>(m);
    const Tensor to = axpby(keep, Var(out), s, Var(noise(rows, key, number))).value();
    const std::vector<double> w = values(to, labels);
    if (out.is_meta()) continue;
    for (std::size_t i = 0; i < v.size(); ++i) {
      if (std::log(philox.uniform(key.first_sample + i, number, 0)) >= w[i] - v[i]) continue;
      take_row(out, to, static_cast<std::int64_t>(i));
      v[i] = w[i];
      accepted += 1;
    }
  }
  return options_.moves == 0 ? 0 : accepted / options_.moves;
}

TiltedNoise::Draw TiltedNoise::draw(std::int64_t rows, const sde::NoiseKey& key, const Tensor& labels) const {
  require(rows >= 1, kWhat, ": ", rows, " samples were asked for");
  if (options_.method == InitialMethod::flow) {
    require(!labels.defined(), kWhat, ": the control of flow knows of no classes; take sir or mcmc");
    return {controlled_noise(control_, sample_shape_, options_.control_steps, rows, key, device_),
            std::numeric_limits<double>::quiet_NaN()};
  }
  const Tensor x = Tensor::empty(sample_shape_.with_front(rows), DType::f32, device_);
  const std::int64_t size = sde::chunk_rows(rows);
  std::vector<double> efficiency(static_cast<std::size_t>((rows + size - 1) / size));
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    const Tensor part = x.slice(begin, n), own_labels = sde::rows_of(labels, begin, n);
    efficiency[static_cast<std::size_t>(begin / size)] = options_.method == InitialMethod::sir
                                                             ? resample(part, key.from(begin), own_labels)
                                                             : move(part, key.from(begin), own_labels);
  });
  double sum = 0;
  for (const double e : efficiency) sum += e;
  return {x, sum / static_cast<double>(rows)};
}

InitialLaw TiltedNoise::law(const ControlProblem& problem) const {
  ControlProblem labelled;
  labelled.labels = problem.labels, labelled.device = problem.device;
  return [self = *this, labelled](std::int64_t rows, const sde::NoiseKey& key) {
    return self.draw(rows, key, labelled.draw_labels(rows, key)).x;
  };
}

std::vector<double> TiltedNoise::log_ratio(const Tensor& x, const sde::NoiseKey& key, const Tensor& labels) const {
  require(value_.defined(), kWhat, ": a density is computed from the value of the noise, which is not there");
  std::vector<double> out = values(x, labels);
  const std::vector<double> v = values(noise(x.extent(0), key, 0), labels);
  const double top = *std::max_element(v.begin(), v.end());
  double total = 0;
  for (const double e : v) total += std::exp(e - top);
  const double log_z = top + std::log(total / static_cast<double>(v.size()));
  for (double& e : out) e -= log_z;
  return out;
}

double TiltedNoise::divergence(std::int64_t rows, const sde::NoiseKey& key, const Tensor& labels) const {
  require(value_.defined(), kWhat, ": the divergence is computed from the value of the noise, which is not there");
  const std::vector<double> v = values(noise(rows, key, 0), labels);
  const double top = *std::max_element(v.begin(), v.end());
  double total = 0, mean = 0;
  for (const double e : v) total += std::exp(e - top), mean += std::exp(e - top) * e;
  return mean / total - (top + std::log(total / static_cast<double>(rows)));
}

}  // namespace costate::finetune
