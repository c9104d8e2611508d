// Rasters, their PNG files, and grids of pictures.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace costate::cli {

// An 8-bit picture: (height, width, channels), channels 1 (grey) or 3 (red, green, blue).
struct Raster {
  std::int64_t height = 0, width = 0;
  int channels = 1;
  std::vector<std::uint8_t> pixels;
};

// A picture as numbers in [0, 1], of the same layout.
struct FloatImage {
  std::int64_t height = 0, width = 0;
  int channels = 1;
  std::vector<float> pixels;
};

// IHDR, one IDAT, IEND: no time, no text, no gamma; every row unfiltered, zlib level 6. The same raster gives
// the same bytes with the same zlib. Throws Fault::argument unless the raster is 1 ... 65535 pixels a side
// with 1 or 3 channels.
std::vector<std::byte> png_bytes(const Raster& raster);

enum class PngColour { as_stored, grey, rgb };

struct PngLimits {
  std::int64_t max_side = 16384;  // pixels
  std::int64_t max_pixels = std::int64_t{1} << 26;
};

// Reads any PNG: palettes and depths of 1, 2, 4 and 16 bits become numbers in [0, 1] as stored, without
// gamma; colour becomes grey by 0.299 R + 0.587 G + 0.114 B; a transparent picture is laid over black.
// as_stored gives 1 channel for grey files and 3 for the others. Throws Fault::data, naming `what` and
// libpng's reason, for a damaged, truncated or oversized file, before memory is taken that the file's own
// length does not warrant.
FloatImage read_png(std::span<const std::byte> bytes, PngColour colour, const PngLimits& limits,
                    std::string_view what);

// Pictures of a batch (count, height, width, channels = 1 or 3) side by side, row by row, `columns` in a row,
// `padding` black pixels around each. Values are mapped from [low, high] to 0 ... 255, rounded to nearest and
// clamped; NaN is drawn as 0. Throws Fault::argument when the sizes disagree.
struct GridOptions {
  std::int64_t columns = 8, padding = 2;
  double low = 0.0, high = 1.0;
  std::int64_t zoom = 1;  // each value becomes zoom x zoom pixels
};
Raster grid(std::span<const float> values, std::int64_t count, std::int64_t height, std::int64_t width,
            int channels, const GridOptions& options);

// Rasters of equal height and channels beside each other, `gap` white columns between.
Raster side_by_side(std::span<const Raster> rasters, std::int64_t gap);

// All *.png files of a folder, sorted by name. Pictures in sub-folders are labelled by their folder (0, 1,
// ... in the order of the folders' names); pictures directly in the folder have no label; a folder with both
// is refused. All pictures must have one size; colour as asked for, as_stored meaning the colour of the
// first. Values in [0, 1].
data::Dataset read_png_folder(const std::string& path, PngColour colour);

}  // namespace costate::cli
