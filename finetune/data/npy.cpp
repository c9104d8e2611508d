#include <costate/finetune/data/npy.h>
#include <costate/tensor/error.h>
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

namespace costate::data {
namespace {

constexpr std::size_t max_header = 65536, max_rank = 32;

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

// The three Python literals that a header is made of: strings, booleans, tuples of whole numbers.
class Literal {
 public:
  Literal(std::string_view text, std::string_view what) : text_(text), what_(what) {}

  [[noreturn]] void wrong(std::string_view expected) {
    fail(Fault::data,
         {what_, ": the NPY header is not what NumPy writes: at its character ", at_, " ", expected,
          " was expected, found ",
          at_ < text_.size() ? "'" + std::string(1, printable(text_[at_])) + "'" : std::string("its end")});
  }
  bool accept(char c) {
    blanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) wrong("'" + std::string(1, c) + "'");
  }
  std::string_view string() {
    blanks();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) wrong("a quoted string");
    const std::size_t begin = at_ + 1, end = text_.find(text_[at_], begin);
    if (end == std::string_view::npos) at_ = text_.size(), wrong("a closing quote");
    const std::string_view out = text_.substr(begin, end - begin);
    if (out.find('\\') != std::string_view::npos) wrong("a string without escapes");
    at_ = end + 1;
    return out;
  }
  bool boolean() {
    blanks();
    for (const std::string_view word : {"True", "False"})
      if (text_.substr(at_, word.size()) == word) return at_ += word.size(), word == "True";
    wrong("True or False");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> out;
    expect('(');
    bool comma = true;
    while (!accept(')')) {
      if (!comma) wrong("',' or ')'");
      out.push_back(whole());
      if (out.size() > max_rank) wrong("an array of at most 32 axes");
      comma = accept(',');
      if (!comma && out.size() == 1) wrong("',' (a bracketed number is no tuple)");
    }
    return out;
  }
  bool is_next(char c) {
    blanks();
    return at_ < text_.size() && text_[at_] == c;
  }
  void end() {
    blanks();
    if (at_ != text_.size()) wrong("nothing but the padding");
  }

 private:
  static char printable(char c) { return c >= ' ' && c <= '~' ? c : '?'; }
  void blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  std::int64_t whole() {
    blanks();
    std::int64_t v = 0;
    const std::size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const int digit = text_[at_] - '0';
      if (v > (std::numeric_limits<std::int64_t>::max() - digit) / 10) wrong("an extent below 2^63");
      v = 10 * v + digit;
    }
    if (at_ == begin) wrong("an extent, a whole number that is not negative,");
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote long integers so.
    return v;
  }
  std::string_view text_, what_;
  std::size_t at_ = 0;
};

Element element_of(std::string_view descr, std::string_view what) {
  struct Known {
    std::string_view descr;
    Element element;
  };
  constexpr Known known[] = {{"<f2", Element::f16},    {"<f4", Element::f32}, {"<f8", Element::f64},
                             {"<i4", Element::i32},    {"<i8", Element::i64}, {"|u1", Element::u8},
                             {"|b1", Element::boolean}};
  for (const Known& k : known)
    if (k.descr == descr) return k.element;
  const std::string_view why = descr.starts_with('>')                      ? " (big-endian)"
                               : descr.find('O') != std::string_view::npos ? " (Python objects)"
                                                                           : "";
  fail(Fault::data, {what, " holds elements of type '", descr.substr(0, 32), "'", why,
                     ", but only <f2 <f4 <f8 <i4 <i8 |u1 |b1 are read"});
}

void parse_header(std::string_view text, std::string_view what, NpyArray& out) {
  Literal in(text, what);
  std::optional<std::string_view> descr;
  std::optional<bool> fortran;
  std::optional<std::vector<std::int64_t>> shape;
  in.expect('{');
  bool comma = true;
  while (!in.accept('}')) {
    if (!comma) in.wrong("',' or '}'");
    const std::string_view key = in.string();
    in.expect(':');
    if (key == "descr" && !descr) {
      if (in.is_next('['))
        fail(Fault::data,
             {what, " holds records of several fields, but only arrays of plain numbers are read"});
      descr = in.string();
    } else if (key == "fortran_order" && !fortran) {
      fortran = in.boolean();
    } else if (key == "shape" && !shape) {
      shape = in.tuple();
    } else {
      fail(Fault::data, {what, ": the NPY header has a second or unknown key '", key.substr(0, 64),
                         "', but it must have descr, fortran_order and shape once each"});
    }
    comma = in.accept(',');
  }
  in.end();
  if (!descr || !fortran || !shape)
    fail(Fault::data, {what, ": the NPY header lacks the key ",
                       !descr     ? "descr"
                       : !fortran ? "fortran_order"
                                  : "shape"});
  out.element = element_of(*descr, what);
  out.fortran_order = *fortran;
  out.shape = std::move(*shape);
}

template <class T>
std::vector<std::byte> write(std::span<const T> values, std::span<const std::int64_t> shape,
                             std::string_view descr) {
  const auto count = element_count(shape);
  require(count && *count == static_cast<std::int64_t>(values.size()), "npy_bytes: ", values.size(),
          " values do not fill the shape ", shape_text(shape));
  require(shape.size() <= max_rank, "npy_bytes: an array has at most ", max_rank, " axes, got ",
          shape.size());
  std::string dict =
      "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': " + shape_text(shape) + ", }";
  // NumPy leaves room for the first extent to grow to 21 digits in place, then pads magic, version, length,
  // dict and line feed to a multiple of 64 bytes, by at least one space.
  if (!shape.empty()) dict.append(21 - std::to_string(shape[0]).size(), ' ');
  dict.append(64 - (10 + dict.size() + 1) % 64, ' ');
  dict += '\n';
  std::vector<std::byte> out(10 + dict.size() + values.size() * sizeof(T));
  const unsigned char prefix[10] = {0x93,
                                    'N',
                                    'U',
                                    'M',
                                    'P',
                                    'Y',
                                    1,
                                    0,
                                    static_cast<unsigned char>(dict.size() & 255),
                                    static_cast<unsigned char>(dict.size() >> 8)};
  std::memcpy(out.data(), prefix, 10);
  std::memcpy(out.data() + 10, dict.data(), dict.size());
  static_assert(std::endian::native == std::endian::little, "elements are written as they lie in memory");
  if (!values.empty()) std::memcpy(out.data() + 10 + dict.size(), values.data(), values.size() * sizeof(T));
  return out;
}

}  // namespace

NpyArray parse_npy(std::span<const std::byte> bytes, std::string_view what) {
  const auto at = [&](std::size_t i) { return std::to_integer<std::size_t>(bytes[i]); };
  constexpr unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (bytes.size() < 10 || std::memcmp(bytes.data(), magic, 6) != 0)
    fail(Fault::data, {what, bytes.size() < 10 ? " is shorter than the 10 bytes that begin an NPY file"
                                               : " does not begin with the bytes 93 'NUMPY' of an NPY file"});
  const std::size_t major = at(6), minor = at(7);
  if (major < 1 || major > 3 || minor != 0)
    fail(Fault::data,
         {what, " is an NPY file of version ", major, ".", minor, ", but only 1.0, 2.0 and 3.0 are read"});
  const std::size_t prefix = major == 1 ? 10 : 12;
  if (bytes.size() < prefix) fail(Fault::data, {what, " ends within the length of its NPY header"});
  const std::size_t length =
      major == 1 ? at(8) | at(9) << 8 : at(8) | at(9) << 8 | at(10) << 16 | at(11) << 24;
  if (length > max_header)
    fail(Fault::data,
         {what, " announces an NPY header of ", length, " bytes, but at most ", max_header, " are read"});
  if (bytes.size() - prefix < length)
    fail(Fault::data, {what, " announces an NPY header of ", length, " bytes, but only ",
                       bytes.size() - prefix, " follow"});
  NpyArray out;
  parse_header({reinterpret_cast<const char*>(bytes.data()) + prefix, length}, what, out);
  const std::int64_t held = static_cast<std::int64_t>(bytes.size() - prefix - length),
                     width = size_of(out.element);
  const auto count = element_count(out.shape);
  if (!count || *count > std::numeric_limits<std::int64_t>::max() / width)
    fail(Fault::data, {what, ": the announced shape ", shape_text(out.shape),
                       " has more elements than 63 bits can count"});
  if (*count * width != held)
    fail(Fault::data, {what, " announces the shape ", shape_text(out.shape), " of ", name(out.element),
                       ", which is ", *count * width, " bytes, but ", held, " bytes follow its header"});
  out.elements = bytes.subspan(prefix + length);
  return out;
}

template <class T>
std::vector<T> npy_values(const NpyArray& array, std::string_view what) {
  std::vector<T> stored = convert<T>(array.elements, array.element, std::endian::little, what);
  const std::size_t rank = array.shape.size();
  if (!array.fortran_order || rank < 2 || stored.empty()) return stored;
  // Element (i_0, ..., i_r) lies at sum_a i_a stride_a with stride_0 = 1, stride_a = stride_(a-1)
  // extent_(a-1).
  std::vector<std::int64_t> stride(rank, 1), index(rank, 0);
  for (std::size_t a = 1; a < rank; ++a) stride[a] = stride[a - 1] * array.shape[a - 1];
  std::vector<T> out(stored.size());
  std::int64_t from = 0;
  for (T& v : out) {
    v = stored[static_cast<std::size_t>(from)];
    for (std::size_t a = rank; a-- > 0;) {
      from += stride[a];
      if (++index[a] < array.shape[a]) break;
      from -= stride[a] * array.shape[a];
      index[a] = 0;
    }
  }
  return out;
}

template std::vector<float> npy_values<float>(const NpyArray&, std::string_view);
template std::vector<double> npy_values<double>(const NpyArray&, std::string_view);
template std::vector<std::int32_t> npy_values<std::int32_t>(const NpyArray&, std::string_view);
template std::vector<std::int64_t> npy_values<std::int64_t>(const NpyArray&, std::string_view);

std::vector<std::byte> npy_bytes(std::span<const float> values, std::span<const std::int64_t> shape) {
  return write(values, shape, "<f4");
}
std::vector<std::byte> npy_bytes(std::span<const double> values, std::span<const std::int64_t> shape) {
  return write(values, shape, "<f8");
}
std::vector<std::byte> npy_bytes(std::span<const std::int32_t> values, std::span<const std::int64_t> shape) {
  return write(values, shape, "<i4");
}

}  // namespace costate::data
