// Networks from the configuration and the shape of an item.
#include <costate/nn/computed.h>
#include <costate/nn/dit.h>
#include <costate/nn/mlp.h>
#include <costate/nn/unet.h>

#include <algorithm>

#include "build.h"
#include "pretrained/checkpoint.h"

namespace costate::cli {
namespace {

struct Picture {
  std::int64_t height, width, channels;
};

Picture picture_of(const Config& c, const data::Dataset& data) {
  const auto& s = data.item_shape;
  require(s.size() == 2 || s.size() == 3, "network.kind: '", c.network.kind,
          "' sees pictures, [height, width] or [height, width, channels], but an item of the data has shape ",
          item_shape(data));
  return {s[0], s[1], s.size() == 3 ? s[2] : 1};
}

nn::MlpOptions mlp_options(const NetworkConfig& n, const data::Dataset& data) {
  nn::MlpOptions o;
  o.dim = data::item_size(data);
  o.hidden = n.hidden, o.depth = static_cast<int>(n.depth);
  o.activation = n.activation == "silu"        ? Activation::silu
                 : n.activation == "gelu_tanh" ? Activation::gelu_tanh
                                               : Activation::relu;
  o.time_frequencies = static_cast<int>(n.time_frequencies);
  o.classes = n.conditional ? data.classes : 0;
  o.class_width = n.class_width;
  o.residual = n.residual, o.norm = n.norm;
  return o;
}

nn::UNetOptions unet_options(const NetworkConfig& n, const Picture& picture, std::int64_t classes) {
  const UNetConfig& u = n.unet;
  const std::int64_t levels = static_cast<std::int64_t>(u.channels.size()),
                     step = std::int64_t{1} << (levels - 1);
  require(picture.height % step == 0 && picture.width % step == 0, "network.unet.channels: ", levels,
          " levels halve a picture ", levels - 1, " times, but the data has ", picture.height, " x ",
          picture.width, " pixels, which are not multiples of ", step);
  nn::UNetOptions o;
  o.in_channels = o.out_channels = picture.channels;
  o.block_out_channels = u.channels;
  o.layers_per_block = u.layers;
  o.down_block_types.clear(), o.up_block_types.clear();
  for (std::int64_t i = 0; i < levels; ++i) {
    const auto attends = [&](std::int64_t level) {
      return std::find(u.attention_levels.begin(), u.attention_levels.end(), level) !=
             u.attention_levels.end();
    };
    const bool resnet = u.resampling == "resnet", down = attends(i), up = attends(levels - 1 - i);
    o.down_block_types.push_back(down     ? "AttnDownBlock2D"
                                 : resnet ? "ResnetDownsampleBlock2D"
                                          : "DownBlock2D");
    o.up_block_types.push_back(up ? "AttnUpBlock2D" : resnet ? "ResnetUpsampleBlock2D" : "UpBlock2D");
  }
  o.downsample_type = o.upsample_type = u.resampling;
  o.attention_head_dim = u.head_channels > 0 ? std::optional(u.head_channels) : std::nullopt;
  o.norm_num_groups = u.groups;
  o.attn_norm_num_groups = u.groups;
  o.resnet_time_scale_shift = u.time_conditioning == "shift" ? "default" : "scale_shift";
  o.dropout = u.dropout;
  if (classes > 0) o.num_class_embeds = classes + 1, o.null_class = classes;
  return o;
}

nn::DitOptions dit_options(const NetworkConfig& n, const Picture& picture, std::int64_t classes) {
  nn::DitOptions o;
  o.channels = picture.channels, o.height = picture.height, o.width = picture.width;
  o.patch = n.dit.patch, o.hidden = n.dit.hidden;
  o.depth = static_cast<int>(n.dit.depth), o.heads = static_cast<int>(n.dit.heads);
  o.mlp_ratio = n.dit.mlp_ratio;
  o.classes = classes;
  return o;
}

// The checkpoint as the base model, if the configuration says what it is.
nn::Network pretrained(const Config& c, const data::Dataset& data, Device device) {
  LoadedCheckpoint checkpoint = load_pretrained(c.network.path, device);
  const NetworkSpec& spec = checkpoint.spec;
  const Picture p = picture_of(c, data);
  require(
      p.channels == spec.channels && (spec.height == 0 || (p.height == spec.height && p.width == spec.width)),
      "network.path: the network of '", c.network.path, "' sees pictures of ", spec.height, " x ", spec.width,
      " x ", spec.channels, " (height, width, channels), but an item of the data is ", p.height, " x ",
      p.width, " x ", p.channels);
  require(!c.network.conditional || spec.classes > 0, "network.conditional: the network of '", c.network.path,
          "' has no classes, expected false");
  if (!checkpoint.scheduler) return std::move(checkpoint.network);
  const ImportedScheduler& s = *checkpoint.scheduler;
  const sde::Schedule path = make_schedule(c);
  if (!(path == s.schedule)) {
    std::string keys = "path.family=linear";
    if (!s.flow)
      keys = sentence({"path.family=vp_table, path.beta_schedule=", name(s.law),
                       ", path.timesteps=", s.train_timesteps, ", path.beta_start=", s.beta_start,
                       ", path.beta_end=", s.beta_end});
    require(!s.trained_betas, "network.path: the checkpoint '", c.network.path,
            "' has betas of its own, which no path of the configuration is");
    fail(Fault::argument, {"path: found ", path.description(), ", but the checkpoint '", c.network.path,
                           "' is of ", s.schedule.description(), "; set ", keys});
  }
  require(sde::parametrisation(c.prediction) == s.prediction, "prediction: found \"", c.prediction,
          "\", but the network of '", c.network.path, "' predicts \"", name(s.prediction), "\"");
  return std::move(checkpoint.network);
}

// The options of the network have names of their own: says where they come from.
template <class Options>
Options checked(const NetworkConfig& n, const Options& options) {
  try {
    nn::check(options);
  } catch (const Error& e) {
    fail(e.fault(), {"network.", n.kind, ": ", e.what()});
  }
  return options;
}

}  // namespace

Json network_json(const Config& c, const data::Dataset& data) {
  const NetworkConfig& n = c.network;
  if (n.kind == "mlp") return nullptr;
  if (n.kind == "pretrained") {
    const CheckpointFiles files = find_checkpoint(n.path);
    std::vector<std::string> notes;
    const NetworkSpec spec = network_spec(files, open_weights(files.weights, notes));
    return config_json(spec, spec.dialect);
  }
  const Picture p = picture_of(c, data);
  NetworkSpec spec;
  spec.channels = p.channels, spec.height = p.height, spec.width = p.width;
  spec.classes = n.conditional ? data.classes : 0;
  spec.dialect = n.kind == "unet" ? Dialect::unet : Dialect::dit_facebook;
  if (n.kind == "unet") spec.options = unet_options(n, p, spec.classes);
  else spec.options = dit_options(n, p, spec.classes);
  return config_json(spec, spec.dialect);
}

namespace {

nn::Network make_in_f32(const Config& c, const data::Dataset& data, Device device) {
  nn::Init init(seed_of(c, Purpose::pretrain), DType::f32, device);
  const NetworkConfig& n = c.network;
  if (n.kind == "pretrained") return pretrained(c, data, device);
  if (n.kind == "mlp") return nn::make_velocity_mlp(mlp_options(n, data), init);
  const Picture picture = picture_of(c, data);
  const std::int64_t classes = n.conditional ? data.classes : 0;
  if (n.kind == "unet") return nn::make_unet(checked(n, unet_options(n, picture, classes)), init);
  return nn::make_dit(checked(n, dit_options(n, picture, classes)), init);
}

}  // namespace

nn::Network make_network(const Config& c, const data::Dataset& data, Device device) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Network network = make_in_f32(c, data, device);
  if (c.precision == "bf16") network = nn::Computed{std::move(network), DType::bf16};
  return network;
}

}  // namespace costate::cli
