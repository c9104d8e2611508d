#include "pretrained/names.h"

#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <array>

namespace costate::cli {
namespace {

constexpr std::array<std::string_view, 3> kDialects = {"unet", "dit", "dit-diffusers"};
using How = Source::How;

struct Row {
  std::string_view home, away;
};
// Layers of a DiT; each has a weight and a bias, but for the table of classes.
constexpr Row whole[] = {{"x_embedder.proj", "pos_embed.proj"},
                         {"final_layer.linear", "proj_out_2"},
                         {"final_layer.adaLN_modulation.1", "proj_out_1"}};
constexpr Row in_every_block[] = {{"t_embedder.mlp.0", "norm1.emb.timestep_embedder.linear_1"},
                                  {"t_embedder.mlp.2", "norm1.emb.timestep_embedder.linear_2"},
                                  {"y_embedder.embedding_table", "norm1.emb.class_embedder.embedding_table"}};
constexpr Row of_a_block[] = {{"attn.proj", "attn1.to_out.0"},
                              {"mlp.fc1", "ff.net.0.proj"},
                              {"mlp.fc2", "ff.net.2"},
                              {"adaLN_modulation.1", "norm1.linear"}};
constexpr std::string_view thirds[] = {"attn1.to_q", "attn1.to_k", "attn1.to_v"};
constexpr How third_how[] = {How::first, How::second, How::third};

// "blocks.3.attn.qkv" -> "3", "attn.qkv"
bool split_block(std::string_view name, std::string_view prefix, std::string& number, std::string& rest) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot == 0 || dot > 6) return false;
  number = name.substr(0, dot), rest = name.substr(dot + 1);
  return number.find_first_not_of("0123456789") == std::string::npos;
}

// The layer and what it has of it: ".weight" or ".bias".
std::pair<std::string, std::string> split_layer(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? std::pair{name, std::string()}
                                  : std::pair{name.substr(0, dot), name.substr(dot)};
}

std::string joined(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view p : parts) out += p;
  return out;
}

// A tensor of a block in the diffusers dialect.
std::string in_block(std::string_view number, std::string_view layer, std::string_view what) {
  return joined({"transformer_blocks.", number, ".", layer, what});
}

}  // namespace

std::string_view name(Dialect d) { return kDialects[static_cast<std::size_t>(d)]; }

Dialect dialect_of(const SafetensorsSet& set) {
  const auto begins = [&](std::string_view prefix) {
    return std::any_of(set.entries().begin(), set.entries().end(),
                       [&](const SafetensorsSet::Entry& e) { return e.name().starts_with(prefix); });
  };
  if (begins("transformer_blocks.") && begins("pos_embed.proj.")) return Dialect::dit_diffusers;
  if (begins("x_embedder.") && begins("blocks.")) return Dialect::dit_facebook;
  if (begins("conv_in.") && begins("time_embedding.")) return Dialect::unet;
  fail(Fault::data,
       {set.where(), ": its ", set.entries().size(), " tensors",
        set.entries().empty() ? std::string()
                              : " (the first is " + utf8::quoted(set.entries()[0].name()) + ")",
        " are those of no network that is known; expected a diffusers UNet2DModel, an original DiT or a "
        "diffusers DiTTransformer2DModel"});
}

int dit_depth(const SafetensorsSet& set, Dialect dialect) {
  const std::string_view prefix = dialect == Dialect::dit_facebook ? "blocks." : "transformer_blocks.";
  std::vector<bool> there;
  std::string number, rest;
  for (const auto& e : set.entries())
    if (split_block(e.name(), prefix, number, rest)) {
      const auto n = static_cast<std::size_t>(std::stoul(number));
      if (n >= 10000) fail(Fault::data, {set.where(), ": block ", n, " is beyond the 10000 that are read"});
      if (there.size() <= n) there.resize(n + 1, false);
      there[n] = true;
    }
  for (std::size_t i = 0; i < there.size(); ++i)
    if (!there[i]) fail(Fault::data, {set.where(), ": it has block ", there.size() - 1, " but no block ", i});
  return static_cast<int>(there.size());
}

Source source_of(const std::string& parameter, Dialect dialect, int depth, const SafetensorsSet& set) {
  if (dialect == Dialect::dit_facebook) return {How::same, {parameter}};
  const auto [layer, what] = split_layer(parameter);
  if (dialect == Dialect::unet) {
    if (set.find(parameter)) return {How::same, {parameter}};
    constexpr std::pair<std::string_view, std::string_view> old[] = {
        {".to_q", ".query"}, {".to_k", ".key"}, {".to_v", ".value"}, {".to_out.0", ".proj_attn"}};
    for (const auto& [now, then] : old) {
      if (!layer.ends_with(now)) continue;
      const std::string alias = joined({layer.substr(0, layer.size() - now.size()), then, what});
      if (set.find(alias)) return {How::squeezed, {alias}};
    }
    if (layer.ends_with(".conv")) {
      const std::string alias = joined({layer.substr(0, layer.size() - 4), "Conv2d_0", what});
      if (set.find(alias)) return {How::same, {alias}};
    }
    return {How::same, {parameter}};
  }
  for (const Row& r : whole)
    if (layer == r.home) return {How::same, {joined({r.away, what})}};
  for (const Row& r : in_every_block)
    if (layer == r.home) {
      Source s{How::copies, {}};
      for (int i = 0; i < depth; ++i)
        s.tensors.push_back(in_block(std::to_string(i), r.away, what));
      return s;
    }
  std::string number, rest;
  if (split_block(layer, "blocks.", number, rest)) {
    for (const Row& r : of_a_block)
      if (rest == r.home) return {How::same, {in_block(number, r.away, what)}};
    if (rest == "attn.qkv")
      return {How::stacked,
              {in_block(number, thirds[0], what), in_block(number, thirds[1], what), in_block(number, thirds[2], what)}};
  }
  return {How::same, {parameter}};
}

std::vector<std::pair<std::string, Source>> diffusers_dit(const std::string& parameter, int depth) {
  if (parameter == "pos_embed") return {};
  const auto [layer, what] = split_layer(parameter);
  const Source same{How::same, {parameter}};
  std::vector<std::pair<std::string, Source>> out;
  for (const Row& r : whole)
    if (layer == r.home) return {{joined({r.away, what}), same}};
  for (const Row& r : in_every_block)
    if (layer == r.home) {
      for (int i = 0; i < depth; ++i)
        out.emplace_back(in_block(std::to_string(i), r.away, what), same);
      return out;
    }
  std::string number, rest;
  if (split_block(layer, "blocks.", number, rest)) {
    for (const Row& r : of_a_block)
      if (rest == r.home) return {{in_block(number, r.away, what), same}};
    if (rest == "attn.qkv") {
      for (std::size_t i = 0; i < 3; ++i)
        out.emplace_back(in_block(number, thirds[i], what), Source{third_how[i], {parameter}});
      return out;
    }
  }
  fail(Fault::data, {"tensor ", utf8::quoted(parameter),
                     " is none of a DiT, so that it has no name in the diffusers dialect"});
}

RawTensor combine(const Source& source, const std::string& where, const Named& named) {
  const auto read = [&](const std::string& n) {
    std::optional<RawTensor> t = named(n);
    if (!t) fail(Fault::data, {where, ": tensor ", utf8::quoted(n), " is missing"});
    return std::move(*t);
  };
  RawTensor t = read(source.tensors.at(0));
  const std::string& first = source.tensors[0];
  switch (source.how) {
    case How::same:
      break;
    case How::squeezed:
      while (t.shape.size() > 2 && t.shape.back() == 1) t.shape.pop_back();
      break;
    case How::copies:
      for (std::size_t i = 1; i < source.tensors.size(); ++i) {
        const RawTensor other = read(source.tensors[i]);
        if (other.type != t.type || other.shape != t.shape || other.bytes != t.bytes)
          fail(Fault::data,
               {where, ": tensors ", utf8::quoted(first), " and ", utf8::quoted(source.tensors[i]),
                " should be copies of one another, but they differ; blocks with embedders of their own are "
                "not supported"});
      }
      break;
    case How::stacked:
      for (std::size_t i = 1; i < source.tensors.size(); ++i) {
        const RawTensor other = read(source.tensors[i]);
        if (other.type != t.type || other.shape.empty() || other.shape.size() != t.shape.size() ||
            !std::equal(t.shape.begin() + 1, t.shape.end(), other.shape.begin() + 1))
          fail(Fault::data, {where, ": tensors ", utf8::quoted(first), ", ", in_words(t.type, t.shape),
                             ", and ", utf8::quoted(source.tensors[i]), ", ",
                             in_words(other.type, other.shape), ", cannot be stacked"});
        t.shape[0] += other.shape[0];
        t.bytes.insert(t.bytes.end(), other.bytes.begin(), other.bytes.end());
      }
      break;
    default: {
      if (t.shape.empty() || t.shape[0] % 3 != 0)
        fail(Fault::data, {where, ": tensor ", utf8::quoted(first), ", ", in_words(t.type, t.shape),
                           ", cannot be cut into thirds"});
      const std::size_t part = source.how == How::first    ? 0
                               : source.how == How::second ? 1
                                                           : 2,
                        n = t.bytes.size() / 3;
      t.shape[0] /= 3;
      t.bytes = std::vector<std::byte>(t.bytes.begin() + static_cast<std::ptrdiff_t>(part * n),
                                       t.bytes.begin() + static_cast<std::ptrdiff_t>((part + 1) * n));
    }
  }
  return t;
}

Named named_in(const SafetensorsSet& set) {
  return [&set](const std::string& name) -> std::optional<RawTensor> {
    const SafetensorsSet::Entry* e = set.find(name);
    if (!e) return std::nullopt;
    return RawTensor{e->entry->type, e->entry->shape, set.raw(*e)};
  };
}

}  // namespace costate::cli
