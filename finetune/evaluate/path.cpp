#include <costate/finetune/evaluate/path.h>

#include <algorithm>

namespace costate::finetune {

Paths sample_paths(const sde::Field& tuned, const sde::Field& base, const sde::Chain& chain,
                   const Shape& shape, std::int64_t count, const Tensor& labels, const sde::NoiseKey& key,
                   Device device, const PathVisitor& visit) {
  require(count >= 1, "sample_paths: ", count, " trajectories were asked for");
  Paths out;
  out.terminal = Tensor::empty(shape.with_front(count), DType::f32, device);
  out.cost.resize(static_cast<std::size_t>(count));
  out.log_ratio.resize(out.cost.size());
  const std::int64_t dim = shape.numel();
  sde::each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const sde::NoiseKey own = key.from(first);
    const Tensor own_labels = sde::rows_of(labels, first, rows);
    PathKl kl(rows);
    std::vector<double> control(static_cast<std::size_t>(rows * dim)), noise(control.size());
    const Tensor x0 = sde::initial_noise(shape, rows, own, DType::f32, device);
    const Tensor end = sde::rollout(
        tuned, chain, x0, own_labels, own, [&](int k, const Tensor& x, const Tensor& prediction) {
          if (chain.std[k] == 0) return;
          const Tensor reference = base(Var(x), Var(sde::step_time(chain, k, x)), own_labels).value();
          const Tensor e = sde::step_noise(k, x, own);
          if (visit) visit(k, first, x, prediction, reference);
          if (x.is_meta()) return;
          const auto v = prediction.values<float>(), b = reference.values<float>(), n = e.values<float>();
          const double scale = chain.C[k] / chain.std[k];
          for (std::size_t i = 0; i < control.size(); ++i)
            control[i] = scale * (static_cast<double>(v[i]) - b[i]), noise[i] = n[i];
          kl.add(static_cast<int>(dim), control.data(), noise.data());
        });
    out.terminal.slice(first, rows).copy_from(end);
    std::copy(kl.cost().begin(), kl.cost().end(), out.cost.begin() + first);
    std::copy(kl.log_ratio().begin(), kl.log_ratio().end(), out.log_ratio.begin() + first);
  });
  return out;
}

}  // namespace costate::finetune
