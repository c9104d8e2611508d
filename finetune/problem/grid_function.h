// A smooth function of one variable, known on a uniform grid: cubic Hermite polynomials whose slopes are central
// differences over five points. Errors with a grid of width h: h^4 of the value, h^3 of the slope (h^4 at the nodes), h^2 of
// the curvature. Beyond the ends it goes on as the parabola that fits there.
#pragma once
#include <cstddef>
#include <vector>

namespace costate::finetune {

struct UniformGrid {
  double low = 0, high = 1;
  int cells = 100;
  double width() const { return (high - low) / cells; }
  double point(std::size_t i) const { return low + width() * static_cast<double>(i); }
  std::size_t points() const { return static_cast<std::size_t>(cells) + 1; }
  // Throws Error(argument), on behalf of `what`, unless the ends are finite and increase and there are 8 cells or more.
  void check(const char* what) const;
};

class GridFunction {
 public:
  GridFunction() = default;
  GridFunction(const UniformGrid& grid, std::vector<double> values);  // (points)

  const std::vector<double>& values() const { return value_; }
  const std::vector<double>& slopes() const { return slope_; }

  double operator()(double x) const { return at(x).value; }
  struct Jet {
    double value, slope, curvature;
  };
  Jet at(double x) const;
  // int_x^high of the interpolating polynomials, low <= x <= high.
  double integral_above(double x) const;

 private:
  UniformGrid grid_;
  double inverse_width_ = 0;
  std::vector<double> value_, slope_;
};

// The y with y - weight f'(y) = m, for a left side that increases: the maximum over y of f(y) - (y - m)^2/(2 weight) for a
// weight above 0, the minimum of f(y) + (y - m)^2/(2 |weight|) for one below. Newton's method, damped where its step would not
// help, to rounding.
double proximal_point(const GridFunction& f, double weight, double m);

}  // namespace costate::finetune
