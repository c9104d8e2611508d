#include <costate/sde/girsanov.h>

#include <algorithm>
#include <cmath>

namespace costate::sde {

PathRatio::PathRatio(std::int64_t rows) {
  require(rows >= 1, "PathRatio: the number of paths is ", rows);
  cost_.assign(static_cast<std::size_t>(rows), 0.0), log_ratio_ = cost_;
}

template <class T>
void PathRatio::add(int dim, const T* control, const T* noise) {
  require(dim >= 1, "PathRatio::add: the dimension is ", dim);
  for (std::size_t b = 0; b < cost_.size(); ++b) {
    double square = 0, product = 0;
    for (std::size_t i = b * dim; i < (b + 1) * dim; ++i) {
      const double u = control[i];
      square += u * u, product += u * static_cast<double>(noise[i]);
    }
    cost_[b] += square / 2;
    log_ratio_[b] += product + square / 2;
  }
}
template void PathRatio::add<float>(int, const float*, const float*);
template void PathRatio::add<double>(int, const double*, const double*);

namespace {

// Paths from start(first row, rows).
template <class Start>
Paths follow(const Field& tuned, const Field& base, const Chain& chain, const Shape& shape, std::int64_t count,
             const Tensor& labels, const NoiseKey& key, const PathOptions& options, const Start& start) {
  require(count >= 1, "sample_paths: ", count, " paths were asked for");
  require_one_step(chain, "sample_paths");
  require(!labels.defined() || (labels.rank() == 1 && labels.extent(0) == count), "sample_paths: labels of shape ",
          labels.shape(), " for ", count, " paths");
  const bool follow_tuned = options.sampled == PathOptions::Law::tuned;
  const std::int64_t dim = shape.numel();
  Paths out;
  out.terminal = Tensor::empty(shape.with_front(count), options.dtype, options.device);
  out.cost.resize(static_cast<std::size_t>(count));
  out.log_ratio.resize(out.cost.size());
  each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const NoiseKey own = key.from(first);
    const Tensor own_labels = rows_of(labels, first, rows);
    PathRatio ratio(rows);
    const Tensor end = rollout(
        follow_tuned ? tuned : base, chain, start(first, rows), own_labels, own,
        [&](int k, const Tensor& x, const Tensor& prediction) {
          if (chain.std[k] == 0) return;
          const Tensor other = (follow_tuned ? base : tuned)(Var(x), Var(step_time(chain, k, x)), own_labels).value();
          require(other.shape() == x.shape(), "sample_paths: the other field maps shape ", x.shape(), " to ", other.shape());
          const Tensor e = step_noise(k, x, own);
          if (options.visit)
            options.visit(k, first, x, follow_tuned ? prediction : other, follow_tuned ? other : prediction);
          if (x.is_meta()) return;
          std::vector<double> control = prediction.to_doubles(), noise = e.to_doubles();
          const std::vector<double> from = other.to_doubles();
          const double scale = (follow_tuned ? 1 : -1) * chain.C[k] / chain.std[k];
          for (std::size_t i = 0; i < control.size(); ++i) control[i] = scale * (control[i] - from[i]);
          // A step of the base as one of the tuned chain: base mean + std e = tuned mean + std (e - u).
          if (!follow_tuned)
            for (std::size_t i = 0; i < control.size(); ++i) noise[i] -= control[i];
          ratio.add(static_cast<int>(dim), control.data(), noise.data());
        });
    out.terminal.slice(first, rows).copy_from(end);
    std::copy(ratio.cost().begin(), ratio.cost().end(), out.cost.begin() + first);
    std::copy(ratio.log_ratio().begin(), ratio.log_ratio().end(), out.log_ratio.begin() + first);
  });
  return out;
}

}  // namespace

Paths sample_paths(const Field& tuned, const Field& base, const Chain& chain, const Shape& shape, std::int64_t count,
                   const Tensor& labels, const NoiseKey& key, const PathOptions& options) {
  require(
      !options.start.defined() || (options.start.shape() == shape.with_front(count) && options.start.dtype() == options.dtype),
      "sample_paths: the starts have shape ", options.start.defined() ? options.start.shape() : Shape{}, "; expected ",
      shape.with_front(count), " of ", options.dtype);
  return follow(tuned, base, chain, shape, count, labels, key, options, [&](std::int64_t first, std::int64_t rows) {
    if (options.start.defined()) return options.start.slice(first, rows);
    return initial_noise(shape, rows, key.from(first), options.dtype, options.device);
  });
}

Paths sample_paths(const Field& tuned, const Field& base, const std::function<double(double t)>& sigma,
                   const std::vector<double>& t, const Tensor& x0, const Tensor& labels, const NoiseKey& key,
                   const PathOptions& options) {
  require(!options.start.defined(), "sample_paths: x0 and options.start were both given");
  require(x0.defined() && x0.rank() >= 2 && x0.extent(0) >= 1, "sample_paths: x0 must be (rows, ...) with at least one row");
  require(t.size() >= 2, "sample_paths: the time grid has ", t.size(), " times, but one step needs 2");
  Chain steps;  // x + h b + sqrt(h) sigma e, with the drift in the place of the prediction
  steps.t = t;
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const double h = t[k + 1] - t[k], s = sigma(t[k]);
    require(h > 0 && std::isfinite(h), "sample_paths: the time grid must increase, found ", t[k], " before ", t[k + 1]);
    require(s > 0 && std::isfinite(s), "sample_paths: sigma(", t[k], ") is ", s, "; expected a finite number above 0");
    steps.A.push_back(1), steps.C.push_back(h), steps.std.push_back(std::sqrt(h) * s);
  }
  PathOptions own = options;
  own.dtype = x0.dtype(), own.device = x0.device();
  return follow(tuned, base, steps, x0.shape().without(0), x0.extent(0), labels, key, own,
                [&](std::int64_t first, std::int64_t rows) { return x0.slice(first, rows); });
}

}  // namespace costate::sde
