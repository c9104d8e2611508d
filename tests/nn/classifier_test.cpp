// Cross-entropy, dropping of labels, and a classifier that learns handwritten digits.
#include "nn_support.h"

#include <costate/autograd/check.h>
#include <costate/finetune/data/glyphs.h>
#include <costate/nn/mlp.h>
#include <costate/nn/optim.h>

#include <algorithm>
#include <cmath>

namespace costate::nn {
namespace {

using std::vector;

TEST(CrossEntropy, IsTheMeanNegativeLogarithmOfTheSoftmax) {
  const Tensor logits = Tensor::from(vector<double>{1, 2, 3, -1, 0, 700, 5, 5, 5, -800, 0, 0}, {4, 3});
  const vector<std::int32_t> label = {2, 2, 0, 0};
  const auto l = logits.to_doubles();
  vector<double> expected;
  for (std::size_t i = 0; i < 4; ++i) {
    const double top = *std::max_element(l.begin() + 3 * static_cast<std::ptrdiff_t>(i),
                                         l.begin() + 3 * static_cast<std::ptrdiff_t>(i + 1));
    double z = 0;
    for (std::size_t j = 0; j < 3; ++j) z += std::exp(l[3 * i + j] - top);
    expected.push_back(l[3 * i + static_cast<std::size_t>(label[i])] - top - std::log(z));
  }
  const auto got = log_likelihood(Var(logits), Tensor::from(label, {4})).value().to_doubles();
  // 1e-12: numbers up to 800 in double precision.
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i], expected[i], 1e-12);
  const double mean_of = -(expected[0] + expected[1] + expected[2] + expected[3]) / 4;
  EXPECT_NEAR(cross_entropy(Var(logits), Tensor::from(label, {4})).value().item(), mean_of, 1e-12);
  EXPECT_EQ(cross_entropy(Var(Tensor::zeros({5, 8})), Tensor::zeros({5}, DType::i32)).rank(), 0);
}

TEST(CrossEntropy, GradientsAgreeWithCentralDifferences) {
  const Tensor labels = Tensor::from(vector<std::int32_t>{0, 2, 2, 1}, {4});
  const vector<Tensor> logits = {random_tensor({4, 3}, 1)};
  EXPECT_EQ(check_gradients([&](std::span<const Var> in) { return cross_entropy(in[0], labels); }, logits, 2),
            "");
  EXPECT_EQ(
      check_gradients([&](std::span<const Var> in) { return log_likelihood(in[0], labels); }, logits, 2), "");
}

TEST(CrossEntropy, RefusesInWords) {
  const Var logits(Tensor::zeros({2, 3}));
  const auto labels = [](vector<std::int32_t> l) {
    return Tensor::from(l, {static_cast<std::int64_t>(l.size())});
  };
  expect_error(Fault::argument, "label 3 is outside 0 to 2", [&] { cross_entropy(logits, labels({0, 3})); });
  expect_error(Fault::argument, "label -1", [&] { cross_entropy(logits, labels({-1, 0})); });
  expect_error(Fault::argument, "(3,)", [&] { cross_entropy(logits, labels({0, 1, 2})); });
  expect_error(Fault::argument, "f32", [&] { cross_entropy(logits, Tensor::zeros({2})); });
}

TEST(DropLabels, DropsTheFractionAskedForByCounter) {
  const std::int64_t n = 20000;
  vector<std::int32_t> label(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < label.size(); ++i) label[i] = static_cast<std::int32_t>(i % 7);
  const Tensor labels = Tensor::from(label, {n});
  const auto dropped = [&](double p, std::uint64_t seed, std::uint64_t first, std::uint32_t step) {
    return drop_labels(labels, 10, p, seed, first, step);
  };
  EXPECT_TRUE(same_bits(dropped(0, 1, 0, 0), labels));
  for (const std::int32_t l : dropped(1, 1, 0, 0).values<std::int32_t>()) ASSERT_EQ(l, 10);
  const Tensor some = dropped(0.15, 1, 0, 0);
  EXPECT_FALSE(some.shares_storage_with(labels));
  std::int64_t count = 0;
  for (std::size_t i = 0; i < label.size(); ++i) {
    const std::int32_t l = some.values<std::int32_t>()[i];
    ASSERT_TRUE(l == 10 || l == label[i]);
    count += l == 10;
  }
  // A binomial count has standard deviation sqrt(n p (1 - p)) = 50.5; within four of them.
  EXPECT_NEAR(static_cast<double>(count), 0.15 * static_cast<double>(n),
              4 * std::sqrt(static_cast<double>(n) * 0.15 * 0.85));
  EXPECT_TRUE(same_bits(some, dropped(0.15, 1, 0, 0)));
  EXPECT_FALSE(same_bits(some, dropped(0.15, 2, 0, 0)));
  EXPECT_FALSE(same_bits(some, dropped(0.15, 1, 0, 1)));
  // Rows are samples: the second half of the batch is the batch that begins at its sample.
  const Tensor half =
      drop_labels(labels.slice(n / 2, n / 2), 10, 0.15, 1, static_cast<std::uint64_t>(n / 2), 0);
  EXPECT_TRUE(same_bits(half, some.slice(n / 2, n / 2)));
  expect_error(Fault::argument, "probability 1.5", [&] { dropped(1.5, 1, 0, 0); });
  expect_error(Fault::argument, "undefined", [] { drop_labels(Tensor(), 1, 0.5, 1, 0, 0); });
  expect_error(Fault::argument, "f32", [] { drop_labels(Tensor::zeros({2}), 1, 0.5, 1, 0, 0); });
}

// Choosing labels takes element 0 of the same stream (see embed.h): what is dropped must not depend on what
// was chosen.
TEST(DropLabels, IsIndependentOfTheChoiceOfLabels) {
  const std::uint64_t n = 20000;
  const Philox philox{9, Stream::label};
  vector<std::int32_t> label;
  for (std::uint64_t i = 0; i < n; ++i) label.push_back(static_cast<std::int32_t>(philox.below(2, i, 0, 0)));
  const Tensor dropped = drop_labels(Tensor::from(label, {static_cast<std::int64_t>(n)}), 2, 0.5, 9, 0, 0);
  double both = 0, first = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const bool is_dropped = dropped.values<std::int32_t>()[i] == 2;
    first += label[i] == 0;
    both += label[i] == 0 && is_dropped;
  }
  // Half of the labels 0 are dropped, within four standard deviations of the binomial law.
  EXPECT_NEAR(both, first / 2, 4 * std::sqrt(first / 4));
}

double accuracy(const Classifier& c, const data::Dataset& set, const Tensor& images) {
  const Tensor logits = c(Var(images)).value();
  const auto v = logits.values<float>();
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < set.count; ++i)
    right += std::max_element(v.begin() + 10 * i, v.begin() + 10 * (i + 1)) - (v.begin() + 10 * i) ==
             set.labels[i];
  return static_cast<double>(right) / static_cast<double>(set.count);
}

TEST(Classifier, LearnsGlyphDigits) {
  data::GlyphOptions options;
  options.resolution = 12;
  const data::Dataset train = data::glyphs(options, 1, 0, 4000), test = data::glyphs(options, 2, 0, 1000);
  const std::int64_t dim = 144, batch = 100;
  const Tensor images = Tensor::from(train.values, {train.count, dim}),
               unseen = Tensor::from(test.values, {test.count, dim});
  Init init(1);
  Classifier c = make_classifier(dim, 96, 1, 10, init);
  EXPECT_LT(accuracy(c, test, unseen), 0.4);  // untrained: about one in ten
  AdamW adamw({.lr = 1, .weight_decay = 0.01});
  const int updates = 320;
  LearningRate lr;
  lr.peak = 5e-3, lr.warmup = 10, lr.total = updates, lr.decay = LearningRate::Decay::cosine;
  for (int n = 0; n < updates; ++n) {
    const std::int64_t first = n * batch % train.count;
    const Tensor labels =
        Tensor::from(std::span(train.labels).subspan(static_cast<std::size_t>(first), batch), {batch});
    vector<Tensor> gradients;
    {
      Tape tape;
      vector<Var> watched;
      const Classifier tracked = watch(c, tape, watched);
      gradients =
          std::move(tape).vjp(cross_entropy(tracked(Var(images.slice(first, batch))), labels), watched);
    }
    adamw.step(handles(c), gradients, lr(n), clip_factor(gradient_norm(gradients), 1.0));
  }
  EXPECT_GT(accuracy(c, test, unseen), 0.95);
}

}  // namespace
}  // namespace costate::nn
