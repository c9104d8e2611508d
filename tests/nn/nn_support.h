// What the tests of nn/ share.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/nn/model.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace costate::nn {

inline Tensor random_tensor(const Shape& shape, std::uint32_t which, DType dtype = DType::f64) {
  const Tensor t = Tensor::empty(shape.with_front(1), dtype);
  random_normal(t, 21, Stream::user, 0, which);
  return t.reshape(shape);
}

// Pointers to the parameters of a model, for AdamW.
template <class Model>
std::vector<Tensor*> handles(Model& model) {
  std::vector<Tensor*> list;
  visit(model, [&](const std::string&, Var& p) { list.push_back(&p.value()); });
  return list;
}

// The model with its parameters replaced, in visiting order.
template <class Model>
Model with_parameters(Model model, std::span<const Var> parameters) {
  std::size_t i = 0;
  visit(model, [&](const std::string&, Var& p) { p = parameters[i++]; });
  return model;
}

template <class Model>
std::vector<std::string> names(const Model& model) {
  Model copy = model;
  std::vector<std::string> list;
  visit(copy, [&](const std::string& name, Var&) { list.push_back(name); });
  return list;
}

// As made, the last layers of branches are zero: every parameter random instead.
template <class Model>
Model randomised(Model m, double deviation = 0.1) {
  std::uint32_t n = 0;
  visit(m, [&](const std::string& name, Var& p) {
    const bool scale = name.find("norm") != std::string::npos && name.ends_with("weight");
    p = affine(Var(random_tensor(p.shape(), n++, p.dtype())), deviation, scale ? 1.0 : 0.0);
  });
  return m;
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  const auto u = a.to_doubles(), v = b.to_doubles();
  double d = 0;
  for (std::size_t i = 0; i < u.size(); ++i) d = std::max(d, std::abs(u[i] - v[i]));
  return d;
}

inline Var halves(std::int64_t rows, DType dtype = DType::f64) { return Var(Tensor::full({rows}, 0.5, dtype)); }

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

template <class F>
void expect_error(Fault fault, const std::string& words, const F& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one about: " << words;
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), fault) << e.what();
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}

}  // namespace costate::nn
