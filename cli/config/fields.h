// The declarative description of the configuration: one record a key, read by the reader, the printer and the
// reference.
#pragma once
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.h"

namespace costate::cli {

// Numbers allowed for a key. For lists and matrices: for every entry.
struct Range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;
  bool holds(double v) const { return (low_open ? v > low : v >= low) && (high_open ? v < high : v <= high); }
  std::string description() const;  // "in [0, 1)", "at least 1", "" when everything is allowed
};

using FieldValue = std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::int64_t>*,
                                std::vector<double>*, std::vector<std::string>*, Matrix*>;

struct Field {
  std::string path;  // "finetune.lr.peak"
  FieldValue value;  // where it is kept in the one configuration that the list was made of
  std::string doc;   // one sentence
  Range range;
  std::vector<std::string> choices;  // of words and lists of words; empty: any text

  FieldValue in(Config& config) const;  // where it is kept in another
  std::string type() const;             // "integer", "list of numbers"
  std::string expected() const;         // "an integer of at least 1", "one of linear, vp_linear, vp_cosine"
};

// All keys of the configuration in the order in which they are shown.
const std::vector<Field>& fields();

// Parts of them that are described in files of their own: sample.methods and what belongs to it (search.cpp), and what
// evaluations look at beyond their samples (evaluation.cpp).
void add_search_fields(std::vector<Field>& list, SampleConfig& config);
void add_evaluation_fields(std::vector<Field>& list, EvaluateConfig& config);

struct Section {
  std::string path, doc;
};
std::vector<Section> sections();

}  // namespace costate::cli
