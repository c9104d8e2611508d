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
#include <costate/nn/adapter.h>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace costate::nn {

// Walks the parameters of a model with their full names, "layers.0.weight", in the order of declaration.
// Undefined parameters (a layer without bias) are passed over. Buffers are values that a file keeps and nobody
// trains (a table of positions): they are walked on request only.
class Visitor {
 public:
  using Function = std::function<void(const std::string& name, Var& parameter)>;
  // Of a layer that can hold an adapter: its name, weight and adapter (undefined: none), and the groups of a
  // convolution.
  using Layers = std::function<void(const std::string& layer, Var& weight, Lora& adapter, int groups)>;
  explicit Visitor(const Function& f, const Layers* layers = nullptr) : f_(&f), layers_(layers) {}

  void operator()(std::string_view name, Var& parameter) const {
    if (parameter.defined() && !adapters_only_) (*f_)(prefix_ + std::string(name), parameter);
  }
  void buffer(std::string_view name, Var& value) const {
    if (with_buffers_) (*this)(name, value);
  }
  template <class Layer>
  void operator()(std::string_view name, Layer& layer) const {
    Visitor inner(*this);
    inner.prefix_ += std::string(name) + ".";
    layer.visit(inner);
  }
  template <class Layer>
  void operator()(std::string_view name, std::vector<Layer>& layers) const {
    for (std::size_t i = 0; i < layers.size(); ++i)
      (*this)(std::string(name) + "." + std::to_string(i), layers[i]);
  }
  // What a layer with a place for an adapter calls after its own parameters.
  void adapter(Var& weight, Lora& lora, int groups = 1) const {
    if (layers_)
      (*layers_)(prefix_.empty() ? prefix_ : prefix_.substr(0, prefix_.size() - 1), weight, lora, groups);
    if (!lora.defined()) return;
    (*f_)(prefix_ + "lora_A.weight", lora.down);
    (*f_)(prefix_ + "lora_B.weight", lora.up);
  }
  // The same walk past buffers too.
  Visitor with_buffers() const {
    Visitor v(*this);
    v.with_buffers_ = true;
    return v;
  }
  // The same walk past the adapters alone.
  Visitor adapters_only() const {
    Visitor v(*this);
    v.adapters_only_ = true;
    return v;
  }

 private:
  const Function* f_;
  const Layers* layers_;
  std::string prefix_;
  bool adapters_only_ = false, with_buffers_ = false;
};

template <class Model>
void visit(Model& model, const Visitor::Function& f) {
  model.visit(Visitor(f));
}

// Parameters and buffers: what a file of the model holds.
template <class Model>
void visit_state(Model& model, const Visitor::Function& f) {
  model.visit(Visitor(f).with_buffers());
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
