// Line and scatter plots as SVG: text, the same bytes for the same plot.
//
//   report::Plot plot{.title = "Memory", .x_label = "steps", .y_label = "bytes", .log_y = true};
//   plot.series.push_back({.name = "stored", .xs = {10, 20}, .ys = {1e6, 2e6}});
//   report::save_svg_plot("memory.svg", plot);
#pragma once
#include <string>
#include <vector>

namespace costate::cli::report {

struct Series {
  std::string name{};              // in the legend; "": not there
  std::vector<double> xs{}, ys{};  // of equal length, in the order of the line; one that is not finite breaks it
  std::vector<double> errors{};    // half lengths of vertical bars about ys, such as standard errors; none, or as many as ys
  bool band = false;             // errors as a shaded band about the line instead of bars
  bool line = true;
  bool markers = true;  // beside a line only up to 60 points
};

struct Plot {
  std::string title{}, x_label{}, y_label{};
  bool log_x = false, log_y = false;
  std::vector<Series> series{};
  bool direct_labels = false;  // names at the ends of the lines instead of a legend
  double width = 720, height = 420;  // units of the picture, which scales; 200 to 10000
};

// An <svg> element with the plot's own light colours, for a file or in a page, whose style may replace them by class (see
// html.cpp). Series are told apart by colours that the colour-blind can distinguish (Okabe and Ito 2008), markers and, beyond
// seven, dashes. Points that cannot be shown (not finite; not positive on a logarithmic axis) are left out, and a line below
// the plot says how many; points of which neither coordinate is a number are mere breaks of the line. Throws Error(argument)
// that names plot and series when lengths differ or an error is negative.
std::string svg_plot(const Plot& plot);
void save_svg_plot(const std::string& path, const Plot& plot);

}  // namespace costate::cli::report
