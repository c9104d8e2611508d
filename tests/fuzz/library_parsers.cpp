// The parsers of the library: fuzzers of them link with nothing else.
#include <costate/finetune/data/csv.h>
#include <costate/finetune/data/idx.h>
#include <costate/finetune/data/npy.h>
#include <costate/tensor/file.h>
#include <costate/tensor/folder.h>
#include <costate/tensor/safetensors_set.h>

#include <cmath>
#include <cstring>
#include <string>

#include "fuzz/outcome.h"

namespace costate::fuzz {
namespace {

bool same_bits(std::span<const double> a, std::span<const double> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

}  // namespace

// What is read is written as it is and read back: the same names, types, shapes, bytes and metadata.
Outcome safetensors(Input input) {
  const auto file = accepted([&] { return SafetensorsFile(input, {.lenient_trailing = false, .widen_half = true}); });
  const auto lenient = accepted([&] { return SafetensorsFile(input, {.lenient_trailing = true, .widen_half = true}); });
  must(!file || lenient, "accepted strictly, but not leniently");
  if (!lenient) return Outcome::refused;
  const std::vector<SafetensorsEntry>& entries = lenient->entries();
  const std::string header = format_safetensors_header(entries, lenient->metadata());
  std::vector<std::byte> written(as_bytes(header).begin(), as_bytes(header).end());
  std::uint64_t data = 0;
  for (const SafetensorsEntry& e : entries) {
    const std::vector<std::byte> raw = lenient->bytes(e);
    must(e.begin == data && raw.size() == e.bytes(), "tensors do not lie end to end");
    written.insert(written.end(), raw.begin(), raw.end());
    data = e.end;
    if (const auto tensor = accepted([&] { return lenient->tensor(e); })) {
      must(tensor->shape().rank() == static_cast<int>(e.shape.size()), "a tensor has another rank than its entry");
      must(tensor->bytes() >= static_cast<std::int64_t>(e.bytes()), "a tensor has fewer bytes than its entry");
    }
  }
  must(data + lenient->ignored_bytes() <= input.size(), "tensors reach beyond the file");
  const SafetensorsFile again = read_again([&] { return SafetensorsFile(written); }, "what was written is refused");
  must(again.metadata() == lenient->metadata(), "metadata changed");
  must(std::equal(entries.begin(), entries.end(), again.entries().begin(), again.entries().end(),
                  [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                    return a.name == b.name && a.type == b.type && a.shape == b.shape && a.begin == b.begin && a.end == b.end;
                  }),
       "entries changed");
  return outcome(file.has_value());
}

Outcome npy(Input input) {
  const auto array = accepted([&] { return data::parse_npy(input, "input"); });
  if (!array) return Outcome::refused;
  accepted([&] { return data::npy_values<float>(*array, "input"); });
  accepted([&] { return data::npy_values<std::int32_t>(*array, "input"); });
  accepted([&] { return data::npy_values<std::int64_t>(*array, "input"); });
  const auto values = accepted([&] { return data::npy_values<double>(*array, "input"); });
  if (!values) return Outcome::refused;
  const std::vector<std::byte> written = data::npy_bytes(*values, array->shape);
  const auto again = read_again([&] { return data::parse_npy(written, "input"); }, "what was written is refused");
  must(again.shape == array->shape && !again.fortran_order, "the shape changed");
  must(same_bits(data::npy_values<double>(again, "input"), *values), "the values changed");
  return Outcome::accepted;
}

Outcome idx(Input input) {
  const auto array = accepted([&] { return data::parse_idx(input, "input"); });
  if (!array) return Outcome::refused;
  accepted([&] { return data::convert<double>(array->elements, array->element, std::endian::big, "input"); });
  accepted([&] { return data::convert<std::int32_t>(array->elements, array->element, std::endian::big, "input"); });
  if (array->shape.size() == 1) {  // as labels of as many pictures of one pixel
    std::vector<std::byte> pictures(input.begin(), input.begin() + 8);
    pictures[3] = std::byte{3};
    for (int axis = 0; axis < 2; ++axis)
      for (const int digit : {0, 0, 0, 1}) pictures.push_back(static_cast<std::byte>(digit));
    pictures.resize(16 + static_cast<std::size_t>(array->shape[0]));
    accepted([&] { return data::idx_images(pictures, "pictures", input, "input"); });
    return Outcome::accepted;
  }
  const auto set = accepted([&] { return data::idx_images(input, "input", {}, ""); });
  if (set)
    for (const float v : set->values) must(v >= 0 && v <= 1, "a pixel is not in [0, 1]");
  return Outcome::accepted;
}

// The automatic choice of a header is one of the two others.
Outcome csv(Input input) {
  const std::string_view text = as_text(input);
  const auto table = [&](data::CsvHeader header, char delimiter) {
    return accepted([&] { return data::parse_csv(text, {.delimiter = delimiter, .header = header}, "input"); });
  };
  table(data::CsvHeader::automatic, '\t');
  const auto automatic = table(data::CsvHeader::automatic, ','), present = table(data::CsvHeader::present, ','),
             absent = table(data::CsvHeader::absent, ',');
  if (!automatic) return Outcome::refused;
  const auto& chosen = automatic->names.empty() ? absent : present;
  must(chosen.has_value(), "accepted automatically, but not as chosen");
  must(chosen->rows == automatic->rows && chosen->columns == automatic->columns && chosen->names == automatic->names &&
           same_bits(chosen->values, automatic->values),
       "the automatic table is another one");
  must(automatic->values.size() == static_cast<std::size_t>(automatic->rows * automatic->columns), "the table is not full");
  must(std::all_of(automatic->values.begin(), automatic->values.end(), [](double v) { return std::isfinite(v); }),
       "a value is not finite");
  accepted([&] { return data::csv_dataset(*automatic, -1, {}); });
  accepted([&] { return data::csv_dataset(*automatic, data::csv_column(*automatic, "last"), {}); });
  return Outcome::accepted;
}

// There is one way to write a manifest.
Outcome manifest(Input input) {
  const auto files = accepted([&] { return parse_manifest(as_text(input), "input"); });
  if (!files) return Outcome::refused;
  must(format_manifest(*files) == as_text(input), "the manifest is written in another way");
  return Outcome::accepted;
}

}  // namespace costate::fuzz
