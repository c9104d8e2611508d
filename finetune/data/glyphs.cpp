#include <costate/finetune/data/draw.h>
#include <costate/finetune/data/glyph_strokes.h>
#include <costate/finetune/data/glyphs.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace costate::data {
namespace {

struct Point {
  double x = 0, y = 0;
};

// A straight piece of a stroke, with half-width and ink at both ends.
struct Segment {
  Point a, b;
  double pen_a, pen_b, ink_a, ink_b;
};

void check_options(const GlyphOptions& o) {
  require(o.resolution >= 6 && o.resolution <= 512, "glyphs: resolution must lie in 6 ... 512, got ",
          o.resolution);
  require(o.label >= -1 && o.label <= 9, "glyphs: label must be a digit 0 ... 9, or -1 for all of them, got ",
          o.label);
  const auto within = [](const char* name, double v, double low, double high) {
    require(v >= low && v <= high, "glyphs: ", name, " must lie in ", low, " ... ", high, ", got ", v);
  };
  within("size", o.size, 0.2, 1), within("size_spread", o.size_spread, 0, 0.3);
  within("jitter", o.jitter, 0, 0.3), within("elastic", o.elastic, 0, 0.3), within("slant", o.slant, 0, 1);
  within("rotation", o.rotation, 0, 3.2), within("aspect", o.aspect, 0, 1),
      within("translation", o.translation, 0, 0.5);
  within("pen", o.pen, 0.002, 0.2), within("pen_spread", o.pen_spread, 0, 1),
      within("softness", o.softness, 0, 0.2);
  within("ink", o.ink, 0, 0.9);
}

// Each block of ten indices holds every digit once, in an order of its own.
int label_of(const GlyphOptions& o, std::uint64_t seed, std::int64_t index) {
  if (o.label >= 0) return o.label;
  std::array<int, 10> order{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  Draw draw(seed, Family::glyph_order, index / 10);
  for (std::uint32_t i = 9; i > 0; --i) std::swap(order[i], order[draw.below(i + 1)]);
  return order[static_cast<std::size_t>(index % 10)];
}

GlyphTraits traits_from(const GlyphOptions& o, std::uint64_t seed, std::int64_t index, Draw& draw) {
  GlyphTraits t;
  t.label = label_of(o, seed, index);
  t.style = static_cast<int>(draw.below(static_cast<std::uint32_t>(styles_of(t.label).size())));
  t.slant = o.slant * draw.mild();
  t.rotation = o.rotation * draw.mild();
  t.aspect = std::exp(o.aspect * draw.mild());
  t.size = o.size + o.size_spread * draw.mild();
  t.pen = o.pen * std::exp(o.pen_spread * draw.mild());
  t.softness = o.softness * draw.uniform(0.5, 1.5);
  t.ink = 1.0 - o.ink * draw.uniform();
  return t;
}

// A sum of four plane waves of random direction, wavelength (between 0.7 and 2 sides) and phase, whose
// displacement has the standard deviation `strength` in each coordinate.
class Displacement {
 public:
  Displacement(double strength, Draw& draw) {
    for (Wave& w : waves_) {
      const double angle = draw.uniform(0, 2 * std::numbers::pi);
      const double turns = 2 * std::numbers::pi / draw.uniform(0.7, 2.0);
      w.kx = turns * std::cos(angle), w.ky = turns * std::sin(angle);
      w.phase = draw.uniform(0, 2 * std::numbers::pi);
      // A wave of amplitude a has variance a^2 / 2; four of them add up to strength^2.
      w.ax = strength * std::sqrt(0.5) * draw.mild(), w.ay = strength * std::sqrt(0.5) * draw.mild();
    }
  }
  Point operator()(Point p) const {
    Point out = p;
    for (const Wave& w : waves_) {
      const double s = std::sin(w.kx * p.x + w.ky * p.y + w.phase);
      out.x += w.ax * s, out.y += w.ay * s;
    }
    return out;
  }

 private:
  struct Wave {
    double kx, ky, phase, ax, ay;
  };
  std::array<Wave, 4> waves_;
};

// The Catmull-Rom spline through p[1] and p[2], cubic in t.
Point catmull_rom(const Point (&p)[4], double t) {
  const auto at = [t](double a, double b, double c, double d) {
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
  };
  return {at(p[0].x, p[1].x, p[2].x, p[3].x), at(p[0].y, p[1].y, p[2].y, p[3].y)};
}

constexpr int pieces_per_span = 8;

// The strokes of a style as chains of straight pieces, in the unit square of the style. Pen and ink are
// relative and swell along the stroke.
std::vector<Segment> chains(Style style, const std::vector<Point>& keys, double ink_swing, Draw& draw) {
  std::vector<Segment> out;
  out.reserve(keys.size() * pieces_per_span);
  double pen_phase = 0, ink_phase = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (style[i].pen == Pen::down) {
      pen_phase = draw.uniform(0, 2 * std::numbers::pi), ink_phase = draw.uniform(0, 2 * std::numbers::pi);
      continue;
    }
    // A corner or an end on either side is met with the tangent of the chord.
    const bool first = style[i - 1].pen != Pen::smooth;
    const bool last = i + 1 == keys.size() || style[i].pen == Pen::corner || style[i + 1].pen == Pen::down;
    const Point p[4] = {first ? keys[i - 1] : keys[i - 2], keys[i - 1], keys[i],
                        last ? keys[i] : keys[i + 1]};
    for (int k = 0; k < pieces_per_span; ++k) {
      const double t0 = static_cast<double>(k) / pieces_per_span,
                   t1 = static_cast<double>(k + 1) / pieces_per_span;
      const auto pen = [&](double t) {
        return 1 + 0.12 * std::sin(1.1 * (static_cast<double>(i) + t) + pen_phase);
      };
      const auto ink = [&](double t) {
        return 1 - ink_swing * (0.5 + 0.5 * std::sin(0.9 * (static_cast<double>(i) + t) + ink_phase));
      };
      out.push_back({catmull_rom(p, t0), catmull_rom(p, t1), pen(t0), pen(t1), ink(t0), ink(t1)});
    }
  }
  return out;
}

double cubic_step(double t) {  // 0 below -1, 1 above +1, continuously differentiable
  if (t <= -1) return 0;
  if (t >= 1) return 1;
  return 0.25 * (2 + 3 * t - t * t * t);
}

// Adds one piece to the picture: each pixel keeps its darkest value.
void stamp(const Segment& s, double width, int n, float* pixels) {
  const double reach = std::max(s.pen_a, s.pen_b) + width;
  const auto low = [&](double v) {
    return std::clamp(static_cast<int>(std::floor((v - reach) * n - 0.5)), 0, n);
  };
  const auto high = [&](double v) {
    return std::clamp(static_cast<int>(std::ceil((v + reach) * n + 0.5)), 0, n);
  };
  const int x0 = low(std::min(s.a.x, s.b.x)), x1 = high(std::max(s.a.x, s.b.x));
  const int y0 = low(std::min(s.a.y, s.b.y)), y1 = high(std::max(s.a.y, s.b.y));
  const double dx = s.b.x - s.a.x, dy = s.b.y - s.a.y, length2 = std::max(dx * dx + dy * dy, 1e-18);
  for (int row = y0; row < y1; ++row)
    for (int col = x0; col < x1; ++col) {
      const double px = (col + 0.5) / n - s.a.x, py = (row + 0.5) / n - s.a.y;
      const double t = std::clamp((px * dx + py * dy) / length2, 0.0, 1.0);
      const double ex = px - t * dx, ey = py - t * dy, d2 = ex * ex + ey * ey;
      if (d2 >= reach * reach) continue;
      const double d = std::sqrt(d2), r = s.pen_a + t * (s.pen_b - s.pen_a);
      const double value =
          (s.ink_a + t * (s.ink_b - s.ink_a)) * (cubic_step((r - d) / width) - cubic_step((-r - d) / width));
      float& pixel = pixels[row * n + col];
      pixel = std::max(pixel, static_cast<float>(value));
    }
}

void draw_glyph(const GlyphOptions& o, std::uint64_t seed, std::int64_t index, float* pixels,
                std::int32_t& label) {
  Draw draw(seed, Family::glyph, index);
  const GlyphTraits t = traits_from(o, seed, index, draw);
  label = t.label;
  const Style style = styles_of(t.label)[static_cast<std::size_t>(t.style)];
  const Displacement displaced(o.elastic, draw);
  std::vector<Point> keys(style.size());
  for (std::size_t i = 0; i < keys.size(); ++i)
    keys[i] = {style[i].x + o.jitter * draw.mild(), style[i].y + o.jitter * draw.mild()};
  std::vector<Segment> pieces = chains(style, keys, 0.7 * o.ink, draw);

  // Displacement, then aspect, shear and rotation about the centre of the unit square.
  const double stretch = std::sqrt(t.aspect), c = std::cos(t.rotation), s = std::sin(t.rotation);
  const auto placed = [&](Point p) {
    const Point q = displaced(p);
    const double y = (q.y - 0.5) / stretch, x = (q.x - 0.5) * stretch - t.slant * y;
    return Point{c * x - s * y, s * x + c * y};
  };
  Point low{1e9, 1e9}, high{-1e9, -1e9};
  for (Segment& piece : pieces) {
    piece.a = placed(piece.a), piece.b = placed(piece.b);
    for (const Point& p : {piece.a, piece.b})
      low = {std::min(low.x, p.x), std::min(low.y, p.y)},
      high = {std::max(high.x, p.x), std::max(high.y, p.y)};
  }
  // The box of the curve is brought to the drawn size and centred, and moved as far as the picture has room.
  const double pixel = 1.0 / o.resolution;
  const double scale = t.size / std::max({high.x - low.x, high.y - low.y, 1e-9});
  const auto shift = [&](double extent) {
    const double room = std::max(0.0, 0.5 * (1 - extent * scale) - t.pen);
    return std::clamp(o.translation * draw.mild(), -room, room);
  };
  const double sx = shift(high.x - low.x), sy = shift(high.y - low.y);
  const auto framed = [&](Point p) {
    return Point{0.5 + sx + scale * (p.x - 0.5 * (low.x + high.x)),
                 0.5 + sy + scale * (p.y - 0.5 * (low.y + high.y))};
  };
  // A pen much thinner than a pixel would leave almost no ink: it is widened to about a pixel.
  const double pen = std::sqrt(t.pen * t.pen + 0.2 * pixel * pixel);
  const double width = std::sqrt(t.softness * t.softness + 0.45 * pixel * pixel);
  for (Segment& piece : pieces) {
    piece.a = framed(piece.a), piece.b = framed(piece.b);
    piece.pen_a *= pen, piece.pen_b *= pen, piece.ink_a *= t.ink, piece.ink_b *= t.ink;
    stamp(piece, width, o.resolution, pixels);
  }
}

}  // namespace

int glyph_styles(int digit) {
  require(digit >= 0 && digit <= 9, "glyph_styles: ", digit, " is not a digit 0 ... 9");
  return static_cast<int>(styles_of(digit).size());
}

GlyphTraits glyph_traits(const GlyphOptions& options, std::uint64_t seed, std::int64_t index) {
  check_options(options);
  require(index >= 0 && index < max_items, "glyph_traits: the index must lie in 0 ... 2^48 - 1, got ", index);
  Draw draw(seed, Family::glyph, index);
  return traits_from(options, seed, index, draw);
}

Dataset glyphs(const GlyphOptions& options, std::uint64_t seed, std::int64_t first, std::int64_t count) {
  check_options(options);
  require(first >= 0 && count > 0,
          "glyphs: items must be counted from 0 and be at least one, got first = ", first,
          ", count = ", count);
  const std::int64_t n = options.resolution;
  require(first < max_items && count <= max_items - first && count <= (std::int64_t{1} << 40) / (n * n),
          "glyphs: ", count, " pictures of ", n, " x ", n, " pixels starting at number ", first,
          " are more than 2^40 pixels or run past the last index");
  Dataset out;
  out.count = count, out.classes = 10, out.item_shape = {n, n, 1};
  out.description = sentence({"glyph digits ", n, "x", n, ", seed ", seed});
  if (options.label >= 0) out.description += sentence({", only ", options.label});
  out.values.assign(static_cast<std::size_t>(count * n * n), 0.0f);
  out.labels.resize(static_cast<std::size_t>(count));
  parallel_for(count, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      draw_glyph(options, seed, first + i, out.values.data() + i * n * n,
                 out.labels[static_cast<std::size_t>(i)]);
  });
  return out;
}

}  // namespace costate::data
