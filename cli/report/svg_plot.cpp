#include "report/svg_plot.h"

#include <costate/tensor/error.h>
#include <costate/tensor/file.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "report/axis.h"
#include "report/markup.h"

namespace costate::cli::report {
namespace {

// Okabe and Ito's colours without yellow and black, which vanish on light and on dark paper, and a grey.
constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b"};
constexpr std::size_t colour_count = std::size(colours);
constexpr const char* dashes[] = {"", "7 4", "2 3", "9 3 2 3"};

constexpr double title_size = 16, label_size = 12.5, tick_size = 12;

std::string number(double v) {
  char text[64];
  std::snprintf(text, sizeof text, "%.2f", v);
  std::string s = text;
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

struct Writer {
  std::string out;
  void text(double x, double y, double size, const char* anchor, const char* style, const char* fill, std::string_view what,
            const char* more = "") {
    out += "<text class=\"" + std::string(style) + "\" x=\"" + number(x) + "\" y=\"" + number(y) + "\" font-size=\"" +
           number(size) + "\" text-anchor=\"" + anchor + "\" fill=\"" + fill + "\"" + more + ">" + escaped(what) + "</text>\n";
  }
  void line(double x1, double y1, double x2, double y2, const char* style, const char* stroke, double width) {
    out += "<line class=\"" + std::string(style) + "\" x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) +
           "\" y2=\"" + number(y2) + "\" stroke=\"" + stroke + "\" stroke-width=\"" + number(width) + "\"/>\n";
  }
};

// A marker of about the same area whatever its shape.
std::string marker(std::size_t shape, double x, double y, double r) {
  const auto at = [&](double dx, double dy) { return number(x + r * dx) + " " + number(y + r * dy); };
  switch (shape % 6) {
    case 0:
      return "M" + at(-1, 0) + "a" + number(r) + " " + number(r) + " 0 1 0 " + number(2 * r) + " 0a" + number(r) + " " + number(r) +
             " 0 1 0 " + number(-2 * r) + " 0z";
    case 1:
      return "M" + at(-0.9, -0.9) + "L" + at(0.9, -0.9) + "L" + at(0.9, 0.9) + "L" + at(-0.9, 0.9) + "z";
    case 2:
      return "M" + at(0, -1.25) + "L" + at(1.15, 0.8) + "L" + at(-1.15, 0.8) + "z";
    case 3:
      return "M" + at(0, -1.3) + "L" + at(1.3, 0) + "L" + at(0, 1.3) + "L" + at(-1.3, 0) + "z";
    case 4:
      return "M" + at(0, 1.25) + "L" + at(1.15, -0.8) + "L" + at(-1.15, -0.8) + "z";
    default:
      return "M" + at(-1.3, -0.45) + "L" + at(-0.45, -0.45) + "L" + at(-0.45, -1.3) + "L" + at(0.45, -1.3) + "L" +
             at(0.45, -0.45) + "L" + at(1.3, -0.45) + "L" + at(1.3, 0.45) + "L" + at(0.45, 0.45) + "L" + at(0.45, 1.3) + "L" +
             at(-0.45, 1.3) + "L" + at(-0.45, 0.45) + "L" + at(-1.3, 0.45) + "z";
  }
}

std::string stroke_of(std::size_t i) {
  std::string s = std::string(" stroke=\"") + colours[i % colour_count] + "\"";
  if (const char* d = dashes[i / colour_count % std::size(dashes)]; *d) s += std::string(" stroke-dasharray=\"") + d + "\"";
  return s;
}
std::string class_of(std::size_t i, const char* kind) {
  return std::string(kind) + " s" + std::to_string(i % colour_count);
}
std::string marker_path(std::size_t i, const std::string& shapes) {
  return "<path class=\"" + class_of(i, "marker") + "\" d=\"" + shapes + "\" fill=\"" + colours[i % colour_count] +
         "\" stroke=\"#ffffff\" stroke-width=\"1\"/>\n";
}

bool draws_markers(const Series& s) { return s.markers && (!s.line || s.xs.size() <= 60); }

bool shown(const Plot& p, double x, double y) {
  const auto fits = [](double v, bool log) {
    return std::isfinite(v) && std::abs(v) <= largest_shown && (!log || v >= 1 / largest_shown);
  };
  return fits(x, p.log_x) && fits(y, p.log_y);
}

void check(const Plot& p) {
  for (const Series& s : p.series) {
    require(s.xs.size() == s.ys.size(), "plot '", p.title, "': series '", s.name, "' has ", s.xs.size(), " xs and ", s.ys.size(),
            " ys, expected as many");
    require(s.errors.empty() || s.errors.size() == s.ys.size(), "plot '", p.title, "': series '", s.name, "' has ",
            s.errors.size(), " errors for ", s.ys.size(), " points, expected none or as many");
    for (const double e : s.errors)
      require(!(e < 0), "plot '", p.title, "': series '", s.name, "' has the error ", e, ", expected at least 0");
  }
  require(p.width >= 200 && p.width <= 10000 && p.height >= 200 && p.height <= 10000, "plot '", p.title, "': a size of ", p.width,
          " x ", p.height, ", expected 200 to 10000 each");
}

// What is to be shown: the span of the values, and how many points have no place.
struct Extent {
  double low = 1, high = 0;  // none
  void add(double v) {
    if (low > high) low = high = v;
    low = std::min(low, v), high = std::max(high, v);
  }
};
struct Contents {
  Extent x, y;
  std::int64_t left_out = 0;
};
Contents contents_of(const Plot& p) {
  Contents c;
  for (const Series& s : p.series)
    for (std::size_t i = 0; i < s.xs.size(); ++i) {
      if (!shown(p, s.xs[i], s.ys[i])) {
        c.left_out += !(std::isnan(s.xs[i]) && std::isnan(s.ys[i]));
        continue;
      }
      c.x.add(s.xs[i]), c.y.add(s.ys[i]);
      if (s.errors.empty()) continue;
      for (const double y : {s.ys[i] - s.errors[i], s.ys[i] + s.errors[i]})
        if (shown(p, s.xs[i], y)) c.y.add(y);
    }
  return c;
}

// The parts of the picture.
struct Layout {
  double left, right, top, bottom;  // of the area that the axes span
};

class Drawing {
 public:
  explicit Drawing(const Plot& p)
      : p_(p),
        contents_(contents_of(p)),
        x_(make_axis(contents_.x.low, contents_.x.high, p.log_x, std::max(2, static_cast<int>(p.width / (p.log_x ? 70 : 110))))),
        y_(make_axis(contents_.y.low, contents_.y.high, p.log_y, std::max(2, static_cast<int>(p.height / (p.log_y ? 48 : 70))))) {}

  std::string run() {
    w_.out = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 " + number(p_.width) + " " + number(p_.height) +
             "\" width=\"" + number(p_.width) + "\" height=\"" + number(p_.height) +
             "\" role=\"img\" font-family=\"system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif\">\n"
             "<title>" +
             escaped(p_.title.empty() ? "plot" : p_.title) + "</title>\n<rect class=\"paper\" width=\"" + number(p_.width) +
             "\" height=\"" + number(p_.height) + "\" fill=\"#ffffff\"/>\n";
    heading();
    axes();
    for (std::size_t i = 0; i < p_.series.size(); ++i) draw(i);
    if (p_.direct_labels) labels_at_ends();
    if (contents_.x.low > contents_.x.high)
      w_.text((area_.left + area_.right) / 2, (area_.top + area_.bottom) / 2, 14, "middle", "muted", "#767676", "no data");
    return w_.out + "</svg>\n";
  }

 private:
  double column(double x) const { return area_.left + x_.at(x) * (area_.right - area_.left); }
  double row(double y) const { return area_.bottom - std::clamp(y_.at(y), 0.0, 1.0) * (area_.bottom - area_.top); }

  // Title, legend and the name of the vertical axis, from the top down; what they leave is the area.
  void heading() {
    double y_labels = 0;
    for (const Tick& t : y_.ticks) y_labels = std::max(y_labels, text_width(t.label) * tick_size);
    area_.left = std::max(24.0, 14 + y_labels + 10);
    area_.right = p_.width - 24;
    double names = 0;
    for (const Series& s : p_.series) names = std::max(names, text_width(s.name) * label_size);
    if (p_.direct_labels && names > 0) area_.right = std::max(p_.width / 2, p_.width - 24 - 1.15 * names);  // they are bold
    double y = 12;
    if (!p_.title.empty()) {
      y += title_size;
      w_.text(14, y, title_size, "start", "title", "#1a1a1a", p_.title, " font-weight=\"600\"");
      y += 8;
    }
    if (!p_.direct_labels && names > 0) y = legend(y);
    if (!p_.y_label.empty()) {
      y += label_size + 6;
      w_.text(14, y, label_size, "start", "label", "#4a4a4a", p_.y_label);
      y += 4;
    }
    area_.top = y + 10;
    const double note = contents_.left_out > 0 ? 18 : 0;
    area_.bottom = p_.height - 12 - note - (p_.x_label.empty() ? 0 : label_size + 8) - tick_size - 8;
    if (note > 0)
      w_.text(14, p_.height - 10, 11, "start", "muted", "#767676",
              std::to_string(contents_.left_out) + (contents_.left_out == 1 ? " point is" : " points are") +
                  " not shown: not finite" + (p_.log_x || p_.log_y ? ", or not positive on a logarithmic axis" : ""));
    if (!p_.x_label.empty())
      w_.text((area_.left + area_.right) / 2, p_.height - 12 - note, label_size, "middle", "label", "#4a4a4a", p_.x_label);
  }

  double legend(double y) {
    constexpr double key = 30, gap = 18;
    double x = 14;
    y += label_size + 6;
    for (std::size_t i = 0; i < p_.series.size(); ++i) {
      const Series& s = p_.series[i];
      if (s.name.empty()) continue;
      const double width = key + text_width(s.name) * label_size;
      if (x > 14 && x + width > p_.width - 14) x = 14, y += label_size + 8;
      if (s.line)
        w_.out += "<path class=\"" + class_of(i, "line") + "\" d=\"M" + number(x) + " " + number(y - 4) + "h24\" fill=\"none\"" +
                  stroke_of(i) + " stroke-width=\"2\"/>\n";
      if (draws_markers(s)) w_.out += marker_path(i, marker(i, x + 12, y - 4, 3.8));
      w_.text(x + key, y, label_size, "start", "label", "#4a4a4a", s.name);
      x += width + gap;
    }
    return y + 6;
  }

  void axes() {
    for (const Tick& t : y_.ticks) {
      const double y = row(t.value);
      if (t.label.empty()) {
        w_.line(area_.left - 3, y, area_.left, y, "axis", "#8a8a8a", 0.75);
        continue;
      }
      w_.line(area_.left, y, area_.right, y, "grid", "#e4e4e4", 1);
      w_.text(area_.left - 8, y + 0.36 * tick_size, tick_size, "end", "tick", "#5a5a5a", t.label);
    }
    // Minor ticks hang on a line; labels have the grid.
    if (y_.log) w_.line(area_.left, area_.top, area_.left, area_.bottom, "axis", "#8a8a8a", 1);
    double free_from = -1e9;
    for (const Tick& t : x_.ticks) {
      const double x = column(t.value);
      w_.line(x, area_.bottom, x, area_.bottom + (t.label.empty() ? 3 : 5), "axis", "#8a8a8a", t.label.empty() ? 0.75 : 1);
      // A label that would run into the one before stays away.
      const double half = text_width(t.label) * tick_size / 2;
      if (t.label.empty() || x - half < free_from) continue;
      free_from = x + half + 6;
      w_.text(std::min(x, p_.width - 4 - half), area_.bottom + 8 + tick_size, tick_size, "middle", "tick", "#5a5a5a", t.label);
    }
    w_.line(area_.left, area_.bottom, area_.right, area_.bottom, "axis", "#8a8a8a", 1);
  }

  void draw(std::size_t i) {
    const Series& s = p_.series[i];
    std::string line, dots, bars, bands, band, back;  // the band's upper edge, and its lower one backwards
    bool open = false;
    const auto close_band = [&] {
      if (!band.empty() && !back.empty()) bands += band + back + "z";
      band.clear(), back.clear();
    };
    for (std::size_t k = 0; k < s.xs.size(); ++k) {
      if (!shown(p_, s.xs[k], s.ys[k])) {
        open = false;
        close_band();
        continue;
      }
      const double x = column(s.xs[k]), y = row(s.ys[k]);
      line += (open ? "L" : "M") + number(x) + " " + number(y);
      open = true;
      dots += marker(i, x, y, 3.8);
      if (s.errors.empty() || (!s.band && !(s.errors[k] > 0))) continue;
      const double low = s.ys[k] - s.errors[k], high = s.ys[k] + s.errors[k];
      const double from = p_.log_y && low <= 0 ? area_.bottom : row(low), to = row(high);
      if (s.band) {
        band += (band.empty() ? "M" : "L") + number(x) + " " + number(to);
        back.insert(0, "L" + number(x) + " " + number(from));
        continue;
      }
      bars += "M" + number(x) + " " + number(from) + "V" + number(to) + "M" + number(x - 3) + " " + number(from) + "h6M" +
              number(x - 3) + " " + number(to) + "h6";
    }
    if (line.empty()) return;
    close_band();
    if (!bands.empty())
      w_.out += "<path class=\"" + class_of(i, "band") + "\" d=\"" + bands + "\" fill=\"" + colours[i % colour_count] +
                "\" fill-opacity=\"0.16\"/>\n";
    const std::string stroke = std::string(" stroke=\"") + colours[i % colour_count] + "\"";
    if (!bars.empty())
      w_.out += "<path class=\"" + class_of(i, "line") + "\" d=\"" + bars + "\" fill=\"none\"" + stroke + " stroke-width=\"1.2\"/>\n";
    if (s.line)
      w_.out += "<path class=\"" + class_of(i, "line") + "\" d=\"" + line + "\" fill=\"none\"" + stroke_of(i) +
                " stroke-width=\"2\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>\n";
    if (draws_markers(s) || s.xs.size() == 1) w_.out += marker_path(i, dots);
  }

  // Names at the last points that are shown, moved apart where they would run together.
  void labels_at_ends() {
    struct End {
      std::size_t series;
      double x, y;
    };
    std::vector<End> ends;
    for (std::size_t i = 0; i < p_.series.size(); ++i) {
      const Series& s = p_.series[i];
      for (std::size_t k = s.xs.size(); k-- > 0 && !s.name.empty();)
        if (shown(p_, s.xs[k], s.ys[k])) {
          ends.push_back({i, column(s.xs[k]), row(s.ys[k])});
          break;
        }
    }
    std::stable_sort(ends.begin(), ends.end(), [](const End& a, const End& b) { return a.y < b.y; });
    constexpr double apart = label_size + 3;
    for (std::size_t i = 1; i < ends.size(); ++i) ends[i].y = std::max(ends[i].y, ends[i - 1].y + apart);
    double floor = area_.bottom;
    for (std::size_t i = ends.size(); i-- > 0; floor -= apart) ends[i].y = std::min(ends[i].y, floor);
    for (const End& e : ends)
      w_.text(area_.right + 10, e.y + 0.36 * label_size, label_size, "start", class_of(e.series, "name").c_str(),
              colours[e.series % colour_count], p_.series[e.series].name, " font-weight=\"600\"");
  }

  const Plot& p_;
  Contents contents_;
  Axis x_, y_;
  Layout area_{};
  Writer w_;
};

}  // namespace

std::string svg_plot(const Plot& plot) {
  check(plot);
  return Drawing(plot).run();
}

void save_svg_plot(const std::string& path, const Plot& plot) {
  write_file_atomically(path, std::string_view(svg_plot(plot)));
}

}  // namespace costate::cli::report
