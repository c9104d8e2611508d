#include "image/scatter.h"

#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>

namespace costate::cli {
namespace {

constexpr Colour ink{60, 60, 60};

void check_points(std::string_view op, std::span<const float> points) {
  require(points.size() % 2 == 0, op, ": ", points.size(), " numbers are not pairs of coordinates");
}

// A round distance between ticks, 1, 2 or 5 times a power of ten, giving at most eight of them.
double tick_distance(double range) {
  const double power = std::pow(10.0, std::floor(std::log10(range / 8)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power * 8 >= range) return factor * power;
  return 10 * power;
}

}  // namespace

View view_of(std::initializer_list<std::span<const float>> sets) {
  double low[2] = {1e300, 1e300}, high[2] = {-1e300, -1e300};
  for (const auto points : sets) {
    check_points("view_of", points);
    for (std::size_t i = 0; i + 1 < points.size(); i += 2)
      if (std::isfinite(points[i]) && std::isfinite(points[i + 1]))
        for (std::size_t a = 0; a < 2; ++a)
          low[a] = std::min<double>(low[a], points[i + a]),
          high[a] = std::max<double>(high[a], points[i + a]);
  }
  if (low[0] > high[0]) return {};
  const double side = std::max(
      {high[0] - low[0], high[1] - low[1], 1e-6 * std::max(std::abs(low[0]), std::abs(low[1])), 1e-6});
  const double half = 0.55 * side, x = 0.5 * (low[0] + high[0]), y = 0.5 * (low[1] + high[1]);
  return {x - half, x + half, y - half, y + half};
}

Colour palette(std::int64_t i) {
  constexpr Colour colours[10] = {{31, 102, 178}, {226, 116, 20}, {40, 145, 60},   {200, 40, 45},
                                  {125, 85, 175}, {128, 82, 60},  {215, 100, 180}, {110, 110, 110},
                                  {165, 165, 30}, {20, 165, 185}};
  return colours[((i % 10) + 10) % 10];
}

Plot::Plot(std::int64_t side, const View& view) : view_(view) {
  require(side >= 16 && side <= 8192, "plot: the side must be 16 ... 8192 pixels, got ", side);
  require(std::isfinite(view.x_low) && std::isfinite(view.x_high) && std::isfinite(view.y_low) &&
              std::isfinite(view.y_high) && view.x_low < view.x_high && view.y_low < view.y_high,
          "plot: the view must be finite with low < high, got ", view.x_low, " ... ", view.x_high, " by ",
          view.y_low, " ... ", view.y_high);
  raster_.height = raster_.width = side, raster_.channels = 3;
  raster_.pixels.assign(static_cast<std::size_t>(3 * side * side), 255);
  margin_ = std::max<std::int64_t>(3, side / 40);
  frame();
}

double Plot::column(double x) const {
  return static_cast<double>(margin_) +
         (x - view_.x_low) / (view_.x_high - view_.x_low) * static_cast<double>(raster_.width - 2 * margin_);
}

double Plot::row(double y) const {
  return static_cast<double>(margin_) + (view_.y_high - y) / (view_.y_high - view_.y_low) *
                                            static_cast<double>(raster_.height - 2 * margin_);
}

void Plot::blend(std::int64_t r, std::int64_t c, Colour colour, double weight) {
  if (r < 0 || c < 0 || r >= raster_.height || c >= raster_.width || weight <= 0) return;
  std::uint8_t* p = raster_.pixels.data() + 3 * (r * raster_.width + c);
  const std::uint8_t to[3] = {colour.red, colour.green, colour.blue};
  for (int k = 0; k < 3; ++k) p[k] = static_cast<std::uint8_t>(std::lround(p[k] + weight * (to[k] - p[k])));
}

void Plot::frame() {
  const std::int64_t low = margin_ - 1, high = raster_.width - margin_;
  for (std::int64_t i = low; i <= high; ++i)
    for (const std::int64_t edge : {low, high}) blend(edge, i, ink, 1), blend(i, edge, ink, 1);
  const std::int64_t length = std::max<std::int64_t>(1, margin_ / 3);
  const auto ticks = [&](double from, double to, auto mark) {
    const double step = tick_distance(to - from);
    for (double k = std::ceil(from / step); k * step <= to; ++k) mark(k * step);
  };
  ticks(view_.x_low, view_.x_high, [&](double x) {
    for (std::int64_t k = 1; k <= length; ++k) blend(high + k, std::llround(column(x) - 0.5), ink, 1);
  });
  ticks(view_.y_low, view_.y_high, [&](double y) {
    for (std::int64_t k = 1; k <= length; ++k) blend(std::llround(row(y) - 0.5), low - k, ink, 1);
  });
}

void Plot::disc(double r, double c, Colour colour, double radius, double opacity) {
  const auto first = [&](double v) { return static_cast<std::int64_t>(std::floor(v - radius - 0.5)); };
  const auto last = [&](double v) { return static_cast<std::int64_t>(std::ceil(v + radius + 0.5)); };
  // Discs stay inside the box.
  const std::int64_t low = margin_, high = raster_.width - margin_;
  for (std::int64_t y = std::max(first(r), low); y < std::min(last(r), high); ++y)
    for (std::int64_t x = std::max(first(c), low); x < std::min(last(c), high); ++x) {
      const double distance = std::hypot(static_cast<double>(y) + 0.5 - r, static_cast<double>(x) + 0.5 - c);
      blend(y, x, colour, opacity * std::clamp(radius + 0.5 - distance, 0.0, 1.0));
    }
}

void Plot::points(std::span<const float> points, Colour colour, double radius, double opacity) {
  check_points("plot points", points);
  require(radius > 0 && radius <= 1000 && opacity >= 0 && opacity <= 1,
          "plot points: the radius must lie in (0, 1000] pixels and the opacity in [0, 1], got ", radius,
          " and ", opacity);
  for (std::size_t i = 0; i < points.size(); i += 2) {
    const double x = points[i], y = points[i + 1];
    if (x >= view_.x_low && x <= view_.x_high && y >= view_.y_low && y <= view_.y_high)
      disc(row(y), column(x), colour, radius, opacity);
  }
}

void Plot::points(std::span<const float> all, std::span<const std::int32_t> labels, double radius,
                  double opacity) {
  require(all.size() == 2 * labels.size(), "plot points: ", labels.size(), " labels do not fit ",
          all.size() / 2, " points");
  for (std::size_t i = 0; i < labels.size(); ++i)
    points(all.subspan(2 * i, 2), palette(labels[i]), radius, opacity);
}

void Plot::density(std::span<const float> points, double bandwidth) {
  check_points("plot density", points);
  require(bandwidth > 0 && bandwidth <= 200, "plot density: the bandwidth must lie in (0, 200] pixels, got ",
          bandwidth);
  const std::int64_t n = raster_.width - 2 * margin_;
  const auto at = [n](std::int64_t y, std::int64_t x) { return static_cast<std::size_t>(y * n + x); };
  std::vector<double> count(static_cast<std::size_t>(n * n), 0.0), rows(count.size(), 0.0);
  for (std::size_t i = 0; i < points.size(); i += 2) {
    const double x = points[i], y = points[i + 1];
    if (!(x >= view_.x_low && x < view_.x_high && y > view_.y_low && y <= view_.y_high)) continue;
    const auto c = static_cast<std::int64_t>(column(x)) - margin_,
               r = static_cast<std::int64_t>(row(y)) - margin_;
    if (c >= 0 && c < n && r >= 0 && r < n) count[at(r, c)] += 1;
  }
  // The Gaussian kernel is a product of one along the rows and one along the columns.
  const auto reach = static_cast<std::int64_t>(std::ceil(3 * bandwidth));
  std::vector<double> kernel;
  for (std::int64_t k = 0; k <= reach; ++k)
    kernel.push_back(std::exp(-0.5 * static_cast<double>(k * k) / (bandwidth * bandwidth)));
  for (std::int64_t y = 0; y < n; ++y)
    for (std::int64_t x = 0; x < n; ++x)
      if (count[at(y, x)] > 0)
        for (std::int64_t k = std::max<std::int64_t>(-reach, -x); k <= std::min(reach, n - 1 - x); ++k)
          rows[at(y, x + k)] += kernel[static_cast<std::size_t>(std::abs(k))] * count[at(y, x)];
  std::fill(count.begin(), count.end(), 0.0);
  for (std::int64_t y = 0; y < n; ++y)
    for (std::int64_t k = std::max<std::int64_t>(-reach, -y); k <= std::min(reach, n - 1 - y); ++k) {
      const double w = kernel[static_cast<std::size_t>(std::abs(k))];
      for (std::int64_t x = 0; x < n; ++x) count[at(y + k, x)] += w * rows[at(y, x)];
    }
  const double top = *std::max_element(count.begin(), count.end());
  for (std::int64_t y = 0; y < n; ++y)
    for (std::int64_t x = 0; x < n; ++x) {
      const double level = top > 0 ? std::sqrt(count[at(y, x)] / top) : 0.0;
      // White, then light blue at one half, then a dark blue.
      const Colour half{110, 170, 220}, full{8, 40, 100};
      const auto mix = [&](int white, int mid, int dark) {
        return static_cast<std::uint8_t>(std::lround(level < 0.5 ? white + 2 * level * (mid - white)
                                                                 : mid + (2 * level - 1) * (dark - mid)));
      };
      blend(y + margin_, x + margin_,
            {mix(255, half.red, full.red), mix(255, half.green, full.green), mix(255, half.blue, full.blue)},
            1);
    }
}

void Plot::line(std::span<const float> points, Colour colour, double width, double opacity) {
  check_points("plot line", points);
  require(width > 0 && width <= 100 && opacity >= 0 && opacity <= 1,
          "plot line: the width must lie in (0, 100] pixels and the opacity in [0, 1], got ", width, " and ",
          opacity);
  const std::int64_t low = margin_, high = raster_.width - margin_;
  for (std::size_t i = 0; i + 3 < points.size(); i += 2) {
    const double c0 = column(points[i]), r0 = row(points[i + 1]), c1 = column(points[i + 2]),
                 r1 = row(points[i + 3]);
    // Pieces that leave the picture by far are not drawn: they would only be followed outside.
    const double far = 4.0 * static_cast<double>(raster_.width);
    if (!(std::abs(c0) < far && std::abs(r0) < far && std::abs(c1) < far && std::abs(r1) < far)) continue;
    const double dc = c1 - c0, dr = r1 - r0, length2 = std::max(dc * dc + dr * dr, 1e-12),
                 reach = 0.5 * width + 0.5;
    const auto first = [&](double a, double b) {
      return std::max(low, static_cast<std::int64_t>(std::floor(std::min(a, b) - reach)));
    };
    const auto last = [&](double a, double b) {
      return std::min(high, static_cast<std::int64_t>(std::ceil(std::max(a, b) + reach)));
    };
    for (std::int64_t y = first(r0, r1); y < last(r0, r1); ++y)
      for (std::int64_t x = first(c0, c1); x < last(c0, c1); ++x) {
        const double px = static_cast<double>(x) + 0.5 - c0, py = static_cast<double>(y) + 0.5 - r0;
        const double t = std::clamp((px * dc + py * dr) / length2, 0.0, 1.0);
        blend(y, x, colour, opacity * std::clamp(reach - std::hypot(px - t * dc, py - t * dr), 0.0, 1.0));
      }
  }
}

}  // namespace costate::cli
