#include <costate/finetune/data/idx.h>
#include <costate/tensor/error.h>
#include <algorithm>
#include <string>

namespace costate::data {
namespace {

constexpr std::size_t max_rank = 8;

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + ")";
}

}  // namespace

IdxArray parse_idx(std::span<const std::byte> bytes, std::string_view what) {
  const auto at = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
  if (bytes.size() < 4)
    fail(Fault::data,
         {what, " holds ", bytes.size(), " bytes, but an IDX file begins with a header of at least 4"});
  if (at(0) != 0 || at(1) != 0)
    fail(Fault::data,
         {what, " begins with the bytes ", at(0), ", ", at(1), ", but an IDX file begins with 0, 0",
          at(0) == 0x1f && at(1) == 0x8b ? " (these are the first bytes of a gzip file)" : ""});
  IdxArray out;
  switch (at(2)) {
    case 0x08:
      out.element = Element::u8;
      break;
    case 0x09:
      out.element = Element::i8;
      break;
    case 0x0b:
      out.element = Element::i16;
      break;
    case 0x0c:
      out.element = Element::i32;
      break;
    case 0x0d:
      out.element = Element::f32;
      break;
    case 0x0e:
      out.element = Element::f64;
      break;
    default:
      fail(Fault::data, {what, ": IDX type ", at(2),
                         " is none of 8 (u8), 9 (i8), 11 (i16), 12 (i32), 13 (f32), 14 (f64)"});
  }
  const std::size_t rank = at(3), header = 4 + 4 * rank;
  if (rank == 0 || rank > max_rank)
    fail(Fault::data,
         {what, " announces ", rank, " axes, but an IDX array read here has between 1 and ", max_rank});
  if (bytes.size() < header)
    fail(Fault::data, {what, " holds ", bytes.size(), " bytes and ends within its header of ", header});
  for (std::size_t a = 0; a < rank; ++a) {
    const std::size_t p = 4 + 4 * a;
    out.shape.push_back(at(p) << 24 | at(p + 1) << 16 | at(p + 2) << 8 | at(p + 3));
  }
  const std::int64_t held = static_cast<std::int64_t>(bytes.size() - header), width = size_of(out.element);
  const auto count = element_count(out.shape);
  if (!count || *count > INT64_MAX / width)
    fail(Fault::data, {what, ": the announced shape ", shape_text(out.shape),
                       " has more elements than 63 bits can count"});
  if (*count * width != held)
    fail(Fault::data, {what, " announces the shape ", shape_text(out.shape), " of ", name(out.element),
                       ", which is ", *count * width, " bytes, but ", held, " bytes follow its header"});
  out.elements = bytes.subspan(header);
  return out;
}

Dataset idx_images(std::span<const std::byte> images, std::string_view images_name,
                   std::span<const std::byte> labels, std::string_view labels_name) {
  const IdxArray pixels = parse_idx(images, images_name);
  if (pixels.element != Element::u8 || pixels.shape.size() != 3)
    fail(Fault::data, {images_name, " holds ", name(pixels.element), " of shape ", shape_text(pixels.shape),
                       ", but images are u8 of three axes: count, height, width",
                       pixels.shape.size() == 1 ? " (this looks like a file of labels)" : ""});
  Dataset out;
  out.count = pixels.shape[0];
  out.item_shape = {pixels.shape[1], pixels.shape[2], 1};
  out.description = std::string(images_name);
  out.values = convert<float>(pixels.elements, pixels.element, std::endian::big, images_name);
  for (float& v : out.values) v /= 255.0f;
  out.scale = 255.0;
  if (!labels.empty()) {
    const IdxArray classes = parse_idx(labels, labels_name);
    if (classes.element != Element::u8 || classes.shape.size() != 1)
      fail(Fault::data, {labels_name, " holds ", name(classes.element), " of shape ",
                         shape_text(classes.shape), ", but labels are u8 of one axis"});
    if (classes.shape[0] != out.count)
      fail(Fault::data, {labels_name, " holds ", classes.shape[0], " labels, but ", images_name, " holds ",
                         out.count, " images"});
    out.labels = convert<std::int32_t>(classes.elements, classes.element, std::endian::big, labels_name);
    if (!out.labels.empty()) out.classes = 1 + *std::max_element(out.labels.begin(), out.labels.end());
  }
  check(out);
  return out;
}

}  // namespace costate::data
