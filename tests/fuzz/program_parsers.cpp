// The parsers of the program.
#include <costate/tensor/file.h>

#include <cmath>
#include <string>
#include <vector>

#include "config/read.h"
#include "fuzz/outcome.h"
#include "gzip.h"
#include "image/png.h"
#include "npz.h"
#include "pretrained/state.h"

namespace costate::fuzz {

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

namespace {
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
}  // namespace

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

// Unpacked, stored in an archive of our own and read again: the same arrays by the same names.
Outcome npz(Input input) {
  constexpr std::uint64_t limit = 1 << 14;
  const auto arrays = accepted([&] {
    std::vector<cli::NpzArray> out;
    for (const cli::NpzMember& m : cli::npz_members(input, "input")) {
      out.push_back({m.name, cli::npz_array(input, m, limit, "input")});
      must(out.back().npy.size() == m.size && m.size <= limit, "more was unpacked than announced or allowed");
      if (out.size() == 64) break;  // members may share their bytes: many large ones fit into few
    }
    return out;
  });
  if (!arrays) return Outcome::refused;
  const auto stored = accepted([&] { return cli::npz_bytes(*arrays); });
  if (!stored) return Outcome::accepted;  // a name of a thousand bytes and more is read and not written
  const auto again =
      read_again([&] { return cli::npz_members(*stored, "input"); }, "what was written is refused");
  must(again.size() == arrays->size(), "the number of arrays changed");
  for (std::size_t i = 0; i < again.size(); ++i)
    must(again[i].name == (*arrays)[i].name && cli::npz_array(*stored, again[i], limit, "input") == (*arrays)[i].npy,
         "an array changed");
  return Outcome::accepted;
}

}  // namespace costate::fuzz
