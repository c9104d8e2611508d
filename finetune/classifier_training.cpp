#include <costate/finetune/classifier_training.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/gradients.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

Tensor as_tensor(const data::Dataset& data, Device device) {
  std::vector<std::int64_t> extents{data.count};
  extents.insert(extents.end(), data.item_shape.begin(), data.item_shape.end());
  return Tensor::from(data.values, Shape(extents), device);
}

}  // namespace

TrainedClassifier train_classifier(const data::Dataset& data, const data::Dataset* held_out, const ClassifierOptions& o,
                                   Device device, const std::function<void(std::int64_t, double)>& progress) {
  data::check(data);
  require(data.classes >= 2, "classifier: the data (", data.description, ") has no labels of at least two classes");
  require(o.iterations >= 1 && o.batch >= 1 && o.input_noise >= 0, "classifier: iterations ", o.iterations, ", batch ",
          o.batch, ", input_noise ", o.input_noise, " are out of range");
  const std::int64_t dim = data::item_size(data);
  nn::Init init(o.seed, DType::f32, device);
  TrainedClassifier result{nn::make_classifier(dim, o.hidden, o.depth, data.classes, init)};
  Tensor items;
  {
    const memory::TagScope scope(memory::Tag::data);
    items = as_tensor(data, device).reshape({data.count, dim});
  }
  nn::AdamW optimiser({.lr = o.lr.peak, .weight_decay = o.weight_decay});
  std::vector<std::int64_t> order;
  std::int64_t epoch = -1, averaged = 0;
  for (std::int64_t n = 0; n < o.iterations; ++n) {
    std::vector<std::int32_t> index, label;
    for (std::int64_t i = 0; i < o.batch; ++i) {
      const std::int64_t position = n * o.batch + i;
      if (position / data.count != epoch) {
        epoch = position / data.count;
        order = permutation(data.count, o.seed, static_cast<std::uint64_t>(epoch));
      }
      index.push_back(static_cast<std::int32_t>(order[position % data.count]));
      label.push_back(data.labels[index.back()]);
    }
    const Tensor labels = Tensor::from(label, {o.batch}, device);
    Tensor x = gather_rows(Var(items), Tensor::from(index, {o.batch}, device)).value();
    if (o.input_noise > 0) {
      const Tensor e = Tensor::empty_like(x);
      random_normal(e, o.seed, Stream::coupling, static_cast<std::uint64_t>(n * o.batch), 1);
      x = axpby(1.0, Var(x), o.input_noise, Var(e)).value();
    }
    const Chunks chunks(o.batch, training_rows(dim));
    Gradients g = sum_gradients(result.classifier, chunks.count(), [&](const nn::Classifier& classifier, std::int64_t c) {
      const std::int64_t first = chunks.first(c), rows = chunks.rows(c);
      const Var logits = classifier(Var(x.slice(first, rows)));
      return affine(sum(nn::log_likelihood(logits, labels.slice(first, rows))), -1.0 / static_cast<double>(o.batch), 0.0);
    });
    if (device != Device::meta && !std::isfinite(g.loss))
      fail(Fault::numerical, {"classifier: iteration ", n, " has loss ", g.loss});
    optimiser.step(mutable_parameters(result.classifier), g.parameters, o.lr(n), nn::clip_factor(nn::gradient_norm(g.parameters), o.clip_norm));
    if (n >= o.iterations - std::max<std::int64_t>(1, o.iterations / 10)) result.loss += g.loss, ++averaged;
    if (progress) progress(n, g.loss);
  }
  result.loss /= static_cast<double>(averaged);
  const data::Dataset& test = held_out ? *held_out : data;
  const Judgement j = judge(result.classifier, as_tensor(test, device));
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < test.count; ++i) right += j.label[i] == test.labels[i];
  result.accuracy = static_cast<double>(right) / static_cast<double>(test.count);
  return result;
}

Judgement judge(const nn::Classifier& classifier, const Tensor& x) {
  Judgement j;
  j.rows = x.extent(0);
  j.classes = classifier.output.weight.extent(0);
  j.width = classifier.output.weight.extent(1);
  const Tensor probabilities = Tensor::empty({j.rows, j.classes}, x.dtype(), x.device());
  const Tensor features = Tensor::empty({j.rows, j.width}, x.dtype(), x.device());
  sde::each_chunk(j.rows, [&](std::int64_t first, std::int64_t rows) {
    const Var f = classifier.features(Var(x.slice(first, rows)));
    features.slice(first, rows).copy_from(f.value());
    probabilities.slice(first, rows).copy_from(softmax(classifier.output(f)).value());
  });
  j.probability = probabilities.to_doubles();
  j.feature = features.to_doubles();
  j.label.resize(static_cast<std::size_t>(j.rows));
  for (std::int64_t i = 0; i < j.rows; ++i) {
    const auto row = j.probability.begin() + i * j.classes;
    j.label[i] = static_cast<std::int32_t>(std::max_element(row, row + j.classes) - row);
  }
  return j;
}

}  // namespace costate::finetune
