// Models in safetensors files: one tensor a parameter or buffer, under the name that
// `visit_state` gives it. Convolution filters, the parameters with four axes, are (out, in, height, width) in files, the
// order of other libraries.
//
//   nn::save("model.safetensors", model, {{"step", "1000"}});
//   nn::load("model.safetensors", model);
#pragma once
#include <costate/nn/model.h>
#include <costate/tensor/safetensors.h>

namespace costate::nn {

struct LoadOptions {
  // Parameters that the file lacks keep their values, and tensors that the model lacks are passed over: see
  // LoadReport. Without it both are errors. A wrong shape or type is an error in any case.
  bool allow_partial = false;
  bool lenient_trailing = false;  // as in SafetensorsOptions
  bool widen_half = false;        // as in SafetensorsOptions
};

struct LoadReport {
  std::vector<std::string> missing;     // parameters that the file lacks
  std::vector<std::string> unexpected;  // tensors of the file that the model lacks
  SafetensorsMetadata metadata;         // of the file
  std::uint64_t ignored_bytes = 0;      // behind the last tensor, with lenient_trailing
};

namespace detail {
using Walk = std::function<void(const Visitor::Function&)>;
void save(const std::string& path, const Walk& walk, const SafetensorsMetadata& metadata);
LoadReport load(const std::string& path, const Walk& walk, const LoadOptions& options);
}  // namespace detail

// Writes all parameters, all or nothing (see save_safetensors). Throws Fault::argument when two have the same
// name or one has no values (meta device), Fault::io when the system refuses.
template <class Model>
void save(const std::string& path, const Model& model, const SafetensorsMetadata& metadata = {}) {
  Model copy = model;
  detail::save(
      path, [&](const Visitor::Function& f) { visit_state(copy, f); }, metadata);
}

// Gives every parameter the values of the tensor of its name, in storage of its own: models that shared it
// keep theirs. Parameters become constants (not watched). Throws Fault::data with one sentence that lists
// every parameter that is missing, every tensor that is unexpected, and every shape and type that does not
// fit; the model is as it was then.
template <class Model>
LoadReport load(const std::string& path, Model& model, const LoadOptions& options = {}) {
  return detail::load(
      path, [&](const Visitor::Function& f) { visit_state(model, f); }, options);
}

}  // namespace costate::nn
