// Writing the description of a section's keys.
#pragma once
#include "config/fields.h"

namespace costate::cli {

inline constexpr double large_count = 1e9;

inline Range at_least(double low) { return {low, std::numeric_limits<double>::infinity()}; }
inline Range count_from(double low) { return {low, large_count}; }
inline Range above(double low) { return {low, std::numeric_limits<double>::infinity(), true, false}; }
inline Range seed_range() { return {0, 9007199254740992.0}; }

class FieldList {
 public:
  explicit FieldList(std::vector<Field>& out) : out_(out) {}
  void section(std::string prefix) { prefix_ = std::move(prefix) + "."; }
  void top() { prefix_.clear(); }
  template <class T>
  void add(std::string_view key, T& value, std::string doc, Range range = {}, std::vector<std::string> choices = {}) {
    out_.push_back({prefix_ + std::string(key), &value, std::move(doc), range, std::move(choices)});
  }
  void choice(std::string_view key, std::string& value, std::vector<std::string> choices, std::string doc) {
    add(key, value, std::move(doc), {}, std::move(choices));
  }

 private:
  std::vector<Field>& out_;
  std::string prefix_;
};

// Sections with files of their own.
void reward_fields(FieldList& l, RewardConfig& config);
void gold_fields(FieldList& l, RewardConfig& config);
void control_fields(FieldList& l, ControlConfig& config);
void optimiser_fields(FieldList& l, OptimiserConfig& config);
void regression_fields(FieldList& l, RegressionConfig& config);
void policy_gradient_fields(FieldList& l, PolicyGradientConfig& config);
void backpropagation_fields(FieldList& l, BackpropagationConfig& config);
void initial_law_fields(FieldList& l, InitialLawConfig& config);

}  // namespace costate::cli
