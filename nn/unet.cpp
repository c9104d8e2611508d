#include <costate/nn/image.h>
#include <costate/nn/recompute.h>
#include <costate/nn/unet.h>

#include <cmath>

namespace costate::nn {
namespace {

using unet::Level;
using unet::Resample;

// What a block type says: whether it attends, and whether its sampler is a residual block (nothing: as
// downsample_type or upsample_type has it).
struct BlockKind {
  std::string_view name;
  bool attends;
  std::optional<bool> resnet_sampler;
};
constexpr BlockKind down_kinds[] = {{"DownBlock2D", false, false},
                                    {"AttnDownBlock2D", true, std::nullopt},
                                    {"ResnetDownsampleBlock2D", false, true}};
constexpr BlockKind up_kinds[] = {{"UpBlock2D", false, false},
                                  {"AttnUpBlock2D", true, std::nullopt},
                                  {"ResnetUpsampleBlock2D", false, true}};

const BlockKind& block_kind(std::span<const BlockKind> kinds, const std::string& type, const char* key,
                            std::size_t index) {
  std::string_view bare = type;
  if (bare.starts_with("UNetRes")) bare.remove_prefix(7);  // as older files write it
  for (const BlockKind& k : kinds)
    if (bare == k.name) return k;
  fail(Fault::argument, {"UNet: ", key, "[", index, "] is '", type, "', which is not supported; expected ",
                         kinds[0].name, ", ", kinds[1].name, " or ", kinds[2].name});
}

unet::Nonlinearity nonlinearity(const std::string& act_fn) {
  std::string lower = act_fn;
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (lower == "silu" || lower == "swish") return unet::Nonlinearity::silu;
  if (lower == "relu") return unet::Nonlinearity::relu;
  if (lower == "gelu") return unet::Nonlinearity::gelu;
  fail(Fault::argument,
       {"UNet: act_fn is '", act_fn, "', which is not supported; expected silu, swish, relu or gelu"});
}

void check_word(const std::string& value, const char* key, std::initializer_list<std::string_view> allowed) {
  std::string list;
  for (const std::string_view a : allowed) {
    if (value == a) return;
    list.append(list.empty() ? "" : " or ").append(a);
  }
  fail(Fault::argument, {"UNet: ", key, " is '", value, "', which is not supported; expected ", list});
}

void check_positive(std::int64_t value, std::string_view key) {
  require(value >= 1 && value <= std::int64_t{1} << 30, "UNet: ", key, " is ", value,
          "; expected at least 1");
}

// Channels that a normalisation and an attention meet.
void check_channels(const UNetOptions& o, std::int64_t channels, std::string_view key, std::size_t i,
                    bool attends) {
  require(channels % o.norm_num_groups == 0, "UNet: ", key, "[", i, "] is ", channels,
          ", which cannot be cut into norm_num_groups ", o.norm_num_groups);
  require(!attends || !o.attention_head_dim || channels >= *o.attention_head_dim, "UNet: attention_head_dim ",
          o.attention_head_dim.value_or(0), " is more than the ", channels, " channels of ", key, "[", i,
          "]");
}

std::int64_t embedding_width(const UNetOptions& o) {
  return o.time_embedding_dim.value_or(4 * o.block_out_channels[0]);
}

// The norm of the middle's attention; 0: it has none.
std::int64_t middle_groups(const UNetOptions& o) {
  return o.attn_norm_num_groups.value_or(o.resnet_time_scale_shift == "default" ? o.norm_num_groups : 0);
}

unet::Sampler make_sampler(Init& init, unet::Plan& plan, std::int64_t channels, bool resnet, Resample way,
                           std::int64_t padding) {
  unet::Sampler s;
  if (resnet) {
    s.resnet = unet::make_resnet(init, plan, channels, channels, 1, way);
    return s;
  }
  s.resample = way;
  s.conv = make_conv(init, channels, channels, 3);
  if (way == Resample::down) {
    const int p = static_cast<int>(padding);
    // Without padding of its own the convolution gets one row of zeros below and one column to the right.
    s.conv->options = p == 0 ? Conv2d{.stride = 2, .top = 0, .bottom = 1, .left = 0, .right = 1}
                             : Conv2d{.stride = 2, .top = p, .bottom = p, .left = p, .right = p};
  }
  return s;
}

}  // namespace

void check(const UNetOptions& o) {
  const std::size_t levels = o.block_out_channels.size();
  require(levels >= 1, "UNet: block_out_channels is empty; expected one number a level");
  require(o.down_block_types.size() == levels && o.up_block_types.size() == levels,
          "UNet: down_block_types has ", o.down_block_types.size(), " blocks and up_block_types ",
          o.up_block_types.size(), "; block_out_channels has ", levels, ", and all three must agree");
  check_positive(o.in_channels, "in_channels");
  check_positive(o.out_channels, "out_channels");
  check_positive(o.layers_per_block, "layers_per_block");
  check_positive(o.norm_num_groups, "norm_num_groups");
  if (o.attention_head_dim) check_positive(*o.attention_head_dim, "attention_head_dim");
  if (o.time_embedding_dim) check_positive(*o.time_embedding_dim, "time_embedding_dim");
  if (o.num_class_embeds) check_positive(*o.num_class_embeds, "num_class_embeds");
  for (std::size_t i = 0; i < levels; ++i) {
    check_positive(o.block_out_channels[i], "block_out_channels[" + std::to_string(i) + "]");
    const bool attends =
        block_kind(down_kinds, o.down_block_types[i], "down_block_types", i).attends ||
        block_kind(up_kinds, o.up_block_types[levels - 1 - i], "up_block_types", levels - 1 - i).attends;
    check_channels(o, o.block_out_channels[i], "block_out_channels", i, attends);
  }
  if (o.mid_block_type) {
    check_word(*o.mid_block_type, "mid_block_type", {"UNetMidBlock2D"});
    check_channels(o, o.block_out_channels.back(), "block_out_channels", levels - 1, o.add_attention);
    if (o.attn_norm_num_groups) {
      check_positive(*o.attn_norm_num_groups, "attn_norm_num_groups");
      require(o.block_out_channels.back() % *o.attn_norm_num_groups == 0, "UNet: attn_norm_num_groups ",
              *o.attn_norm_num_groups, " does not divide the last block_out_channels, ",
              o.block_out_channels.back());
    }
  }
  check_word(o.time_embedding_type, "time_embedding_type", {"positional", "fourier", "learned"});
  check_word(o.downsample_type, "downsample_type", {"conv", "resnet"});
  check_word(o.upsample_type, "upsample_type", {"conv", "resnet"});
  check_word(o.resnet_time_scale_shift, "resnet_time_scale_shift", {"default", "scale_shift"});
  nonlinearity(o.act_fn);
  if (o.time_embedding_type == "positional") {
    const std::int64_t half = o.block_out_channels[0] / 2;
    require(static_cast<double>(half) > o.freq_shift, "UNet: freq_shift is ", o.freq_shift,
            "; expected less than half of block_out_channels[0], ", half);
  }
  if (o.time_embedding_type == "learned") {
    require(o.num_train_timesteps.has_value(),
            "UNet: num_train_timesteps is missing, and time_embedding_type 'learned' needs it");
    check_positive(*o.num_train_timesteps, "num_train_timesteps");
  }
  if (o.class_embed_type) check_word(*o.class_embed_type, "class_embed_type", {"timestep", "identity"});
  require(
      !o.class_embed_type || *o.class_embed_type != "timestep" || o.time_embedding_type == "positional",
      "UNet: class_embed_type 'timestep' is supported with time_embedding_type 'positional' only, not with '",
      o.time_embedding_type, "'");
  require(o.downsample_padding == 0 || o.downsample_padding == 1, "UNet: downsample_padding is ",
          o.downsample_padding, "; expected 0 or 1");
  require(o.mid_block_scale_factor != 0 && std::isfinite(o.mid_block_scale_factor),
          "UNet: mid_block_scale_factor is ", o.mid_block_scale_factor);
  require(o.dropout >= 0 && o.dropout < 1, "UNet: dropout is ", o.dropout, "; expected a number in [0, 1)");
  require(o.norm_eps >= 0 && std::isfinite(o.norm_eps), "UNet: norm_eps is ", o.norm_eps);
  require(!o.null_class || (!o.class_embed_type && o.num_class_embeds && *o.null_class >= 0 &&
                            *o.null_class < *o.num_class_embeds),
          "UNet: null_class ", o.null_class.value_or(0),
          " is no row of a table of classes (num_class_embeds)");
}

Var UNet::raw(const Var& x, const Var& timestep, const Tensor& labels) const {
  const UNetOptions& o = options;
  require(down.size() == o.block_out_channels.size() && up.size() == down.size(), "UNet: it has ",
          down.size(), " levels; make it with make_unet");
  const std::int64_t n = x.defined() && x.rank() ? x.extent(0) : 0,
                     step = std::int64_t{1} << (down.size() - 1);
  require(x.rank() == 4 && n > 0 && x.extent(1) > 0 && x.extent(2) > 0 && x.extent(3) == o.in_channels &&
              x.extent(1) % step == 0 && x.extent(2) % step == 0,
          "UNet: x has shape ", x.shape(), "; expected (rows, height, width, ", o.in_channels,
          ") with height and width multiples of ", step, ", as there are ", down.size(), " levels");
  check_rows(timestep, n, "the timestep", "UNet");

  const auto features = [&](const Var& at) {
    return cast(timestep_features(at, o.block_out_channels[0], o.flip_sin_to_cos, o.freq_shift), x.dtype());
  };
  Var time;
  if (o.time_embedding_type == "positional") {
    time = features(timestep);
  } else if (o.time_embedding_type == "learned") {
    time = gather_rows(time_table, timestep_index(timestep.value(), *o.num_train_timesteps, "UNet"));
  } else {
    const Var angle = mul(reshape(affine(log(timestep), 2 * M_PI, 0.0), {n, 1}), time_table);
    const Var s = sin(angle), c = cos(angle);
    time = cast(concat({&s, &c}, 1), x.dtype());
  }
  Var embedding = time2(time1(time));

  const bool by_time = o.class_embed_type && *o.class_embed_type == "timestep",
             as_given = o.class_embed_type && *o.class_embed_type == "identity",
             by_table = class_table.defined();
  if (by_time || as_given || by_table) {
    Tensor given = labels;
    if (!given.defined()) {
      require(o.null_class.has_value(),
              "UNet: no labels were given to a network with classes and without a null_class");
      given = Tensor::full({n}, static_cast<double>(*o.null_class), DType::i32, x.device());
    }
    const Shape expected = as_given ? embedding.shape() : Shape{n};
    require(given.shape() == expected && (given.dtype() == DType::i32 ? !as_given : !by_table),
            "UNet: the labels are ", given.dtype(), " of shape ", given.shape(), "; expected ",
            by_table ? "i32" : "numbers", " of shape ", expected);
    if (by_table)
      embedding = add(embedding, gather_rows(class_table, given));
    else if (by_time)
      embedding = add(embedding, class2(class1(features(Var(given.to(timestep.dtype()))))));
    else
      embedding = add(embedding, Var(given.to(x.dtype())));
  } else {
    require(!labels.defined(), "UNet: labels were given to a network without classes");
  }

  unet::Context c;
  c.embedding = unet::activated(embedding, nonlinearity(o.act_fn));
  if (dropout) c.dropping = {o.dropout, dropout->seed, dropout->first_sample, dropout->step};
  const auto resnet = [&](const auto& block, const Var& in) {
    return recompute ? recompute_block(block, {in, c.embedding},
                                       [dropping = c.dropping](const auto& b, std::span<const Var> v) {
                                         return b(v[0], unet::Context{v[1], dropping});
                                       })
                     : block(in, c);
  };
  // A block of the way up; what it joins its inputs to is not kept either.
  const auto joined = [&](const unet::Resnet& block, const Var& in, const Var& skip) {
    if (recompute)
      return recompute_block(block, {in, skip, c.embedding},
                             [dropping = c.dropping](const unet::Resnet& b, std::span<const Var> v) {
                               return b(concat({&v[0], &v[1]}, 3), unet::Context{v[2], dropping});
                             });
    return block(concat({&in, &skip}, 3), c);
  };
  const auto attended = [&](const Level& level, std::size_t i, const Var& in) {
    if (i >= level.attentions.size()) return in;
    const unet::PixelAttention& block = level.attentions[i];
    return recompute ? recompute_block(block, {in},
                                       [](const unet::PixelAttention& b, std::span<const Var> v) { return b(v[0]); })
                     : block(in);
  };

  std::vector<Var> skips;
  Var h = conv_in(o.center_input_sample ? affine(x, 2.0, -1.0) : x);
  skips.push_back(h);
  for (const Level& level : down) {
    for (std::size_t i = 0; i < level.resnets.size(); ++i) skips.push_back(h = attended(level, i, resnet(level.resnets[i], h)));
    for (const unet::Sampler& s : level.samplers) skips.push_back(h = resnet(s, h));
  }
  if (middle) {
    h = attended(*middle, 0, resnet(middle->resnets[0], h));
    h = resnet(middle->resnets[1], h);
  }
  for (const Level& level : up) {
    for (std::size_t i = 0; i < level.resnets.size(); ++i) {
      const Var skip = std::move(skips.back());
      skips.pop_back();
      h = attended(level, i, joined(level.resnets[i], h, skip));
    }
    for (const unet::Sampler& s : level.samplers) h = resnet(s, h);
  }
  const Var y = conv_out(norm_out(h, Activation::silu));
  return o.time_embedding_type == "fourier" ? div(y, reshape(timestep, {n, 1, 1, 1})) : y;
}

Var UNet::operator()(const Var& x, const Var& t, const Tensor& labels) const {
  const std::int64_t in = options.in_channels;
  require(options.out_channels >= in, "UNet: out_channels ", options.out_channels,
          " is less than in_channels ", in, ": it predicts nothing of the shape of x");
  const Var pictures = as_pictures(x, 0, 0, in, "UNet");
  check_rows(t, x.extent(0), "t", "UNet");
  const Var y = raw(pictures, options.timestep(t), labels);
  return reshape(options.out_channels > in ? narrow(y, 3, 0, in) : y, x.shape());
}

UNet UNet::with_dropout(const DropoutKey& key) const {
  UNet copy = *this;
  copy.dropout = key;
  return copy;
}

UNet UNet::recompute_blocks(bool on) const {
  UNet copy = *this;
  copy.recompute = on;
  return copy;
}

void UNet::visit(const Visitor& v) {
  v("conv_in", conv_in);
  if (options.time_embedding_type == "fourier")
    v.buffer("time_proj.weight", time_table);
  else
    v("time_proj.weight", time_table);
  v("time_embedding.linear_1", time1);
  v("time_embedding.linear_2", time2);
  v("class_embedding.weight", class_table);
  v("class_embedding.linear_1", class1);
  v("class_embedding.linear_2", class2);
  v("down_blocks", down);
  if (middle) v("mid_block", *middle);
  v("up_blocks", up);
  v("conv_norm_out", norm_out);
  v("conv_out", conv_out);
}

UNet make_unet(const UNetOptions& o, Init& init) {
  check(o);
  UNet m;
  m.options = o;
  const std::size_t levels = o.block_out_channels.size();
  const std::int64_t first = o.block_out_channels[0], width = embedding_width(o);
  const std::int64_t head = o.attention_head_dim.value_or(0);
  const int groups = static_cast<int>(o.norm_num_groups);
  unet::Plan plan{width, groups, o.norm_eps, nonlinearity(o.act_fn),
                  o.resnet_time_scale_shift == "scale_shift"};

  m.conv_in = make_conv(init, o.in_channels, first, 3);
  std::int64_t features = first;
  if (o.time_embedding_type == "fourier") {
    m.time_table = Var(init.normal({first}, 16.0));  // the scale of diffusers
    features = 2 * first;
  } else if (o.time_embedding_type == "learned") {
    m.time_table = Var(init.normal({*o.num_train_timesteps, first}, 1.0));
  }
  m.time1 = make_linear(init, features, width, Activation::silu);
  m.time2 = make_linear(init, width, width);
  if (o.class_embed_type) {
    if (*o.class_embed_type == "timestep") {
      m.class1 = make_linear(init, features, width, Activation::silu);
      m.class2 = make_linear(init, width, width);
    }
  } else if (o.num_class_embeds) {
    m.class_table = Var(init.normal({*o.num_class_embeds, width}, 1.0));
  }

  std::int64_t in = first;
  for (std::size_t i = 0; i < levels; ++i) {
    const BlockKind& kind = block_kind(down_kinds, o.down_block_types[i], "down_block_types", i);
    const std::int64_t out = o.block_out_channels[i];
    Level level;
    level.samplers_name = "downsamplers";
    for (std::int64_t j = 0; j < o.layers_per_block; ++j) {
      level.resnets.push_back(unet::make_resnet(init, plan, j == 0 ? in : out, out));
      if (kind.attends) level.attentions.push_back(unet::make_attention(init, plan, out, groups, head));
    }
    if (i + 1 < levels)
      level.samplers.push_back(make_sampler(init, plan, out,
                                            kind.resnet_sampler.value_or(o.downsample_type == "resnet"),
                                            Resample::down, o.downsample_padding));
    m.down.push_back(std::move(level));
    in = out;
  }
  if (o.mid_block_type) {
    Level middle;
    middle.samplers_name = "samplers";
    middle.resnets.push_back(unet::make_resnet(init, plan, in, in, o.mid_block_scale_factor));
    if (o.add_attention)
      middle.attentions.push_back(unet::make_attention(init, plan, in, static_cast<int>(middle_groups(o)),
                                                       head, o.mid_block_scale_factor));
    middle.resnets.push_back(unet::make_resnet(init, plan, in, in, o.mid_block_scale_factor));
    m.middle = std::move(middle);
  }
  std::int64_t previous = in;
  for (std::size_t i = 0; i < levels; ++i) {
    const BlockKind& kind = block_kind(up_kinds, o.up_block_types[i], "up_block_types", i);
    const std::int64_t out = o.block_out_channels[levels - 1 - i],
                       below = o.block_out_channels[levels - 1 - std::min(i + 1, levels - 1)];
    Level level;
    level.samplers_name = "upsamplers";
    for (std::int64_t j = 0; j <= o.layers_per_block; ++j) {
      const std::int64_t skip = j == o.layers_per_block ? below : out;
      level.resnets.push_back(unet::make_resnet(init, plan, (j == 0 ? previous : out) + skip, out));
      if (kind.attends) level.attentions.push_back(unet::make_attention(init, plan, out, groups, head));
    }
    if (i + 1 < levels)
      level.samplers.push_back(make_sampler(
          init, plan, out, kind.resnet_sampler.value_or(o.upsample_type == "resnet"), Resample::up, 0));
    m.up.push_back(std::move(level));
    previous = out;
  }
  m.norm_out = make_group_norm(init, first, groups, o.norm_eps);
  m.conv_out = make_conv(init, first, o.out_channels, 3, 0.0);
  return m;
}

}  // namespace costate::nn
