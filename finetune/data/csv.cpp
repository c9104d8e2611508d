#include <costate/finetune/data/csv.h>
#include <costate/finetune/data/elements.h>
#include <costate/tensor/error.h>
#include <algorithm>
#include <charconv>
#include <cmath>

namespace costate::data {
namespace {

struct Field {
  std::string_view text;  // between the quotes when quoted, else without blanks around
  bool quoted = false;
  bool doubled = false;  // holds doubled quotes
  std::int64_t line = 0;
};

std::string_view trimmed(std::string_view s) {
  const std::size_t a = s.find_first_not_of(" \t"), b = s.find_last_not_of(" \t");
  return a == std::string_view::npos ? std::string_view{} : s.substr(a, b - a + 1);
}

// A field for a sentence: short, and without characters that would break a line.
std::string shown(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, 40)) out += c >= ' ' && c != 127 ? c : '?';
  return "'" + out + (s.size() > 40 ? "...' (" + std::to_string(s.size()) + " characters)" : "'");
}

class Records {
 public:
  Records(std::string_view text, const CsvOptions& options, std::string_view what)
      : text_(text), options_(options), what_(what) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }

  // The fields of the next record, or false at the end.
  bool next(std::vector<Field>& fields) {
    fields.clear();
    for (;;) {  // lines without a record
      if (at_ >= text_.size()) return false;
      const std::size_t end = std::min(text_.find('\n', at_), text_.size());
      const bool comment = options_.comment != '\0' && text_[at_] == options_.comment;
      std::string_view line = text_.substr(at_, end - at_);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!comment && !trimmed(line).empty()) break;
      at_ = end + 1, ++line_;
    }
    while (field(fields)) {
    }
    return true;
  }

  [[noreturn]] void wrong(std::int64_t line, std::size_t column, std::string_view found) const {
    fail(Fault::data, {what_, ", line ", line, ", column ", column, ": ", found});
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  void blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t') &&
           text_[at_] != options_.delimiter)
      ++at_;
  }

  // Reads one field and what ends it; false when that was the end of the record.
  bool field(std::vector<Field>& fields) {
    const std::size_t column = fields.size() + 1;
    Field out;
    out.line = line_;
    blanks();
    if (peek() == '"') {
      out.quoted = true;
      const std::size_t begin = ++at_;
      for (;; ++at_) {
        if (at_ >= text_.size()) wrong(out.line, column, "the quoted field that begins here is never closed");
        if (text_[at_] == '\n') ++line_;
        if (text_[at_] != '"') continue;
        if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') break;
        out.doubled = true, ++at_;
      }
      out.text = text_.substr(begin, at_ - begin);
      ++at_;
      blanks();
      if (peek() == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n') ++at_;
      if (peek() != options_.delimiter && peek() != '\n')
        wrong(line_, column,
              "after a closing quote the delimiter or the end of the line was expected, found " +
                  shown(text_.substr(at_, 1)));
    } else {
      const char stops[] = {options_.delimiter, '\n', '"'};
      const std::size_t begin = at_;
      at_ = std::min(text_.find_first_of(std::string_view(stops, 3), at_), text_.size());
      if (at_ < text_.size() && text_[at_] == '"')
        wrong(line_, column,
              "a quote within a field that does not begin with one; such a field is quoted as a whole, "
              "with inner quotes doubled");
      std::string_view raw = text_.substr(begin, at_ - begin);
      if (peek() == '\n' && raw.ends_with('\r')) raw.remove_suffix(1);
      out.text = trimmed(raw);
    }
    fields.push_back(out);
    const bool more = at_ < text_.size() && text_[at_] == options_.delimiter;
    if (!more) ++line_;
    ++at_;
    return more;
  }

  std::string_view text_;
  const CsvOptions& options_;
  std::string_view what_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
};

enum class Number { finite, not_finite, out_of_range, none };

Number number(std::string_view text, double& value) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  const auto [end, reason] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end != text.data() + text.size() || reason == std::errc::invalid_argument)
    return Number::none;
  if (reason == std::errc::result_out_of_range) return Number::out_of_range;
  return std::isfinite(value) ? Number::finite : Number::not_finite;
}

std::string unquoted(const Field& f) {
  if (!f.doubled) return std::string(f.text);
  std::string out;
  for (std::size_t i = 0; i < f.text.size(); ++i) {
    out += f.text[i];
    if (f.text[i] == '"') ++i;
  }
  return out;
}

}  // namespace

CsvTable parse_csv(std::string_view text, const CsvOptions& options, std::string_view what) {
  const char d = options.delimiter;
  require(d != '\0' && d != '\n' && d != '\r' && d != '"' && d != options.comment && d != '.' && d != '-' &&
              d != '+' && !(d >= '0' && d <= '9'),
          "parse_csv: the delimiter must be none of a digit, a sign, a point, a quote, a line break or the "
          "comment character");
  CsvTable out;
  out.description = std::string(what);
  Records records(text, options, what);
  std::vector<Field> fields;
  bool first = true;
  while (records.next(fields)) {
    if (first) {
      first = false;
      out.columns = static_cast<std::int64_t>(fields.size());
      double ignored;
      const bool header = options.header == CsvHeader::present ||
                          (options.header == CsvHeader::automatic &&
                           std::none_of(fields.begin(), fields.end(), [&](const Field& f) {
                             return f.text.empty() || number(f.text, ignored) != Number::none;
                           }));
      if (header) {
        for (const Field& f : fields) out.names.push_back(unquoted(f));
        continue;
      }
    }
    if (static_cast<std::int64_t>(fields.size()) != out.columns)
      fail(Fault::data, {what, ", line ", fields[0].line, ": ", fields.size(),
                         " fields, but the first record has ", out.columns});
    for (std::size_t c = 0; c < fields.size(); ++c) {
      double value = 0;
      const Number kind = number(fields[c].text, value);
      if (kind != Number::finite)
        records.wrong(fields[c].line, c + 1,
                      shown(fields[c].text) + (kind == Number::none         ? " is not a number"
                                               : kind == Number::not_finite ? " is not a finite number"
                                                                            : " lies outside the range of "
                                                                              "double precision"));
      out.values.push_back(value);
    }
    out.lines.push_back(fields[0].line);
    ++out.rows;
  }
  if (out.rows == 0) fail(Fault::data, {what, " holds no row of numbers"});
  return out;
}

std::int64_t csv_column(const CsvTable& table, std::string_view word) {
  const auto named = std::find(table.names.begin(), table.names.end(), word);
  if (named != table.names.end()) return named - table.names.begin();
  if (word == "last") return table.columns - 1;
  std::int64_t index = -1;
  const auto [end, reason] = std::from_chars(word.data(), word.data() + word.size(), index);
  if (reason == std::errc{} && end == word.data() + word.size() && index >= 0 && index < table.columns)
    return index;
  const std::string near = nearest_of(word, table.names);
  fail(Fault::argument,
       {table.description, " has no column ", shown(word), ": expected ",
        table.names.empty() ? "" : "a name of its header, ", "a number 0 ... ", table.columns - 1,
        " or 'last'", near.empty() ? "" : "; did you mean '" + near + "'?"});
}

Dataset csv_dataset(const CsvTable& table, std::int64_t label_column, std::vector<std::int64_t> item_shape) {
  require(label_column < table.columns, "csv_dataset: label column ", label_column, " does not exist in ",
          table.description, ", which has ", table.columns);
  const bool labelled = label_column >= 0;
  const std::int64_t left = table.columns - labelled;
  if (item_shape.empty()) item_shape = {left};
  const auto size = element_count(item_shape);
  if (left == 0) fail(Fault::data, {table.description, " has no column besides the label"});
  if (!size || *size != left)
    fail(Fault::data,
         {table.description, " has ", left, " columns for each item, but the item shape asked for holds ",
          size ? std::to_string(*size) : std::string("too many"), " values"});
  Dataset out;
  out.count = table.rows, out.item_shape = std::move(item_shape), out.description = table.description;
  out.values.reserve(static_cast<std::size_t>(table.rows * left));
  for (std::int64_t r = 0; r < table.rows; ++r)
    for (std::int64_t c = 0; c < table.columns; ++c) {
      const double v = table.values[static_cast<std::size_t>(r * table.columns + c)];
      const auto where = [&] {
        return table.description + ", line " + std::to_string(table.lines[static_cast<std::size_t>(r)]) +
               ", column " + std::to_string(c + 1);
      };
      if (c == label_column) {
        if (!(v >= 0 && v <= 65535) || v != std::floor(v))
          fail(Fault::data, {where(), ": the label ", v, " is not a whole number 0 ... 65535"});
        out.labels.push_back(static_cast<std::int32_t>(v));
        out.classes = std::max(out.classes, static_cast<int>(v) + 1);
      } else {
        if (std::abs(v) > 3.4028234663852886e38)
          fail(Fault::data, {where(), ": ", v, " lies outside the range of single precision"});
        out.values.push_back(static_cast<float>(v));
      }
    }
  check(out);
  return out;
}

}  // namespace costate::data
