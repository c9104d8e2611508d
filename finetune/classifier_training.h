// Training a small classifier: as a learned reward, and as the judge that looks at the result. The two must not share data.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <costate/nn/mlp.h>
#include <costate/nn/optim.h>
#include <functional>

namespace costate::finetune {

struct ClassifierOptions {
  std::int64_t hidden = 128;
  int depth = 2;
  std::int64_t iterations = 2000, batch = 128;
  nn::LearningRate lr{.peak = 2e-3, .warmup = 50, .total = 2000, .decay = nn::LearningRate::Decay::cosine};
  double weight_decay = 1e-2;
  double clip_norm = 1.0;
  // Standard deviation of Gaussian noise added to the inputs, drawn anew each time: a reward's gradient is taken at
  // samples of a model, a little off the data.
  double input_noise = 0.1;
  std::uint64_t seed = 0;
};

struct TrainedClassifier {
  nn::Classifier classifier;
  double loss = 0;      // of the last tenth of the iterations, mean
  double accuracy = 0;  // on `held_out`, or on the training data without one
};

// Minimises the cross-entropy on the dataset (which must have labels). `progress(iteration, loss)` after each update, if
// given. Throws Error(Fault::numerical) when the loss is not finite.
TrainedClassifier train_classifier(const data::Dataset& data, const data::Dataset* held_out, const ClassifierOptions& options,
                                   Device device = Device::cpu,
                                   const std::function<void(std::int64_t, double)>& progress = nullptr);

// Of rows x (rows, ...): the likeliest class, the probabilities (rows x classes) and the features (rows x hidden), computed
// in chunks.
struct Judgement {
  std::int64_t rows = 0, classes = 0, width = 0;
  std::vector<std::int32_t> label;
  std::vector<double> probability, feature;
};
Judgement judge(const nn::Classifier& classifier, const Tensor& x);

}  // namespace costate::finetune
