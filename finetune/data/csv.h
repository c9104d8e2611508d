// Tables of numbers as text, one record a line, fields between delimiters, with the quoting of RFC 4180: a
// field may stand in double quotes, and may then hold delimiters, line breaks and doubled quotes. Comment
// lines and empty lines are skipped, a byte order mark and blanks around a field are ignored, lines end with
// LF or CR LF.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace costate::data {

enum class CsvHeader {
  automatic,  // the first record is a header when none of its fields is a number
  present,
  absent,
};

struct CsvOptions {
  char delimiter = ',';
  char comment = '#';  // lines beginning with it are skipped; '\0': none are
  CsvHeader header = CsvHeader::automatic;
  bool operator==(const CsvOptions&) const = default;
};

struct CsvTable {
  std::vector<std::string> names;  // of the columns; empty without a header
  std::int64_t rows = 0, columns = 0;
  std::vector<double> values;       // (rows, columns)
  std::vector<std::int64_t> lines;  // (rows): the line of the text, from 1, where the row begins
  std::string description;          // `what`
};

// Throws Fault::data, naming `what` and the line and column, for a field that is not a finite number, a wrong
// quote, or a record with more or fewer fields than the first one; also when no row is found.
CsvTable parse_csv(std::string_view text, const CsvOptions& options, std::string_view what);

// The column meant by a word: a name of the header, a number from 0, or "last". Throws Fault::argument, with
// the nearest name, when there is none.
std::int64_t csv_column(const CsvTable& table, std::string_view word);

// The table as a data set: one item a row. label_column, if not negative, holds labels, whole numbers 0 ...
// 65535, and is taken out of the items. item_shape must have as many elements as columns are left; empty:
// (columns left).
Dataset csv_dataset(const CsvTable& table, std::int64_t label_column, std::vector<std::int64_t> item_shape);

}  // namespace costate::data
