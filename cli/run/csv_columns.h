// The tables that runs leave (metrics.csv, curve.csv): a head, then rows of numbers and words without quotes.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace costate::cli {

class CsvColumns {
 public:
  // `what` names the table in sentences. Throws Error(data) when a row has another number of cells than the head.
  CsvColumns(std::string_view text, std::string what);
  std::size_t rows() const { return cells_.size(); }
  bool has(std::string_view column) const;
  // Throws Error(data) where there is no such column.
  const std::string& text(std::string_view column, std::size_t row) const;
  double number(std::string_view column, std::size_t row) const;  // NaN for an empty cell; Error(data) for a word

 private:
  std::size_t index(std::string_view column) const;
  std::string what_;
  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> cells_;
};

CsvColumns read_csv_columns(const std::string& path);

}  // namespace costate::cli
