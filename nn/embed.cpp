#include <costate/nn/embed.h>

#include <costate/tensor/random.h>

#include <cmath>

namespace costate::nn {

Var time_features(const Var& t, int frequencies) {
  require(t.rank() == 1, "time_features: t has shape ", t.shape(), "; expected (rows,)");
  require(frequencies >= 1, "time_features: ", frequencies, " frequencies; expected at least 1");
  std::vector<double> f(static_cast<std::size_t>(frequencies));
  for (int j = 0; j < frequencies; ++j) f[j] = M_PI * std::pow(2.0, 0.5 * j);
  const Tensor omega = Tensor::from(f, {1, frequencies}, t.device()).to(t.dtype());
  const Var angle = mul(reshape(t, {-1, 1}), Var(omega));
  const Var s = sin(angle), c = cos(angle);
  return concat({&s, &c}, 1);
}

Var ClassEmbedding::operator()(const Tensor& labels, std::int64_t rows) const {
  if (!labels.defined())
    return gather_rows(table,
                       Tensor::full({rows}, static_cast<double>(classes()), DType::i32, table.device()));
  require(labels.rank() == 1 && labels.extent(0) == rows, "class embedding: labels of shape ", labels.shape(),
          " for ", rows, " rows");
  return gather_rows(table, labels);
}

ClassEmbedding make_class_embedding(Init& init, std::int64_t classes, std::int64_t width) {
  require(classes >= 1, "class embedding: ", classes, " classes; expected at least 1");
  return {Var(init.normal({classes + 1, width}, 1.0))};
}

Tensor drop_labels(const Tensor& labels, std::int32_t null_class, double probability, std::uint64_t seed,
                   std::uint64_t first_sample, std::uint32_t step) {
  require(probability >= 0 && probability <= 1, "drop_labels: probability ", probability,
          " is outside [0, 1]");
  require(labels.defined() && labels.dtype() == DType::i32, "drop_labels: the labels are ",
          labels.defined() ? name(labels.dtype()) : "undefined", "; expected i32");
  if (labels.is_meta() || probability == 0) return labels.clone();
  Tensor dropped = labels.to(Device::cpu).clone();
  const Philox philox{seed, Stream::label};
  std::uint64_t sample = first_sample;
  for (std::int32_t& label : dropped.mutate<std::int32_t>())
    if (philox.uniform(sample++, step, 1) < probability) label = null_class;
  return dropped.to(labels.device());
}

}  // namespace costate::nn
