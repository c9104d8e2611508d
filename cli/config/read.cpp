#include "config/read.h"

#include <costate/finetune/data/file.h>
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cmath>

#include "config/fields.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

class Reader {
 public:
  explicit Reader(ReadConfig& read) : list_(fields(read.config)), origins_(read.origins) {
    origins_.resize(list_.size(), Origin::standard);
  }

  // Walks an object down to its keys.
  void take(const Json& value, const std::string& path, Origin origin) {
    const auto field =
        std::find_if(list_.begin(), list_.end(), [&](const Field& f) { return f.path == path; });
    if (field != list_.end()) {
      assign(*field, value);
      origins_[static_cast<std::size_t>(field - list_.begin())] = origin;
      return;
    }
    const std::string prefix = path.empty() ? "" : path + ".";
    const bool section = path.empty() || std::any_of(list_.begin(), list_.end(), [&](const Field& f) {
                           return f.path.starts_with(prefix);
                         });
    if (!section) unknown(path);
    if (!value.is_object())
      fail(Fault::argument, {path.empty() ? "the configuration" : path, ": found ", description(value),
                             ", expected an object with the keys ", keys(prefix)});
    for (const auto& [key, inner] : value.items()) take(inner, prefix + key, origin);
  }

 private:
  static std::string last(const std::string& path) { return path.substr(path.rfind('.') + 1); }
  // The names directly below a prefix.
  std::vector<std::string> children(const std::string& prefix) const {
    std::vector<std::string> out;
    for (const Field& f : list_) {
      if (!f.path.starts_with(prefix)) continue;
      std::string key = f.path.substr(prefix.size());
      key = key.substr(0, key.find('.'));
      if (std::find(out.begin(), out.end(), key) == out.end()) out.push_back(key);
    }
    return out;
  }
  std::string keys(const std::string& prefix) const {
    std::string out;
    for (const std::string& k : children(prefix)) out += (out.empty() ? "" : ", ") + k;
    return out;
  }
  [[noreturn]] void unknown(const std::string& path) const {
    // A key below a value, or beside the keys of the deepest section that exists.
    for (const Field& f : list_)
      if (path.starts_with(f.path + "."))
        fail(Fault::argument, {path, ": ", f.path, " is ", f.expected(), ", not a section with keys"});
    const std::size_t dot = path.rfind('.');
    const std::string prefix = dot == std::string::npos ? "" : path.substr(0, dot + 1);
    const std::vector<std::string> known = children(prefix);
    if (known.empty()) unknown(path.substr(0, dot));
    const std::string key = path.substr(prefix.size(), 64);
    std::string near = nearest_of(key, known);
    if (!near.empty())
      near = "; did you mean '" + prefix + near + "'?";
    else if (std::count_if(list_.begin(), list_.end(), [&](const Field& f) { return last(f.path) == key; }) ==
             1)
      for (const Field& f : list_)  // the right key in the wrong section
        if (last(f.path) == key) near = "; there is a key '" + f.path + "'";
    fail(Fault::argument, {prefix, key, ": there is no such key; ",
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
  static void assign(const Field& f, const Json& value) {
    switch (f.value.index()) {
      case 0:
        if (!value.is_boolean()) wrong(f, value);
        *std::get<0>(f.value) = value.get<bool>();
        break;
      case 1:
        *std::get<1>(f.value) = integer(f, value, value);
        break;
      case 2:
        *std::get<2>(f.value) = number(f, value, value);
        break;
      case 3:
        *std::get<3>(f.value) = word(f, value, value);
        break;
      case 4:
        list(f, value, *std::get<4>(f.value), integer);
        break;
      case 5:
        list(f, value, *std::get<5>(f.value), number);
        break;
      case 6:
        list(f, value, *std::get<6>(f.value), word);
        break;
      default:
        list(f, value, *std::get<7>(f.value), [](const Field& field, const Json& row, const Json& whole) {
          if (!row.is_array()) wrong(field, whole);
          std::vector<double> numbers;
          for (const Json& v : row) numbers.push_back(number(field, v, whole));
          return numbers;
        });
    }
  }

  std::vector<Field> list_;
  std::vector<Origin>& origins_;
};

// The objective decides the defaults of other keys, so that it is looked for before anything is read. What is not a known
// name is left to the reader, which says so.
void take_preset(Config& config, const Json& file, const std::vector<std::string>& settings) {
  std::string name = config.finetune.objective;
  const Json* finetune = file.is_object() && file.contains("finetune") ? &file["finetune"] : nullptr;
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

Json value_of(const Field& f) {
  return std::visit([](const auto* p) { return Json(*p); }, f.value);
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
      Json value;
      try {
        value = parse_json(written, "the value");
      } catch (const Error&) {
        value = written;
      }
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
  Config copy = config;
  Json out = Json::object();
  for (const Field& f : fields(copy)) {
    Json* at = &out;
    std::size_t begin = 0;
    for (std::size_t dot; (dot = f.path.find('.', begin)) != std::string::npos; begin = dot + 1)
      at = &(*at)[f.path.substr(begin, dot - begin)];
    (*at)[f.path.substr(begin)] = value_of(f);
  }
  return out;
}

std::string origins_table(const ReadConfig& read) {
  Config copy = read.config;
  const std::vector<Field> list = fields(copy);
  std::size_t key_width = 0, value_width = 0;
  std::vector<std::string> values;
  for (const Field& f : list) {
    values.push_back(value_of(f).dump());
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
  Config defaults;
  const std::vector<Field> list = fields(defaults);
  std::string out = "# Configuration\n\nGenerated by `costate config-reference`.\n";
  const auto table = [&](const std::string& title, const std::string& prefix, const auto& belongs) {
    if (std::none_of(list.begin(), list.end(), belongs)) return;
    out += "\n## " + title + "\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n";
    for (const Field& f : list)
      if (belongs(f))
        out += "| `" + prefix + f.path.substr(prefix.size()) + "` | " + f.expected() + " | `" +
               value_of(f).dump() + "` | " + f.doc + " |\n";
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
    for (const Field& f : fields(own)) {
      if (f.path == "finetune.objective") continue;
      const std::string value = value_of(f).dump();
      const auto before = std::find_if(list.begin(), list.end(), [&](const Field& g) { return g.path == f.path; });
      if (value != value_of(*before).dump()) changed += (changed.empty() ? "`" : ", `") + f.path.substr(9) + "` " + value;
    }
    out += "| `" + e.name + "` | " + e.title + " | " + e.source + " | " + changed + " |\n";
  }
  return out;
}

}  // namespace costate::cli
