#include "report/html.h"

#include <costate/tensor/error.h>
#include <costate/tensor/file.h>

#include <cmath>

#include "report/markup.h"
#include "run/metrics.h"

namespace costate::cli::report {
namespace {

// Colours by role. Plots have theirs as attributes, which the rules below replace where the page is dark.
constexpr const char* style = R"(
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1a1a1a; --soft: #4a4a4a; --muted: #6e6e6e; --line: #dedede; --band: #f6f7f8;
  --best: #e3f1ea; --best-ink: #00563f; --accent: #0072b2; }
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #16181b; --ink: #ececec; --soft: #c4c7ca; --muted: #969a9e; --line: #34383d; --band: #1d2024;
  --best: #12382c; --best-ink: #7fe0b8; --accent: #6cb8ea; }
  svg.plot .paper { fill: var(--paper); } svg.plot .marker { stroke: var(--paper); }
  svg.plot .title { fill: var(--ink); } svg.plot .label { fill: var(--soft); } svg.plot .tick { fill: var(--soft); }
  svg.plot .muted { fill: var(--muted); } svg.plot .grid { stroke: #2b2f34; } svg.plot .axis { stroke: #6e7378; }
  svg.plot .line.s0 { stroke: #4ba3dc; } svg.plot .marker.s0, svg.plot .name.s0, svg.plot .band.s0 { fill: #4ba3dc; }
  svg.plot .line.s1 { stroke: #f08242; } svg.plot .marker.s1, svg.plot .name.s1, svg.plot .band.s1 { fill: #f08242; }
  svg.plot .line.s2 { stroke: #2fc498; } svg.plot .marker.s2, svg.plot .name.s2, svg.plot .band.s2 { fill: #2fc498; }
  svg.plot .line.s3 { stroke: #dd98bf; } svg.plot .marker.s3, svg.plot .name.s3, svg.plot .band.s3 { fill: #dd98bf; }
  svg.plot .line.s4 { stroke: #f0b94a; } svg.plot .marker.s4, svg.plot .name.s4, svg.plot .band.s4 { fill: #f0b94a; }
  svg.plot .line.s5 { stroke: #8fd0f5; } svg.plot .marker.s5, svg.plot .name.s5, svg.plot .band.s5 { fill: #8fd0f5; }
  svg.plot .line.s6 { stroke: #a5a9ad; } svg.plot .marker.s6, svg.plot .name.s6, svg.plot .band.s6 { fill: #a5a9ad; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1, dd, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 0.6rem; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.8rem 0 0.8rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
p { margin: 0.8rem 0; max-width: 44rem; }
.summary { font-size: 1.2rem; color: var(--soft); margin: 0 0 1.4rem; }
dl { display: flex; flex-wrap: wrap; gap: 0.7rem 2.4rem; margin: 1.4rem 0 0; padding: 0.9rem 1.1rem; background: var(--band);
  border-radius: 6px; }
dt { font-size: 0.8rem; color: var(--muted); } dd { margin: 0; font-variant-numeric: tabular-nums; }
nav { margin: 1.6rem 0 0; } nav ol { margin: 0; padding-left: 1.4rem; } a { color: var(--accent); }
figure { margin: 1.8rem 0; }
.scroll { overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; }
pre { margin: 0; padding: 0.9rem 1.1rem; max-height: 32rem; overflow: auto; background: var(--band); border-radius: 6px;
  font: 0.82rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
svg.plot { display: block; width: 100%; height: auto; }
caption, figcaption { font-size: 0.92rem; line-height: 1.45; color: var(--soft); text-align: left; }
caption { padding: 0 0 0.6rem; } figcaption { margin-top: 0.6rem; }
caption b, figcaption b { color: var(--ink); }
table { border-collapse: collapse; font-size: 0.95rem; min-width: 60%; }
th, td { padding: 0.42rem 0.85rem; text-align: left; vertical-align: baseline; }
th { font-weight: 600; font-size: 0.86rem; color: var(--soft); border-bottom: 1.5px solid var(--ink); }
tbody tr { border-bottom: 1px solid var(--line); } tbody tr:last-child { border-bottom: 1.5px solid var(--ink); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.best { background: var(--best); color: var(--best-ink); font-weight: 700; }
@page { margin: 18mm; }
@media print { :root { font-size: 9.5pt; } main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } thead { display: table-header-group; } nav { display: none; }
  .scroll, pre { overflow: visible; } pre { max-height: none; white-space: pre-wrap; } .best, dl { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)";

bool is_number(const Table& t, std::size_t column) {
  bool any = false;
  for (const auto& row : t.rows) {
    if (!row[column].value && !row[column].text.empty()) return false;
    any = any || row[column].value;
  }
  return any;
}

// The number that is highlighted in a column.
std::optional<double> best_of(const Table& t, std::size_t column) {
  std::optional<double> best;
  if (t.columns[column].best == Best::none) return best;
  for (const auto& row : t.rows) {
    const std::optional<double>& v = row[column].value;
    if (!v || !std::isfinite(*v)) continue;
    if (!best || (t.columns[column].best == Best::lowest ? *v < *best : *v > *best)) best = v;
  }
  return best;
}

// "<b>Table 1.</b> words"
std::string numbered(const char* kind, int n, const std::string& caption) {
  return "<b>" + std::string(kind) + " " + std::to_string(n) + ".</b>" + (caption.empty() ? "" : " " + escaped(caption));
}

std::string table_html(const Table& t, int n) {
  for (std::size_t i = 0; i < t.rows.size(); ++i)
    require(t.rows[i].size() == t.columns.size(), "report: row ", i, " of the table '", t.caption, "' has ", t.rows[i].size(),
            " cells for ", t.columns.size(), " columns");
  std::string out = "<figure><div class=\"scroll\"><table>\n<caption>" + numbered("Table", n, t.caption) + "</caption>\n<thead><tr>";
  std::vector<bool> numbers;
  std::vector<std::optional<double>> best;
  for (std::size_t c = 0; c < t.columns.size(); ++c) {
    numbers.push_back(is_number(t, c));
    best.push_back(best_of(t, c));
    out += std::string("<th scope=\"col\"") + (numbers[c] ? " class=\"number\"" : "") + ">" + escaped(t.columns[c].name) + "</th>";
  }
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : t.rows) {
    out += "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) {
      const bool is_best = best[c] && row[c].value == best[c];
      const std::string kind = std::string(numbers[c] ? "number" : "") + (numbers[c] && is_best ? " " : "") + (is_best ? "best" : "");
      out += "<td" + (kind.empty() ? "" : " class=\"" + kind + "\"") + ">" + escaped(row[c].text) + "</td>";
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></figure>\n";
}

// RFC 4648, section 4.
std::string base64(const std::vector<std::byte>& bytes) {
  static constexpr char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto at = [&](std::size_t k) { return k < bytes.size() ? std::to_integer<unsigned>(bytes[k]) : 0u; };
    const unsigned word = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? digit[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string figcaption(const char* kind, int n, const std::string& caption) {
  return "<figcaption>" + numbered(kind, n, caption) + "</figcaption>";
}

std::string picture_html(const Picture& p, int n) {
  return "<figure>\n<img alt=\"" + escaped(p.caption) + "\" width=\"" + std::to_string(p.width) + "\" height=\"" +
         std::to_string(p.height) + "\" src=\"data:image/png;base64," + base64(p.png) + "\"/>" + figcaption("Figure", n, p.caption) +
         "</figure>\n";
}

}  // namespace

Cell::Cell(double number) : text(std::isfinite(number) ? short_number(number) : "\u2013"), value(number) {}

std::string html(const Report& r) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>" +
      escaped(r.title) + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<main>\n<h1>" + escaped(r.title) + "</h1>\n";
  if (!r.summary.empty()) out += "<p class=\"summary\">" + escaped(r.summary) + "</p>\n";
  if (!r.facts.empty()) {
    out += "<dl>";
    for (const auto& [name, value] : r.facts)
      out += "<div><dt>" + escaped(name) + "</dt><dd>" + escaped(value) + "</dd></div>";
    out += "</dl>\n";
  }
  std::string contents;
  int headings = 0;
  for (std::size_t i = 0; i < r.sections.size(); ++i)
    if (!r.sections[i].heading.empty()) {
      contents += "<li><a href=\"#section-" + std::to_string(i + 1) + "\">" + escaped(r.sections[i].heading) + "</a></li>\n";
      ++headings;
    }
  if (headings > 3) out += "<nav aria-label=\"Contents\"><ol>\n" + contents + "</ol></nav>\n";
  int tables = 0, figures = 0;
  for (std::size_t i = 0; i < r.sections.size(); ++i) {
    const Section& s = r.sections[i];
    out += "<section id=\"section-" + std::to_string(i + 1) + "\">\n";
    if (!s.heading.empty()) out += "<h2>" + escaped(s.heading) + "</h2>\n";
    for (const Block& b : s.blocks) {
      if (const auto* words = std::get_if<std::string>(&b))
        out += "<p>" + escaped(*words) + "</p>\n";
      else if (const auto* table = std::get_if<Table>(&b))
        out += table_html(*table, ++tables);
      else if (const auto* figure = std::get_if<Figure>(&b))
        out += "<figure>\n" + svg_plot(figure->plot) + figcaption("Figure", ++figures, figure->caption) + "</figure>\n";
      else if (const auto* picture = std::get_if<Picture>(&b))
        out += picture_html(*picture, ++figures);
      else if (const auto* listing = std::get_if<Listing>(&b))
        out += "<figure>\n<pre tabindex=\"0\">" + escaped(listing->text) + "</pre><figcaption>" + escaped(listing->caption) +
               "</figcaption></figure>\n";
    }
    out += "</section>\n";
  }
  return out + "</main>\n</body>\n</html>\n";
}

void save_html(const std::string& path, const Report& report) {
  write_file_atomically(path, std::string_view(html(report)));
}

}  // namespace costate::cli::report
