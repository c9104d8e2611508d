#include <costate/finetune/data/file.h>
#include <costate/sde/solver/solver.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>

#include "config/read.h"
#include "study/study.h"

namespace costate::cli {
namespace {

// One object of the file: every key is asked for, and what was not is refused.
class Object {
 public:
  Object(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
    require(json.is_object(), path_.empty() ? "the study" : path_, ": found ", description(json), ", expected an object");
  }
  const Json* find(const std::string& key) {
    known_.push_back(key);
    const auto i = json_.find(key);
    return i == json_.end() ? nullptr : &*i;
  }
  std::string name(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  [[noreturn]] void wrong(const std::string& key, const Json& found, const std::string& expected) const {
    fail(Fault::argument, {name(key), ": found ", description(found), ", expected ", expected});
  }

  void take(const std::string& key, std::string& out) {
    if (const Json* j = find(key)) {
      if (!j->is_string()) wrong(key, *j, "text");
      out = j->get<std::string>();
    }
  }
  void take(const std::string& key, bool& out) {
    if (const Json* j = find(key)) {
      if (!j->is_boolean()) wrong(key, *j, "true or false");
      out = j->get<bool>();
    }
  }
  void take(const std::string& key, double& out) {
    if (const Json* j = find(key)) {
      if (!j->is_number() || !std::isfinite(j->get<double>()) || j->get<double>() < 0) wrong(key, *j, "a number of at least 0");
      out = j->get<double>();
    }
  }
  template <class Integer>
    requires std::is_integral_v<Integer>
  void take(const std::string& key, Integer& out, std::int64_t low, std::int64_t high = 1000000) {
    if (const Json* j = find(key)) out = static_cast<Integer>(integer(key, *j, low, high));
  }
  std::int64_t integer(const std::string& key, const Json& j, std::int64_t low, std::int64_t high) const {
    if (!j.is_number_integer() || j.get<double>() < static_cast<double>(low) || j.get<double>() > static_cast<double>(high))
      wrong(key, j, sentence({"an integer in [", low, ", ", high, "]"}));
    return j.get<std::int64_t>();
  }
  const Json* list(const std::string& key, const std::string& of) {
    const Json* j = find(key);
    if (j && (!j->is_array() || j->empty())) wrong(key, *j, "a list of " + of + " with at least one entry");
    return j;
  }
  void done() const {
    for (const auto& [key, value] : json_.items()) {
      if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
      const std::string near = nearest_of(key, known_);
      std::string all;
      for (const std::string& k : known_) all += (all.empty() ? "" : ", ") + k;
      fail(Fault::argument, {name(key), ": there is no such key; the keys here are ", all,
                             near.empty() ? "" : "; did you mean '" + name(near) + "'?"});
    }
  }

 private:
  const Json& json_;
  std::string path_;
  std::vector<std::string> known_;
};

std::string at(const std::string& list, std::size_t i) { return list + "[" + std::to_string(i) + "]"; }

// A word, or an object with that word under `key` and more.
template <class Read>
void entries(Object& top, const char* list, const char* what, const char* key, const Read& read) {
  const Json* entries = top.list(list, what);
  for (std::size_t i = 0; entries && i < entries->size(); ++i) {
    const Json& e = (*entries)[i];
    const Json whole = e.is_string() ? Json{{key, e}} : e;
    Object object(whole, at(list, i));
    std::string word;
    object.take(key, word);
    require(!word.empty(), object.name(key), ": missing; expected a word");
    try {
      read(word, object);
    } catch (const Error& error) {
      const std::string text = error.what();
      if (text.starts_with(list)) throw;
      fail(error.fault(), {object.name(key), ": ", text});
    }
    object.done();
  }
}

}  // namespace

std::string StudyMethod::label() const {
  std::string label(sde::name(options.method)), inner;
  if (options.segment) inner = "every " + std::to_string(options.segment);
  if (options.slots) inner += (inner.empty() ? "" : ", ") + std::to_string(options.slots) + " states";
  return inner.empty() ? label : label + " (" + inner + ")";
}

StudyConfig study_of(const Json& json) {
  StudyConfig study;
  Object top(json, "");
  top.take("name", study.name);
  top.take("out", study.out);
  top.take("seed", study.seed, 0, std::int64_t{1} << 53);
  top.take("threads", study.threads, 0, 1024);
  top.take("rounds", study.rounds, 1, 1000);
  top.take("reference", study.reference);
  if (const Json* steps = top.list("steps", "integers")) {
    study.steps.clear();
    for (std::size_t i = 0; i < steps->size(); ++i) study.steps.push_back(top.integer(at("steps", i), (*steps)[i], 1, 1000000));
  }
  entries(top, "processes", "solvers, or \"chain\"", "solver", [&](const std::string& word, Object& object) {
    StudyProcess p{word};
    object.take("sigma", p.sigma);
    object.take("inner", p.inner);
    if (word != "chain") sde::solver(word);
    require(word != "chain" || (p.sigma == 0 && !p.inner), object.name("sigma"),
            ": a chain's noise and times are those of the section sampler");
    study.processes.push_back(p);
  });
  entries(top, "methods", "adjoint methods", "method", [&](const std::string& word, Object& object) {
    StudyMethod m;
    m.options.method = sde::adjoint_method(word);
    object.take("segment", m.options.segment, 1);
    object.take("slots", m.options.slots, 1);
    study.methods.push_back(m);
  });
  const Json* networks = top.list("networks", "objects");
  require(networks != nullptr, "networks: missing; expected a list of {\"name\", \"batch\", \"config\"}");
  for (std::size_t i = 0; i < networks->size(); ++i) {
    Object object((*networks)[i], at("networks", i));
    StudyNetwork n;
    object.take("name", n.name);
    object.take("batch", n.batch, 1);
    object.take("recompute", n.recompute);
    const Json* config = object.find("config");
    object.done();
    require(config != nullptr, object.name("config"), ": missing; expected an object with sections of a configuration");
    n.config = read_config_text(config->dump(), object.name("config"), {}).config;
    if (n.name.empty()) n.name = n.config.network.kind;
    for (const StudyNetwork& other : study.networks)
      require(other.name != n.name, object.name("name"), ": found \"", n.name, "\" twice; expected another name");
    study.networks.push_back(std::move(n));
  }
  top.done();
  if (study.processes.empty()) study.processes = {{"chain"}};
  if (study.methods.empty())
    for (const sde::AdjointMethod m : sde::adjoint_methods()) {
      study.methods.emplace_back();
      study.methods.back().options.method = m;
    }
  if (study.out.empty()) study.out = "runs/" + study.name;
  return study;
}

StudyConfig read_study(const std::string& path, const std::vector<std::string>& settings) {
  const auto bytes = data::read_file(path, std::uint64_t{4} << 20);
  Json json = parse_json(data::as_text(bytes), "'" + path + "'");
  require(json.is_object(), "'", path, "': found ", description(json), ", expected an object");
  for (const std::string& s : settings) {
    const std::size_t equals = s.find('=');
    require(equals != std::string::npos && equals > 0, "--set ", s, ": expected key=value, such as --set rounds=5");
    const std::string key = s.substr(0, equals), written = s.substr(equals + 1);
    try {
      json[key] = parse_json(written, "the value");
    } catch (const Error&) {
      json[key] = written;
    }
  }
  try {
    return study_of(json);
  } catch (const Error& e) {
    fail(e.fault(), {"'", path, "': ", e.what()});
  }
}

Json to_json(const StudyConfig& study) {
  Json out{{"name", study.name},     {"out", study.out},       {"seed", study.seed},   {"threads", study.threads},
           {"rounds", study.rounds}, {"reference", study.reference}, {"steps", study.steps}};
  for (const StudyProcess& p : study.processes) {
    Json process{{"solver", p.name}};
    if (p.sigma > 0) process["sigma"] = p.sigma;
    if (p.inner) process["inner"] = true;
    out["processes"].push_back(process);
  }
  for (const StudyMethod& m : study.methods) {
    Json method{{"method", sde::name(m.options.method)}};
    if (m.options.segment) method["segment"] = m.options.segment;
    if (m.options.slots) method["slots"] = m.options.slots;
    out["methods"].push_back(method);
  }
  for (const StudyNetwork& n : study.networks)
    out["networks"].push_back({{"name", n.name}, {"batch", n.batch}, {"recompute", n.recompute}, {"config", to_json(n.config)}});
  return out;
}

}  // namespace costate::cli
