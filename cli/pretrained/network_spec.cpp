// Networks from configuration files, and back.
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cmath>

#include "pretrained/checkpoint.h"
#include "pretrained/keys.h"
#include "run/directory.h"

namespace costate::cli {
namespace {

std::pair<std::int64_t, std::int64_t> size_of_sample(Keys& k) {
  const Json* v = k.raw("sample_size");
  if (!v || v->is_null()) return {0, 0};
  if (v->is_array()) {
    const std::vector<std::int64_t> both = k.integers("sample_size", {});
    if (both.size() != 2) k.refuse("sample_size", "a number of pixels, two of them, or null");
    return {both[0], both[1]};
  }
  const std::int64_t side = k.integer("sample_size", 0, 1, 1 << 20);
  return {side, side};
}

NetworkSpec unet_spec(Keys& k, const SafetensorsSet& set) {
  constexpr std::int64_t most = 1 << 20;
  NetworkSpec s{Dialect::unet, nn::UNetOptions{}, 3, 0, 0, 0, {}};
  nn::UNetOptions o;
  std::tie(s.height, s.width) = size_of_sample(k);
  o.in_channels = k.integer("in_channels", o.in_channels, 1, most);
  o.out_channels = k.integer("out_channels", o.out_channels, 1, most);
  o.center_input_sample = k.boolean("center_input_sample", o.center_input_sample);
  o.time_embedding_type = k.word("time_embedding_type", o.time_embedding_type);
  o.time_embedding_dim = k.optional_integer("time_embedding_dim", {}, 1, most);
  o.freq_shift = k.number("freq_shift", o.freq_shift);
  o.flip_sin_to_cos = k.boolean("flip_sin_to_cos", o.flip_sin_to_cos);
  o.down_block_types = k.words("down_block_types", o.down_block_types);
  o.mid_block_type = k.optional_word("mid_block_type", o.mid_block_type);
  o.up_block_types = k.words("up_block_types", o.up_block_types);
  o.block_out_channels = k.integers("block_out_channels", o.block_out_channels);
  o.layers_per_block = k.integer("layers_per_block", o.layers_per_block, 1, 1000);
  o.mid_block_scale_factor = k.number("mid_block_scale_factor", o.mid_block_scale_factor);
  o.downsample_padding = k.integer("downsample_padding", o.downsample_padding, 0, 1);
  o.downsample_type = k.word("downsample_type", o.downsample_type);
  o.upsample_type = k.word("upsample_type", o.upsample_type);
  o.dropout = k.number("dropout", o.dropout);
  o.act_fn = k.word("act_fn", o.act_fn);
  o.norm_num_groups = k.integer("norm_num_groups", o.norm_num_groups, 1, most);
  o.attn_norm_num_groups = k.optional_integer("attn_norm_num_groups", {}, 1, most);
  o.norm_eps = k.number("norm_eps", o.norm_eps);
  o.resnet_time_scale_shift = k.word("resnet_time_scale_shift", o.resnet_time_scale_shift);
  o.add_attention = k.boolean("add_attention", o.add_attention);
  o.class_embed_type = k.optional_word("class_embed_type", {});
  o.num_class_embeds = k.optional_integer("num_class_embeds", {}, 1, most);
  o.num_train_timesteps = k.optional_integer("num_train_timesteps", {}, 1, most);
  // Files from before the key existed have one head, but the default of the library is now 8 channels a head;
  // the shapes of the weights do not tell. The old names of attention do.
  const bool old_names =
      std::any_of(set.entries().begin(), set.entries().end(), [](const SafetensorsSet::Entry& e) {
        return e.name().ends_with(".proj_attn.weight") || e.name().ends_with(".query.weight");
      });
  o.attention_head_dim = k.optional_integer(
      "attention_head_dim", old_names ? std::nullopt : std::optional<std::int64_t>(8), 1, most);
  if (old_names && !k.has("attention_head_dim"))
    s.notes.push_back(k.where() +
                      ": attention_head_dim is absent and the attention keys are old: one head is taken; "
                      "write attention_head_dim into the file if that is wrong");
  if (const Json* own = k.raw("_costate")) {
    Keys c(*own, k.where() + ": _costate");
    o.null_class = c.optional_integer("null_class", {}, 0, most);
  }
  s.channels = o.in_channels;
  s.classes = o.num_class_embeds.value_or(0) - (o.null_class ? 1 : 0);
  s.options = o;
  return s;
}

void same_sides(const Keys& k, const nn::DitOptions& o) {
  if (o.height < 1) k.refuse("sample_size", "a number of pixels");
}

NetworkSpec diffusers_dit_spec(Keys& k) {
  constexpr std::int64_t most = 1 << 20;
  NetworkSpec s{Dialect::dit_diffusers, nn::DitOptions{}, 3, 0, 0, 0, {}};
  nn::DitOptions o;
  std::tie(o.height, o.width) = size_of_sample(k);
  same_sides(k, o);
  o.heads = static_cast<int>(k.integer("num_attention_heads", 16, 1, most));
  o.hidden = o.heads * k.integer("attention_head_dim", 72, 1, most);
  o.channels = k.integer("in_channels", 4, 1, most);
  const std::int64_t out = k.optional_integer("out_channels", {}, 1, most).value_or(o.channels);
  if (out != o.channels && out != 2 * o.channels) k.refuse("out_channels", "in_channels or twice that");
  o.learn_sigma = out == 2 * o.channels;
  o.depth = static_cast<int>(k.integer("num_layers", 28, 1, 10000));
  o.patch = k.integer("patch_size", 2, 1, most);
  o.classes = k.optional_integer("num_embeds_ada_norm", 1000, 1, 1 << 24).value_or(0);
  k.only("norm_type", "ada_norm_zero", "ada_norm_zero, which makes it a DiT");
  k.only("activation_fn", "gelu-approximate", "gelu-approximate");
  k.only("attention_bias", true, "true");
  k.only("norm_elementwise_affine", false, "false");
  for (const char* key :
       {"dropout", "norm_num_groups", "upcast_attention", "cross_attention_dim", "double_self_attention",
        "num_vector_embeds", "only_cross_attention", "use_linear_projection"})
    k.raw(key);
  if (o.classes == 0) k.refuse("num_embeds_ada_norm", "a number of classes");
  o.dialect = nn::diffusers_dialect;
  o.dialect.mlp_norm_eps = k.number("norm_eps", 1e-5);
  s.channels = o.channels, s.height = o.height, s.width = o.width, s.classes = o.classes, s.options = o;
  return s;
}

// Constructor arguments of the original implementation, where somebody wrote them down.
NetworkSpec facebook_dit_spec(Keys* k, const SafetensorsSet& set) {
  constexpr std::int64_t most = 1 << 24;
  const auto shape = [&](const std::string& name, std::size_t rank) {
    const SafetensorsSet::Entry* e = set.find(name);
    if (!e)
      fail(Fault::data,
           {set.where(), ": tensor ", utf8::quoted(name), " is missing; it tells the sizes of a DiT"});
    if (e->entry->shape.size() != rank)
      fail(Fault::data, {set.where(), ": tensor ", utf8::quoted(name), " is ",
                         in_words(e->entry->type, e->entry->shape), ", expected ", rank, " axes"});
    std::vector<std::int64_t> out;
    for (const std::uint64_t n : e->entry->shape) {
      if (n < 1 || n > static_cast<std::uint64_t>(most))
        fail(Fault::data, {set.where(), ": tensor ", utf8::quoted(name), " has an extent of ", n});
      out.push_back(static_cast<std::int64_t>(n));
    }
    return out;
  };
  NetworkSpec s{Dialect::dit_facebook, nn::DitOptions{}, 3, 0, 0, 0, {}};
  nn::DitOptions o;
  const auto patch = shape("x_embedder.proj.weight", 4);
  o.hidden = patch[0], o.channels = patch[1], o.patch = patch[2];
  o.depth = dit_depth(set, Dialect::dit_facebook);
  const std::int64_t tokens = shape("pos_embed", 3)[1];
  auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(tokens))));
  if (side * side != tokens && !(k && k->has("input_size")))
    fail(Fault::data, {set.where(), ": pos_embed has ", tokens,
                       " tokens, which is no square; a config.json with input_size must tell"});
  o.height = o.width = side * o.patch;
  o.classes = set.find("y_embedder.embedding_table.weight")
                  ? shape("y_embedder.embedding_table.weight", 2)[0] - 1
                  : 0;
  const std::int64_t out = shape("final_layer.linear.weight", 2)[0];
  if (out != o.patch * o.patch * o.channels && out != 2 * o.patch * o.patch * o.channels)
    fail(Fault::data, {set.where(), ": final_layer.linear has ", out, " rows, expected ",
                       o.patch * o.patch * o.channels, " or twice that"});
  o.learn_sigma = out == 2 * o.patch * o.patch * o.channels;
  if (o.depth > 0) {
    const std::int64_t features = shape("blocks.0.mlp.fc1.weight", 2)[0];
    o.mlp_ratio = static_cast<double>(features) / static_cast<double>(o.hidden);
  }
  std::int64_t heads = o.hidden == 1152                                         ? 16
                       : o.hidden == 384 || o.hidden == 768 || o.hidden == 1024 ? o.hidden / 64
                                                                                : 0;
  if (k) {
    const auto agrees = [&](const char* key, std::int64_t found) {
      if (k->has(key) && k->integer(key, 0, 0, most) != found)
        k->refuse(key, sentence({found, ", as the weights have it"}));
    };
    heads = k->integer("num_heads", heads, 0, most);
    if (const Json* v = k->raw("input_size"); v && v->is_array()) {
      const auto both = k->integers("input_size", {});
      if (both.size() != 2 || both[0] % o.patch || both[1] % o.patch ||
          both[0] / o.patch * (both[1] / o.patch) != tokens)
        k->refuse("input_size", "sides that the patches fill with the tokens of pos_embed");
      o.height = both[0], o.width = both[1];
    } else {
      agrees("input_size", o.height);
    }
    agrees("patch_size", o.patch), agrees("in_channels", o.channels), agrees("hidden_size", o.hidden);
    agrees("depth", o.depth), agrees("num_classes", o.classes);
    if (k->has("learn_sigma") && k->boolean("learn_sigma", true) != o.learn_sigma)
      k->refuse("learn_sigma",
                o.learn_sigma ? "true, as the weights have it" : "false, as the weights have it");
    k->raw("mlp_ratio"), k->raw("class_dropout_prob");
  }
  if (heads == 0)
    fail(Fault::data, {set.where(), ": the number of heads of a DiT of width ", o.hidden,
                       " is not written anywhere in the weights; put a config.json with {\"_class_name\": "
                       "\"DiT\", \"num_heads\": N} beside them"});
  o.heads = static_cast<int>(heads);
  o.dialect = nn::facebook_dialect;
  s.channels = o.channels, s.height = o.height, s.width = o.width, s.classes = o.classes, s.options = o;
  return s;
}

}  // namespace

NetworkSpec network_spec(const CheckpointFiles& files, const SafetensorsSet& set) {
  const Dialect dialect = dialect_of(set);
  const SafetensorsMetadata metadata = set.files()[0].metadata();
  const auto own = metadata.find(std::string(network_key));
  const bool of_a_run = files.config.empty() && own != metadata.end();
  if (files.config.empty() && !of_a_run) {
    if (dialect == Dialect::dit_facebook) return facebook_dit_spec(nullptr, set);
    fail(Fault::data,
         {"'", files.weights, "' has no config.json beside it, without which the weights of a ",
          dialect == Dialect::unet ? "UNet2DModel" : "DiTTransformer2DModel", " do not tell the network"});
  }
  Keys keys = of_a_run ? Keys(parse_json_object(own->second, set.where() + ", metadata " + own->first),
                              set.where() + ", metadata " + own->first)
                       : Keys(read_json_object(files.config), "'" + files.config + "'");
  const Json* named = keys.raw("_class_name");
  const std::string cls = named && named->is_string() ? named->get<std::string>() : "";
  const char* const expected = dialect == Dialect::unet            ? "UNet2DModel"
                               : dialect == Dialect::dit_diffusers ? "DiTTransformer2DModel"
                                                                   : "DiT";
  // A run keeps the original names of what it tuned; the class tells which function it is.
  const bool tuned_diffusers_dit = of_a_run && dialect == Dialect::dit_facebook && cls == "DiTTransformer2DModel";
  if (cls != expected && !tuned_diffusers_dit && !(dialect == Dialect::dit_diffusers && cls == "Transformer2DModel"))
    keys.refuse("_class_name",
                sentence({"\"", expected, "\", as the tensors of ", set.where(), " are named"}));
  NetworkSpec s;
  try {
    s = dialect == Dialect::unet                                     ? unet_spec(keys, set)
        : dialect == Dialect::dit_diffusers || tuned_diffusers_dit ? diffusers_dit_spec(keys)
                                                                     : facebook_dit_spec(&keys, set);
    s.dialect = dialect;
    std::visit([](const auto& o) { check(o); }, s.options);
  } catch (const Error& e) {
    if (e.fault() != Fault::argument) throw;
    fail(Fault::data, {keys.where(), ": ", e.what()});
  }
  std::string list;
  for (const std::string& k : keys.unknown()) list += (list.empty() ? "" : ", ") + k;
  if (!list.empty()) s.notes.push_back(keys.where() + ": not known here and not looked at: " + list);
  return s;
}

Json config_json(const NetworkSpec& spec, Dialect dialect) {
  const auto optional = [](const auto& v) { return v ? Json(*v) : Json(nullptr); };
  const auto size = [&]() -> Json {
    if (spec.height == 0) return nullptr;
    return spec.height == spec.width ? Json(spec.height) : Json({spec.height, spec.width});
  };
  if (const auto* u = std::get_if<nn::UNetOptions>(&spec.options)) {
    Json out = {{"_class_name", "UNet2DModel"},
                {"sample_size", size()},
                {"in_channels", u->in_channels},
                {"out_channels", u->out_channels},
                {"center_input_sample", u->center_input_sample},
                {"time_embedding_type", u->time_embedding_type},
                {"time_embedding_dim", optional(u->time_embedding_dim)},
                {"freq_shift", u->freq_shift},
                {"flip_sin_to_cos", u->flip_sin_to_cos},
                {"down_block_types", u->down_block_types},
                {"mid_block_type", optional(u->mid_block_type)},
                {"up_block_types", u->up_block_types},
                {"block_out_channels", u->block_out_channels},
                {"layers_per_block", u->layers_per_block},
                {"mid_block_scale_factor", u->mid_block_scale_factor},
                {"downsample_padding", u->downsample_padding},
                {"downsample_type", u->downsample_type},
                {"upsample_type", u->upsample_type},
                {"dropout", u->dropout},
                {"act_fn", u->act_fn},
                {"attention_head_dim", optional(u->attention_head_dim)},
                {"norm_num_groups", u->norm_num_groups},
                {"attn_norm_num_groups", optional(u->attn_norm_num_groups)},
                {"norm_eps", u->norm_eps},
                {"resnet_time_scale_shift", u->resnet_time_scale_shift},
                {"add_attention", u->add_attention},
                {"class_embed_type", optional(u->class_embed_type)},
                {"num_class_embeds", optional(u->num_class_embeds)},
                {"num_train_timesteps", optional(u->num_train_timesteps)}};
    if (u->null_class) out["_costate"] = {{"null_class", *u->null_class}};
    return out;
  }
  const auto& o = std::get<nn::DitOptions>(spec.options);
  if (dialect == Dialect::dit_facebook)
    return {{"_class_name", "DiT"},
            {"input_size", o.height == o.width ? Json(o.height) : Json({o.height, o.width})},
            {"patch_size", o.patch},
            {"in_channels", o.channels},
            {"hidden_size", o.hidden},
            {"depth", o.depth},
            {"num_heads", o.heads},
            {"mlp_ratio", o.mlp_ratio},
            {"num_classes", o.classes},
            {"learn_sigma", o.learn_sigma}};
  require(o.mlp_ratio == 4, "convert: the diffusers dialect has an mlp_ratio of 4, but this DiT has ",
          o.mlp_ratio);
  require(o.height == o.width, "convert: the diffusers dialect has square pictures, but this DiT's are ",
          o.height, " x ", o.width);
  require(o.classes > 0, "convert: the diffusers dialect has classes, but this DiT has none");
  return {{"_class_name", "DiTTransformer2DModel"},
          {"num_attention_heads", o.heads},
          {"attention_head_dim", o.hidden / o.heads},
          {"in_channels", o.channels},
          {"out_channels", o.learn_sigma ? 2 * o.channels : o.channels},
          {"num_layers", o.depth},
          {"sample_size", o.height},
          {"patch_size", o.patch},
          {"num_embeds_ada_norm", o.classes},
          {"activation_fn", "gelu-approximate"},
          {"attention_bias", true},
          {"norm_type", "ada_norm_zero"},
          {"norm_elementwise_affine", false},
          {"norm_eps", o.dialect.mlp_norm_eps == nn::facebook_dialect.mlp_norm_eps
                           ? nn::diffusers_dialect.mlp_norm_eps
                           : o.dialect.mlp_norm_eps}};
}

}  // namespace costate::cli
