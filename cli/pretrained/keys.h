// Typed reading of JSON objects that other programs wrote: a wrong type or value is an Error(data) that names
// file and key; keys that nobody asked for are listed.
#pragma once
#include <optional>
#include <set>

#include "pretrained/state.h"

namespace costate::cli {

class Keys {
 public:
  Keys(Json object, std::string where) : object_(std::move(object)), where_(std::move(where)) {}

  bool has(const std::string& key) const { return object_.contains(key); }
  bool is_null(const std::string& key) const { return has(key) && object_[key].is_null(); }
  const std::string& where() const { return where_; }

  // Absent keys have the default.
  std::int64_t integer(const std::string& key, std::int64_t standard, std::int64_t low, std::int64_t high);
  double number(const std::string& key, double standard);
  bool boolean(const std::string& key, bool standard);
  std::string word(const std::string& key, const std::string& standard);
  std::vector<std::int64_t> integers(const std::string& key, std::vector<std::int64_t> standard);
  std::vector<std::string> words(const std::string& key, std::vector<std::string> standard);
  // null, and absence unless there is a default, are nothing.
  std::optional<std::int64_t> optional_integer(const std::string& key, std::optional<std::int64_t> standard,
                                               std::int64_t low, std::int64_t high);
  std::optional<std::string> optional_word(const std::string& key, std::optional<std::string> standard);
  const Json* raw(const std::string& key);  // null pointer when absent

  // A key that must have this value if it is there: what else it could say is not supported.
  template <class T>
  void only(const std::string& key, const T& value, const char* why) {
    if (const Json* found = raw(key); found && !found->is_null() && *found != Json(value)) refuse(key, why);
  }
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;

  // Keys that were not asked for, but for those that begin with '_'.
  std::vector<std::string> unknown() const;

 private:
  Json object_;
  std::string where_;
  std::set<std::string> asked_;
};

}  // namespace costate::cli
