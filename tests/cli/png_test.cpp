#include "image/png.h"

#include <costate/finetune/data/file.h>
#include <png.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "finetune/data_support.h"
#include "image/scatter.h"

namespace costate::cli {
namespace {

using costate::testing::bytes_of;
using costate::testing::expect_error;
using costate::testing::ScratchFolder;
using costate::testing::text_of;
using std::string;
using namespace std::string_literals;

Raster picture(std::int64_t height, std::int64_t width, int channels) {
  Raster r{height, width, channels, {}};
  for (std::int64_t i = 0; i < height * width * channels; ++i)
    r.pixels.push_back(static_cast<std::uint8_t>(i * 37 % 251));
  return r;
}

// libpng's own simplified reader, as 8-bit values of the given format.
std::vector<std::uint8_t> by_libpng(const std::vector<std::byte>& bytes, std::uint32_t format) {
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size())) << image.message;
  image.format = format;
  std::vector<std::uint8_t> out(PNG_IMAGE_SIZE(image));
  EXPECT_TRUE(png_image_finish_read(&image, nullptr, out.data(), 0, nullptr)) << image.message;
  EXPECT_EQ(image.warning_or_error, 0u) << image.message;
  return out;
}

// A PNG of any kind, put together by hand, to test the reader with what our writer never writes.
string chunk(const string& type, const string& payload) {
  const auto number = [](std::uint32_t v) {
    return string{static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
                  static_cast<char>(v)};
  };
  const string checked = type + payload;
  return number(static_cast<std::uint32_t>(payload.size())) + checked +
         number(static_cast<std::uint32_t>(
             crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()))));
}

string deflated(const string& data) {
  uLongf size = compressBound(static_cast<uLong>(data.size()));
  string out(size, '\0');
  compress2(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
            static_cast<uLong>(data.size()), 9);
  out.resize(size);
  return out;
}

const string signature = "\x89PNG\r\n\x1a\n"s;

string header(std::uint32_t width, std::uint32_t height, int depth, int colour, int interlace = 0) {
  string out;
  for (const std::uint32_t v : {width, height})
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(v >> shift & 255);
  for (const int b : {depth, colour, 0, 0, interlace}) out += static_cast<char>(b);
  return chunk("IHDR", out);
}

string file(const string& ihdr, const string& scanlines, const string& extra = "") {
  return signature + ihdr + extra + chunk("IDAT", deflated(scanlines)) + chunk("IEND", "");
}

FloatImage read(const string& text, PngColour colour = PngColour::as_stored) {
  return read_png(bytes_of(text), colour, {}, "file");
}

TEST(Png, IsReadBackByLibpngAndByUs) {
  for (const int channels : {1, 3})
    for (const auto& [height, width] : {std::pair{1, 1}, {7, 5}, {64, 300}}) {
      const Raster r = picture(height, width, channels);
      const auto bytes = png_bytes(r);
      EXPECT_EQ(png_bytes(r), bytes);
      EXPECT_EQ(by_libpng(bytes, channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB), r.pixels);
      const FloatImage back = read_png(bytes, PngColour::as_stored, {}, "file");
      EXPECT_EQ(back.channels, channels);
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.width, width);
      for (std::size_t i = 0; i < r.pixels.size(); ++i) EXPECT_EQ(back.pixels[i], r.pixels[i] / 255.0f);
    }
}

TEST(Png, LargePicturesSurvive) {
  // Incompressible: the data chunk is far longer than any limit on other chunks.
  Raster r{2000, 2000, 3, std::vector<std::uint8_t>(12000000)};
  std::uint32_t state = 1;
  for (auto& p : r.pixels) p = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
  const FloatImage back = read_png(png_bytes(r), PngColour::as_stored, {}, "file");
  EXPECT_EQ(back.pixels[11999999], r.pixels[11999999] / 255.0f);
}

TEST(Png, HoldsNothingButThreeChunks) {
  const string text = text_of(png_bytes(picture(3, 4, 1)));
  EXPECT_EQ(text.substr(0, 8), signature);
  EXPECT_EQ(text.substr(12, 4), "IHDR");
  EXPECT_EQ(text.substr(37, 4), "IDAT");
  EXPECT_EQ(text.substr(text.size() - 12), chunk("IEND", ""));
  EXPECT_EQ(text, file(header(4, 3, 8, 0), ""s).substr(0, 33) + text.substr(33));
}

TEST(Png, EveryColourTypeAndDepthIsRead) {
  EXPECT_EQ(read(file(header(8, 1, 1, 0), "\0\xa5"s)).pixels, (std::vector<float>{1, 0, 1, 0, 0, 1, 0, 1}));
  const FloatImage two = read(file(header(4, 1, 2, 0), "\0\x1b"s));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(two.pixels[i], static_cast<float>(i) / 3.0f);
  EXPECT_FLOAT_EQ(read(file(header(2, 1, 4, 0), "\0\x5f"s)).pixels[0], 1.0f / 3);
  // 16 bits keep their precision.
  EXPECT_FLOAT_EQ(read(file(header(1, 1, 16, 0), "\0\x01\x02"s)).pixels[0], 258 / 65535.0f);
  EXPECT_FLOAT_EQ(read(file(header(1, 1, 16, 2), "\0\xff\xff\0\0\x80\0"s)).pixels[2], 32768 / 65535.0f);
  // A palette, with and without transparency.
  const string palette = chunk("PLTE", "\xff\0\0\0\xff\0"s);
  EXPECT_EQ(read(file(header(2, 1, 8, 3), "\0\0\1"s, palette)).pixels,
            (std::vector<float>{1, 0, 0, 0, 1, 0}));
  EXPECT_EQ(read(file(header(2, 1, 8, 3), "\0\0\1"s, palette + chunk("tRNS", "\0"s))).pixels,
            (std::vector<float>{0, 0, 0, 0, 1, 0}));
  // Alpha: over black.
  EXPECT_FLOAT_EQ(read(file(header(1, 1, 8, 4), "\0\xff\x33"s)).pixels[0], 0.2f);
  const FloatImage rgba = read(file(header(1, 1, 8, 6), "\0\xff\x80\0\x33"s));
  EXPECT_EQ(rgba.channels, 3);
  EXPECT_FLOAT_EQ(rgba.pixels[0], 0.2f);
  // Colour to grey, grey to colour.
  EXPECT_FLOAT_EQ(read(file(header(1, 1, 8, 2), "\0\xff\0\0"s), PngColour::grey).pixels[0], 0.299f);
  EXPECT_EQ(read(file(header(1, 1, 8, 0), "\0\xff"s), PngColour::rgb).pixels, (std::vector<float>{1, 1, 1}));
  // Interlaced, 2 x 2: pass 1 is pixel (0, 0), pass 6 is (0, 1), pass 7 the second row.
  EXPECT_EQ(read(file(header(2, 2, 8, 0, 1), "\0\x00\0\xff\0\xff\x00"s)).pixels,
            (std::vector<float>{0, 1, 1, 0}));
  // A gamma chunk changes nothing, an unknown chunk neither.
  EXPECT_FLOAT_EQ(
      read(file(header(1, 1, 8, 0), "\0\x80"s, chunk("gAMA", "\0\1\x86\xa0"s) + chunk("xxXx", "?")))
          .pixels[0],
      128 / 255.0f);
}

TEST(Png, EveryTruncationIsRefused) {
  const string text = text_of(png_bytes(picture(3, 4, 3)));
  for (std::size_t n = 0; n < text.size(); ++n)
    expect_error(
        Fault::data, "file", [&] { read(text.substr(0, n)); }, std::to_string(n));
}

// Each byte wrong in turn: read or refused, but never anything else (the checksums make most of them
// refusals).
TEST(Png, EveryDamagedByteIsReadOrRefused) {
  const string text = text_of(png_bytes(picture(3, 4, 3)));
  int refused = 0;
  for (std::size_t n = 0; n < text.size(); ++n)
    for (const int flip : {1, 128}) {
      string damaged = text;
      damaged[n] = static_cast<char>(damaged[n] ^ flip);
      try {
        read(damaged);
      } catch (const Error& e) {
        EXPECT_EQ(e.fault(), Fault::data) << e.what();
        ++refused;
      }
    }
  EXPECT_GT(refused, static_cast<int>(text.size()));
}

TEST(Png, HostileFilesAreRefused) {
  const std::pair<string, string> cases[] = {
      {"", "eight bytes"},
      {"\xff\xd8\xff\xe0 a jpeg file"s, "eight bytes"},
      {signature, "ends too early"},
      {file(header(0, 1, 8, 0), "\0"s), "readable"},
      {file(header(1, 0, 8, 0), "\0"s), "readable"},
      {file(header(0x7fffffff, 0x7fffffff, 8, 0), "\0"s), "readable"},
      {file(header(0xffffffff, 1, 8, 0), "\0"s), "readable"},
      {file(header(20000, 1, 8, 0), "\0"s), "readable"},
      {file(header(16384, 16384, 1, 0), "\0"s), "at most 67108864"},
      {file(header(8000, 8000, 8, 6), "\0"s), "cannot hold"},
      {file(header(1, 1, 3, 0), "\0\0"s), "readable"},
      {file(header(1, 1, 8, 5), "\0\0"s), "readable"},
      {file(header(1, 1, 8, 3), "\0\0"s), "readable"},    // no palette
      {file(header(1, 1, 8, 0), "\x05\0"s), "readable"},  // no such filter
      {file(header(4, 4, 8, 0), "\0\0"s), "readable"},    // too few pixels
      {signature + header(1, 1, 8, 0) + chunk("IDAT", "not deflate") + chunk("IEND", ""), "readable"},
      {signature + header(1, 1, 8, 0) + chunk("IEND", ""), "readable"},
      {signature + chunk("IDAT", deflated("\0\0"s)) + chunk("IEND", ""), "readable"},
      {signature + header(1, 1, 8, 0).substr(0, 12) + string(30, '\xff'), "readable"}};
  for (const auto& c : cases)
    expect_error(
        Fault::data, c.second, [&] { read(c.first); }, c.second);
  expect_error(Fault::data, "at most 10", [] {
    read_png(png_bytes(picture(4, 4, 1)), PngColour::grey, {16384, 10}, "file");
  });
}

TEST(Png, WriterRefusesWrongRasters) {
  expect_error(Fault::argument, "1 ... 65535", [] { png_bytes(Raster{0, 1, 1, {}}); });
  expect_error(Fault::argument, "1 or 3 channels", [] { png_bytes(Raster{1, 1, 2, {0, 0}}); });
  expect_error(Fault::argument, "do not fill", [] { png_bytes(Raster{2, 2, 1, {0, 0, 0}}); });
}

TEST(Grid, PlacesRoundsAndClamps) {
  const std::vector<float> values{0.0f, 0.5f, 1.0f, -3.0f, 2.0f, NAN};  // three pictures of 1 x 2
  GridOptions o;
  o.columns = 2, o.padding = 1;
  const Raster r = grid(values, 3, 1, 2, 1, o);
  EXPECT_EQ(r.width, 7);
  EXPECT_EQ(r.height, 5);
  const auto at = [&](int y, int x) {
    return static_cast<int>(r.pixels[static_cast<std::size_t>(y * 7 + x)]);
  };
  EXPECT_EQ(at(1, 1), 0);
  EXPECT_EQ(at(1, 2), 128);  // floor(127.5 + 0.5)
  EXPECT_EQ(at(1, 4), 255);
  EXPECT_EQ(at(1, 5), 0);
  EXPECT_EQ(at(3, 1), 255);
  EXPECT_EQ(at(3, 2), 0);
  EXPECT_EQ(at(3, 4), 0);
  EXPECT_EQ(at(0, 2), 0);
  o.low = -1, o.zoom = 3;
  const Raster z = grid(values, 3, 1, 2, 1, o);
  EXPECT_EQ(z.width, 15);
  EXPECT_EQ(static_cast<int>(z.pixels[static_cast<std::size_t>(1 * 15 + 1)]), 128);
  EXPECT_EQ(static_cast<int>(z.pixels[static_cast<std::size_t>(3 * 15 + 3)]), 128);
  expect_error(Fault::argument, "do not fill", [&] { grid(values, 4, 1, 2, 1, o); });
  o.columns = 0;
  expect_error(Fault::argument, "columns", [&] { grid(values, 3, 1, 2, 1, o); });
}

TEST(Grid, RastersStandSideBySide) {
  const Raster a{1, 2, 1, {1, 2}}, b{1, 1, 1, {3}};
  const Raster both[] = {a, b};
  EXPECT_EQ(side_by_side(both, 1).pixels, (std::vector<std::uint8_t>{1, 2, 255, 3}));
  const Raster wrong[] = {a, Raster{2, 1, 1, {3, 4}}};
  expect_error(Fault::argument, "does not fit", [&] { side_by_side(wrong, 1); });
}

// Three pictures of 1 x 2 pixels in colour, two a row: cells of 2 x 4 pixels at zoom 2, a pixel between and around them.
TEST(Grid, PutsEveryPictureInColourIntoItsCell) {
  std::vector<float> values;
  for (int i = 0; i < 3 * 1 * 2 * 3; ++i) values.push_back(static_cast<float>(10 + i) / 255);
  const Raster out = grid(values, 3, 1, 2, 3, {.columns = 2, .padding = 1, .zoom = 2});
  ASSERT_TRUE(out.width == 11 && out.height == 7 && out.channels == 3);
  for (int y = 0; y < 7; ++y)
    for (int x = 0; x < 11; ++x)
      for (int c = 0; c < 3; ++c) {
        const int row = y / 3, column = x / 5, picture = 2 * row + column;
        const bool inside = y % 3 != 0 && x % 5 != 0 && picture < 3;
        const int expected = inside ? 10 + (picture * 2 + (x % 5 - 1) / 2) * 3 + c : 0;
        EXPECT_EQ(out.pixels[static_cast<std::size_t>((y * 11 + x) * 3 + c)], expected) << y << " " << x << " " << c;
      }
}

TEST(Grid, RefusesWhatIsNoGridOrRow) {
  const std::vector<float> two(2);
  struct Size {
    std::int64_t count, height, width;
    int channels;
    const char* words;
  };
  for (const Size& s : {Size{0, 1, 1, 1, "1 or 3 channels"}, {2, 0, 1, 1, "1 or 3 channels"}, {2, 1, 0, 1, "1 or 3 channels"},
                        {1, 1, 1, 2, "1 or 3 channels"}, {1, 65536, 1, 1, "do not fill"}, {1, 1, 65536, 1, "do not fill"},
                        {(1 << 24) + 1, 1, 1, 1, "do not fill"}, {3, 1, 1, 1, "do not fill"}})
    expect_error(Fault::argument, s.words, [&] { grid(two, s.count, s.height, s.width, s.channels, {}); });
  for (const GridOptions& o : {GridOptions{.columns = 0}, {.columns = 65536}, {.padding = -1}, {.padding = 1025}, {.zoom = 0},
                               {.zoom = 257}, {.low = 1, .high = 1}})
    expect_error(Fault::argument, "columns must be positive", [&] { grid(two, 2, 1, 1, 1, o); });
  const std::vector<float> wide(70000);
  expect_error(Fault::argument, "at most 65535", [&] { grid(wide, 2, 1, 35000, 1, {.padding = 0}); });
  expect_error(Fault::argument, "at most 65535", [&] { grid(wide, 2, 35000, 1, 1, {.columns = 1, .padding = 0}); });
  const Raster grey{1, 1, 1, {0}}, tall{2, 1, 1, {0, 0}}, colour{1, 1, 3, {0, 0, 0}};
  expect_error(Fault::argument, "at least one raster", [&] { side_by_side({}, 0); });
  for (const std::int64_t gap : {-1, 1025}) expect_error(Fault::argument, "0 ... 1024", [&] { side_by_side({&grey, 1}, gap); });
  for (const Raster& other : {tall, colour}) {
    const Raster both[] = {grey, other};
    expect_error(Fault::argument, "does not fit beside", [&] { side_by_side(both, 0); });
  }
  for (const Raster& r : {Raster{0, 1, 1, {}}, Raster{1, 0, 1, {}}, Raster{65536, 1, 1, {}}, Raster{1, 65536, 1, {}}})
    EXPECT_THROW(png_bytes(r), Error) << r.height << " x " << r.width;
}

TEST(PngFolder, LabelsComeFromSortedSubfolders) {
  const ScratchFolder folder;
  for (const auto& [name, value] : {std::pair{"b/2.png", 20}, {"b/1.png", 10}, {"a/x.PNG", 30}}) {
    std::filesystem::create_directories(std::filesystem::path(folder / name).parent_path());
    data::write_file_atomically(folder / name,
                                png_bytes(Raster{1, 2, 1, {static_cast<std::uint8_t>(value), 255}}));
  }
  data::write_file_atomically(folder / "b/notes.txt", "not a picture"s);
  std::filesystem::create_directories(folder / "empty");
  const data::Dataset s = read_png_folder(folder.path(), PngColour::as_stored);
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.classes, 2);
  EXPECT_EQ(s.item_shape, (std::vector<std::int64_t>{1, 2, 1}));
  EXPECT_EQ(s.labels, (std::vector<std::int32_t>{0, 1, 1}));
  EXPECT_FLOAT_EQ(s.values[0], 30 / 255.0f);
  EXPECT_FLOAT_EQ(s.values[2], 10 / 255.0f);
  EXPECT_FLOAT_EQ(s.values[4], 20 / 255.0f);
  const data::Dataset flat = read_png_folder(folder / "b", PngColour::rgb);
  EXPECT_TRUE(flat.labels.empty());
  EXPECT_EQ(flat.item_shape[2], 3);

  data::write_file_atomically(folder / "b/3.png", png_bytes(picture(2, 2, 1)));
  expect_error(Fault::data, "2 x 2 pixels", [&] { read_png_folder(folder / "b", PngColour::grey); });
  data::write_file_atomically(folder / "b/0.png", "not a png"s);
  expect_error(Fault::data, "0.png", [&] { read_png_folder(folder / "b", PngColour::grey); });
  data::write_file_atomically(folder / "top.png", png_bytes(picture(1, 2, 1)));
  expect_error(Fault::data, "both directly and in sub-folders",
               [&] { read_png_folder(folder.path(), PngColour::grey); });
  expect_error(Fault::data, "no PNG", [&] { read_png_folder(folder / "empty", PngColour::grey); });
  expect_error(Fault::io, "No such file", [&] { read_png_folder(folder / "none", PngColour::grey); });
}

// ------------------------------------------------------------------------------------------------ plots

int red(const Raster& r, std::int64_t y, std::int64_t x) {
  return r.pixels[static_cast<std::size_t>(3 * (y * r.width + x))];
}

TEST(Plot, PointsLieWhereTheyShould) {
  Plot plot(200, {-1, 1, -1, 1});
  const std::vector<float> points{0.5f, 0.5f, NAN, 0.0f, 5.0f, 0.0f, 0.0f, INFINITY};
  plot.points(points, {0, 0, 0}, 3, 1);
  const Raster& r = plot.raster();
  // The box is 5 ... 195 pixels: (0.5, 0.5) lies three quarters to the right and a quarter from above.
  EXPECT_EQ(red(r, 52, 147), 0);
  EXPECT_EQ(red(r, 147, 52), 255);
  int dark = 0;
  for (std::int64_t y = 6; y < 194; ++y)
    for (std::int64_t x = 6; x < 194; ++x) dark += red(r, y, x) < 128;
  EXPECT_NEAR(dark, 28, 6);        // one disc, pi 3^2
  EXPECT_LT(red(r, 4, 100), 100);  // the box
  EXPECT_LT(red(r, 195, 100), 100);
}

TEST(Plot, DensityIsDarkestWhereMostPointsAre) {
  Plot plot(100, {0, 1, 0, 1});
  std::vector<float> points;
  for (int i = 0; i < 100; ++i) points.insert(points.end(), {0.25f, 0.75f});
  for (int i = 0; i < 10; ++i) points.insert(points.end(), {0.75f, 0.25f});
  plot.density(points, 3);
  EXPECT_LT(red(plot.raster(), 26, 26), 20);
  EXPECT_LT(red(plot.raster(), 73, 73), 240);
  EXPECT_GT(red(plot.raster(), 73, 73), 100);
  EXPECT_EQ(red(plot.raster(), 26, 73), 255);
  plot.density({}, 3);
  EXPECT_EQ(red(plot.raster(), 26, 26), 255);
}

TEST(Plot, LinesJoinTheirPoints) {
  Plot plot(100, {0, 1, 0, 1});
  plot.line(std::vector<float>{0.1f, 0.5f, 0.9f, 0.5f}, {0, 0, 0}, 2, 1);
  for (std::int64_t x = 20; x < 80; ++x) EXPECT_LT(red(plot.raster(), 50, x), 10);
  EXPECT_EQ(red(plot.raster(), 40, 50), 255);
}

TEST(Plot, ViewHoldsAllFinitePoints) {
  const std::vector<float> a{0, 0, 4, 1}, b{NAN, 100, 2, -1};
  const View v = view_of({a, b});
  EXPECT_NEAR(v.x_low, -0.2, 1e-9);
  EXPECT_NEAR(v.x_high, 4.2, 1e-9);
  EXPECT_NEAR(v.y_low, -2.2, 1e-9);
  EXPECT_NEAR(v.y_high, 2.2, 1e-9);
  EXPECT_EQ(view_of({}).x_low, -1);
}

TEST(Plot, RefusesWrongParameters) {
  expect_error(Fault::argument, "side", [] { Plot(1, {}); });
  expect_error(Fault::argument, "view", [] { Plot(100, {1, 1, 0, 1}); });
  expect_error(Fault::argument, "view", [] { Plot(100, {0, NAN, 0, 1}); });
  Plot plot(100, {});
  expect_error(Fault::argument, "pairs", [&] { plot.points(std::vector<float>{1}, Colour{}, 1, 1); });
  expect_error(Fault::argument, "radius", [&] { plot.points({}, Colour{}, 0, 1); });
  expect_error(Fault::argument, "labels", [&] {
    plot.points(std::vector<float>{1, 2}, std::vector<std::int32_t>{}, 1, 1);
  });
  expect_error(Fault::argument, "bandwidth", [&] { plot.density({}, 0); });
}

}  // namespace
}  // namespace costate::cli
