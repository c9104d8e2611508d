#include "report/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace costate::cli::report {
namespace {

constexpr const char* minus = "\u2212";

std::string fixed(double v, int decimals) {
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, std::abs(v));
  const bool zero = std::string_view(text).find_first_not_of("0.") == std::string_view::npos;
  return (v < 0 && !zero ? minus : "") + std::string(text);
}

std::string raised(int n) {
  constexpr const char* digits[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                    "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string out = n < 0 ? "\u207b" : "";
  for (const char c : std::to_string(std::abs(n))) out += digits[c - '0'];
  return out;
}

// What stands behind a number in units of 10^exponent, a multiple of 3.
std::string unit(int exponent) {
  constexpr const char* letters[] = {"", "k", "M", "G", "T", "P"};
  if (exponent >= 0 && exponent <= 15) return letters[exponent / 3];
  return "\u00d710" + raised(exponent);
}

int unit_exponent(double largest) {
  if (largest == 0 || (largest >= 1e-3 && largest < 1e4)) return 0;
  return static_cast<int>(std::floor(std::log10(largest) / 3 + 1e-9)) * 3;
}

// The step of 1, 2 or 5 times a power of ten that gives about `wanted` ticks.
struct Step {
  double size;
  int exponent;
};
Step step_for(double low, double high, int wanted) {
  const double rough = high / wanted - low / wanted;
  int exponent = static_cast<int>(std::floor(std::log10(rough)));
  const double lead = rough / std::pow(10.0, exponent);
  const double m = lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10;
  if (m == 10) return {std::pow(10.0, exponent + 1), exponent + 1};
  return {m * std::pow(10.0, exponent), exponent};
}

std::vector<Tick> linear_ticks(double low, double high, int wanted) {
  const Step step = step_for(low, high, wanted);
  std::vector<Tick> ticks;
  const double first = std::ceil(low / step.size - 1e-9), last = std::floor(high / step.size + 1e-9);
  if (!(last - first < 1000)) return ticks;  // closer than doubles are apart
  for (double i = first; i <= last; ++i) ticks.push_back({i * step.size, ""});
  double largest = 0;
  for (const Tick& t : ticks) largest = std::max(largest, std::abs(t.value));
  const int e = unit_exponent(largest);
  for (Tick& t : ticks)
    t.label = std::abs(t.value) < step.size / 2
                  ? "0"
                  : fixed(t.value / std::pow(10.0, e), std::clamp(e - step.exponent, 0, 15)) + unit(e);
  return ticks;
}

std::string plain_label(double value) {
  const int e = unit_exponent(value);
  const double v = value / std::pow(10.0, e);
  return fixed(v, v >= 0.999 ? 0 : v >= 0.0999 ? 1 : v >= 0.00999 ? 2 : 3) + unit(e);
}

std::vector<Tick> log_ticks(double low, double high, int wanted) {
  const double decades = std::log10(high) - std::log10(low);
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  const bool powers = low < 0.999e-3 || high > 1e18;
  const int every = std::max(1, static_cast<int>(std::ceil(decades / std::max(wanted, 2))));
  std::vector<Tick> ticks;
  int labelled = 0;
  for (int e = first; e <= last; ++e)
    for (int m = 1; m < 10; ++m) {
      const double v = m * std::pow(10.0, e);
      if (v < low * (1 - 1e-12) || v > high * (1 + 1e-12)) continue;
      const bool whole = m == 1 && (e % every + every) % every == 0;
      const bool label = whole || (decades < 2 && (m == 1 || m == 2 || m == 5));
      if (!label && (every > 1 ? m != 1 : decades > 8)) continue;  // minor ticks would run together
      std::string text;
      if (label && !powers) text = plain_label(v);
      else if (label) text = (m == 1 ? "" : std::to_string(m) + "\u00d7") + "10" + raised(e);
      labelled += label;
      ticks.push_back({v, text});
    }
  return labelled >= 2 ? ticks : linear_ticks(low, high, wanted);
}

}  // namespace

double Axis::at(double value) const {
  if (log) return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
  return (value / 2 - low / 2) / (high / 2 - low / 2);
}

Axis make_axis(double low, double high, bool log, int wanted) {
  if (low > high) low = log ? 1 : 0, high = log ? 10 : 1;
  Axis axis;
  axis.log = log;
  // Values so close together that numbers between them run out are shown as one.
  const double largest = std::max(std::abs(low), std::abs(high));
  const bool one = log ? std::log10(high) - std::log10(low) < 1e-9 : high - low <= std::max(1e-12 * largest, 1 / largest_shown);
  if (log) {
    const double a = std::log10(low), b = std::log10(high), margin = one ? 0.5 : 0.04 * (b - a);
    axis.low = std::pow(10.0, a - margin), axis.high = std::pow(10.0, b + margin);
  } else {
    const double margin = !one ? 0.04 * (high - low) : largest * largest_shown < 1 ? 1 : 0.5 * largest;
    axis.low = low >= 0 && low <= 0.3 * high && !one ? 0 : low - margin;
    axis.high = high <= 0 && high >= 0.3 * low && !one ? 0 : high + margin;
  }
  axis.ticks = log ? log_ticks(axis.low, axis.high, wanted) : linear_ticks(axis.low, axis.high, wanted);
  return axis;
}

}  // namespace costate::cli::report
