// JPEG files: only written, and in memory.
#pragma once
#include "image/png.h"

namespace costate::cli {

// Baseline JPEG as libjpeg writes it: accurate integer transform, colour subsampled 2 x 2, the standard Huffman tables. The
// same raster gives the same bytes with the same libjpeg. Throws Fault::argument unless quality is 1 ... 100 and the raster
// is 1 ... 65500 pixels a side with 1 or 3 channels.
std::vector<std::byte> jpeg_bytes(const Raster& raster, int quality);

}  // namespace costate::cli
