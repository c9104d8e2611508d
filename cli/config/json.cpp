#include "config/json.h"

#include <costate/tensor/error.h>

#include <set>
#include <string>
#include <vector>

namespace costate::cli {
namespace {

constexpr int max_depth = 64;

// Watches the parser: nesting and duplicate keys.
class Watch {
 public:
  explicit Watch(std::string_view what) : what_(what) {}
  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    const auto at = static_cast<std::size_t>(depth) + 1;
    if (depth > max_depth) fail(Fault::argument, {what_, " is nested more than ", max_depth, " levels deep"});
    if (keys_.size() <= at + 1) keys_.resize(at + 2), path_.resize(at + 2);
    if (event == Event::object_start) keys_[at + 1].clear();
    if (event == Event::key) {
      const std::string key = value.get<std::string>();
      path_[at] = key;
      if (!keys_[at].insert(key).second) {
        std::string full;
        for (std::size_t i = 0; i <= at; ++i)
          if (!path_[i].empty()) full += (full.empty() ? "" : ".") + path_[i];
        fail(Fault::argument, {what_, ": the key '", full, "' is given twice"});
      }
      for (std::size_t i = at + 1; i < path_.size(); ++i) path_[i].clear();
    }
    return true;
  }

 private:
  std::string what_;
  std::vector<std::set<std::string>> keys_;
  std::vector<std::string> path_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view what) {
  try {
    Watch watch(what);
    return Json::parse(text.begin(), text.end(), [&](int depth, Json::parse_event_t event, Json& value) {
      return watch(depth, event, value);
    });
  } catch (const Json::exception& e) {
    std::string message = e.what();
    if (const auto end = message.find("] "); message.starts_with('[') && end != std::string::npos)
      message.erase(0, end + 2);
    fail(Fault::argument, {what, " is not valid JSON: ", message});
  }
}

std::string description(const Json& value) {
  std::string kind = value.is_null()             ? "null"
                     : value.is_boolean()        ? "a boolean"
                     : value.is_number_integer() ? "an integer"
                     : value.is_number()         ? "a number"
                     : value.is_string()         ? "text"
                     : value.is_array()          ? "a list"
                                                 : "an object";
  if (value.is_null()) return kind;
  std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  return shown + " (" + kind + ")";
}

}  // namespace costate::cli
