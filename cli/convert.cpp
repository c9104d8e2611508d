// Checkpoints from one dialect, layout and element type to another, and what tells two of them apart.
#include <costate/nn/dit.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "bytes.h"
#include "commands.h"
#include "pretrained/checkpoint.h"
#include "run/directory.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

SafetensorsType type_named(const std::string& word) {
  constexpr std::pair<std::string_view, SafetensorsType> types[] = {{"f32", SafetensorsType::F32},
                                                                    {"f64", SafetensorsType::F64},
                                                                    {"f16", SafetensorsType::F16},
                                                                    {"bf16", SafetensorsType::BF16}};
  for (const auto& [name, type] : types)
    if (word == name) return type;
  fail(Fault::argument, {"--dtype: found '", word, "', expected f32, f64, f16 or bf16"});
}

Dialect dialect_named(const std::string& word) {
  for (const Dialect d : {Dialect::unet, Dialect::dit_facebook, Dialect::dit_diffusers})
    if (word == name(d)) return d;
  fail(Fault::argument, {"--dialect: found '", word, "', expected unet, dit or dit-diffusers"});
}

State all_of(const SafetensorsSet& set) {
  State state;
  for (const auto& e : set.entries()) state[e.name()] = {e.entry->type, e.entry->shape, set.raw(e)};
  return state;
}

// The tensors under the names of another dialect.
State in_dialect(const NetworkSpec& spec, const SafetensorsSet& set, Dialect to) {
  const bool dit = spec.dialect != Dialect::unet;
  require(dit == (to != Dialect::unet), "--dialect: found '", name(to), "', but '", set.where(), "' holds a ",
          dit ? "DiT; expected dit or dit-diffusers" : "UNet; expected unet");
  check_weights(spec, set);
  const int depth = dit ? dit_depth(set, spec.dialect) : 0;
  State home;
  for (const std::string& parameter : home_names(spec)) {
    if (parameter == "pos_embed" && spec.dialect == Dialect::dit_diffusers) {
      const auto& o = std::get<nn::DitOptions>(spec.options);
      const Tensor t = nn::sinusoidal_positions(o.height / o.patch, o.width / o.patch, o.hidden);
      RawTensor raw{SafetensorsType::F32, {}, std::vector<std::byte>(static_cast<std::size_t>(t.bytes()))};
      for (const std::int64_t extent : t.shape().extents())
        raw.shape.push_back(static_cast<std::uint64_t>(extent));
      std::memcpy(raw.bytes.data(), t.raw(), raw.bytes.size());
      home[parameter] = std::move(raw);
    } else {
      home[parameter] = combine(source_of(parameter, spec.dialect, depth, set), set.where(), named_in(set));
    }
  }
  if (to != Dialect::dit_diffusers) return home;
  const Named named = [&](const std::string& n) -> std::optional<RawTensor> {
    const auto it = home.find(n);
    return it == home.end() ? std::nullopt : std::optional(it->second);
  };
  State away;
  for (const auto& [parameter, tensor] : home)
    for (const auto& [target, source] : diffusers_dit(parameter, depth))
      away[target] = combine(source, set.where(), named);
  return away;
}

std::uint64_t count_of(const std::vector<std::uint64_t>& shape) {
  std::uint64_t n = 1;
  for (const std::uint64_t e : shape) n *= e;
  return n;
}

// Whose function the network is: what a run tuned keeps the original names and the function of where it came from.
Dialect function_of(const NetworkSpec& spec) {
  const auto* dit = std::get_if<nn::DitOptions>(&spec.options);
  return !dit                                                                       ? Dialect::unet
         : dit->dialect.frequency_shift == nn::facebook_dialect.frequency_shift ? Dialect::dit_facebook
                                                                                    : Dialect::dit_diffusers;
}

// A checkpoint of a run, in its metadata: what the network is, and where it came from if it was pretrained.
struct OfARun {
  bool yes = false;
  std::string pretrained;
};
OfARun of_a_run(const CheckpointFiles& files, const SafetensorsMetadata& metadata, const std::string& where) {
  OfARun out;
  const auto network = metadata.find(std::string(network_key)), config = metadata.find(std::string(config_key));
  if (!files.config.empty() || network == metadata.end()) return out;
  out.yes = true;
  if (config == metadata.end()) return out;
  const Json json = parse_json_object(config->second, where + ", metadata " + config->first);
  const Json& n = json.contains("network") ? json["network"] : Json::object();
  if (n.is_object() && n.value("kind", Json()) == "pretrained" && n.contains("path") && n["path"].is_string())
    out.pretrained = n["path"].get<std::string>();
  return out;
}

void copy_file_of(const std::string& from, const std::string& to, bool overwrite) {
  require(overwrite || !fs::exists(to), "'", to, "' exists already; give --overwrite to replace it");
  write_file_atomically(to, read_file(from));
}

}  // namespace

std::vector<std::string> convert_command(const ConvertOptions& o, std::ostream& out) {
  std::vector<std::string> notes;
  const CheckpointFiles files = find_checkpoint(o.from);
  const SafetensorsSet set = open_weights(files.weights, notes, o.lenient_trailing);
  SafetensorsMetadata metadata = set.files()[0].metadata();
  metadata.emplace("format", "pt");
  // Pipeline and scheduler: those of the checkpoint, or of the one that a run began with.
  CheckpointFiles origin = files;
  std::string origin_path = o.from;
  const OfARun run = of_a_run(files, metadata, set.where());
  if (!run.pretrained.empty()) {
    origin_path = run.pretrained;
    try {
      origin = find_checkpoint(origin_path);
    } catch (const Error& e) {
      notes.push_back(sentence({"the run began with '", origin_path, "', which is not there now: its scheduler is not copied (",
                                e.what(), ")"}));
    }
  } else if (run.yes) {
    notes.push_back(
        "no scheduler is written: the network counts time from noise, 0, to data, 1, sees it as the timestep 1000 t, and "
        "its velocity points to the data; schedulers of diffusers count from data to noise");
  }

  State state;
  std::optional<NetworkSpec> spec;
  bool renamed = false;
  if (!o.dialect.empty() || run.yes) {
    spec = network_spec(files, set);
    const Dialect to = o.dialect.empty() ? function_of(*spec) : dialect_named(o.dialect);
    notes.insert(notes.end(), spec->notes.begin(), spec->notes.end());
    state = in_dialect(*spec, set, to);
    renamed = to != spec->dialect;
    if (to != function_of(*spec))
      notes.push_back(
          "the two DiT dialects are not the same function: timestep sinusoids are spread over 128 steps in "
          "the original "
          "and over 127 in diffusers (differences of the order of 1e-2 in the output), and the norm before "
          "the MLP has "
          "eps 1e-6 and 1e-5; costate keeps to the dialect of the file");
    if (to == Dialect::dit_diffusers && renamed && set.find("pos_embed")) {
      const auto& d = std::get<nn::DitOptions>(spec->options);
      const RawTensor held = to_type(*named_in(set)("pos_embed"), SafetensorsType::F32);
      const Tensor made = nn::sinusoidal_positions(d.height / d.patch, d.width / d.patch, d.hidden);
      const auto theirs = to_doubles(held), ours = made.to_doubles();
      double largest = 0;
      for (std::size_t i = 0; i < std::min(theirs.size(), ours.size()); ++i)
        largest = std::max(largest, std::abs(theirs[i] - ours[i]));
      if (largest > 1e-6)
        notes.push_back(
            sentence({"pos_embed is not saved in the diffusers dialect, which computes it; the file's "
                      "differs from that by up to ",
                      largest}));
    }
    spec->dialect = to;
  } else {
    state = all_of(set);
  }
  if (!o.dtype.empty()) {
    const SafetensorsType type = type_named(o.dtype);
    std::uint64_t changed = 0, total = 0;
    for (auto& [name, t] : state) {
      if (!is_floating(t.type) || t.type == type) continue;
      const RawTensor before = t;
      t = to_type(std::move(t), type);
      const RawTensor back = to_type(t, before.type);
      const auto size = static_cast<std::size_t>(bits(before.type) / 8);
      for (std::size_t i = 0; i < before.bytes.size(); i += size)
        changed += std::memcmp(before.bytes.data() + i, back.bytes.data() + i, size) != 0;
      total += before.bytes.size() / size;
    }
    if (changed)
      notes.push_back(sentence({"--dtype ", o.dtype, ": ", changed, " of ", total, " numbers are rounded"}));
  }

  const bool one_file = o.to.ends_with(".safetensors");
  const std::uint64_t shard = o.max_shard.empty() ? 0 : bytes_of(o.max_shard, "--max-shard");
  if (one_file) {
    require(shard == 0, "--max-shard: '", o.to, "' is a single file; give a folder for a sharded set");
    const fs::path p(o.to);
    write_state(p.parent_path().string(), p.stem().string(), state, metadata, 0, o.overwrite);
  } else {
    // A pipeline stays one; a model stays a folder with its configuration.
    const bool pipeline = !origin.pipeline.empty();
    std::string model = o.to;
    if (pipeline)
      model += fs::path(origin.weights).filename() == "transformer" ? "/transformer"
               : fs::path(origin.weights).filename() == "unet"      ? "/unet"
                                                                    : "";
    const bool library_names = !spec || spec->dialect != Dialect::dit_facebook;
    write_state(model, library_names ? "diffusion_pytorch_model" : "model", state, metadata, shard,
                o.overwrite);
    if (renamed || (spec && files.config.empty())) {
      require(o.overwrite || !fs::exists(model + "/config.json"), "'", model,
              "/config.json' exists already; give --overwrite to replace it");
      write_file_atomically(model + "/config.json",
                            std::string_view(config_json(*spec, spec->dialect).dump(2) + "\n"));
    } else if (!files.config.empty()) {
      copy_file_of(files.config, model + "/config.json", o.overwrite);
    }
    if (pipeline) {
      copy_file_of((fs::path(origin_path) / "model_index.json").string(), o.to + "/model_index.json", o.overwrite);
      if (renamed && !run.yes)
        notes.push_back(
            "model_index.json is kept as it was: its classes are those of the library it was written by");
    }
    if (!origin.scheduler.empty()) {
      const std::string folder = pipeline ? o.to + "/scheduler" : o.to;
      fs::create_directories(folder);
      copy_file_of(origin.scheduler, folder + "/scheduler_config.json", o.overwrite);
    }
  }
  std::uint64_t bytes = 0;
  for (const auto& [name, t] : state) bytes += t.bytes.size();
  out << "wrote " << state.size() << " tensors, " << bytes << " bytes, to " << o.to << "\n";
  return notes;
}

bool diff_command(const DiffOptions& o, std::ostream& out) {
  std::vector<std::string> notes;
  const SafetensorsSet a = open_weights(find_checkpoint(o.a).weights, notes),
                       b = open_weights(find_checkpoint(o.b).weights, notes);
  Json rows = Json::array(), only_a = Json::array(), only_b = Json::array();
  std::size_t equal = 0, within = 0, beyond = 0;
  for (const auto& e : b.entries())
    if (!a.find(e.name())) only_b.push_back(e.name());
  for (const auto& e : a.entries()) {
    const auto* f = b.find(e.name());
    if (!f) {
      only_a.push_back(e.name());
      continue;
    }
    Json row = {{"name", e.name()}};
    const bool same_type = e.entry->type == f->entry->type, same_shape = e.entry->shape == f->entry->shape;
    if (!same_type) row["dtype"] = {std::string(name(e.entry->type)), std::string(name(f->entry->type))};
    if (!same_shape) {
      row["shape"] = {e.entry->shape, f->entry->shape};
      rows.push_back(row), ++beyond;
      continue;
    }
    RawTensor x{e.entry->type, e.entry->shape, a.raw(e)}, y{f->entry->type, f->entry->shape, b.raw(*f)};
    if (same_type && x.bytes == y.bytes) {
      ++equal;
      continue;
    }
    const std::vector<double> u = to_doubles(x), v = to_doubles(y);
    double absolute = 0, relative = 0;
    std::uint64_t same = 0;
    bool fits = true;
    for (std::size_t i = 0; i < u.size(); ++i) {
      const bool both_nan = std::isnan(u[i]) && std::isnan(v[i]);
      if (both_nan || (u[i] == v[i] && std::signbit(u[i]) == std::signbit(v[i]))) {
        ++same;
        continue;
      }
      const double d = u[i] == v[i] ? 0 : std::abs(u[i] - v[i]),
                   size = std::max(std::abs(u[i]), std::abs(v[i]));
      if (!(d <= o.atol + o.rtol * size)) fits = false;
      absolute = std::isfinite(d) ? std::max(absolute, d) : std::numeric_limits<double>::infinity();
      relative = std::isfinite(d) ? std::max(relative, size > 0 ? d / size : 0)
                                  : std::numeric_limits<double>::infinity();
    }
    row["max_abs"] = json_number(absolute), row["max_rel"] = json_number(relative);
    row["equal_numbers"] = same, row["numbers"] = count_of(e.entry->shape);
    (fits ? within : beyond) += 1;
    row["within_tolerance"] = fits;
    rows.push_back(row);
  }
  const bool agree = beyond == 0 && only_a.empty() && only_b.empty();
  if (o.json) {
    out << Json{{"a", o.a},
                {"b", o.b},
                {"agree", agree},
                {"identical", equal},
                {"within_tolerance", within},
                {"different", beyond},
                {"only_in_a", only_a},
                {"only_in_b", only_b},
                {"tensors", rows}}
               .dump(2)
        << "\n";
    return agree;
  }
  for (const auto& n : only_a) out << "only in " << o.a << ": " << n.get<std::string>() << "\n";
  for (const auto& n : only_b) out << "only in " << o.b << ": " << n.get<std::string>() << "\n";
  if (!rows.empty()) {
    Table table({"tensor", "dtype", "shape", "largest difference", "relative", "equal numbers"});
    const auto pair = [](const Json& r, const char* key) {
      return r.contains(key) ? r[key][0].dump() + " and " + r[key][1].dump() : std::string("same");
    };
    for (const Json& r : rows)
      table.row({r["name"].get<std::string>(), pair(r, "dtype"), pair(r, "shape"),
                 r.contains("max_abs") ? r["max_abs"].dump() : "",
                 r.contains("max_rel") ? r["max_rel"].dump() : "",
                 r.contains("numbers") ? r["equal_numbers"].dump() + " of " + r["numbers"].dump() : ""});
    out << table.text(false);
  }
  out << equal << " tensors identical, " << within << " within tolerance, " << beyond << " different, "
      << only_a.size() + only_b.size() << " on one side only\n";
  return agree;
}

}  // namespace costate::cli
