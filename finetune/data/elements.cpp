#include <costate/finetune/data/elements.h>
#include <costate/tensor/error.h>
#include <cmath>
#include <limits>
#include <type_traits>

namespace costate::data {
namespace {

template <class Bits>
Bits bits_at(const std::byte* p, std::endian order) {
  Bits out = 0;
  for (std::size_t i = 0; i < sizeof(Bits); ++i) {
    const std::size_t from = order == std::endian::big ? i : sizeof(Bits) - 1 - i;
    out = static_cast<Bits>(static_cast<std::uint64_t>(out) << 8 | std::to_integer<std::uint64_t>(p[from]));
  }
  return out;
}

// IEEE 754 binary16: sign, 5 exponent bits with bias 15, 10 fraction bits.
double half(std::uint16_t h) {
  const double sign = h >> 15 ? -1.0 : 1.0;
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  if (exponent == 31) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

template <class T>
T narrow(double v, std::size_t i, std::string_view what) {
  if constexpr (std::is_same_v<T, float>) {
    if (std::isfinite(v) && std::abs(v) > static_cast<double>(std::numeric_limits<float>::max()))
      fail(Fault::data, {what, ": element ", i, " is ", v, ", which is beyond the largest float"});
    return static_cast<float>(v);
  } else if constexpr (std::is_same_v<T, double>) {
    return v;
  } else {
    // Both bounds are exact doubles: the upper one is one past the largest integer.
    const double end = std::ldexp(1.0, std::numeric_limits<T>::digits);
    if (!(v >= -end && v < end) || v != std::floor(v))
      fail(Fault::data, {what, ": element ", i, " is ", v, ", but a whole number of ", sizeof(T) * 8,
                         " bits was expected"});
    return static_cast<T>(v);
  }
}

template <class T>
T narrow(std::int64_t v, std::size_t i, std::string_view what) {
  if constexpr (std::is_same_v<T, std::int32_t>)
    if (v < std::numeric_limits<T>::min() || v > std::numeric_limits<T>::max())
      fail(Fault::data, {what, ": element ", i, " is ", v, ", but a whole number of 32 bits was expected"});
  return static_cast<T>(v);
}

template <class T, class Read>
std::vector<T> each(std::span<const std::byte> raw, std::size_t width, std::string_view what, Read read) {
  std::vector<T> out(raw.size() / width);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = narrow<T>(read(raw.data() + i * width), i, what);
  return out;
}

}  // namespace

std::int64_t size_of(Element element) {
  switch (element) {
    case Element::boolean:
    case Element::u8:
    case Element::i8:
      return 1;
    case Element::i16:
    case Element::f16:
      return 2;
    case Element::i32:
    case Element::f32:
      return 4;
    case Element::i64:
    case Element::f64:
      return 8;
  }
  fail(Fault::argument, {"size_of: ", static_cast<int>(element), " is not an element type"});
}

std::string_view name(Element element) {
  constexpr std::string_view names[] = {"boolean", "u8", "i8", "i16", "i32", "i64", "f16", "f32", "f64"};
  return names[static_cast<int>(element)];
}

std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape) {
  std::int64_t n = 1;
  bool zero = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (extent == 0) {
      zero = true;
      continue;
    }
    if (n > std::numeric_limits<std::int64_t>::max() / extent) return std::nullopt;
    n *= extent;
  }
  return zero ? 0 : n;
}

template <class T>
std::vector<T> convert(std::span<const std::byte> raw, Element element, std::endian order,
                       std::string_view what) {
  require(raw.size() % static_cast<std::size_t>(size_of(element)) == 0, what, ": ", raw.size(),
          " bytes are not a whole number of ", name(element), " elements");
  using I = std::int64_t;
  switch (element) {
    case Element::boolean: {
      auto out = each<T>(raw, 1, what, [](const std::byte* p) { return std::to_integer<I>(*p); });
      for (std::size_t i = 0; i < out.size(); ++i)
        if (out[i] != T(0) && out[i] != T(1))
          fail(Fault::data,
               {what, ": element ", i, " is ", std::to_integer<int>(raw[i]), ", but a boolean is 0 or 1"});
      return out;
    }
    case Element::u8:
      return each<T>(raw, 1, what, [](const std::byte* p) { return std::to_integer<I>(*p); });
    case Element::i8:
      return each<T>(raw, 1, what, [](const std::byte* p) { return I{static_cast<std::int8_t>(*p)}; });
    case Element::i16:
      return each<T>(raw, 2, what, [=](const std::byte* p) {
        return I{static_cast<std::int16_t>(bits_at<std::uint16_t>(p, order))};
      });
    case Element::i32:
      return each<T>(raw, 4, what, [=](const std::byte* p) {
        return I{static_cast<std::int32_t>(bits_at<std::uint32_t>(p, order))};
      });
    case Element::i64:
      return each<T>(raw, 8, what,
                     [=](const std::byte* p) { return static_cast<I>(bits_at<std::uint64_t>(p, order)); });
    case Element::f16:
      return each<T>(raw, 2, what,
                     [=](const std::byte* p) { return half(bits_at<std::uint16_t>(p, order)); });
    case Element::f32:
      return each<T>(raw, 4, what, [=](const std::byte* p) {
        return static_cast<double>(std::bit_cast<float>(bits_at<std::uint32_t>(p, order)));
      });
    case Element::f64:
      return each<T>(raw, 8, what, [=](const std::byte* p) {
        return std::bit_cast<double>(bits_at<std::uint64_t>(p, order));
      });
  }
  fail(Fault::argument, {what, ": ", static_cast<int>(element), " is not an element type"});
}

template std::vector<float> convert<float>(std::span<const std::byte>, Element, std::endian,
                                           std::string_view);
template std::vector<double> convert<double>(std::span<const std::byte>, Element, std::endian,
                                             std::string_view);
template std::vector<std::int32_t> convert<std::int32_t>(std::span<const std::byte>, Element, std::endian,
                                                         std::string_view);
template std::vector<std::int64_t> convert<std::int64_t>(std::span<const std::byte>, Element, std::endian,
                                                         std::string_view);

}  // namespace costate::data
