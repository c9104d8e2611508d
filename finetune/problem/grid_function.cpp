#include <costate/finetune/problem/grid_function.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace costate::finetune {

void UniformGrid::check(const char* what) const {
  require(std::isfinite(low) && std::isfinite(high) && low < high, what, ": the grid runs from ", low, " to ", high,
          ", expected finite ends that increase");
  require(cells >= 8, what, ": the grid has ", cells, " cells, expected at least 8");
}

GridFunction::GridFunction(const UniformGrid& grid, std::vector<double> values)
    : grid_(grid), inverse_width_(1 / grid.width()), value_(std::move(values)), slope_(grid.points()) {
  const std::vector<double>& v = value_;
  require(v.size() == grid.points(), "grid function: ", v.size(), " values on ", grid.points(), " points");
  const std::size_t n = v.size() - 1;
  const double s = inverse_width_ / 12;
  for (std::size_t i = 2; i + 2 <= n; ++i) slope_[i] = s * (v[i - 2] - 8 * v[i - 1] + 8 * v[i + 1] - v[i + 2]);
  slope_[0] = s * (-25 * v[0] + 48 * v[1] - 36 * v[2] + 16 * v[3] - 3 * v[4]);
  slope_[1] = s * (-3 * v[0] - 10 * v[1] + 18 * v[2] - 6 * v[3] + v[4]);
  slope_[n] = -s * (-25 * v[n] + 48 * v[n - 1] - 36 * v[n - 2] + 16 * v[n - 3] - 3 * v[n - 4]);
  slope_[n - 1] = -s * (-3 * v[n] - 10 * v[n - 1] + 18 * v[n - 2] - 6 * v[n - 3] + v[n - 4]);
}

GridFunction::Jet GridFunction::at(double x) const {
  const double h = grid_.width(), position = (x - grid_.low) * inverse_width_, last = grid_.cells - 1;
  const double cell = std::clamp(std::floor(position), 0.0, last);
  const auto i = static_cast<std::size_t>(cell);
  const double y0 = value_[i], y1 = value_[i + 1], d0 = h * slope_[i], d1 = h * slope_[i + 1];
  // y0 + s d0 + s^2 (b + c s) on the cell.
  const double b = 3 * (y1 - y0) - 2 * d0 - d1, c = d0 + d1 - 2 * (y1 - y0);
  const double inside = std::clamp(position - cell, 0.0, 1.0), beyond = position - cell - inside;
  const double s = inside;
  Jet jet{y0 + s * (d0 + s * (b + c * s)), d0 + s * (2 * b + 3 * c * s), 2 * b + 6 * c * s};
  jet.value += beyond * (jet.slope + beyond * jet.curvature / 2);
  jet.slope += beyond * jet.curvature;
  return {jet.value, jet.slope * inverse_width_, jet.curvature * inverse_width_ * inverse_width_};
}

double GridFunction::integral_above(double x) const {
  require(x >= grid_.low && x <= grid_.high, "grid function: ", x, " is outside ", grid_.low, " to ", grid_.high);
  const double h = grid_.width(), position = (x - grid_.low) * inverse_width_;
  const auto first = std::min(static_cast<std::size_t>(position), grid_.points() - 2);
  double sum = 0;
  for (std::size_t i = first; i + 1 < grid_.points(); ++i) {
    const double y0 = value_[i], y1 = value_[i + 1], d0 = h * slope_[i], d1 = h * slope_[i + 1];
    const double b = 3 * (y1 - y0) - 2 * d0 - d1, c = d0 + d1 - 2 * (y1 - y0);
    const auto primitive = [&](double s) { return s * (y0 + s * (d0 / 2 + s * (b / 3 + s * c / 4))); };
    sum += primitive(1) - (i == first ? primitive(position - static_cast<double>(i)) : 0.0);
  }
  return h * sum;
}

double proximal_point(const GridFunction& f, double weight, double m) {
  double y = m;
  GridFunction::Jet at = f.at(y);
  double residual = -weight * at.slope;
  for (int n = 0; n < 100 && std::abs(residual) > 1e-13 * (1 + std::abs(y)); ++n) {
    double step = -residual / std::max(1 - weight * at.curvature, 1e-3);
    for (int halvings = 0; halvings < 40; ++halvings, step /= 2) {
      const GridFunction::Jet trial = f.at(y + step);
      const double left = y + step - weight * trial.slope - m;
      if (std::abs(left) < std::abs(residual) || halvings == 39) {
        y += step, at = trial, residual = left;
        break;
      }
    }
  }
  return y;
}

}  // namespace costate::finetune
