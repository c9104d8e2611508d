#include <costate/tensor/error.h>
#include <costate/tensor/safetensors_header.h>
#include <costate/tensor/utf8.h>
#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

namespace costate {
namespace {

using utf8::quoted;

struct TypeRow {
  std::string_view name;
  int bits;
};
constexpr std::array<TypeRow, safetensors_type_count> types = {{
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};

std::string list(std::span<const std::uint64_t> shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s.append(i ? ", " : "").append(std::to_string(shape[i]));
  return s + "]";
}

// The tokens of the header. No recursion: nesting is what the grammar allows, three levels.
class Reader {
 public:
  Reader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  [[noreturn]] void reject(const Piece& what) const {
    fail(Fault::data, {where_, ": header byte ", static_cast<unsigned long long>(at_), ": ", what});
  }
  [[noreturn]] void expected(std::string_view what) const {
    if (at_ >= text_.size()) reject(sentence({what, " was expected, but the header ends"}));
    const auto c = static_cast<unsigned char>(text_[at_]);
    if (c >= 0x20 && c < 0x7F) reject(sentence({what, " was expected, found '", text_[at_], "'"}));
    reject(sentence({what, " was expected, found byte ", static_cast<unsigned>(c)}));
  }

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c, std::string_view what) {
    if (!accept(c)) expected(what);
  }
  bool at_end() {
    skip_space();
    return at_ == text_.size();
  }
  void expect_end() {
    if (!at_end()) expected("nothing but padding");
  }

  // "key": -> key
  std::string key(std::string_view what) {
    std::string k = string(what);
    expect(':', "':' after a key");
    return k;
  }

  std::string string(std::string_view what) {
    if (!accept('"')) expected(what);
    std::string s;
    for (;;) {
      const std::size_t from = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20)
        ++at_;
      s.append(text_.substr(from, at_ - from));
      if (at_ >= text_.size()) expected("the closing '\"' of a string");
      if (text_[at_] == '"') {
        ++at_;
        return s;
      }
      if (text_[at_] != '\\') reject("a control character must be written as an escape in a string");
      ++at_;
      escape(s);
    }
  }

  // A non-negative integer of digits alone that fits 64 bits.
  std::uint64_t integer(std::string_view what) {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '-')
      reject(std::string(what) + " is negative; non-negative integers are expected");
    if (at_ >= text_.size() || !digit(text_[at_]))
      expected("a non-negative integer for " + std::string(what));
    if (text_[at_] == '0' && at_ + 1 < text_.size() && digit(text_[at_ + 1]))
      reject(std::string(what) + " begins with a zero");
    std::uint64_t value = 0;
    for (; at_ < text_.size() && digit(text_[at_]); ++at_)
      if (__builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
          __builtin_add_overflow(value, static_cast<std::uint64_t>(text_[at_] - '0'), &value))
        reject(std::string(what) + " does not fit 64 bits");
    if (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E'))
      reject(std::string(what) + " is not an integer; digits alone are expected");
    return value;
  }

  // [ integer, ... ], at most `most` of them.
  std::vector<std::uint64_t> integers(std::string_view what, std::size_t most) {
    std::vector<std::uint64_t> v;
    expect('[', "'[' of " + std::string(what));
    if (accept(']')) return v;
    do {
      if (v.size() == most) reject(std::string(what) + " has more than " + std::to_string(most) + " numbers");
      v.push_back(integer(what));
    } while (accept(','));
    expect(']', "',' or ']' in " + std::string(what));
    return v;
  }

 private:
  static bool digit(char c) { return c >= '0' && c <= '9'; }

  void escape(std::string& s) {
    static constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (const std::size_t i = letters.find(c); i != std::string_view::npos && c != '\0') {
      s.push_back(meanings[i]);
      ++at_;
      return;
    }
    if (c != 'u') expected("an escape of JSON");
    ++at_;
    std::uint32_t code = four_digits();
    if (code >= 0xDC00 && code < 0xE000) reject("the second half of a surrogate pair stands alone");
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") reject("the first half of a surrogate pair stands alone");
      at_ += 2;
      const std::uint32_t low = four_digits();
      if (low < 0xDC00 || low >= 0xE000) reject("the first half of a surrogate pair stands alone");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    utf8::append(s, code);
  }
  std::uint32_t four_digits() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (digit(c))
        code = code * 16 + static_cast<std::uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f')
        code = code * 16 + static_cast<std::uint32_t>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F')
        code = code * 16 + static_cast<std::uint32_t>(c - 'A' + 10);
      else
        expected("a hexadecimal digit");
    }
    return code;
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
};

SafetensorsMetadata read_metadata(Reader& r) {
  SafetensorsMetadata metadata;
  r.expect('{', "'{' of \"__metadata__\"");
  if (r.accept('}')) return metadata;
  do {
    std::string key = r.key("a metadata key");
    std::string value = r.string("a string as metadata value");
    const auto [it, added] = metadata.emplace(std::move(key), std::move(value));
    if (!added) r.reject("the metadata key " + quoted(it->first) + " occurs twice");
  } while (r.accept(','));
  r.expect('}', "',' or '}' in \"__metadata__\"");
  return metadata;
}

SafetensorsEntry read_entry(Reader& r, std::string name) {
  SafetensorsEntry e;
  e.name = std::move(name);
  bool seen[3] = {};
  static constexpr const char* keys[3] = {"dtype", "shape", "data_offsets"};
  const std::string of = " of tensor " + quoted(e.name);
  r.expect('{', "'{'" + of);
  if (!r.accept('}')) {
    do {
      const std::string key = r.key("a key" + of);
      const auto which = std::find(std::begin(keys), std::end(keys), key) - std::begin(keys);
      if (which == 3) r.reject("unknown key " + quoted(key) + of + "; expected dtype, shape, data_offsets");
      if (seen[which]) r.reject("the key " + quoted(key) + of + " occurs twice");
      seen[which] = true;
      if (which == 0) {
        const std::string dtype = r.string("a string for the dtype" + of);
        const auto row =
            std::find_if(types.begin(), types.end(), [&](const TypeRow& t) { return t.name == dtype; });
        if (row == types.end()) r.reject("unknown dtype " + quoted(dtype) + of);
        e.type = static_cast<SafetensorsType>(row - types.begin());
      } else if (which == 1) {
        e.shape = r.integers("the shape" + of, safetensors_max_rank);
      } else {
        const auto offsets = r.integers("the data_offsets" + of, 2);
        if (offsets.size() != 2) r.reject("the data_offsets" + of + " are not exactly two numbers");
        e.begin = offsets[0], e.end = offsets[1];
      }
    } while (r.accept(','));
    r.expect('}', "',' or '}'" + of);
  }
  for (int i = 0; i < 3; ++i)
    if (!seen[i]) r.reject(std::string("the key '") + keys[i] + "'" + of + " is missing");
  return e;
}

// Duplicates would otherwise surface as a hole or an overlap between tensors, which misleads (safetensors
// issue 401).
void check_unique(const std::vector<SafetensorsEntry>& entries, Fault fault, const std::string& where) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const SafetensorsEntry& e : entries) names.push_back(e.name);
  std::sort(names.begin(), names.end());
  if (const auto it = std::adjacent_find(names.begin(), names.end()); it != names.end())
    fail(fault, {where, ": the tensor name ", quoted(*it), " occurs twice"});
}

enum class Size : std::uint8_t { fits, overflows, misaligned };

// The number of elements times bits, in bytes.
Size size_of(const SafetensorsEntry& entry, std::uint64_t& bytes) {
  std::uint64_t n = 1;
  for (const std::uint64_t extent : entry.shape)
    if (__builtin_mul_overflow(n, extent, &n)) return Size::overflows;
  if (__builtin_mul_overflow(n, static_cast<std::uint64_t>(bits(entry.type)), &n)) return Size::overflows;
  bytes = n / 8;
  return n % 8 ? Size::misaligned : Size::fits;
}

void check_layout(const SafetensorsHeader& h, std::uint64_t data_bytes, bool lenient_trailing,
                  const std::string& where) {
  std::uint64_t end = 0;
  for (const SafetensorsEntry& e : h.entries) {
    if (e.end < e.begin)
      fail(Fault::data,
           {where, ": tensor ", quoted(e.name), " ends at byte ", e.end, ", before its begin ", e.begin});
    if (e.begin != end)
      fail(Fault::data, {where, ": tensor ", quoted(e.name), " begins at byte ", e.begin,
                         ", but the one before it ends at ", end,
                         e.begin < end ? ": tensors overlap" : ": there is a hole between tensors"});
    end = e.end;
  }
  for (const SafetensorsEntry& e : h.entries) {
    std::uint64_t needed = 0;
    switch (size_of(e, needed)) {
      case Size::fits:
        break;
      case Size::overflows:
        fail(Fault::data, {where, ": the size of tensor ", quoted(e.name), " of shape ", list(e.shape),
                           " overflows 64 bits"});
      case Size::misaligned:
        fail(Fault::data, {where, ": tensor ", quoted(e.name), " of ", name(e.type), " and shape ",
                           list(e.shape), " is not a whole number of bytes"});
    }
    if (needed != e.bytes())
      fail(Fault::data, {where, ": tensor ", quoted(e.name), " of ", name(e.type), " and shape ",
                         list(e.shape), " needs ", needed, " bytes, but its data_offsets span ", e.bytes()});
  }
  if (end > data_bytes)
    fail(Fault::data, {where, ": the file is truncated: tensors need ", end, " bytes, but ", data_bytes,
                       " follow the header"});
  if (end < data_bytes && !lenient_trailing)
    fail(Fault::data,
         {where, ": ", data_bytes - end, " bytes follow the last tensor; a file ends with its last tensor"});
}

void append_quoted(std::string& out, std::string_view s) {
  static constexpr char digit[] = "0123456789abcdef";
  static constexpr std::string_view special = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
  out += '"';
  for (const char c : s) {
    if (const std::size_t i = special.find(c); i != std::string_view::npos) {
      out += {'\\', letters[i]};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += {digit[c >> 4], digit[c & 15]};
    } else {
      out += c;
    }
  }
  out += '"';
}

void check_written_name(const std::string& name) {
  require(name.size() <= safetensors_max_name, "safetensors: the name ", quoted(name), " has ", name.size(),
          " bytes; at most ", safetensors_max_name, " are allowed");
  require(utf8::find_invalid(name) == std::string::npos, "safetensors: the name ", quoted(name),
          " is not UTF-8");
  require(name.find('\0') == std::string::npos, "safetensors: the name ", quoted(name), " holds a zero byte");
  require(name != "__metadata__", "safetensors: a tensor cannot be called '__metadata__'");
}

}  // namespace

std::string_view name(SafetensorsType type) { return types[static_cast<std::size_t>(type)].name; }
int bits(SafetensorsType type) { return types[static_cast<std::size_t>(type)].bits; }

std::uint64_t safetensors_header_length(std::span<const std::byte> first_bytes, std::uint64_t file_bytes,
                                        const std::string& where) {
  if (file_bytes < 8 || first_bytes.size() < 8)
    fail(Fault::data,
         {where, ": ", file_bytes, " bytes are too few; the length of the header alone takes 8"});
  std::uint64_t n = 0;
  for (int i = 7; i >= 0; --i)
    n = n << 8 | std::to_integer<std::uint64_t>(first_bytes[static_cast<std::size_t>(i)]);
  if (n > safetensors_max_header)
    fail(Fault::data, {where, ": the header is too large: it claims ", n, " bytes, and at most ",
                       safetensors_max_header, " are allowed"});
  if (n > file_bytes - 8)
    fail(Fault::data, {where, ": the header claims ", n, " bytes, but ", file_bytes - 8,
                       " follow its length: the file is "
                       "truncated or not a safetensors file"});
  return n;
}

SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes,
                                           bool lenient_trailing, const std::string& where) {
  if (const std::size_t bad = utf8::find_invalid(json); bad != std::string_view::npos)
    fail(Fault::data,
         {where, ": header byte ", static_cast<unsigned long long>(bad), ": the header is not UTF-8"});
  if (json.empty() || json.front() != '{') fail(Fault::data, {where, ": the header must begin with '{'"});
  Reader r(json, where);
  SafetensorsHeader h;
  bool with_metadata = false;
  r.expect('{', "'{'");
  if (!r.accept('}')) {
    do {
      std::string key = r.key("a tensor's name");
      if (key == "__metadata__") {
        if (with_metadata) r.reject("the key '__metadata__' occurs twice");
        with_metadata = true;
        h.metadata = read_metadata(r);
        continue;
      }
      if (key.size() > safetensors_max_name)
        r.reject("the name " + quoted(key) + " has " + std::to_string(key.size()) + " bytes; at most " +
                 std::to_string(safetensors_max_name) + " are allowed");
      if (key.find('\0') != std::string::npos) r.reject("the name " + quoted(key) + " holds a zero byte");
      if (h.entries.size() == safetensors_max_tensors)
        r.reject("there are more than " + std::to_string(safetensors_max_tensors) + " tensors");
      h.entries.push_back(read_entry(r, std::move(key)));
    } while (r.accept(','));
    r.expect('}', "',' or '}' after an entry");
  }
  r.expect_end();
  check_unique(h.entries, Fault::data, where);
  std::sort(h.entries.begin(), h.entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_layout(h, data_bytes, lenient_trailing, where);
  return h;
}

std::string format_safetensors_header(std::span<const SafetensorsEntry> entries,
                                      const SafetensorsMetadata& metadata) {
  require(entries.size() <= safetensors_max_tensors, "safetensors: ", entries.size(), " tensors; at most ",
          safetensors_max_tensors, " are allowed in a file");
  std::string json(8, '\0');  // the place of the length
  json += '{';
  bool first = true;
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      require(utf8::find_invalid(key) == std::string::npos && utf8::find_invalid(value) == std::string::npos,
              "safetensors: the metadata entry ", quoted(key), " is not UTF-8");
      if (!std::exchange(first, false)) json += ',';
      append_quoted(json, key);
      json += ':';
      append_quoted(json, value);
    }
    json += '}';
  }
  first = metadata.empty();
  for (const SafetensorsEntry& e : entries) {
    check_written_name(e.name);
    require(e.shape.size() <= safetensors_max_rank, "safetensors: tensor ", quoted(e.name), " has ",
            e.shape.size(), " axes; at most ", safetensors_max_rank, " are allowed");
    if (!std::exchange(first, false)) json += ',';
    append_quoted(json, e.name);
    json += ":{\"dtype\":\"";
    json += name(e.type);
    json += "\",\"shape\":[";
    for (std::size_t i = 0; i < e.shape.size(); ++i)
      json.append(i ? "," : "").append(std::to_string(e.shape[i]));
    json += "],\"data_offsets\":[" + std::to_string(e.begin) + "," + std::to_string(e.end) + "]}";
  }
  check_unique({entries.begin(), entries.end()}, Fault::argument, "safetensors");
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::uint64_t n = json.size() - 8;
  require(n <= safetensors_max_header, "safetensors: the header would have ", n, " bytes; at most ",
          safetensors_max_header, " are allowed");
  for (std::size_t i = 0; i < 8; ++i, n >>= 8) json[i] = static_cast<char>(n & 0xFF);
  return json;
}

}  // namespace costate
