#include "image/png.h"

#include <costate/tensor/error.h>
#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstring>

namespace costate::cli {
namespace {

void put_u32(std::vector<std::byte>& out, std::uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::byte>(v >> shift & 255));
}

void put_chunk(std::vector<std::byte>& out, const char (&type)[5], std::span<const std::byte> payload) {
  put_u32(out, static_cast<std::uint32_t>(payload.size()));
  const std::size_t begin = out.size();
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::byte>(type[i]));
  out.insert(out.end(), payload.begin(), payload.end());
  // The checksum covers type and payload.
  const auto* checked = reinterpret_cast<const Bytef*>(out.data() + begin);
  put_u32(out, static_cast<std::uint32_t>(crc32_z(crc32_z(0, nullptr, 0), checked, out.size() - begin)));
}

// ---- reading. libpng reports errors by longjmp, which must not skip a destructor: the functions between
// setjmp and libpng's calls own nothing, and what they fill belongs to the caller.
struct Source {
  std::span<const std::byte> bytes;
  std::size_t at = 0;
  char reason[160] = "";
};

void on_error(png_structp png, png_const_charp message) {
  auto* source = static_cast<Source*>(png_get_error_ptr(png));
  std::strncpy(source->reason, message, sizeof source->reason - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, std::size_t n) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (source->bytes.size() - source->at < n) png_error(png, "the file ends too early");
  std::memcpy(out, source->bytes.data() + source->at, n);
  source->at += n;
}

struct Header {
  png_uint_32 width = 0, height = 0;
  int depth = 0, channels = 0;
  bool colour = false;
  std::size_t stored_row_bytes = 0, row_bytes = 0;  // as in the file, and after expansion
};

bool read_header(png_structp png, png_infop info, Source* source, const PngLimits& limits, Header* header) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_read_fn(png, source, on_read);
  const auto side = static_cast<png_uint_32>(std::clamp<std::int64_t>(limits.max_side, 1, 0x7fffffff));
  png_set_user_limits(png, side, side);
  png_set_chunk_cache_max(png, 64);
  png_set_chunk_malloc_max(png, 1 << 20);
  // Only pixels, palette and transparency matter; other chunks are not even kept.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
  png_read_info(png, info);
  header->colour = (png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR) != 0;
  header->stored_row_bytes = png_get_rowbytes(png, info);
  png_set_expand(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  header->width = png_get_image_width(png, info), header->height = png_get_image_height(png, info);
  header->depth = png_get_bit_depth(png, info), header->channels = png_get_channels(png, info);
  header->row_bytes = png_get_rowbytes(png, info);
  return true;
}

bool read_pixels(png_structp png, png_infop info, png_bytep* rows) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_read_image(png, rows);
  png_read_end(png, info);
  return true;
}

// Chunks that fit into the file: libpng takes memory for what a chunk announces before it looks for it.
void check_chunks(std::span<const std::byte> bytes, std::string_view what) {
  for (std::size_t at = 8; at < bytes.size();) {
    const std::size_t left = bytes.size() - at;
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < std::min<std::size_t>(left, 4); ++i) length = length << 8 | std::to_integer<std::uint64_t>(bytes[at + i]);
    if (left < 12 || length > left - 12)  // length, type and checksum
      fail(Fault::data, {what, " is not a readable PNG file: the file ends too early"});
    if (std::memcmp(bytes.data() + at + 4, "IEND", 4) == 0) return;
    at += 12 + static_cast<std::size_t>(length);
  }
}

struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  explicit Reader(Source* source)
      : png(png_create_read_struct(PNG_LIBPNG_VER_STRING, source, on_error, on_warning)) {
    if (png) info = png_create_info_struct(png);
    if (!info) {
      png_destroy_read_struct(&png, nullptr, nullptr);
      fail(Fault::memory, {"libpng could not be started: not enough memory"});
    }
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
};

}  // namespace

std::vector<std::byte> png_bytes(const Raster& r) {
  require(r.height >= 1 && r.width >= 1 && r.height <= 65535 && r.width <= 65535,
          "png_bytes: a picture has 1 ... 65535 pixels a side, got ", r.width, " x ", r.height);
  require(r.channels == 1 || r.channels == 3, "png_bytes: a picture has 1 or 3 channels, got ", r.channels);
  require(static_cast<std::int64_t>(r.pixels.size()) == r.height * r.width * r.channels,
          "png_bytes: ", r.pixels.size(), " bytes do not fill ", r.width, " x ", r.height, " pixels of ",
          r.channels, " channels");
  const std::size_t row = static_cast<std::size_t>(r.width * r.channels);
  std::vector<std::uint8_t> scanlines;  // each begins with its filter type, 0 for none
  scanlines.reserve((row + 1) * static_cast<std::size_t>(r.height));
  for (std::int64_t y = 0; y < r.height; ++y) {
    scanlines.push_back(0);
    const auto begin = r.pixels.begin() + y * static_cast<std::int64_t>(row);
    scanlines.insert(scanlines.end(), begin, begin + static_cast<std::int64_t>(row));
  }
  uLongf size = compressBound(static_cast<uLong>(scanlines.size()));
  std::vector<std::byte> packed(size);
  const int status = compress2(reinterpret_cast<Bytef*>(packed.data()), &size, scanlines.data(),
                               static_cast<uLong>(scanlines.size()), 6);
  if (status != Z_OK)
    fail(Fault::memory, {"png_bytes: zlib could not compress the picture (status ", status, ")"});
  require(size <= 0x7fffffff, "png_bytes: the compressed picture of ", size,
          " bytes does not fit into one PNG chunk");
  packed.resize(size);

  std::vector<std::byte> out, header;
  for (const int b : {0x89, 'P' + 0, 'N' + 0, 'G' + 0, 13, 10, 26, 10})
    out.push_back(static_cast<std::byte>(b));
  put_u32(header, static_cast<std::uint32_t>(r.width));
  put_u32(header, static_cast<std::uint32_t>(r.height));
  for (const int b : {8, r.channels == 3 ? 2 : 0, 0, 0, 0}) header.push_back(static_cast<std::byte>(b));
  put_chunk(out, "IHDR", header);
  put_chunk(out, "IDAT", packed);
  put_chunk(out, "IEND", {});
  return out;
}

FloatImage read_png(std::span<const std::byte> bytes, PngColour colour, const PngLimits& limits,
                    std::string_view what) {
  if (bytes.size() < 8 || png_sig_cmp(reinterpret_cast<png_const_bytep>(bytes.data()), 0, 8) != 0)
    fail(Fault::data, {what, " does not begin with the eight bytes of a PNG file"});
  check_chunks(bytes, what);
  Source source;
  source.bytes = bytes;
  Reader reader(&source);
  Header h;
  const auto damaged = [&] {
    fail(Fault::data, {what, " is not a readable PNG file: ", std::string_view(source.reason)});
  };
  if (!read_header(reader.png, reader.info, &source, limits, &h)) damaged();
  const std::int64_t width = h.width, height = h.height, pixels = width * height;
  if (pixels > limits.max_pixels)
    fail(Fault::data, {what, " announces ", width, " x ", height, " pixels, but at most ", limits.max_pixels,
                       " are read"});
  // Deflate packs at most 1032 bytes into one, so a file that announces more pixels than that is lying.
  if (static_cast<std::uint64_t>(h.stored_row_bytes) * h.height / 1032 > bytes.size())
    fail(Fault::data,
         {what, " announces ", width, " x ", height, " pixels, which ", bytes.size(), " bytes cannot hold"});
  std::vector<std::uint8_t> raw(h.row_bytes * h.height);
  std::vector<png_bytep> rows(h.height);
  for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = raw.data() + y * h.row_bytes;
  if (!read_pixels(reader.png, reader.info, rows.data())) damaged();

  FloatImage out;
  out.width = width, out.height = height;
  out.channels = colour == PngColour::grey || (colour == PngColour::as_stored && !h.colour) ? 1 : 3;
  out.pixels.resize(static_cast<std::size_t>(pixels * out.channels));
  const int step = h.depth / 8;
  const bool rgb = h.channels >= 3, alpha = h.channels % 2 == 0;
  for (std::int64_t i = 0; i < pixels; ++i) {
    const std::uint8_t* p = raw.data() + i * h.channels * step;
    const auto sample = [&](int c) {
      return step == 1 ? p[c] / 255.0f : static_cast<float>(p[2 * c] << 8 | p[2 * c + 1]) / 65535.0f;
    };
    const float cover = alpha ? sample(h.channels - 1) : 1.0f;
    float* q = out.pixels.data() + i * out.channels;
    if (out.channels == 1)
      q[0] = cover * (rgb ? 0.299f * sample(0) + 0.587f * sample(1) + 0.114f * sample(2) : sample(0));
    else
      for (int c = 0; c < 3; ++c) q[c] = cover * sample(rgb ? c : 0);
  }
  return out;
}

Raster grid(std::span<const float> values, std::int64_t count, std::int64_t height, std::int64_t width,
            int channels, const GridOptions& o) {
  require(count > 0 && height > 0 && width > 0 && (channels == 1 || channels == 3),
          "grid: needs pictures of 1 or 3 channels, got ", count, " of ", height, " x ", width, " x ",
          channels);
  require(height <= 65535 && width <= 65535 && count <= 1 << 24 &&
              static_cast<std::int64_t>(values.size()) == count * height * width * channels,
          "grid: ", values.size(), " values do not fill ", count, " pictures of ", height, " x ", width,
          " x ", channels);
  require(o.columns > 0 && o.columns <= 65535 && o.padding >= 0 && o.padding <= 1024 && o.zoom > 0 &&
              o.zoom <= 256 && o.low < o.high,
          "grid: columns must be positive, padding 0 ... 1024, zoom 1 ... 256, and low < high");
  const std::int64_t columns = std::min(o.columns, count), rows = (count + columns - 1) / columns;
  const std::int64_t cell_w = width * o.zoom + o.padding, cell_h = height * o.zoom + o.padding;
  Raster out;
  out.channels = channels, out.width = columns * cell_w + o.padding, out.height = rows * cell_h + o.padding;
  require(out.width <= 65535 && out.height <= 65535, "grid: ", columns, " x ", rows, " pictures make ",
          out.width, " x ", out.height, " pixels, but a side has at most 65535");
  out.pixels.assign(static_cast<std::size_t>(out.width * out.height * channels), 0);
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t left = o.padding + n % columns * cell_w, top = o.padding + n / columns * cell_h;
    for (std::int64_t y = 0; y < height * o.zoom; ++y)
      for (std::int64_t x = 0; x < width * o.zoom; ++x)
        for (int c = 0; c < channels; ++c) {
          const float v = values[static_cast<std::size_t>(
              ((n * height + y / o.zoom) * width + x / o.zoom) * channels + c)];
          const double level = std::floor((v - o.low) / (o.high - o.low) * 255.0 + 0.5);
          out.pixels[static_cast<std::size_t>(((top + y) * out.width + left + x) * channels + c)] =
              level > 0 ? static_cast<std::uint8_t>(std::min(level, 255.0)) : std::uint8_t{0};
        }
  }
  return out;
}

Raster side_by_side(std::span<const Raster> rasters, std::int64_t gap) {
  require(!rasters.empty() && gap >= 0 && gap <= 1024,
          "side_by_side: needs at least one raster and a gap of 0 ... 1024 pixels");
  Raster out;
  out.height = rasters[0].height, out.channels = rasters[0].channels,
  out.width = gap * static_cast<std::int64_t>(rasters.size() - 1);
  for (const Raster& r : rasters) {
    require(r.height == out.height && r.channels == out.channels, "side_by_side: a raster of height ",
            r.height, " and ", r.channels, " channels does not fit beside one of height ", out.height,
            " and ", out.channels, " channels");
    out.width += r.width;
  }
  out.pixels.assign(static_cast<std::size_t>(out.width * out.height * out.channels), 255);
  std::int64_t left = 0;
  for (const Raster& r : rasters) {
    for (std::int64_t y = 0; y < r.height; ++y)
      std::copy_n(r.pixels.begin() + y * r.width * r.channels, r.width * r.channels,
                  out.pixels.begin() + (y * out.width + left) * out.channels);
    left += r.width + gap;
  }
  return out;
}

}  // namespace costate::cli
