#include "fuzz/parsers.h"

#include <costate/finetune/data/csv.h>
#include <costate/finetune/data/idx.h>
#include <costate/finetune/data/npy.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <costate/tensor/safetensors_set.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>

#include "config/read.h"
#include "gzip.h"
#include "image/png.h"
#include "pretrained/state.h"

namespace costate::fuzz {
namespace {

using Input = std::span<const std::byte>;

void must(bool holds, const char* what) {
  if (!holds) throw Finding(what);
}

void check_sentence(const Error& e) {
  const std::string_view s = e.what();
  must(e.fault() == Fault::data || e.fault() == Fault::argument, "the fault is neither data nor argument");
  must(!s.empty() && s.size() <= longest_sentence, "the sentence is empty or too long");
  must(utf8::find_invalid(s) == std::string_view::npos, "the sentence is not UTF-8");
  must(std::none_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }),
       "the sentence has a control character");
}

// What `read` returns, or nothing when it refuses.
template <class Read>
auto accepted(const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Error& e) {
    check_sentence(e);
    return std::nullopt;
  }
}
// Of inputs that were accepted before: a refusal is a finding.
template <class Read>
auto read_again(const Read& read, const char* what) {
  auto result = accepted(read);
  must(result.has_value(), what);
  return *std::move(result);
}
Outcome outcome(bool is_accepted) { return is_accepted ? Outcome::accepted : Outcome::refused; }

bool same_bits(std::span<const double> a, std::span<const double> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

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

// No file outside the folder is ever named.
Outcome shard_index(Input input) {
  const auto index = accepted([&] { return cli::shard_index(cli::parse_json_object(as_text(input), "input"), "input"); });
  if (!index) return Outcome::refused;
  for (const auto& [tensor, file] : index->map)
    must(file.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos && file.ends_with(".safetensors"),
         "a file outside the folder is named");
  return Outcome::accepted;
}

Outcome json(Input input) {
  const auto value = accepted([&] { return cli::parse_json(as_text(input), "input"); });
  if (!value) return Outcome::refused;
  const std::string text = value->dump();
  must(read_again([&] { return cli::parse_json(text, "input"); }, "what was written is refused") == *value, "the value changed");
  return Outcome::accepted;
}

// The resolved configuration is a configuration, and its own resolution.
Outcome resolved(std::string_view text, const std::vector<std::string>& settings) {
  const auto read = accepted([&] { return cli::read_config_text(text, "input", settings); });
  if (!read) return Outcome::refused;
  const std::string written = cli::to_json(read->config).dump();
  const auto again =
      read_again([&] { return cli::read_config_text(written, "input", {}); }, "the resolved configuration is refused");
  must(cli::to_json(again.config).dump() == written, "the resolved configuration resolves to another");
  return Outcome::accepted;
}
Outcome config(Input input) { return resolved(as_text(input), {}); }

// One --set a line.
Outcome set(Input input) {
  std::vector<std::string> settings;
  const std::string_view text = as_text(input);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    settings.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return resolved("{}", settings);
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

// Rounded to eight bits, written and read back: the same picture.
Outcome png(Input input) {
  const cli::PngLimits limits{.max_side = 1024, .max_pixels = 1 << 12};
  const auto picture = accepted([&] { return cli::read_png(input, cli::PngColour::as_stored, limits, "input"); });
  accepted([&] { return cli::read_png(input, cli::PngColour::grey, limits, "input"); });
  if (!picture) return Outcome::refused;
  must(picture->pixels.size() == static_cast<std::size_t>(picture->height * picture->width * picture->channels),
       "the picture is not full");
  cli::Raster raster{picture->height, picture->width, picture->channels, {}};
  for (const float v : picture->pixels) {
    must(v >= 0 && v <= 1, "a pixel is not in [0, 1]");
    raster.pixels.push_back(static_cast<std::uint8_t>(std::lround(v * 255)));
  }
  const std::vector<std::byte> written = cli::png_bytes(raster);
  const auto again = read_again([&] { return cli::read_png(written, cli::PngColour::as_stored, limits, "input"); },
                                "what was written is refused");
  must(again.pixels.size() == raster.pixels.size(), "the size changed");
  for (std::size_t i = 0; i < raster.pixels.size(); ++i)
    must(std::lround(again.pixels[i] * 255) == raster.pixels[i], "a pixel changed");
  return Outcome::accepted;
}

Outcome gzip(Input input) {
  constexpr std::uint64_t limit = 1 << 14;
  const auto unpacked = accepted([&] { return cli::gunzip(input, limit, "input"); });
  must(!unpacked || (cli::is_gzip(input) && unpacked->size() <= limit), "more was unpacked than allowed");
  return outcome(unpacked.has_value());
}

constexpr Parser all[] = {{"safetensors", safetensors}, {"shard_index", shard_index}, {"json", json}, {"config", config},
                          {"set", set},                 {"npy", npy},                 {"idx", idx},   {"csv", csv},
                          {"png", png},                 {"gzip", gzip}};

}  // namespace

std::span<const Parser> parsers() { return all; }

}  // namespace costate::fuzz
