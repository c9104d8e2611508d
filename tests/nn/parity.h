// Parity with the networks of the diffusion literature: parameters by the fill rule of
// tests/reference/parity.py, outputs and gradients from tests/nn/fixtures. Everything there is in the order
// of files: pictures (n, channels, height, width), filters (out, in, height, width).
#pragma once
#include "nn_support.h"

#include <costate/autograd/ops.h>
#include <costate/tensor/safetensors.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace costate::nn {

// (out, in, height, width) of (out, height, width, in) and of pictures; everything else as it is.
inline Tensor file_order(const Tensor& t) {
  return t.rank() == 4 ? permute(Var(t), {0, 3, 1, 2}).value() : t;
}
inline Tensor memory_order(const Tensor& t) {
  return t.rank() == 4 ? permute(Var(t), {0, 2, 3, 1}).value() : t;
}

// The values v(i), i = 0, 1, ... in the order of files, in that of memory.
template <class F>
Tensor by_rule(const Shape& file_shape, DType dtype, const F& v) {
  std::vector<double> values(static_cast<std::size_t>(file_shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = v(static_cast<double>(i));
  return memory_order(Tensor::from(values, file_shape)).to(dtype);
}
inline Shape file_shape(const Shape& s) { return s.rank() == 4 ? Shape{s[0], s[3], s[1], s[2]} : s; }
inline double rounded(double v) { return static_cast<float>(v); }

// The model with all its values replaced by the fill rule; `kept` is left as it is and has no number.
template <class Model>
Model filled(Model model, const std::string& kept = "") {
  std::vector<std::string> keys;
  visit_state(model, [&](const std::string& name, Var&) {
    if (name != kept) keys.push_back(name);
  });
  std::sort(keys.begin(), keys.end());
  visit_state(model, [&](const std::string& name, Var& p) {
    if (name == kept) return;
    const auto j = static_cast<double>(std::lower_bound(keys.begin(), keys.end(), name) - keys.begin());
    const bool scale = name.find("norm") != std::string::npos && name.ends_with("weight");
    p = Var(by_rule(file_shape(p.shape()), p.dtype(), [&](double i) {
      return rounded(0.1 * std::sin(0.37 * i + 1.3 * j) + (scale ? 1.0 : 0.0));
    }));
  });
  return model;
}

inline Tensor fixture_input(const Shape& file_shape, DType dtype) {
  return by_rule(file_shape, dtype, [](double i) { return rounded(std::sin(0.11 * i)); });
}
inline Tensor fixture_cotangent(const Shape& file_shape, DType dtype) {
  return by_rule(file_shape, dtype, [](double i) { return std::cos(0.05 * i); });
}

// The largest relative change of the elements of b from those of a.
inline double change(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i]));
    worst = std::max(worst, std::abs(b[i] - a[i]));
  }
  return worst / largest;
}

// The model with every value changed by a relative 2^-24 on average: what rounding to single precision does.
template <class Model>
Model perturbed(Model model, std::uint32_t seed) {
  visit_state(model, [&](const std::string&, Var& p) {
    p = mul(p, affine(Var(random_tensor(p.shape(), seed++, p.dtype())), 0x1p-24, 1.0));
  });
  return model;
}

struct Computed {
  std::vector<double> y, dx;                          // in the order of files
  std::map<std::string, Tensor> gradients;            // in the order of files
  std::map<std::string, std::vector<double>> frozen;  // shapes of buffers
  double loss = 0, total = 0;                         // sum cos(0.05 i) y[i]; norm of all gradients together
};

// `raw(model, x)` is the network's whole output at x in the order of memory.
template <class Model, class Raw>
Computed compute(const Model& model, const Shape& x_shape, DType dtype, const Raw& raw) {
  Computed c;
  Tape tape;
  std::vector<Var> watched;
  Model tracked = watch(model, tape, watched);
  watched.push_back(tape.watch(fixture_input(x_shape, dtype)));
  const Var y = raw(tracked, watched.back());
  const Tensor cotangent = fixture_cotangent(file_shape(y.shape()), dtype);
  c.y = file_order(y.value()).to_doubles();
  const auto weights = file_order(cotangent).to_doubles();
  for (std::size_t i = 0; i < c.y.size(); ++i) c.loss += weights[i] * c.y[i];
  const auto gradients = std::move(tape).vjp(y, cotangent, watched);
  std::size_t i = 0;
  visit(tracked, [&](const std::string& name, Var&) {
    for (const double g : gradients[i].to_doubles()) c.total += g * g;
    c.gradients[name] = file_order(gradients[i++]);
  });
  c.dx = file_order(gradients.back()).to_doubles();
  c.total = std::sqrt(c.total);
  visit_state(tracked, [&](const std::string& name, Var& p) {
    if (c.gradients.count(name)) return;
    const Shape shape = file_shape(p.shape());
    for (const std::int64_t extent : shape.extents())
      c.frozen[name].push_back(static_cast<double>(extent));
  });
  return c;
}

inline void expect_close(const std::vector<double>& found, const std::vector<double>& expected,
                         double tolerance, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    worst = std::max(worst, std::abs(found[i] - expected[i]));
  }
  EXPECT_LE(worst, tolerance * largest) << what << ": largest element " << largest;
}

// Compares with a fixture: outputs and the gradient of the input element by element, relative to the largest;
// of every parameter's gradient the shape, two weighted sums, norm, largest and three elements, relative to
// its norm (sums: to what a sum of that many errors can reach). Gradients that vanish identically (the bias
// of a key, which softmax does not see) are rounding in both: `floor` times the norm of all gradients
// together.
inline void expect_parity(const Computed& c, const std::string& fixture, double output_tolerance,
                          double tolerance, double floor) {
  const SafetensorsFile file(std::string(COSTATE_SOURCE_DIR) + "/tests/nn/fixtures/" + fixture +
                             ".safetensors");
  const auto values = [&](const std::string& name) {
    const SafetensorsEntry* e = file.find(name);
    return e ? file.tensor(*e).to_doubles() : std::vector<double>();
  };
  expect_close(c.y, values("y"), output_tolerance, fixture + ": y");
  expect_close(c.dx, values("dx"), tolerance, fixture + ": dx");
  std::size_t known = 2;
  for (const auto& [name, gradient] : c.gradients) {
    const std::vector<double> expected = values("gradient." + name);
    ASSERT_FALSE(expected.empty()) << fixture << " has no " << name;
    ++known;
    std::vector<double> shape;
    for (const std::int64_t extent : gradient.shape().extents()) shape.push_back(static_cast<double>(extent));
    ASSERT_EQ(std::vector<double>(expected.begin() + 7, expected.end()), shape) << name;
    const std::vector<double> g = gradient.to_doubles();
    std::vector<double> found(7, 0.0);
    for (std::size_t i = 0; i < g.size(); ++i) {
      found[0] += g[i];
      found[1] += std::cos(0.3 * static_cast<double>(i) + 0.7) * g[i];
      found[2] += g[i] * g[i];
      found[3] = std::max(found[3], std::abs(g[i]));
    }
    found[2] = std::sqrt(found[2]);
    found[4] = g.front(), found[5] = g[g.size() / 2], found[6] = g.back();
    const double scale = tolerance * expected[2] + floor * c.total;
    for (std::size_t k = 0; k < 7; ++k)
      EXPECT_LE(std::abs(found[k] - expected[k]),
                k < 2 ? scale * std::sqrt(static_cast<double>(g.size())) : scale)
          << fixture << ": " << name << ", entry " << k << ", found " << found[k] << ", expected "
          << expected[k];
  }
  for (const auto& [name, shape] : c.frozen) {
    EXPECT_EQ(values("frozen." + name), shape) << fixture << ": " << name;
    ++known;
  }
  EXPECT_EQ(file.entries().size(), known) << fixture << " names parameters that the network lacks";
}

}  // namespace costate::nn
