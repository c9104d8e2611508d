// The writing styles of the digits: key points in the unit square, x to the right, y down.
#pragma once
#include <span>

namespace costate::data {

enum class Pen : unsigned char {
  down,    // the pen is set down here: a new stroke begins
  smooth,  // the curve passes here without a kink
  corner,  // the stroke turns here
};

struct Key {
  double x, y;
  Pen pen = Pen::smooth;
};

using Style = std::span<const Key>;

// The styles of a digit 0 ... 9, most natural first.
std::span<const Style> styles_of(int digit);

}  // namespace costate::data
