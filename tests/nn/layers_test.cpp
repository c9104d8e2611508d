// Layers and networks against values worked out by hand and by plain loops, and their gradients against
// differences.
#include "nn_support.h"

#include <costate/autograd/check.h>
#include <costate/nn/mlp.h>
#include <costate/nn/network.h>

#include <cmath>

namespace costate::nn {
namespace {

using std::vector;

Tensor f64(const vector<double>& v, const Shape& shape) { return Tensor::from(v, shape); }
double silu_of(double x) { return x / (1 + std::exp(-x)); }

TEST(Linear, ValuesByHand) {
  const Linear layer{Var(f64({1, 2, 3, -4, 0, 0.5}, {2, 3})), Var(f64({10, 20}, {2}))};
  const Var x(f64({1, 1, 1, 2, -1, 0}, {2, 3}));
  EXPECT_EQ(layer(x).value().to_doubles(), (vector<double>{16, 16.5, 10, 12}));
  EXPECT_EQ(layer(reshape(x, {2, 1, 3})).shape(), (Shape{2, 1, 2}));
  Linear without = layer;
  without.bias = Var();
  EXPECT_EQ(without(x).value().to_doubles(), (vector<double>{6, -3.5, 0, -8}));
  EXPECT_EQ(names(layer), (vector<std::string>{"weight", "bias"}));
  EXPECT_EQ(names(without), (vector<std::string>{"weight"}));
  Linear smooth = layer;
  smooth.activation = Activation::silu;
  // 1e-12: one rounding of exp in double precision.
  EXPECT_NEAR(smooth(x).value().to_doubles()[1], silu_of(16.5), 1e-12);
}

TEST(Classifier, ValuesByHand) {
  Classifier c;
  c.layers = {{Var(f64({1, -1}, {1, 2})), Var(f64({0.5}, {1})), Activation::silu},
              {Var(f64({2}, {1, 1})), Var(f64({-1}, {1})), Activation::silu}};
  c.output = {Var(f64({1, -2}, {2, 1})), Var(f64({0, 3}, {2}))};
  const Var x(f64({2, 1, 0, 1}, {2, 1, 2}));  // every further axis is flattened
  const double h0 = silu_of(2 * silu_of(1.5) - 1), h1 = silu_of(2 * silu_of(-0.5) - 1);
  const auto features = c.features(x).value().to_doubles(), logits = c(x).value().to_doubles();
  const vector<double> expected = {h0, 3 - 2 * h0, h1, 3 - 2 * h1};
  // 1e-14: a few roundings of numbers near 1.
  EXPECT_NEAR(features[0], h0, 1e-14);
  EXPECT_NEAR(features[1], h1, 1e-14);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(logits[i], expected[i], 1e-14);
}

TEST(TimeFeatures, AreSinesThenCosinesOfGeometricFrequencies) {
  const vector<double> t = {0, 0.25, 1};
  const auto f = time_features(Var(f64(t, {3})), 4).value();
  ASSERT_EQ(f.shape(), (Shape{3, 8}));
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) {
      const double angle = 2 * M_PI * t[i] * std::pow(2, j / 2.0) / 2;
      EXPECT_NEAR(f.values<double>()[8 * i + j], std::sin(angle), 1e-13);
      EXPECT_NEAR(f.values<double>()[8 * i + 4 + j], std::cos(angle), 1e-13);
    }
  expect_error(Fault::argument, "frequencies", [] { time_features(Var(Tensor::zeros({2})), 0); });
  expect_error(Fault::argument, "(2, 1)", [] { time_features(Var(Tensor::zeros({2, 1})), 3); });
}

// Every combination of the options that changes the arithmetic.
vector<MlpOptions> variants() {
  vector<MlpOptions> all;
  for (const int frequencies : {0, 3})
    for (const int classes : {0, 4})
      for (const bool residual : {false, true})
        for (const bool norm : {false, true}) {
          MlpOptions o;
          o.dim = 2, o.hidden = 5, o.depth = 3, o.class_width = 3;
          o.time_frequencies = frequencies, o.classes = classes, o.residual = residual, o.norm = norm;
          all.push_back(o);
        }
  return all;
}

// A network whose parameters are all random: as made, the output layer is zero.
VelocityMlp random_network(const MlpOptions& o, DType dtype = DType::f64) {
  Init init(5, dtype);
  VelocityMlp m = make_velocity_mlp(o, init);
  std::uint32_t n = 100;
  visit(m, [&](const std::string&, Var& p) {
    const double scale = p.rank() == 2 ? 1 / std::sqrt(static_cast<double>(p.extent(1))) : 0.5;
    p = affine(Var(random_tensor(p.shape(), n++, dtype)), scale, 0.1);
  });
  return m;
}

vector<double> plain_layer(const Linear& layer, const vector<double>& x) {
  const auto w = layer.weight.value().to_doubles(), b = layer.bias.value().to_doubles();
  vector<double> y = b;
  for (std::size_t i = 0; i < y.size(); ++i) {
    for (std::size_t j = 0; j < x.size(); ++j) y[i] += w[i * x.size() + j] * x[j];
    if (layer.activation == Activation::silu) y[i] = silu_of(y[i]);
  }
  return y;
}

// One row, by the definition in mlp.h.
vector<double> reference(const VelocityMlp& m, vector<double> in, double t, int label) {
  const int k = m.options.time_frequencies;
  if (k == 0) in.push_back(t);
  for (int j = 0; j < k; ++j) in.push_back(std::sin(M_PI * std::pow(2, j / 2.0) * t));
  for (int j = 0; j < k; ++j) in.push_back(std::cos(M_PI * std::pow(2, j / 2.0) * t));
  if (m.options.classes > 0) {
    const auto table = m.embedding.table.value().to_doubles();
    for (int j = 0; j < m.options.class_width; ++j)
      in.push_back(table[static_cast<std::size_t>(label * m.options.class_width + j)]);
  }
  vector<double> h = plain_layer(m.layers[0], in);
  for (std::size_t l = 1; l < m.layers.size(); ++l) {
    vector<double> z = h;
    if (m.options.norm) {
      double mean = 0, variance = 0;
      for (const double v : h) mean += v / static_cast<double>(h.size());
      for (const double v : h) variance += (v - mean) * (v - mean) / static_cast<double>(h.size());
      const auto w = m.norms[l - 1].weight.value().to_doubles(), b = m.norms[l - 1].bias.value().to_doubles();
      for (std::size_t i = 0; i < z.size(); ++i)
        z[i] = (h[i] - mean) / std::sqrt(variance + 1e-5) * w[i] + b[i];
    }
    z = plain_layer(m.layers[l], z);
    for (std::size_t i = 0; i < z.size(); ++i) h[i] = m.options.residual ? h[i] + z[i] : z[i];
  }
  return plain_layer(m.output, h);
}

TEST(VelocityMlp, AgreesWithPlainLoops) {
  const vector<double> x = {0.3, -1.2, 0.7, 0.1, -0.4, 2.0}, t = {0.1, 0.5, 0.95};
  const vector<std::int32_t> label = {0, 4, 3};  // 4: the null class
  for (const MlpOptions& o : variants()) {
    const VelocityMlp m = random_network(o);
    const bool classes = o.classes > 0;
    const Tensor labels = classes ? Tensor::from(label, {3}) : Tensor();
    const Var y = m(Var(f64(x, {3, 2})), Var(f64(t, {3})), labels);
    ASSERT_EQ(y.shape(), (Shape{3, 2}));
    // Without labels every row has the null class.
    const Var null = m(Var(f64(x, {3, 2})), Var(f64(t, {3})), Tensor());
    for (std::size_t i = 0; i < 3; ++i) {
      const auto expected = reference(m, {x[2 * i], x[2 * i + 1]}, t[i], label[i]);
      const auto unlabelled = reference(m, {x[2 * i], x[2 * i + 1]}, t[i], 4);
      for (std::size_t d = 0; d < 2; ++d) {
        // 1e-12: sums of at most 11 terms of size 1 in double precision.
        EXPECT_NEAR(y.value().values<double>()[2 * i + d], expected[d], 1e-12);
        EXPECT_NEAR(null.value().values<double>()[2 * i + d], unlabelled[d], 1e-12);
      }
    }
  }
}

TEST(VelocityMlp, GradientsAgreeWithCentralDifferences) {
  for (const MlpOptions& o : variants()) {
    const VelocityMlp m = random_network(o);
    vector<Tensor> inputs = {random_tensor({2, 2}, 1), f64({0.2, 0.7}, {2})};
    for (const Tensor& p : parameters(m)) inputs.push_back(p);
    const Tensor labels = o.classes > 0 ? Tensor::from(vector<std::int32_t>{1, 4}, {2}) : Tensor();
    const auto f = [&](std::span<const Var> in) {
      return with_parameters(m, in.subspan(2))(in[0], in[1], labels);
    };
    EXPECT_EQ(check_gradients(f, inputs), "")
        << "frequencies " << o.time_frequencies << ", classes " << o.classes << ", residual " << o.residual
        << ", norm " << o.norm;
  }
}

TEST(VelocityMlp, KeepsTheShapeOfItsInputAndStartsAtZero) {
  MlpOptions o;
  o.dim = 12, o.classes = 3;
  Init init(1);
  const VelocityMlp m = make_velocity_mlp(o, init);
  const Var y = m(Var(random_tensor({5, 2, 3, 2}, 1, DType::f32)), Var(Tensor::full({5}, 0.5)), Tensor());
  EXPECT_EQ(y.shape(), (Shape{5, 2, 3, 2}));
  for (const double v : y.value().to_doubles()) EXPECT_EQ(v, 0);
  // 12 features, 16 of time and 16 of the class go in; two more hidden layers; 12 come out; four class
  // vectors.
  EXPECT_EQ(parameter_count(m), 4 * 16 + (44 + 1) * 128 + 2 * (128 + 1) * 128 + (128 + 1) * 12);
  EXPECT_EQ(names(m).front(), "embedding.table");
  EXPECT_EQ(names(m)[1], "layers.0.weight");
  EXPECT_EQ(names(m).back(), "output.bias");
}

TEST(VelocityMlp, RawTimeAndFourierFeaturesDiffer) {
  MlpOptions o;
  o.dim = 1, o.hidden = 1, o.depth = 1, o.time_frequencies = 0;
  o.activation = Activation::none;
  Init init(1, DType::f64);
  VelocityMlp raw = make_velocity_mlp(o, init);
  ASSERT_EQ(raw.layers[0].weight.shape(), (Shape{1, 2}));
  raw.layers[0].weight = Var(f64({0, 1}, {1, 2}));
  raw.output.weight = Var(f64({1}, {1, 1}));
  const auto y =
      raw(Var(Tensor::zeros({2, 1}, DType::f64)), Var(f64({0.25, 0.75}, {2})), Tensor()).value().to_doubles();
  EXPECT_EQ(y, (vector<double>{0.25, 0.75}));
  o.time_frequencies = 1;  // sin(pi t), cos(pi t)
  VelocityMlp fourier = make_velocity_mlp(o, init);
  ASSERT_EQ(fourier.layers[0].weight.shape(), (Shape{1, 3}));
  fourier.layers[0].weight = Var(f64({0, 1, 10}, {1, 3}));
  fourier.output.weight = Var(f64({1}, {1, 1}));
  const double z =
      fourier(Var(Tensor::zeros({1, 1}, DType::f64)), Var(f64({0.25}, {1})), Tensor()).value().item();
  EXPECT_NEAR(z, 11 * std::sqrt(0.5), 1e-13);
}

TEST(VelocityMlp, RefusesInWords) {
  MlpOptions o;
  o.classes = 2;
  Init init(1);
  const VelocityMlp m = make_velocity_mlp(o, init);
  const Var x(Tensor::zeros({3, 2})), t(Tensor::zeros({3}));
  const auto labels = [](const vector<std::int32_t>& l) {
    return Tensor::from(l, {static_cast<std::int64_t>(l.size())});
  };
  expect_error(Fault::argument, "rows of 2 features", [&] { m(Var(Tensor::zeros({3, 4})), t, Tensor()); });
  expect_error(Fault::argument, "rows of 2 features", [&] { m(Var(Tensor::scalar(1)), t, Tensor()); });
  expect_error(Fault::argument, "t has shape (2,)", [&] { m(x, Var(Tensor::zeros({2})), Tensor()); });
  expect_error(Fault::argument, "(2,) for 3 rows", [&] { m(x, t, labels({0, 1})); });
  expect_error(Fault::argument, "gather_rows", [&] { m(x, t, labels({0, 1, 3})); });
  expect_error(Fault::argument, "gather_rows", [&] { m(x, t, labels({0, 1, -1})); });
  expect_error(Fault::argument, "make_velocity_mlp", [&] { VelocityMlp()(x, t, Tensor()); });
  expect_error(Fault::argument, "undefined network", [&] { Network()(x, t, Tensor()); });
  o.classes = 0;
  const VelocityMlp plain = make_velocity_mlp(o, init);
  expect_error(Fault::argument, "without classes", [&] { plain(x, t, labels({0, 1, 1})); });
  o.hidden = 0;
  expect_error(Fault::argument, "hidden 0", [&] { make_velocity_mlp(o, init); });
  expect_error(Fault::argument, "classes 1", [&] { make_classifier(2, 4, 1, 1, init); });
}

TEST(Network, HoldsAnyModelByValue) {
  MlpOptions o;
  o.classes = 2;
  const VelocityMlp m = random_network(o, DType::f32);
  const Network n = m;
  const Var x(random_tensor({3, 2}, 1, DType::f32)), t(Tensor::full({3}, 0.5));
  EXPECT_TRUE(same_bits(n(x, t, Tensor()).value(), m(x, t, Tensor()).value()));
  EXPECT_EQ(names(n), names(m));
  EXPECT_EQ(parameter_count(n), parameter_count(m));
  Network other = n;
  EXPECT_TRUE(parameters(other)[0].shares_storage_with(parameters(n)[0]));
  handles(other)[0]->mutate<float>()[0] += 1;
  EXPECT_NE(parameters(other)[0].to_doubles(), parameters(n)[0].to_doubles());
  EXPECT_EQ(parameters(n)[0].to_doubles(), parameters(m)[0].to_doubles());
  EXPECT_EQ(parameter_count(Network()), 0);
}

}  // namespace
}  // namespace costate::nn
