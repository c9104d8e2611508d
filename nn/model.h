// Models are values: a layer is a struct of Vars with operator() and visit. Copies share storage until one is
// written; what a model is used for (trained, frozen, differentiated) is not a property of the model but of
// its Vars.
//
//   struct Linear {
//     Var weight, bias;
//     Var operator()(const Var& x) const;
//     void visit(const Visitor& v) { v("weight", weight); v("bias", bias); }
//   };
#pragma once
#include <costate/autograd/tape.h>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace costate::nn {

// Walks the parameters of a model with their full names, "layers.0.weight", in the order of declaration.
// Undefined parameters (a layer without bias) are passed over.
class Visitor {
 public:
  using Function = std::function<void(const std::string& name, Var& parameter)>;
  explicit Visitor(const Function& f) : f_(&f) {}

  void operator()(std::string_view name, Var& parameter) const {
    if (parameter.defined()) (*f_)(prefix_ + std::string(name), parameter);
  }
  template <class Layer>
  void operator()(std::string_view name, Layer& layer) const {
    layer.visit(Visitor(*f_, prefix_ + std::string(name) + "."));
  }
  template <class Layer>
  void operator()(std::string_view name, std::vector<Layer>& layers) const {
    for (std::size_t i = 0; i < layers.size(); ++i)
      (*this)(std::string(name) + "." + std::to_string(i), layers[i]);
  }

 private:
  Visitor(const Function& f, std::string prefix) : f_(&f), prefix_(std::move(prefix)) {}
  const Function* f_;
  std::string prefix_;
};

template <class Model>
void visit(Model& model, const Visitor::Function& f) {
  model.visit(Visitor(f));
}

// A copy whose parameters are recorded on `tape`; appends them, in visiting order, to `watched`.
template <class Model>
Model watch(const Model& model, Tape& tape, std::vector<Var>& watched) {
  Model copy = model;
  visit(copy, [&](const std::string&, Var& p) {
    p = tape.watch(p.value());
    watched.push_back(p);
  });
  return copy;
}

// A copy with storage of its own.
template <class Model>
Model clone(const Model& model) {
  Model copy = model;
  const memory::TagScope scope(memory::Tag::parameters);
  visit(copy, [](const std::string&, Var& p) { p = Var(p.value().clone()); });
  return copy;
}

// Handles of all parameters, in visiting order.
template <class Model>
std::vector<Tensor> parameters(const Model& model) {
  Model copy = model;
  std::vector<Tensor> list;
  visit(copy, [&](const std::string&, Var& p) { list.push_back(p.value()); });
  return list;
}

template <class Model>
std::int64_t parameter_count(const Model& model) {
  std::int64_t n = 0;
  for (const Tensor& t : parameters(model)) n += t.numel();
  return n;
}

}  // namespace costate::nn
