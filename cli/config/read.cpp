#include "config/read.h"

#include <costate/finetune/data/file.h>
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

#include "config/fields.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

// What the paths of fields() say, for those that look one up.
struct Paths {
  std::map<std::string_view, std::size_t> places;         // "finetune.lr.peak" -> its place in fields()
  std::map<std::string, std::vector<std::string>> below;  // "finetune.lr." -> peak, warmup, ... in their order
};
const Paths& paths() {
  static const Paths all = [] {
    Paths out;
    for (std::size_t i = 0; i < fields().size(); ++i) {
      const std::string_view path = fields()[i].path;
      out.places.emplace(path, i);
      for (std::size_t begin = 0, dot = 0; dot != std::string_view::npos; begin = dot + 1) {
        dot = path.find('.', begin);
        auto& names = out.below[std::string(path.substr(0, begin))];
        const std::string_view name = path.substr(begin, dot == std::string_view::npos ? dot : dot - begin);
        if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
      }
    }
    return out;
  }();
  return all;
}

class Reader {
 public:
  explicit Reader(ReadConfig& read) : read_(read) { read_.origins.resize(list_.size(), Origin::standard); }

  // Walks an object down to its keys.
  void take(const Json& value, const std::string& path, Origin origin) {
    if (const auto found = paths().places.find(path); found != paths().places.end()) {
      assign(list_[found->second], value);
      read_.origins[found->second] = origin;
      return;
    }
    const std::string prefix = path.empty() ? "" : path + ".";
    if (!paths().below.contains(prefix)) unknown(path);
    if (!value.is_object())
      fail(Fault::argument, {path, ": found ", description(value), ", expected an object with the keys ", keys(prefix)});
    for (const auto& [key, below] : value.items()) {
      if (key.empty()) unknown(prefix);
      take(below, prefix + key, origin);
    }
  }

 private:
  static std::string_view last(std::string_view path) { return path.substr(path.rfind('.') + 1); }
  static std::string keys(const std::string& prefix) {
    std::string out;
    for (const std::string& k : paths().below.at(prefix)) out += (out.empty() ? "" : ", ") + k;
    return out;
  }
  [[noreturn]] void unknown(const std::string& path) const {
    // A key below a value, or beside the keys of the deepest section that exists.
    const auto& [places, below] = paths();
    for (std::size_t end = path.find('.'); end != std::string::npos; end = path.find('.', end + 1))
      if (const auto above = places.find(std::string_view(path).substr(0, end)); above != places.end()) {
        const Field& f = list_[above->second];
        fail(Fault::argument, {path, ": ", f.path, " is ", f.expected(), ", not a section with keys"});
      }
    const std::size_t dot = path.rfind('.');
    const std::string prefix = dot == std::string::npos ? "" : path.substr(0, dot + 1);
    const auto known = below.find(prefix);
    if (known == below.end()) unknown(path.substr(0, dot));
    const std::string key = path.substr(prefix.size(), 64);
    std::string near = nearest_of(key, known->second);
    if (!near.empty())
      near = "; did you mean '" + prefix + near + "'?";
    else if (std::count_if(list_.begin(), list_.end(), [&](const Field& f) { return last(f.path) == key; }) ==
             1)
      for (const Field& f : list_)  // the right key in the wrong section
        if (last(f.path) == key) near = "; there is a key '" + f.path + "'";
    fail(Fault::argument, {prefix, key.empty() ? "\"\"" : key, ": there is no such key; ",
                           prefix.empty() ? "the sections and keys are " : "the keys of this section are ",
                           keys(prefix), near});
  }

  [[noreturn]] static void wrong(const Field& f, const Json& value) {
    std::string near;
    if (value.is_string() && !f.choices.empty()) near = nearest_of(value.get<std::string>(), f.choices);
    fail(Fault::argument, {f.path, ": found ", description(value), ", expected ", f.expected(),
                           near.empty() ? "" : "; did you mean '" + near + "'?"});
  }
  static std::int64_t integer(const Field& f, const Json& value, const Json& whole) {
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<std::uint64_t>() > (std::uint64_t{1} << 53)) ||
        !f.range.holds(static_cast<double>(value.get<std::int64_t>())))
      wrong(f, whole);
    return value.get<std::int64_t>();
  }
  static double number(const Field& f, const Json& value, const Json& whole) {
    if (!value.is_number() || !std::isfinite(value.get<double>()) || !f.range.holds(value.get<double>()))
      wrong(f, whole);
    return value.get<double>();
  }
  static std::string word(const Field& f, const Json& value, const Json& whole) {
    if (!value.is_string()) wrong(f, whole);
    std::string text = value.get<std::string>();
    if (!f.choices.empty() && std::find(f.choices.begin(), f.choices.end(), text) == f.choices.end())
      wrong(f, value);
    if (text.find('\0') != std::string::npos)
      fail(Fault::argument, {f.path, ": the text contains a null character"});
    return text;
  }
  template <class T, class Convert>
  static void list(const Field& f, const Json& value, std::vector<T>& out, const Convert& convert) {
    if (!value.is_array()) wrong(f, value);
    std::vector<T> read;
    for (const Json& v : value) read.push_back(convert(f, v, value));
    out = std::move(read);
  }
  void assign(const Field& f, const Json& value) const {
    const FieldValue kept = f.in(read_.config);
    switch (kept.index()) {
      case 0:
        if (!value.is_boolean()) wrong(f, value);
        *std::get<0>(kept) = value.get<bool>();
        break;
      case 1:
        *std::get<1>(kept) = integer(f, value, value);
        break;
      case 2:
        *std::get<2>(kept) = number(f, value, value);
        break;
      case 3:
        *std::get<3>(kept) = word(f, value, value);
        break;
      case 4:
        list(f, value, *std::get<4>(kept), integer);
        break;
      case 5:
        list(f, value, *std::get<5>(kept), number);
        break;
      case 6:
        list(f, value, *std::get<6>(kept), word);
        break;
      default:
        list(f, value, *std::get<7>(kept), [](const Field& field, const Json& row, const Json& whole) {
          if (!row.is_array()) wrong(field, whole);
          std::vector<double> numbers;
          for (const Json& v : row) numbers.push_back(number(field, v, whole));
          return numbers;
        });
    }
  }

  const std::vector<Field>& list_ = fields();
  ReadConfig& read_;
};

// The objective decides the defaults of other keys, so that it is looked for before anything is read. What is not a known
// name is left to the reader, which says so.
void take_preset(Config& config, const Json& file, const std::vector<std::string>& settings) {
  std::string name = config.finetune.objective;
  const Json* finetune = file.contains("finetune") ? &file["finetune"] : nullptr;
  if (finetune && finetune->is_object() && finetune->contains("objective") && (*finetune)["objective"].is_string())
    name = (*finetune)["objective"].get<std::string>();
  for (const std::string& s : settings)
    if (constexpr std::string_view key = "finetune.objective="; s.starts_with(key)) {
      name = s.substr(key.size());
      if (name.size() > 1 && name.front() == '"' && name.back() == '"') name = name.substr(1, name.size() - 2);
    }
  for (const ObjectiveEntry& e : objectives())
    if (e.name == name) e.preset(config.finetune);
}

Json value_of(const Field& f, const Config& config) {
  return std::visit([](const auto* p) { return Json(*p); }, f.in(const_cast<Config&>(config)));
}

}  // namespace

ReadConfig read_config_text(std::string_view text, std::string_view what,
                            const std::vector<std::string>& settings) {
  const Json file = parse_json(text, what);
  if (!file.is_object())
    fail(Fault::argument, {what, ": found ", description(file), ", expected an object of sections and keys"});
  ReadConfig read;
  {
    Reader reader(read);
    take_preset(read.config, file, settings);
    try {
      reader.take(file, "", Origin::file);
    } catch (const Error& e) {
      fail(e.fault(), {what, ": ", e.what()});
    }
    for (const std::string& s : settings) {
      require(utf8::find_invalid(s) == std::string::npos, "--set ", s, ": the text is not UTF-8");
      const std::size_t equals = s.find('=');
      require(equals != std::string::npos && equals > 0, "--set ", s,
              ": expected key=value, such as --set finetune.batch=64");
      const std::string key = s.substr(0, equals), written = s.substr(equals + 1);
      const Json value = Json::accept(written) ? parse_json(written, "the value of --set " + key) : Json(written);
      try {
        reader.take(value, key, Origin::command_line);
      } catch (const Error& e) {
        fail(e.fault(), {"--set: ", e.what()});
      }
    }
  }
  check_config(read.config);
  return read;
}

ReadConfig read_config(const std::string& path, const std::vector<std::string>& settings) {
  if (path.empty()) return read_config_text("{}", "the configuration", settings);
  const auto bytes = data::read_file(path, std::uint64_t{4} << 20);
  return read_config_text(data::as_text(bytes), "'" + path + "'", settings);
}

Json to_json(const Config& config) {
  Json out = Json::object();
  for (const Field& f : fields()) {
    Json* at = &out;
    std::size_t begin = 0;
    for (std::size_t dot; (dot = f.path.find('.', begin)) != std::string::npos; begin = dot + 1)
      at = &(*at)[f.path.substr(begin, dot - begin)];
    (*at)[f.path.substr(begin)] = value_of(f, config);
  }
  return out;
}

std::string origins_table(const ReadConfig& read) {
  const std::vector<Field>& list = fields();
  std::size_t key_width = 0, value_width = 0;
  std::vector<std::string> values;
  for (const Field& f : list) {
    values.push_back(value_of(f, read.config).dump());
    key_width = std::max(key_width, f.path.size());
    value_width = std::max(value_width, std::min<std::size_t>(values.back().size(), 40));
  }
  constexpr const char* names[] = {"default", "file", "--set"};
  std::string out;
  for (std::size_t i = 0; i < list.size(); ++i) {
    std::string line = list[i].path;
    line.resize(key_width + 2, ' ');
    line += values[i];
    line.resize(std::max(line.size(), key_width + 2 + value_width), ' ');
    out += line + "  " + names[static_cast<int>(read.origins[i])] + "\n";
  }
  return out;
}

std::string config_reference() {
  const Config defaults;
  const std::vector<Field>& list = fields();
  std::string out = "# Configuration\n\nGenerated by `costate config-reference`.\n";
  const auto table = [&](const std::string& title, const std::string& prefix, const auto& belongs) {
    if (std::none_of(list.begin(), list.end(), belongs)) return;
    out += "\n## " + title + "\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n";
    for (const Field& f : list)
      if (belongs(f))
        out += "| `" + prefix + f.path.substr(prefix.size()) + "` | " + f.expected() + " | `" +
               value_of(f, defaults).dump() + "` | " + f.doc + " |\n";
  };
  const auto all = sections();
  const auto in_section = [&](const Field& f) {
    return std::any_of(all.begin(), all.end(),
                       [&](const Section& s) { return f.path.starts_with(s.path + "."); });
  };
  table("Top level", "", [&](const Field& f) { return !in_section(f); });
  // A key belongs to the deepest section that it is in.
  const auto belongs = [&](const Field& f, const Section& s) {
    return f.path.starts_with(s.path + ".") && std::none_of(all.begin(), all.end(), [&](const Section& deeper) {
             return deeper.path.starts_with(s.path + ".") && f.path.starts_with(deeper.path + ".");
           });
  };
  for (const Section& s : all)
    table("`" + s.path + "`: " + s.doc, s.path + ".", [&](const Field& f) { return belongs(f, s); });
  out += "\n## Objectives\n\nThe names of `finetune.objective`, with the keys whose defaults they change.\n\n"
         "| objective | | source | defaults |\n| --- | --- | --- | --- |\n";
  for (const ObjectiveEntry& e : objectives()) {
    Config own;
    own.finetune = standard_finetune(e.name);
    std::string changed;
    for (const Field& f : list) {
      if (f.path == "finetune.objective") continue;
      const std::string value = value_of(f, own).dump();
      if (value != value_of(f, defaults).dump()) changed += (changed.empty() ? "`" : ", `") + f.path.substr(9) + "` " + value;
    }
    out += "| `" + e.name + "` | " + e.title + " | " + e.source + " | " + changed + " |\n";
  }
  return out;
}

}  // namespace costate::cli
