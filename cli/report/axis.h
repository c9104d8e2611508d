// Axes of plots: where ticks lie and what they say.
#pragma once
#include <string>
#include <vector>

namespace costate::cli::report {

struct Tick {
  double value = 0;
  std::string label;  // "": a minor tick
};

struct Axis {
  double low = 0, high = 1;  // low < high; of a logarithmic axis both positive
  bool log = false;
  std::vector<Tick> ticks;  // rising, within [low, high]

  // 0 at low, 1 at high.
  double at(double value) const;
};

// Values of magnitude up to this can be shown, and on a logarithmic axis those down to its reciprocal; below that they are 0 on
// a linear one.
inline constexpr double largest_shown = 1e200;

// An axis for values from `low` to `high` (equal: one value; low > high: none), with a small margin, from 0 when the values
// come near it. About `wanted` labels: multiples of 1, 2 or 5 times a power of ten; on a logarithmic axis powers of ten or,
// over less than two decades, 1, 2 and 5 times those. Labels are in engineering notation: 25k, 1.5M, 20×10⁻⁶; powers of ten
// on a logarithmic axis that goes below a thousandth.
Axis make_axis(double low, double high, bool log, int wanted);

}  // namespace costate::cli::report
