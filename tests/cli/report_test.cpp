// Plots and reports: well-formed whatever is in them, and what they show.
#include <gtest/gtest.h>

#include <costate/tensor/error.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>

#include "markup_check.h"
#include "program.h"
#include "report/axis.h"
#include "report/html.h"
#include "report/markup.h"

namespace costate::cli::report {
namespace {

using cli::testing::Folder;
using cli::testing::contents;
using cli::testing::fault_in_markup;
constexpr double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();

std::size_t count(const std::string& s, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = s.find(what); at != s.npos; at = s.find(what, at + what.size())) ++n;
  return n;
}

std::vector<std::string> labels(const Axis& a) {
  std::vector<std::string> out;
  for (const Tick& t : a.ticks)
    if (!t.label.empty()) out.push_back(t.label);
  return out;
}

template <class F>
void expect_refused(const std::string& words, const F& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one about: " << words;
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}

TEST(Markup, FaultsAreFound) {
  EXPECT_EQ(fault_in_markup("<a b=\"1\" c=\"2\"><d/>x &amp; y</a>"), "");
  for (const char* bad : {"<a>", "<a></b>", "<a/><b/>", "<a>&</a>", "<a>x > y</a>", "<a b=\"1\" b=\"2\"/>", "<a b=1/>", "x"})
    EXPECT_NE(fault_in_markup(bad), "") << bad;
}

TEST(Markup, TextIsEscaped) {
  EXPECT_EQ(escaped("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
  EXPECT_EQ(escaped("Fréchet κ"), "Fréchet κ");
  // A control character, half a character, a surrogate, an overlong slash.
  EXPECT_EQ(escaped(std::string("a\x01") + "b\xC3"), "a\uFFFDb\uFFFD");
  EXPECT_EQ(escaped("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(escaped("\xC0\xAF"), "\uFFFD\uFFFD");
}

TEST(Axis, LinearTicksAreRound) {
  EXPECT_EQ(labels(make_axis(0, 10, false, 5)), (std::vector<std::string>{"0", "2", "4", "6", "8", "10"}));
  EXPECT_EQ(labels(make_axis(-1, 1, false, 5)), (std::vector<std::string>{"\u22121.0", "\u22120.5", "0", "0.5", "1.0"}));
  EXPECT_EQ(labels(make_axis(0, 2e6, false, 4)), (std::vector<std::string>{"0", "0.5M", "1.0M", "1.5M", "2.0M"}));
  EXPECT_EQ(labels(make_axis(0, 30e3, false, 3)), (std::vector<std::string>{"0", "10k", "20k", "30k"}));
  EXPECT_EQ(labels(make_axis(0, 4e-5, false, 4)),
            (std::vector<std::string>{"0", "10\u00d710\u207b\u2076", "20\u00d710\u207b\u2076", "30\u00d710\u207b\u2076", "40\u00d710\u207b\u2076"}));
}

TEST(Axis, LogarithmicTicksArePowersOfTen) {
  EXPECT_EQ(labels(make_axis(0.1, 1000, true, 5)), (std::vector<std::string>{"0.1", "1", "10", "100", "1000"}));
  EXPECT_EQ(labels(make_axis(1, 1e6, true, 7)), (std::vector<std::string>{"1", "10", "100", "1000", "10k", "100k", "1M"}));
  EXPECT_EQ(labels(make_axis(1e-6, 1e-3, true, 5)),
            (std::vector<std::string>{"10\u207b\u2076", "10\u207b\u2075", "10\u207b\u2074", "10\u207b\u00b3"}));
  // Less than two decades: 1, 2, 5.
  EXPECT_EQ(labels(make_axis(2, 50, true, 5)), (std::vector<std::string>{"2", "5", "10", "20", "50"}));
  // Many decades: every n-th; and there are minor ticks between neighbours only.
  const Axis wide = make_axis(1e-12, 1e12, true, 6);
  EXPECT_GE(labels(wide).size(), 4u);
  EXPECT_LE(labels(wide).size(), 8u);
  for (const Tick& t : make_axis(1, 100, true, 5).ticks) EXPECT_TRUE(t.value >= 0.8 && t.value <= 125);
  const Axis two = make_axis(1, 1000, true, 5);
  EXPECT_EQ(std::count_if(two.ticks.begin(), two.ticks.end(), [](const Tick& t) { return t.label.empty(); }), 3 * 8 + 2)
      << "2 ... 9 within three decades, and what the margins hold: 0.8 and 0.9";
}

// Whatever the span: a few labels that are told apart, rising, within the axis.
TEST(Axis, HoldsAnySpan) {
  const double ends[] = {-1e200, -3.7e5, -1.0001, -1, -1e-200, 0, 1e-200, 1e-7, 0.9999, 1, 1.0001, 12345, 1e9, 1e200};
  for (const double low : ends)
    for (const double high : ends)
      for (const bool log : {false, true}) {
        if (low > high || (log && low <= 0)) continue;
        SCOPED_TRACE(std::to_string(low) + " to " + std::to_string(high) + (log ? " log" : ""));
        const Axis a = make_axis(low, high, log, 5);
        EXPECT_LT(a.low, a.high);
        EXPECT_TRUE(std::isfinite(a.low) && std::isfinite(a.high));
        EXPECT_TRUE(a.at(low) >= 0 && a.at(high) <= 1) << a.at(low) << " " << a.at(high);
        std::vector<std::string> l = labels(a);
        EXPECT_GE(l.size(), 2u);
        EXPECT_LE(l.size(), 13u);
        for (std::size_t i = 1; i < a.ticks.size(); ++i) EXPECT_LT(a.ticks[i - 1].value, a.ticks[i].value);
        for (const Tick& t : a.ticks) EXPECT_TRUE(t.value >= a.low * (a.low > 0 ? 0.999999 : 1.000001) - 1e-300 && a.at(t.value) < 1.000001);
        std::sort(l.begin(), l.end());
        EXPECT_EQ(std::unique(l.begin(), l.end()), l.end());
      }
}

Plot sample_plot() {
  Plot p{.title = "Error < 1 & \"falling\"", .x_label = "steps", .y_label = "error", .log_x = true, .log_y = true};
  p.series.push_back({.name = "first order", .xs = {10, 20, 40}, .ys = {1e-1, 5e-2, 2.5e-2}});
  p.series.push_back({.name = "second <order>", .xs = {10, 20, 40}, .ys = {1e-2, 2.5e-3, 6e-4}, .errors = {1e-3, 3e-3, 0}});
  return p;
}

TEST(SvgPlot, IsWellFormedAndTheSameEveryTime) {
  const std::string svg = svg_plot(sample_plot());
  EXPECT_EQ(fault_in_markup(svg), "") << svg;
  EXPECT_EQ(svg, svg_plot(sample_plot()));
  EXPECT_NE(svg.find("Error &lt; 1 &amp; &quot;falling&quot;"), std::string::npos);
  EXPECT_NE(svg.find("second &lt;order&gt;"), std::string::npos);
  EXPECT_EQ(svg.find("not shown"), std::string::npos);
  for (const char* word : {"nan", "inf", "http://", "script"})
    EXPECT_EQ(count(svg, word), std::string(word) == "http://" ? 1u : 0u) << word;  // the name space
  Plot direct = sample_plot();
  direct.direct_labels = true;
  EXPECT_EQ(fault_in_markup(svg_plot(direct)), "");
  EXPECT_EQ(count(svg_plot(direct), "class=\"name s"), 2u);
}

TEST(SvgPlot, PutsPointsInTheirPlaces) {
  Plot p{.series = {{.name = "a", .xs = {0, 5, 10}, .ys = {0, 5, 10}, .markers = false}}};
  const std::string svg = svg_plot(p);
  const std::size_t at = svg.find("class=\"line s0\" d=\"M", svg.find("</text>"));
  // A straight line: the middle point is half way. The legend's key comes first and has no "L".
  double x[3], y[3];
  std::size_t line = at;
  while (line != svg.npos && svg.substr(line, svg.find('>', line) - line).find('L') == std::string::npos)
    line = svg.find("class=\"line s0\" d=\"M", line + 1);
  ASSERT_NE(line, svg.npos);
  ASSERT_EQ(std::sscanf(svg.c_str() + line + std::strlen("class=\"line s0\" d=\""), "M%lf %lfL%lf %lfL%lf %lf", x, y, x + 1, y + 1, x + 2, y + 2), 6);
  EXPECT_NEAR(x[1], (x[0] + x[2]) / 2, 0.011);  // two decimals
  EXPECT_NEAR(y[1], (y[0] + y[2]) / 2, 0.011);
  EXPECT_LT(x[0], x[2]);
  EXPECT_GT(y[0], y[2]) << "upwards";
  EXPECT_TRUE(x[0] > 0 && x[2] < p.width && y[2] > 0 && y[0] < p.height);
}

// A band is one closed shape a stretch without gaps: along the upper ends, back along the lower ones.
TEST(SvgPlot, BandsFollowTheErrors) {
  const auto path_of = [](const Plot& p) {
    const std::string svg = svg_plot(p);
    const std::size_t at = svg.find("class=\"band s0\" d=\"");
    if (at == std::string::npos) return std::string();
    const std::size_t from = svg.find("d=\"", at) + 3;
    return svg.substr(from, svg.find('"', from) - from);
  };
  Plot p{.series = {{.name = "a", .xs = {0, 1, 2, 3}, .ys = {1, 2, nan, 4}, .errors = {0.5, 0, 1, 1}, .band = true}}};
  const std::string d = path_of(p);
  EXPECT_EQ(std::count(d.begin(), d.end(), 'M'), 2);  // before the gap and after it
  EXPECT_EQ(std::count(d.begin(), d.end(), 'z'), 2);
  EXPECT_EQ(std::count(d.begin(), d.end(), 'L'), 3 + 1);  // two upper ends are an M and an L, and two lower ones
  EXPECT_EQ(svg_plot(p).find("h6M"), std::string::npos);  // no bars
  p.series[0].band = false;
  EXPECT_EQ(path_of(p), "");
  EXPECT_NE(svg_plot(p).find("h6M"), std::string::npos);
}

TEST(SvgPlot, HoldsWhateverTheDataAre) {
  const std::vector<std::vector<double>> data{{}, {1}, {0}, {nan}, {inf, -inf}, {1, nan, 2, 3}, {-1, 0, 1}, {1e-308, 1e308}, {7, 7, 7},
                                              {1, std::nextafter(1.0, 2.0)}, {5e-324}, {-1e200, 1e200}};
  for (const auto& xs : data)
    for (const auto& ys : data)
      for (const bool log : {false, true}) {
        if (xs.size() != ys.size()) continue;
        Plot p{.title = "t", .log_x = log, .log_y = log, .series = {{.name = "s", .xs = xs, .ys = ys}, {}}};
        for (const bool direct : {false, true}) {
          p.direct_labels = direct;
          const std::string svg = svg_plot(p);
          EXPECT_EQ(fault_in_markup(svg), "") << svg;
          EXPECT_EQ(count(svg, "nan") + count(svg, "inf"), 0u) << svg;
          EXPECT_LT(svg.size(), 20000u);
        }
      }
  EXPECT_NE(svg_plot({}).find("no data"), std::string::npos);
  const Plot p{.log_y = true, .series = {{.name = "", .xs = {1, 2, 3, 4}, .ys = {1, 0, -1, nan}}}};
  EXPECT_NE(svg_plot(p).find("3 points are not shown: not finite, or not positive on a logarithmic axis"), std::string::npos);
  // More series than colours are told apart by dashes.
  Plot many;
  for (int i = 0; i < 9; ++i) many.series.push_back({.name = "s" + std::to_string(i), .xs = {0, 1}, .ys = {0.0, 1.0 + i}});
  EXPECT_EQ(count(svg_plot(many), "stroke-dasharray"), 4u);  // two lines and their keys
  // A gap: two pieces.
  // A break is no point that is missing.
  EXPECT_EQ(svg_plot({.series = {{.name = "", .xs = {0, nan, 2}, .ys = {1, nan, 3}}}}).find("not shown"), std::string::npos);
  const std::string gap = svg_plot({.series = {{.name = "", .xs = {0, 1, 2, 3, 4}, .ys = {1, 2, nan, 2, 1}, .markers = false}}});
  const std::size_t line = gap.find("class=\"line s0\" d=\"");
  EXPECT_EQ(count(gap.substr(line, gap.find('>', line) - line), "M"), 2u);
}

TEST(SvgPlot, RefusesInWords) {
  expect_refused("plot 'p': series 's' has 2 xs and 1 ys", [] { svg_plot({.title = "p", .series = {{.name = "s", .xs = {1, 2}, .ys = {1}}}}); });
  expect_refused("1 errors for 2 points", [] { svg_plot({.series = {{.name = "s", .xs = {1, 2}, .ys = {1, 2}, .errors = {1}}}}); });
  expect_refused("has the error -1", [] { svg_plot({.series = {{.name = "s", .xs = {1}, .ys = {1}, .errors = {-1}}}}); });
  expect_refused("expected 200 to 10000", [] { svg_plot({.width = nan}); });
}

Report sample_report() {
  Report r{.title = "Costs & <benefits>", .summary = "What \"it\" takes.", .facts = {{"seed", "0"}, {"threads", "2"}}, .sections = {}};
  Table t{.caption = "All methods", .columns = {{"method"}, {"bytes", Best::lowest}, {"accuracy", Best::highest}, {"note"}}, .rows = {}};
  t.rows.push_back({"stored", {2e6, "1.9 MiB"}, 0.5, "<b>"});
  t.rows.push_back({"lean", {1e6, "1.0 MiB"}, nan, ""});
  t.rows.push_back({"again", {1e6, "1.0 MiB"}, 0.25, ""});
  r.sections = {{"Memory", {"First <i>things</i>.", t, Figure{sample_plot(), "Error & steps"}}}, {"", {"No heading."}}};
  return r;
}

TEST(Html, IsWellFormedAndSelfContained) {
  std::string page = html(sample_report());
  EXPECT_EQ(page, html(sample_report()));
  EXPECT_EQ(fault_in_markup(page), "") << page;
  for (const char* word : {"<script", "src=", "@import", "url(", "https:"}) EXPECT_EQ(page.find(word), std::string::npos) << word;
  EXPECT_NE(page.find("Costs &amp; &lt;benefits&gt;"), std::string::npos);
  EXPECT_NE(page.find("First &lt;i&gt;things&lt;/i&gt;."), std::string::npos);
  EXPECT_NE(page.find("<b>Table 1.</b> All methods"), std::string::npos);
  EXPECT_NE(page.find("<b>Figure 1.</b> Error &amp; steps"), std::string::npos);
  EXPECT_EQ(count(page, "<nav"), 0u);
  Report longer = sample_report();
  for (int i = 0; i < 4; ++i) longer.sections.push_back({"More", {}});
  EXPECT_EQ(count(html(longer), "<nav"), 1u);
  EXPECT_EQ(fault_in_markup(html(longer)), "");
  EXPECT_EQ(fault_in_markup(html({})), "");
}

TEST(Html, TablesSetNumbersToTheRightAndMarkTheBest) {
  const std::string page = html(sample_report());
  // Two equal bytes are both the best, and one accuracy; a number that is not finite is none.
  EXPECT_EQ(count(page, "<td class=\"number best\">1.0 MiB</td>"), 2u);
  EXPECT_EQ(count(page, "<td class=\"number best\">0.5</td>"), 1u);
  EXPECT_EQ(count(page, "<td class=\"number\">\u2013</td>"), 1u);
  EXPECT_EQ(count(page, "best\""), 3u);
  EXPECT_EQ(count(page, "<th scope=\"col\" class=\"number\">"), 2u);
  EXPECT_EQ(count(page, "<td>&lt;b&gt;</td>"), 1u);
  Report ragged = sample_report();
  std::get<Table>(ragged.sections[0].blocks[1]).rows[2].pop_back();
  expect_refused("row 2 of the table 'All methods' has 3 cells for 4 columns", [&] { html(ragged); });
}

TEST(Html, FilesAreWrittenWholeOrNotAtAll) {
  const Folder folder;
  save_html(folder / "report.html", sample_report());
  EXPECT_EQ(contents(folder / "report.html"), html(sample_report()));
  save_svg_plot(folder / "plot.svg", sample_plot());
  EXPECT_EQ(contents(folder / "plot.svg"), svg_plot(sample_plot()));
  Report wrong = sample_report();
  std::get<Figure>(wrong.sections[0].blocks[2]).plot.series[0].xs.pop_back();
  EXPECT_THROW(save_html(folder / "report.html", wrong), Error);
  EXPECT_EQ(contents(folder / "report.html"), html(sample_report()));
  EXPECT_THROW(save_svg_plot(folder / "none/plot.svg", sample_plot()), Error);
}

}  // namespace
}  // namespace costate::cli::report
