#include <costate/finetune/sampling/noise_optimisation.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

namespace costate::finetune {

Improbability improbability(std::span<const double> z, int vector, int permutations, std::uint64_t seed, std::uint64_t first) {
  const auto n = static_cast<std::int64_t>(z.size());
  require(vector >= 1 && vector <= n, "improbability: vectors of ", vector, " out of ", n, " numbers, expected 1 to ", n);
  require(permutations >= 1, "improbability: ", permutations, " permutations, expected at least 1");
  const Eigen::Index k = vector, m = static_cast<Eigen::Index>(n) / k;
  const auto rows = static_cast<double>(m);
  Improbability out{0, std::vector<double>(z.size(), 0.0)};
  Eigen::MatrixXd v(m, k), g(m, k);
  for (int p = 0; p < permutations; ++p) {
    const std::vector<std::int64_t> order = permutation(n, seed, first + static_cast<std::uint64_t>(p));
    for (Eigen::Index i = 0; i < m; ++i)
      for (Eigen::Index j = 0; j < k; ++j) v(i, j) = z[static_cast<std::size_t>(order[static_cast<std::size_t>(i * k + j)])];
    g.setZero();
    const Eigen::RowVectorXd mean = v.colwise().mean();
    if (const double log_p = std::log(2) - rows * mean.squaredNorm() / (2 * vector); log_p < 0) {
      out.value -= log_p;
      g.rowwise() += mean / vector;  // d(m |mean|^2/(2 k))/dz_i
    }
    Eigen::MatrixXd covariance = v.transpose() * v / rows;
    covariance.diagonal().array() -= 1;
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(covariance);
    const Eigen::VectorXd& l = solver.eigenvalues();  // rising
    const Eigen::Index top = std::abs(l[0]) > std::abs(l[k - 1]) ? 0 : k - 1;
    const double spread = std::abs(l[top]), beyond = std::sqrt(1 + spread) - 1 - std::sqrt(vector / rows);
    if (const double log_p = std::log(2) - rows * beyond * beyond / 2; beyond > 0 && log_p < 0) {
      out.value -= log_p;
      const Eigen::VectorXd u = solver.eigenvectors().col(top);
      // d(m b^2/2) = m b/(2 sqrt(1 + M)) dM, dM = sign(l) 2 (z_i . u) u . dz_i/m.
      g += (beyond / std::sqrt(1 + spread) * (l[top] < 0 ? -1.0 : 1.0)) * (v * u) * u.transpose();
    }
    for (Eigen::Index i = 0; i < m; ++i)
      for (Eigen::Index j = 0; j < k; ++j)
        out.gradient[static_cast<std::size_t>(order[static_cast<std::size_t>(i * k + j)])] += g(i, j);
  }
  out.value /= permutations;
  for (double& v_i : out.gradient) v_i /= permutations;
  return out;
}

namespace {

// All noises of a batch: x_0, then e_k of the steps that have one. Entry k + 1 is that of step k.
struct Noises {
  std::vector<Tensor> all;  // undefined for steps without noise
  std::vector<Tensor*> defined() {
    std::vector<Tensor*> list;
    for (Tensor& t : all)
      if (t.defined()) list.push_back(&t);
    return list;
  }
};

// The defined ones: themselves on the cpu, copies of those of a device.
std::vector<Tensor> on_host(std::span<const Tensor> tensors) {
  std::vector<Tensor> out;
  for (const Tensor& t : tensors)
    if (t.defined()) out.push_back(t.to(Device::cpu));
  return out;
}

// The numbers of one row of every tensor, one tensor after the other; and back.
template <class T>
void gather(std::span<const Tensor> tensors, std::int64_t row, std::vector<double>& out) {
  out.clear();
  for (const Tensor& t : tensors) {
    const std::int64_t dim = t.numel() / t.extent(0);
    const auto v = t.template values<T>().subspan(static_cast<std::size_t>(row * dim), static_cast<std::size_t>(dim));
    out.insert(out.end(), v.begin(), v.end());
  }
}
template <class T>
void scatter(const std::vector<double>& values, std::int64_t row, std::span<const Tensor> tensors) {
  std::size_t at = 0;
  for (const Tensor& t : tensors) {
    const std::int64_t dim = t.numel() / t.extent(0);
    T* v = static_cast<T*>(t.raw_mutable()) + row * dim;
    for (std::int64_t j = 0; j < dim; ++j) v[j] = static_cast<T>(values[at++]);
  }
}

// One way through the chain with given noises, into `states` (x_0 is the first noise).
void forward(const sde::Field& field, const sde::Chain& chain, const Noises& z, const Tensor& labels, std::int64_t count,
             const std::vector<Tensor>& states) {
  sde::each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const Tensor own_labels = sde::rows_of(labels, first, rows);
    for (int k = 0; k < chain.steps(); ++k) {
      const Tensor x = (k == 0 ? z.all[0] : states[static_cast<std::size_t>(k)]).slice(first, rows);
      const Tensor prediction = field(Var(x), Var(sde::step_time(chain, k, x)), own_labels).value();
      require(prediction.shape() == x.shape(), "optimise_noise: the field maps shape ", x.shape(), " to ", prediction.shape());
      const Tensor& e = z.all[static_cast<std::size_t>(k) + 1];
      const Tensor next =
          e.defined()
              ? chain_step(chain.A[k], Var(x), chain.C[k], Var(prediction), chain.std[k], Var(e.slice(first, rows))).value()
              : axpby(chain.A[k], Var(x), chain.C[k], Var(prediction)).value();
      states[static_cast<std::size_t>(k) + 1].slice(first, rows).copy_from(next);
    }
  });
}

// -d r/dz into `gradients`, in the order of the defined noises: with a_K = -grad r, that of e_k is std_k a_{k+1}, that of x_0
// is a_0.
void backward(const sde::Field& field, const sde::Chain& chain, const Noises& z, const Tensor& labels, std::int64_t count,
              const std::vector<Tensor>& states, const Tensor& reward_gradient, const std::vector<Tensor>& gradients) {
  sde::each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const Tensor own_labels = sde::rows_of(labels, first, rows);
    Tensor a = neg(Var(reward_gradient.slice(first, rows))).value();
    std::size_t slot = gradients.size();
    for (int k = chain.steps() - 1; k >= 0; --k) {
      if (z.all[static_cast<std::size_t>(k) + 1].defined())
        gradients[--slot].slice(first, rows).copy_from(affine(Var(a), chain.std[k], 0.0).value());
      const Tensor x = (k == 0 ? z.all[0] : states[static_cast<std::size_t>(k)]).slice(first, rows);
      a = sde::pullback_step(field, chain, k, x, own_labels, a).costate;
    }
    gradients[0].slice(first, rows).copy_from(a);
  });
}

void check(const sde::Chain& chain, std::int64_t count, const Tensor& labels, const NoiseOptimisationOptions& o) {
  sde::require_one_step(chain, "optimise_noise");
  require(count >= 1, "optimise_noise: ", count, " samples were asked for");
  require(o.iterations >= 0, "optimise_noise: the number of iterations is ", o.iterations);
  require(o.gamma >= 0 && std::isfinite(o.gamma), "optimise_noise: gamma is ", o.gamma, ", expected a number of at least 0");
  require(o.clip_norm >= 0, "optimise_noise: the limit of the gradient's norm is ", o.clip_norm);
  require(!labels.defined() || (labels.rank() == 1 && labels.extent(0) == count), "optimise_noise: labels of shape ",
          labels.shape(), " for ", count, " samples");
}

}  // namespace

NoiseOptimisation optimise_noise(const sde::Field& field, const sde::Chain& chain, const Shape& shape, std::int64_t count,
                                 const Reward& reward, const Tensor& labels, const sde::NoiseKey& key,
                                 const NoiseOptimisationOptions& o, DType dtype, Device device,
                                 const std::function<void(int iteration, double reward)>& progress) {
  check(chain, count, labels, o);
  const bool meta = device == Device::meta;
  const auto full = [&] { return Tensor::empty(shape.with_front(count), dtype, device); };
  Noises z;
  std::vector<Tensor> states, gradients;
  {
    const memory::TagScope scope(memory::Tag::trajectory);
    z.all.push_back(sde::initial_noise(shape, count, key, dtype, device));
    for (int k = 0; k < chain.steps(); ++k) z.all.push_back(chain.std[k] > 0 ? sde::step_noise(k, z.all[0], key) : Tensor());
    states.emplace_back();  // x_0 is a noise
    for (int k = 0; k < chain.steps(); ++k) states.push_back(full());
  }
  const std::vector<Tensor*> parameters = z.defined();
  {
    const memory::TagScope scope(memory::Tag::gradients);
    for (std::size_t i = 0; i < parameters.size(); ++i) gradients.push_back(full());
  }
  const std::int64_t numbers = static_cast<std::int64_t>(parameters.size()) * shape.numel();
  const auto seed_of_row = [&](std::int64_t row) {
    return key.seed ^ (0x9E3779B97F4A7C15u * (key.first_sample + static_cast<std::uint64_t>(row) + 1));
  };
  if (o.gamma > 0)
    require(o.vector >= 1 && o.vector <= numbers && o.permutations >= 1, "optimise_noise: ", o.permutations,
            " permutations into vectors of ", o.vector, " numbers, expected at least 1, and at most the ", numbers,
            " numbers of a sample's noises");

  // The gradient of gamma R is added and the whole clipped, a sample at a time.
  const auto finish = [&](auto zero, int iteration) {
    using T = decltype(zero);
    const std::vector<Tensor> clipped = on_host(gradients);
    const std::vector<Tensor> noises = o.gamma > 0 ? on_host(z.all) : std::vector<Tensor>();
    parallel(count, [&](std::int64_t row) {
      std::vector<double> g, at;
      gather<T>(clipped, row, g);
      if (o.gamma > 0) {
        gather<T>(noises, row, at);
        const Improbability i =
            improbability(at, o.vector, o.permutations, seed_of_row(row),
                          static_cast<std::uint64_t>(iteration) * static_cast<std::uint64_t>(o.permutations));
        for (std::size_t j = 0; j < g.size(); ++j) g[j] += o.gamma * i.gradient[j];
      }
      double square = 0;
      for (const double v : g) square += v * v;
      if (!std::isfinite(square))
        fail(Fault::numerical, {"optimise_noise: the gradient of sample ", row, " is not finite in iteration ", iteration});
      const double factor = nn::clip_factor(std::sqrt(square), o.clip_norm);
      for (double& v : g) v *= factor;
      scatter<T>(g, row, clipped);
    });
    if (device != Device::cpu)
      for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i].copy_from(clipped[i].to(device));
  };

  NoiseOptimisation out;
  nn::AdamW optimiser(o.adamw);
  for (int n = 0; n < o.iterations; ++n) {
    forward(field, chain, z, labels, count, states);
    const Reward::ValueAndGradient r = reward.value_and_gradient(states.back());
    double mean = 0;
    if (!meta)
      for (const double v : r.value.to_doubles()) mean += v / static_cast<double>(count);
    out.history.push_back(mean);
    if (progress) progress(n, mean);
    backward(field, chain, z, labels, count, states, r.gradient, gradients);
    if (!meta) dtype == DType::f64 ? finish(0.0, n) : finish(0.0f, n);
    optimiser.step(parameters, gradients, o.adamw.lr);
  }
  forward(field, chain, z, labels, count, states);
  out.x = states.back();
  const Tensor last = reward(out.x);
  out.reward.assign(static_cast<std::size_t>(count), 0.0);
  if (meta) return out;
  out.reward = last.to_doubles();
  if (!std::all_of(out.reward.begin(), out.reward.end(), [](double v) { return std::isfinite(v); }))
    fail(Fault::numerical, {"optimise_noise: a reward of the optimised samples is not finite"});
  if (o.gamma > 0) {
    out.improbability.resize(static_cast<std::size_t>(count));
    const std::vector<Tensor> noises = on_host(z.all);
    parallel(count, [&](std::int64_t row) {
      std::vector<double> at;
      dtype == DType::f64 ? gather<double>(noises, row, at) : gather<float>(noises, row, at);
      out.improbability[static_cast<std::size_t>(row)] =
          improbability(at, o.vector, o.permutations, seed_of_row(row),
                        static_cast<std::uint64_t>(o.iterations) * static_cast<std::uint64_t>(o.permutations))
              .value;
    });
  }
  return out;
}

}  // namespace costate::finetune
