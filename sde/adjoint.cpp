#include <costate/sde/adjoint.h>

#include <costate/autograd/ops.h>

#include <algorithm>
#include <cmath>

namespace costate::sde {

void lean_adjoint(const Field& base, const Chain& chain, const std::function<Tensor(int k)>& state, const Tensor& labels,
                  Tensor a,
                  const std::function<void(int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a)>& visit) {
  for (int k = chain.steps() - 1; k >= 0; --k) {
    Pullback p = pullback_step(base, chain, k, state(k), labels, a);
    visit(k, p.prediction, a, p.costate);
    a = std::move(p.costate);
  }
}

namespace {
void accumulate(std::vector<Tensor>& sum, std::vector<Tensor> terms) {
  if (sum.empty()) {
    sum = std::move(terms);
    return;
  }
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i].unshare();
    add_in_place(sum[i], terms[i]);
  }
}
}  // namespace

ChainGradient chain_gradient(const ParametricField& field, const Chain& chain, const Tensor& x0, const Tensor& labels,
                             const NoiseKey& key, const std::function<Tensor(const Tensor& x)>& terminal,
                             const AdjointOptions& options) {
  const int steps = chain.steps();
  require(options.segment >= 0, "chain_gradient: segments of ", options.segment, " steps; expected at least 1 (0: sqrt K)");
  int stride = 1;
  if (options.method == AdjointOptions::Method::segments)
    stride = options.segment ? std::min(options.segment, steps)
                             : std::max(1, static_cast<int>(std::lround(std::sqrt(static_cast<double>(steps)))));

  ChainGradient result;
  const Field& f = field.frozen;
  std::vector<Tensor> kept((steps + stride - 1) / stride), segment(stride);
  Tensor x = x0;
  for (int k = 0; k < steps; ++k) {
    if (k % stride == 0) kept[k / stride] = x;
    x = step(f, chain, k, x, labels, key);
    ++result.work.evaluations;
  }
  result.x = x;
  Tensor a = terminal(x);
  for (int s = static_cast<int>(kept.size()) - 1; s >= 0; --s) {
    const int first = s * stride, last = std::min(first + stride, steps);
    segment[0] = std::exchange(kept[s], Tensor());
    for (int k = first; k + 1 < last; ++k) {
      segment[k + 1 - first] = step(f, chain, k, segment[k - first], labels, key);
        ++result.work.evaluations, ++result.work.recomputed;
    }
    for (int k = last - 1; k >= first; --k) {
      auto p = pullback_step(field, chain, k, std::exchange(segment[k - first], Tensor()), labels, a);
      ++result.work.evaluations, ++result.work.pullbacks;
      a = std::move(p.costate);
      accumulate(result.parameters, std::move(p.parameters));
    }
  }
  result.initial = std::move(a);
  return result;
}

}  // namespace costate::sde
