// The numbers of an evaluation, as JSON and as a table for people.
#pragma once
#include <costate/finetune/evaluate/estimate.h>
#include <string>
#include <vector>

#include "config/json.h"

namespace costate::cli {

// A number or, where it is not finite, null.
Json json_number(double v);
Json json_estimate(const finetune::Estimate& e);

// "1.234 +- 0.005"
std::string estimate_text(const finetune::Estimate& e);

// Columns padded to equal widths, the first one to the left, the others to the right; as Markdown when asked
// for.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text(bool markdown) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// The table of an evaluation.json.
std::string evaluation_text(const Json& evaluation, bool markdown);

}  // namespace costate::cli
