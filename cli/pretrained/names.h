// One network under the names of several libraries. "Home" names are those that nn::UNet (diffusers'
// UNet2DModel) and nn::Dit (the original DiT of Peebles and Xie) give their parameters; a source says how a
// home tensor is made from what a file holds, and what another dialect holds is made from home tensors the
// same way. Tensors keep the order of axes of files throughout.
#pragma once
#include <functional>
#include <optional>

#include "pretrained/state.h"

namespace costate::cli {

enum class Dialect {
  unet,           // diffusers UNet2DModel, attention keys new or old
  dit_facebook,   // the original DiT: pos_embed, x_embedder.proj, blocks.N.attn.qkv, ...
  dit_diffusers,  // DiTTransformer2DModel: pos_embed.proj, transformer_blocks.N.attn1.to_q, ...
};
std::string_view name(Dialect dialect);  // "unet", "dit", "dit-diffusers"

// The dialect that these names speak; Fault::data for none.
Dialect dialect_of(const SafetensorsSet& set);
// The number of blocks of a DiT: consecutive from 0.
int dit_depth(const SafetensorsSet& set, Dialect dialect);

struct Source {
  enum class How {
    same,
    squeezed,  // (a, b, 1) or (a, b, 1, 1) becomes (a, b)
    copies,    // of one tensor: they must be identical
    stacked,   // along the first axis
    first,
    second,
    third,  // third of a tensor along the first axis
  } how = How::same;
  std::vector<std::string> tensors;
};

// Where the home tensor `parameter` comes from.
Source source_of(const std::string& parameter, Dialect dialect, int depth, const SafetensorsSet& set);
// What the diffusers dialect of a DiT with `depth` blocks makes of the home tensor `parameter`: nothing of
// pos_embed.
std::vector<std::pair<std::string, Source>> diffusers_dit(const std::string& parameter, int depth);

// Reads and combines. Throws Fault::data when a tensor is not there, copies differ, or what should be stacked
// or cut does not fit. `named` finds tensors by name.
using Named = std::function<std::optional<RawTensor>(const std::string&)>;
RawTensor combine(const Source& source, const std::string& where, const Named& named);
Named named_in(const SafetensorsSet& set);

}  // namespace costate::cli
