#include "run/csv_columns.h"

#include <costate/finetune/data/file.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace costate::cli {
namespace {

std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> cells;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    cells.emplace_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return cells;
}

}  // namespace

CsvColumns::CsvColumns(std::string_view text, std::string what) : what_(std::move(what)) {
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::vector<std::string> cells = split(text.substr(begin, end - begin));
    begin = end + 1, ++number;
    if (head_.empty()) {
      head_ = std::move(cells);
      continue;
    }
    if (cells.size() != head_.size())
      fail(Fault::data, {what_, ": line ", number, " has ", cells.size(), " cells, but the head has ", head_.size()});
    cells_.push_back(std::move(cells));
  }
}

bool CsvColumns::has(std::string_view column) const { return std::find(head_.begin(), head_.end(), column) != head_.end(); }

std::size_t CsvColumns::index(std::string_view column) const {
  const auto at = std::find(head_.begin(), head_.end(), column);
  if (at == head_.end()) fail(Fault::data, {what_, ": there is no column '", column, "'"});
  return static_cast<std::size_t>(at - head_.begin());
}

const std::string& CsvColumns::text(std::string_view column, std::size_t row) const { return cells_[row][index(column)]; }

double CsvColumns::number(std::string_view column, std::size_t row) const {
  const std::string& cell = text(column, row);
  if (cell.empty()) return std::numeric_limits<double>::quiet_NaN();
  double v = 0;
  const auto [end, reason] = std::from_chars(cell.data(), cell.data() + cell.size(), v);
  if (reason != std::errc() || end != cell.data() + cell.size())
    fail(Fault::data, {what_, ": '", cell, "' in column '", column, "' is not a number"});
  return v;
}

CsvColumns read_csv_columns(const std::string& path) {
  const auto bytes = data::read_file(path);
  return CsvColumns(data::as_text(bytes), "'" + path + "'");
}

}  // namespace costate::cli
