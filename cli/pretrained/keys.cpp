#include "pretrained/keys.h"

#include <costate/tensor/error.h>

#include <cmath>

namespace costate::cli {

const Json* Keys::raw(const std::string& key) {
  asked_.insert(key);
  return has(key) ? &object_[key] : nullptr;
}

void Keys::refuse(const std::string& key, const std::string& expected) const {
  fail(Fault::data,
       {where_, ": ", key, " is ", has(key) ? description(object_[key]) : "absent", ", expected ", expected});
}

std::int64_t Keys::integer(const std::string& key, std::int64_t standard, std::int64_t low,
                           std::int64_t high) {
  const Json* v = raw(key);
  if (!v) return standard;
  const bool fits =
      v->is_number_unsigned() ? v->get<std::uint64_t>() <= std::uint64_t{1} << 62 : v->is_number_integer();
  if (!fits || v->get<std::int64_t>() < low || v->get<std::int64_t>() > high)
    refuse(key, sentence({"an integer in [", low, ", ", high, "]"}));
  return v->get<std::int64_t>();
}

double Keys::number(const std::string& key, double standard) {
  const Json* v = raw(key);
  if (!v) return standard;
  if (!v->is_number() || !std::isfinite(v->get<double>())) refuse(key, "a number");
  return v->get<double>();
}

bool Keys::boolean(const std::string& key, bool standard) {
  const Json* v = raw(key);
  if (!v) return standard;
  if (!v->is_boolean()) refuse(key, "true or false");
  return v->get<bool>();
}

std::string Keys::word(const std::string& key, const std::string& standard) {
  const Json* v = raw(key);
  if (!v) return standard;
  if (!v->is_string()) refuse(key, "text");
  return v->get<std::string>();
}

std::vector<std::int64_t> Keys::integers(const std::string& key, std::vector<std::int64_t> standard) {
  const Json* v = raw(key);
  if (!v) return standard;
  if (!v->is_array() || v->size() > 64) refuse(key, "a list of at most 64 integers");
  std::vector<std::int64_t> out;
  for (const Json& e : *v) {
    if (!e.is_number_integer() || e.get<double>() < 1 || e.get<double>() > 1e9)
      refuse(key, "a list of integers from 1 on");
    out.push_back(e.get<std::int64_t>());
  }
  return out;
}

std::vector<std::string> Keys::words(const std::string& key, std::vector<std::string> standard) {
  const Json* v = raw(key);
  if (!v) return standard;
  if (!v->is_array() || v->size() > 64) refuse(key, "a list of at most 64 names");
  std::vector<std::string> out;
  for (const Json& e : *v) {
    if (!e.is_string()) refuse(key, "a list of names");
    out.push_back(e.get<std::string>());
  }
  return out;
}

std::optional<std::int64_t> Keys::optional_integer(const std::string& key,
                                                   std::optional<std::int64_t> standard, std::int64_t low,
                                                   std::int64_t high) {
  if (!has(key)) return raw(key), standard;
  if (is_null(key)) return raw(key), std::nullopt;
  return integer(key, 0, low, high);
}

std::optional<std::string> Keys::optional_word(const std::string& key, std::optional<std::string> standard) {
  if (!has(key)) return raw(key), standard;
  if (is_null(key)) return raw(key), std::nullopt;
  return word(key, "");
}

std::vector<std::string> Keys::unknown() const {
  std::vector<std::string> out;
  for (const auto& [key, value] : object_.items())
    if (!key.starts_with("_") && !asked_.count(key)) out.push_back(key);
  return out;
}

}  // namespace costate::cli
