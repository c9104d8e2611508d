// Reports for people: one HTML file with text, tables and plots in it, without scripts and without anything from elsewhere;
// light or dark as the reader's system is, and fit for printing.
//
//   report::Report r{.title = "Adjoint methods", .sections = {{"Memory", {"What a step keeps.", table, figure}}}};
//   report::save_html("report.html", r);
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "report/svg_plot.h"

namespace costate::cli::report {

// Text, or a number with the text that shows it.
struct Cell {
  std::string text;
  std::optional<double> value;

  Cell() = default;
  Cell(const char* words) : text(words) {}
  Cell(std::string words) : text(std::move(words)) {}
  Cell(double number);  // a few digits; a dash when it is not finite
  Cell(double number, std::string shown) : text(std::move(shown)), value(number) {}
};

// Which finite numbers of a column are highlighted, with all that equal them.
enum class Best : unsigned char { none, lowest, highest };

struct Column {
  std::string name;
  Best best = Best::none;
};

// A column whose cells are numbers, or empty, is set to the right.
struct Table {
  std::string caption{};
  std::vector<Column> columns{};
  std::vector<std::vector<Cell>> rows{};  // a cell a column
};

struct Figure {
  Plot plot{};
  std::string caption{};
};

// A PNG file, inside the page; shown at its own size where there is room, numbered as the figures are.
struct Picture {
  std::vector<std::byte> png{};
  std::int64_t width = 0, height = 0;  // pixels
  std::string caption{};
};

// Lines as they are.
struct Listing {
  std::string text{}, caption{};
};

// A paragraph, or one of these.
using Block = std::variant<std::string, Table, Figure, Picture, Listing>;

struct Section {
  std::string heading{};  // "": none
  std::vector<Block> blocks{};
};

struct Report {
  std::string title{};
  std::string summary{};                                     // a sentence or two under the title
  std::vector<std::pair<std::string, std::string>> facts{};  // name and value: seed, threads, machine
  std::vector<Section> sections{};
};

// The page; well-formed as XML too. Tables and figures are numbered. Throws Error(argument) that names the table when a row has
// another number of cells than there are columns, and for plots as svg_plot does.
std::string html(const Report& report);
void save_html(const std::string& path, const Report& report);

}  // namespace costate::cli::report
