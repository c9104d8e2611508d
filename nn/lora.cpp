#include <costate/nn/filters.h>
#include <costate/nn/init.h>
#include <costate/nn/linear.h>
#include <costate/nn/lora.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

namespace costate::nn {
namespace {

using utf8::quoted;

Var activated(const Var& x, Activation a) {
  switch (a) {
    case Activation::none:
      return x;
    case Activation::silu:
      return silu(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::relu:
      return relu(x);
  }
  fail(Fault::argument, {"adapted_linear: activation ", static_cast<int>(a), " is not known"});
}

// * stands for any text, ? for one character. Backtracks to the last star only: linear in the product of the
// lengths.
bool glob(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, mark = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1, t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// The layers whose names are most like a pattern that fits none: whole names, or their last words.
std::string near_layers(std::string_view pattern, const std::vector<std::string>& layers) {
  const auto last = [](std::string_view s) { return s.substr(s.rfind('.') + 1); };
  std::vector<std::pair<int, std::string>> ranked;
  for (const std::string& l : layers)
    ranked.emplace_back(std::min(edit_distance(pattern, l), edit_distance(last(pattern), last(l))), l);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string list;
  for (std::size_t i = 0; i < ranked.size() && i < 4; ++i) list += (i ? ", " : "") + quoted(ranked[i].second);
  return list;
}

Shape in_file(const Shape& s) { return s.rank() == 4 ? Shape{s[0], s[3], s[1], s[2]} : s; }

}  // namespace

Var adapted_linear(const Var& x, const Var& weight, const Var& bias, const Lora& lora,
                   Activation activation) {
  const Var low = linear(linear(x, lora.down, Var()), lora.up, Var());
  return activated(axpby(1.0, linear(x, weight, bias), lora.scale, low), activation);
}

bool matches_target(std::string_view pattern, std::string_view layer) {
  if (glob(pattern, layer)) return true;
  for (std::size_t dot = layer.find('.'); dot != std::string_view::npos; dot = layer.find('.', dot + 1))
    if (glob(pattern, layer.substr(dot + 1))) return true;
  return false;
}

LoraShapes lora_shapes(const Shape& w, std::int64_t rank) {
  if (w.rank() == 2) return {{rank, w[1]}, {w[0], rank}};
  return {{rank, w[1], w[2], w[3]}, {w[0], 1, 1, rank}};
}

namespace detail {

void add_lora(const LayerWalk& walk, const LoraOptions& o) {
  require(o.rank >= 1, "lora: rank ", o.rank, "; expected at least 1");
  require(o.alpha > 0 && std::isfinite(o.alpha), "lora: alpha ", o.alpha, "; expected a positive number");
  require(!o.targets.empty(), "lora: there are no targets; expected at least one pattern, such as \"*\"");
  std::vector<std::string> all;
  std::vector<bool> chosen, used(o.targets.size(), false);
  walk([&](const std::string& name, Var& weight, Lora& lora, int groups) {
    all.push_back(name);
    bool wanted = false;
    for (std::size_t i = 0; i < o.targets.size(); ++i)
      if (matches_target(o.targets[i], name)) wanted = used[i] = true;
    chosen.push_back(wanted && weight.defined());
    if (!chosen.back()) return;
    require(!lora.defined(), "lora: layer ", quoted(name),
            " has an adapter already; merge it or drop it first");
    require(groups == 1, "lora: layer ", quoted(name), " is a convolution in ", groups,
            " groups, which take no adapter");
  });
  for (std::size_t i = 0; i < o.targets.size(); ++i)
    if (!used[i])
      fail(Fault::argument,
           {"lora: the target ", quoted(o.targets[i]), " fits none of the ", all.size(),
            " layers that take an adapter; the nearest are ", near_layers(o.targets[i], all)});
  const memory::TagScope scope(memory::Tag::parameters);
  std::optional<Init> init;
  std::size_t layer = 0;
  walk([&](const std::string&, Var& weight, Lora& lora, int) {
    if (!chosen[layer++]) return;
    if (!init) init.emplace(o.seed, weight.dtype(), weight.device());
    // Uniform in +-1/sqrt(fan_in): variance 1 / (3 fan_in).
    lora.down = Var(init->uniform(lora_shapes(weight.shape(), o.rank).down, weight.numel() / weight.extent(0),
                                  std::sqrt(1.0 / 3)));
    lora.up = Var(init->zeros(lora_shapes(weight.shape(), o.rank).up));
    lora.scale = o.alpha / o.rank;
  });
}

void merge_lora(const LayerWalk& walk) {
  const memory::TagScope scope(memory::Tag::parameters);
  walk([](const std::string&, Var& weight, Lora& lora, int) {
    if (!lora.defined()) return;
    const std::int64_t rank = lora.rank();
    const Var change =
        matmul(Var(lora.up.value().reshape({-1, rank})), Var(lora.down.value().reshape({rank, -1})));
    weight = Var(axpby(1.0, Var(weight.value()), lora.scale, reshape(change, weight.shape())).value());
    lora = {};
  });
}

void save_lora(const std::string& path, const LayerWalk& walk, const std::string& prefix,
               SafetensorsMetadata metadata) {
  std::vector<NamedTensor> tensors, alphas;
  std::optional<std::pair<std::int64_t, double>> common;
  bool same = true;
  walk([&](const std::string& name, Var&, Lora& lora, int) {
    if (!lora.defined()) return;
    const auto put = [&](const char* half, const Var& p) {
      tensors.emplace_back(prefix + name + half, p.rank() == 4 ? filters_to_file(p.value()) : p.value());
    };
    put(".lora_A.weight", lora.down);
    put(".lora_B.weight", lora.up);
    const double alpha = lora.scale * static_cast<double>(lora.rank());
    alphas.emplace_back(prefix + name + ".alpha", Tensor::scalar(alpha, lora.down.dtype()));
    const std::pair<std::int64_t, double> mine{lora.rank(), alpha};
    same = same && (!common || *common == mine);
    common = mine;
  });
  require(common.has_value(), "save_lora: the model has no adapters to write to '", path, "'");
  if (same) {
    metadata["lora_rank"] = std::to_string(common->first);
    metadata["lora_alpha"] = sentence({common->second});
  } else {
    for (NamedTensor& a : alphas) tensors.push_back(std::move(a));
  }
  save_safetensors(path, tensors, std::move(metadata));
}

SafetensorsMetadata load_lora(const std::string& path, const LayerWalk& walk, double alpha) {
  const SafetensorsFile file(path, {.lenient_trailing = false, .widen_half = true});
  struct Found {
    const SafetensorsEntry *down = nullptr, *up = nullptr, *alpha = nullptr;
    bool used = false;
  };
  std::map<std::string, Found> found;  // by layer
  std::vector<std::string> faults;
  const auto bare = [](std::string name) {
    for (const char* prefix : {"base_model.model.", "unet.", "transformer."})
      if (name.starts_with(prefix)) return name.substr(std::string_view(prefix).size());
    return name;
  };
  for (const SafetensorsEntry& e : file.entries()) {
    constexpr std::pair<std::string_view, const SafetensorsEntry * Found::*> halves[] = {
        {".lora_A.weight", &Found::down},
        {".lora_A.default.weight", &Found::down},
        {".lora.down.weight", &Found::down},
        {".lora_B.weight", &Found::up},
        {".lora_B.default.weight", &Found::up},
        {".lora.up.weight", &Found::up},
        {".alpha", &Found::alpha}};
    bool known = false;
    for (const auto& [suffix, half] : halves) {
      if (!e.name.ends_with(suffix)) continue;
      Found& f = found[bare(e.name.substr(0, e.name.size() - suffix.size()))];
      if (f.*half) faults.push_back(quoted(e.name) + " comes twice under different names");
      f.*half = &e, known = true;
      break;
    }
    if (!known) faults.push_back(quoted(e.name) + " is not the name of an adapter");
  }
  if (found.empty() && faults.empty()) faults.push_back("there is no adapter in it");
  if (const auto said = file.metadata().find("lora_alpha"); said != file.metadata().end()) {
    const char* const last = said->second.data() + said->second.size();
    const auto [end, problem] = std::from_chars(said->second.data(), last, alpha);  // whatever the locale
    if (problem != std::errc() || end != last || !(alpha > 0) || !std::isfinite(alpha))
      faults.push_back("the metadata's lora_alpha is " + quoted(said->second) + ", not a positive number");
  }

  const auto fits = [](const SafetensorsEntry& e, const Shape& wanted, DType dtype) {
    const bool type =
        e.type == (dtype == DType::f64 ? SafetensorsType::F64 : SafetensorsType::F32) ||
        (dtype == DType::f32 && (e.type == SafetensorsType::F16 || e.type == SafetensorsType::BF16));
    const auto w = wanted.extents();
    return type &&
           std::equal(e.shape.begin(), e.shape.end(), w.begin(), w.end(),
                      [](std::uint64_t a, std::int64_t b) { return a == static_cast<std::uint64_t>(b); });
  };
  const auto words = [](const SafetensorsEntry& e) {
    std::string s = std::string(costate::name(e.type)) + " (";
    for (std::size_t i = 0; i < e.shape.size(); ++i) s += (i ? ", " : "") + std::to_string(e.shape[i]);
    return s + ")";
  };
  std::vector<std::string> all;
  walk([&](const std::string& name, Var& weight, Lora& lora, int groups) {
    all.push_back(name);
    const auto it = found.find(name);
    if (it == found.end()) return;
    Found& f = it->second;
    f.used = true;
    if (lora.defined()) faults.push_back("layer " + quoted(name) + " has an adapter already");
    if (groups != 1)
      faults.push_back("layer " + quoted(name) + " is a grouped convolution, which takes no adapter");
    if (!f.down || !f.up) {
      faults.push_back("layer " + quoted(name) + " has no " + (f.down ? "lora_B" : "lora_A") + " in it");
      return;
    }
    const std::int64_t rank =
        f.down->shape.empty()
            ? 0
            : static_cast<std::int64_t>(std::min<std::uint64_t>(f.down->shape[0], 1u << 30));
    const LoraShapes shapes = lora_shapes(weight.shape(), rank);
    for (const auto& [e, shape] : {std::pair{f.down, in_file(shapes.down)}, {f.up, in_file(shapes.up)}})
      if (rank < 1 || !fits(*e, shape, weight.dtype()))
        faults.push_back(quoted(e->name) + " is " + words(*e) + " where " +
                         std::string(costate::name(weight.dtype())) + " " + costate::to_string(shape) +
                         " is expected");
    if (f.alpha && !(f.alpha->shape.empty() || (f.alpha->shape.size() == 1 && f.alpha->shape[0] == 1)))
      faults.push_back(quoted(f.alpha->name) + " is " + words(*f.alpha) + ", not one number");
  });
  for (const auto& [name, f] : found)
    if (!f.used)
      faults.push_back("the model has no layer " + quoted(name) + " (the nearest are " +
                       near_layers(name, all) + ")");
  const auto refuse = [&] {
    std::string list;
    for (std::size_t i = 0; i < faults.size() && i < 8; ++i) list += (i ? "; " : "") + faults[i];
    if (faults.size() > 8) list += "; and " + std::to_string(faults.size() - 8) + " more";
    fail(Fault::data, {file.where(), " does not fit the model: ", list});
  };
  if (!faults.empty()) refuse();

  // Everything is read before anything is given away.
  const memory::TagScope scope(memory::Tag::parameters);
  std::map<std::string, Lora> read;
  walk([&](const std::string& name, Var& weight, Lora&, int) {
    const auto it = found.find(name);
    if (it == found.end()) return;
    const auto half = [&](const SafetensorsEntry& e) {
      Tensor t = file.tensor(e);
      if (t.rank() == 4) t = filters_from_file(t);
      return Var(t.to(weight.device()));
    };
    const Found& f = it->second;
    Lora lora{half(*f.down), half(*f.up), 0};
    const double of_layer = f.alpha ? file.tensor(*f.alpha).item() : alpha;
    if (f.alpha && !(of_layer > 0 && std::isfinite(of_layer)))
      faults.push_back(quoted(f.alpha->name) + " is not a positive number");
    lora.scale = of_layer > 0 ? of_layer / static_cast<double>(lora.rank()) : 1.0;
    read.emplace(name, std::move(lora));
  });
  if (!faults.empty()) refuse();
  walk([&](const std::string& name, Var&, Lora& lora, int) {
    if (const auto it = read.find(name); it != read.end()) lora = std::move(it->second);
  });
  return file.metadata();
}

}  // namespace detail
}  // namespace costate::nn
