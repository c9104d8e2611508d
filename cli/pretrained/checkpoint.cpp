#include "pretrained/checkpoint.h"

#include <costate/nn/filters.h>
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "pretrained/keys.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

std::string if_there(const fs::path& p) { return fs::is_regular_file(p) ? p.string() : std::string(); }

bool same_shape(const std::vector<std::uint64_t>& a, const Shape& b) {
  const auto e = b.extents();
  return std::equal(a.begin(), a.end(), e.begin(), e.end(),
                    [](std::uint64_t x, std::int64_t y) { return x == static_cast<std::uint64_t>(y); });
}

// One tensor of the model from the file: f32, in the order of memory.
Tensor read_tensor(RawTensor raw, const Shape& shape) {
  raw = to_type(std::move(raw), SafetensorsType::F32);
  const Tensor t = Tensor::empty(nn::shape_in_file(shape), DType::f32);
  std::memcpy(t.raw_mutable(), raw.bytes.data(), raw.bytes.size());
  raw.bytes = {};
  return shape.rank() == 4 ? nn::filters_from_file(t) : t;
}

struct Report {
  std::vector<std::string> missing, unexpected, misfits;
  void refuse_if_any(const std::string& where) const {
    std::string all;
    const auto add = [&](const std::vector<std::string>& list, const char* what) {
      if (list.empty()) return;
      all += (all.empty() ? "" : "; ") + std::to_string(list.size()) + " " + what + " (";
      for (std::size_t i = 0; i < list.size() && i < 8; ++i) all += (i ? ", " : "") + list[i];
      if (list.size() > 8) all += ", and " + std::to_string(list.size() - 8) + " more";
      all += ")";
    };
    add(missing, "missing"), add(unexpected, "unexpected"), add(misfits, "of another shape or type");
    if (!all.empty())
      fail(Fault::data, {where, " does not fit the network of its configuration: tensors ", all});
  }
};

template <class Model>
void fill(Model& model, const NetworkSpec& spec, const SafetensorsSet& set, Device device,
          std::vector<std::string>& notes) {
  const bool dit = spec.dialect != Dialect::unet;
  const int depth = dit ? dit_depth(set, spec.dialect) : 0;
  Report report;
  std::set<std::string> used;
  bool rounded = false;
  const auto computed = [&](const std::string& name) {
    return spec.dialect == Dialect::dit_diffusers && name == "pos_embed";
  };
  const auto check = [&](const std::string& name, Var& p) {
    if (computed(name)) return;
    const Source source = source_of(name, spec.dialect, depth, set);
    bool there = true;
    for (const std::string& t : source.tensors) {
      used.insert(t);
      if (!set.find(t)) there = false, report.missing.push_back(utf8::quoted(t));
    }
    if (!there) return;
    // The shape that the combination will have, from headers alone.
    std::vector<std::uint64_t> shape = set.find(source.tensors[0])->entry->shape;
    if (source.how == Source::How::squeezed)
      while (shape.size() > 2 && shape.back() == 1) shape.pop_back();
    if (source.how == Source::How::stacked && !shape.empty())
      for (std::size_t i = 1; i < source.tensors.size(); ++i) {
        const auto& other = set.find(source.tensors[i])->entry->shape;
        shape[0] += other.empty() ? 0 : other[0];
      }
    const SafetensorsType type = set.find(source.tensors[0])->entry->type;
    rounded = rounded || type == SafetensorsType::F64;
    if (!is_floating(type) || !same_shape(shape, nn::shape_in_file(p.shape())))
      report.misfits.push_back(
          utf8::quoted(source.tensors[0]) + (source.tensors.size() > 1 ? " and its like are " : " is ") +
          in_words(type, shape) + " where " + costate::to_string(nn::shape_in_file(p.shape())) + " is expected");
  };
  nn::visit_state(model, check);
  for (const auto& e : set.entries())
    if (!used.count(e.name())) report.unexpected.push_back(utf8::quoted(e.name()));
  report.refuse_if_any(set.where());
  if (rounded) notes.push_back(set.where() + ": F64 tensors are rounded to f32");

  const memory::TagScope scope(memory::Tag::parameters);
  const Named named = named_in(set);
  nn::visit_state(model, [&](const std::string& name, Var& p) {
    if (device.kind == DeviceKind::meta) {  // what reading asks for
      const Tensor t = Tensor::empty(computed(name) ? p.shape() : nn::shape_in_file(p.shape()), DType::f32, device);
      p = Var(p.rank() == 4 ? nn::filters_from_file(t) : t);
    } else if (!computed(name))
      p = Var(read_tensor(combine(source_of(name, spec.dialect, depth, set), set.where(), named), p.shape()));
    else if (const auto* o = std::get_if<nn::DitOptions>(&spec.options))
      p = Var(nn::sinusoidal_positions(o->height / o->patch, o->width / o->patch, o->hidden));
  });
}

// A network whose prediction is turned round.
struct Negated {
  nn::Network network;
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    return neg(network(x, t, labels));
  }
  void visit(const nn::Visitor& v) { network.visit(v); }
  Negated recompute_blocks(bool on) const { return {network.recompute_blocks(on)}; }
  Negated prepared() const { return {network.prepared()}; }
  Negated with_dropout(const nn::DropoutKey& key) const { return {network.with_dropout(key)}; }
};

}  // namespace

CheckpointFiles find_checkpoint(const std::string& path) {
  CheckpointFiles out;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail(Fault::io, {"'", path, "' does not exist"});
  const fs::path p(path);
  if (!fs::is_directory(p)) {
    out.weights = path;
    out.config = if_there(p.parent_path() / "config.json");
    out.scheduler = if_there(p.parent_path() / "scheduler_config.json");
    if (out.scheduler.empty())
      out.scheduler = if_there(p.parent_path() / ".." / "scheduler" / "scheduler_config.json");
    return out;
  }
  const std::string index = if_there(p / "model_index.json");
  if (index.empty()) {
    out.weights = path;
    out.config = if_there(p / "config.json");
    out.scheduler = if_there(p / "scheduler_config.json");
    if (out.scheduler.empty()) out.scheduler = if_there(p / ".." / "scheduler" / "scheduler_config.json");
    return out;
  }
  Keys keys(read_json_object(index), "'" + index + "'");
  if (const Json* named = keys.raw("_class_name"); named && named->is_string())
    out.pipeline = named->get<std::string>();
  fs::path model;
  for (const char* part : {"unet", "transformer"})
    if (fs::is_directory(p / part)) {
      if (!model.empty())
        fail(Fault::data, {"'", path, "' has both a unet and a transformer; expected one of them"});
      model = p / part;
    }
  // Some repositories list the parts in model_index.json and keep the files at their root.
  if (model.empty()) model = p;
  out.weights = model.string();
  out.config = if_there(model / "config.json");
  out.scheduler = if_there(p / "scheduler" / "scheduler_config.json");
  if (out.scheduler.empty()) out.scheduler = if_there(p / "scheduler_config.json");
  if (keys.has("vae")) out.notes.push_back("the vae of the pipeline is not loaded: pictures are its latents");
  return out;
}

std::variant<nn::UNet, nn::Dit> blank_network(const NetworkSpec& spec, const nn::TimestepMap& timestep) {
  nn::Init init(0, DType::f32, Device::meta);
  if (const auto* u = std::get_if<nn::UNetOptions>(&spec.options)) {
    nn::UNetOptions o = *u;
    o.timestep = timestep;
    return nn::make_unet(o, init);
  }
  nn::DitOptions o = std::get<nn::DitOptions>(spec.options);
  o.timestep = timestep;
  return nn::make_dit(o, init);
}

std::vector<std::string> home_names(const NetworkSpec& spec) {
  std::vector<std::string> out;
  std::visit(
      [&](auto model) {
        nn::visit_state(model, [&](const std::string& name, Var&) { out.push_back(name); });
      },
      blank_network(spec, {}));
  return out;
}

void check_weights(const NetworkSpec& spec, const SafetensorsSet& set) {
  std::vector<std::string> notes;
  std::visit([&](auto model) { fill(model, spec, set, Device::meta, notes); }, blank_network(spec, {}));
}

LoadedCheckpoint load_pretrained(const std::string& path, Device device) {
  LoadedCheckpoint out{find_checkpoint(path), {}, {}, {}, {}};
  out.notes = out.files.notes;
  const SafetensorsSet set = open_weights(out.files.weights, out.notes);
  out.spec = network_spec(out.files, set);
  out.notes.insert(out.notes.end(), out.spec.notes.begin(), out.spec.notes.end());
  nn::TimestepMap timestep;
  bool negated = false;
  if (!out.files.scheduler.empty()) {
    out.scheduler = import_scheduler(read_json_object(out.files.scheduler), "'" + out.files.scheduler + "'");
    timestep = out.scheduler->timestep, negated = out.scheduler->negated;
    out.notes.insert(out.notes.end(), out.scheduler->notes.begin(), out.scheduler->notes.end());
  }
  std::visit(
      [&](auto model) {
        fill(model, out.spec, set, device, out.notes);
        out.network = nn::Network(std::move(model));
      },
      blank_network(out.spec, timestep));
  if (negated) out.network = nn::Network(Negated{std::move(out.network)});
  return out;
}

}  // namespace costate::cli
