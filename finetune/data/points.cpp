#include <costate/finetune/data/draw.h>
#include <costate/finetune/data/points.h>
#include <costate/tensor/error.h>
#include <cmath>
#include <numbers>

namespace costate::data {
namespace {

constexpr double pi = std::numbers::pi;

void check_noise(std::string_view op, double noise) {
  require(std::isfinite(noise) && noise >= 0, op, ": the noise must be finite and not negative, got ", noise);
}

// Fills a set by law(draw, x, y) -> label.
template <class Law>
Dataset draw_points(std::string_view op, int classes, std::uint64_t seed, std::int64_t count,
                    std::int64_t first, const Law& law) {
  require(first >= 0 && count > 0 && first < max_items && count <= max_items - first, op,
          ": points are numbered 0 ... 2^48 - 1 and at least one is needed, got first = ", first,
          ", count = ", count);
  Dataset out;
  out.count = count, out.classes = classes, out.item_shape = {2};
  out.description = sentence({op, ", seed ", seed});
  out.values.resize(static_cast<std::size_t>(count) * 2);
  out.labels.resize(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    Draw draw(seed, Family::points, first + i);
    double x = 0, y = 0;
    out.labels[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(law(draw, x, y));
    out.values[static_cast<std::size_t>(2 * i)] = static_cast<float>(x);
    out.values[static_cast<std::size_t>(2 * i + 1)] = static_cast<float>(y);
  }
  return out;
}

}  // namespace

PlaneMixture ring_mixture(int n, double radius, double deviation) {
  require(n > 0, "ring_mixture: at least one component is needed, got ", n);
  PlaneMixture out;
  for (int k = 0; k < n; ++k)
    out.means.push_back({radius * std::cos(2 * pi * k / n), radius * std::sin(2 * pi * k / n)});
  out.weights.assign(static_cast<std::size_t>(n), 1.0 / n);
  out.deviations.assign(static_cast<std::size_t>(n), deviation);
  return out;
}

PlaneMixture grid_mixture(int n, double spacing, double deviation) {
  require(n > 0 && n <= 1000, "grid_mixture: the grid must have between 1 and 1000 components a side, got ",
          n);
  PlaneMixture out;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      out.means.push_back({spacing * (i - 0.5 * (n - 1)), spacing * (j - 0.5 * (n - 1))});
  out.weights.assign(out.means.size(), 1.0 / static_cast<double>(out.means.size()));
  out.deviations.assign(out.means.size(), deviation);
  return out;
}

Dataset mixture_points(const PlaneMixture& m, std::uint64_t seed, std::int64_t count, std::int64_t first) {
  const std::size_t n = m.means.size();
  require(n > 0 && m.weights.size() == n && m.deviations.size() == n, "mixture_points: ", m.weights.size(),
          " weights, ", n, " means and ", m.deviations.size(),
          " deviations were given, but equally many and at least one are needed");
  std::vector<double> cumulative(n);
  double total = 0;
  for (std::size_t k = 0; k < n; ++k) {
    require(std::isfinite(m.weights[k]) && m.weights[k] >= 0, "mixture_points: weight ", k,
            " must be finite and not negative, got ", m.weights[k]);
    require(std::isfinite(m.deviations[k]) && m.deviations[k] >= 0, "mixture_points: deviation ", k,
            " must be finite and not negative, got ", m.deviations[k]);
    require(std::isfinite(m.means[k][0]) && std::isfinite(m.means[k][1]), "mixture_points: mean ", k,
            " is not finite");
    cumulative[k] = total += m.weights[k];
  }
  require(std::isfinite(total) && total > 0,
          "mixture_points: the weights must have a finite positive sum, got ", total);
  return draw_points("gaussian mixture", static_cast<int>(n), seed, count, first,
                     [&](Draw& draw, double& x, double& y) {
                       const double u = total * draw.uniform();
                       std::size_t k = 0;
                       while (k + 1 < n && u >= cumulative[k]) ++k;
                       x = m.means[k][0] + m.deviations[k] * draw.normal();
                       y = m.means[k][1] + m.deviations[k] * draw.normal();
                       return k;
                     });
}

Dataset two_moons(double noise, std::uint64_t seed, std::int64_t count, std::int64_t first) {
  check_noise("two_moons", noise);
  return draw_points("two moons", 2, seed, count, first, [&](Draw& draw, double& x, double& y) {
    const auto moon = draw.below(2);
    const double a = pi * draw.uniform();
    x = moon ? 1 - std::cos(a) : std::cos(a);
    y = moon ? 0.5 - std::sin(a) : std::sin(a);
    x += noise * draw.normal(), y += noise * draw.normal();
    return moon;
  });
}

Dataset rings(int n, double noise, std::uint64_t seed, std::int64_t count, std::int64_t first) {
  require(n > 0, "rings: at least one ring is needed, got ", n);
  check_noise("rings", noise);
  return draw_points("rings", n, seed, count, first, [&](Draw& draw, double& x, double& y) {
    const auto ring = draw.below(static_cast<std::uint32_t>(n));
    const double a = 2 * pi * draw.uniform(), radius = (1.0 + ring) / n;
    x = radius * std::cos(a) + noise * draw.normal();
    y = radius * std::sin(a) + noise * draw.normal();
    return ring;
  });
}

Dataset checkerboard(int n, std::uint64_t seed, std::int64_t count, std::int64_t first) {
  require(n > 0 && n <= 1000, "checkerboard: the board must have between 1 and 1000 cells a side, got ", n);
  // Rows 0, 2, ... have (n + 1) / 2 dark cells, rows 1, 3, ... have n / 2.
  const std::uint32_t even = static_cast<std::uint32_t>(n + 1) / 2, pair = static_cast<std::uint32_t>(n);
  const std::uint32_t dark = (pair * pair + 1) / 2;
  return draw_points("checkerboard", static_cast<int>(dark), seed, count, first,
                     [&](Draw& draw, double& x, double& y) {
                       const auto cell = draw.below(dark);
                       const std::uint32_t in_pair = cell % pair;
                       const bool odd = in_pair >= even;
                       const std::uint32_t row = 2 * (cell / pair) + odd,
                                           column = odd ? 2 * (in_pair - even) + 1 : 2 * in_pair;
                       x = 2 * (column + draw.uniform()) / n - 1;
                       y = 2 * (row + draw.uniform()) / n - 1;
                       return cell;
                     });
}

Dataset swiss_roll(double noise, std::uint64_t seed, std::int64_t count, std::int64_t first) {
  check_noise("swiss_roll", noise);
  return draw_points("swiss roll", 3, seed, count, first, [&](Draw& draw, double& x, double& y) {
    const double u = draw.uniform(), a = 1.5 * pi * (1 + 2 * u), radius = a / (4.5 * pi);
    x = radius * std::cos(a) + noise * draw.normal();
    y = radius * std::sin(a) + noise * draw.normal();
    return static_cast<int>(3 * u);
  });
}

}  // namespace costate::data
