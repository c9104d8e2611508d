// Low-rank adaptation of models (Hu et al., arXiv 2106.09685): y = W x + (alpha / rank) B A x with W frozen.
//
//   nn::Network tuned = nn::Adapters{nn::with_lora(base, {.rank = 8, .alpha = 16, .targets = {"*.to_q",
//   "to_v"}})};
//
// shares every weight with `base`; its parameters, for whoever visits it (tape, optimiser, average), are the
// adapters alone. Models need nothing for this but layers that call Visitor::adapter. File names are those of
// PEFT, which diffusers reads: "<prefix><layer>.lora_A.weight" and "<prefix><layer>.lora_B.weight".
#pragma once
#include <costate/nn/save.h>

namespace costate::nn {

struct LoraOptions {
  int rank = 8;
  double alpha = 8;  // scale = alpha / rank
  // Which layers: patterns over their names, with * for any text and ? for one character. A pattern fits the
  // whole name or a tail of it that begins behind a dot, as names do in PEFT: "to_q" fits
  // "mid_block.attentions.0.to_q".
  std::vector<std::string> targets{"*"};
  std::uint64_t seed = 0;
};

bool matches_target(std::string_view pattern, std::string_view layer);

// The shapes of A and B beside a weight of a linear layer (out, in) or a convolution (out, kh, kw, in).
struct LoraShapes {
  Shape down, up;
};
LoraShapes lora_shapes(const Shape& weight, std::int64_t rank);

namespace detail {
using LayerWalk = std::function<void(const Visitor::Layers&)>;
void add_lora(const LayerWalk& walk, const LoraOptions& options);
void merge_lora(const LayerWalk& walk);
}  // namespace detail

// Calls f for every layer that can hold an adapter.
template <class Model>
void visit_layers(Model& model, const Visitor::Layers& f) {
  const Visitor::Function pass = [](const std::string&, Var&) {};
  model.visit(Visitor(pass, &f));
}

// A copy that shares all weights, with fresh adapters in the layers that fit a pattern: A uniform in
// +-1/sqrt(fan_in) (PEFT's initialisation), B zero, so that the copy computes what the model does. Throws
// Fault::argument for a rank below 1, an alpha that is not positive, a pattern that fits no layer (naming the
// nearest ones), a layer that has an adapter already, and a grouped convolution. A rank beyond a side of a
// weight, as "*" meets in first and last layers, is allowed: it costs and does no harm.
template <class Model>
Model with_lora(const Model& model, const LoraOptions& options) {
  Model copy = model;
  detail::add_lora([&](const Visitor::Layers& f) { visit_layers(copy, f); }, options);
  return copy;
}

// A copy in which the adapters are added to weights of its own, W + scale B A, and gone.
template <class Model>
Model merged(const Model& model) {
  Model copy = model;
  detail::merge_lora([&](const Visitor::Layers& f) { visit_layers(copy, f); });
  return copy;
}

// A copy without adapters, which shares all weights: the base.
template <class Model>
Model without_lora(const Model& model) {
  Model copy = model;
  visit_layers(copy, [](const std::string&, Var&, Lora& lora, int) { lora = {}; });
  return copy;
}

// A model whose parameters are its adapters alone.
template <class Model>
struct Adapters {
  Model model;
  template <class... A>
  Var operator()(const A&... a) const {
    return model(a...);
  }
  void visit(const Visitor& v) { model.visit(v.adapters_only()); }
  Adapters recompute_blocks(bool on = true) const
    requires requires(const Model& m) { m.recompute_blocks(on); }
  {
    return {model.recompute_blocks(on)};
  }
  Adapters prepared() const
    requires requires(const Model& m) { m.prepared(); }
  {
    return {model.prepared()};
  }
};
template <class Model>
Adapters(Model) -> Adapters<Model>;

struct LoraLayer {
  std::string name;
  std::int64_t rank = 0;
  double scale = 0;
  std::int64_t numbers = 0;  // of both adapters
};

// Writes the adapters of a model: A and B of every adapted layer, convolutions in the order (out, in, height,
// width) of files. When every layer has the same rank and scale, the metadata says "lora_rank" and
// "lora_alpha"; otherwise a layer's alpha is the scalar "<prefix><layer>.alpha". Throws Fault::argument when
// there is no adapter. `prefix`: "base_model.model." (PEFT), "unet." or "transformer." (diffusers), or none.
namespace detail {
void save_lora(const std::string& path, const LayerWalk& walk, const std::string& prefix,
               SafetensorsMetadata metadata);
SafetensorsMetadata load_lora(const std::string& path, const LayerWalk& walk, double alpha);
}  // namespace detail
template <class Model>
void save_lora(const std::string& path, const Model& model, const std::string& prefix = "base_model.model.",
               const SafetensorsMetadata& metadata = {}) {
  Model copy = model;
  detail::save_lora(
      path, [&](const Visitor::Layers& f) { visit_layers(copy, f); }, prefix, metadata);
}

// Puts the adapters of a file into a model without any, whatever the prefix; also those under the older names
// "lora.down.weight" and "lora.up.weight". The scale is alpha / rank with alpha from the tensor
// "<layer>.alpha", else the metadata's "lora_alpha", else `alpha`, else (0) the rank itself, as in diffusers.
// Returns the file's metadata. Throws Fault::data with one sentence that lists every adapter that has no
// layer, lacks its other half or has another shape or type; the model is as it was then.
template <class Model>
SafetensorsMetadata load_lora(const std::string& path, Model& model, double alpha = 0) {
  return detail::load_lora(
      path, [&](const Visitor::Layers& f) { visit_layers(model, f); }, alpha);
}

template <class Model>
std::vector<LoraLayer> lora_layers(const Model& model) {
  Model copy = model;
  std::vector<LoraLayer> list;
  visit_layers(copy, [&](const std::string& name, Var&, Lora& lora, int) {
    if (lora.defined()) list.push_back({name, lora.rank(), lora.scale, lora.down.numel() + lora.up.numel()});
  });
  return list;
}

}  // namespace costate::nn
