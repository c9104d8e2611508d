#include <costate/nn/timestep.h>

#include <cmath>

namespace costate::nn {

Var timestep_features(const Var& timestep, std::int64_t width, bool cosine_first, double frequency_shift) {
  require(timestep.rank() == 1, "timestep_features: the timesteps have shape ", timestep.shape(),
          "; expected (rows,)");
  const std::int64_t half = width / 2;
  const double spread = static_cast<double>(half) - frequency_shift;
  require(half >= 1 && spread > 0, "timestep_features: width ", width, " with a frequency shift of ",
          frequency_shift, " leaves no frequencies");
  std::vector<double> f(static_cast<std::size_t>(half));
  for (std::int64_t k = 0; k < half; ++k) f[k] = std::exp(-std::log(1e4) * static_cast<double>(k) / spread);
  const Tensor frequency = Tensor::from(f, {1, half}, timestep.device()).to(timestep.dtype());
  const Var angle = mul(reshape(timestep, {-1, 1}), Var(frequency));
  const Var s = sin(angle), c = cos(angle);
  const Var &first = cosine_first ? c : s, &second = cosine_first ? s : c;
  if (width % 2 == 0) return concat({&first, &second}, 1);
  const Var zero(Tensor::zeros({timestep.extent(0), 1}, timestep.dtype(), timestep.device()));
  return concat({&first, &second, &zero}, 1);
}

Tensor timestep_index(const Tensor& timestep, std::int64_t n, std::string_view where) {
  require(timestep.rank() == 1, where, ": the timesteps have shape ", timestep.shape(), "; expected (rows,)");
  std::vector<std::int32_t> index(static_cast<std::size_t>(timestep.numel()));
  if (!timestep.is_meta()) {
    const std::vector<double> values = timestep.to_doubles();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double row = std::nearbyint(values[i]);
      require(row >= 0 && row < static_cast<double>(n), where, ": the timestep ", values[i],
              " is outside the learned table, 0 to ", n - 1);
      index[i] = static_cast<std::int32_t>(row);
    }
  }
  return Tensor::from(index, timestep.shape(), timestep.device());
}

}  // namespace costate::nn
