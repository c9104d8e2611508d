#include <costate/finetune/objective.h>

#include <algorithm>
#include <string>

namespace costate::finetune {

void Metrics::set(std::string_view name, double value) {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  if (at == entries_.end())
    entries_.push_back({name, value});
  else
    at->value = value;
}

double Metrics::operator[](std::string_view name) const {
  for (const Entry& e : entries_)
    if (e.name == name) return e.value;
  std::string known;
  for (const Entry& e : entries_) known += (known.empty() ? "" : ", ") + std::string(e.name);
  fail(Fault::argument, {"metrics: there is no '", name, "'; there are ", known});
}

}  // namespace costate::finetune
