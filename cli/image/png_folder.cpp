#include <costate/finetune/data/file.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <filesystem>

#include "image/png.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

struct Listing {
  std::vector<fs::path> folders, pictures;
};

Listing list(const fs::path& path) {
  Listing out;
  std::error_code code;
  fs::directory_iterator at(path, code), end;
  while (!code && at != end) {
    std::string extension = at->path().extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
    std::error_code unknown;
    if (at->is_directory(unknown))
      out.folders.push_back(at->path());
    else if (extension == ".png")
      out.pictures.push_back(at->path());
    at.increment(code);
  }
  if (code) fail(Fault::io, {"cannot list the folder '", path.string(), "': ", code.message()});
  std::sort(out.folders.begin(), out.folders.end());
  std::sort(out.pictures.begin(), out.pictures.end());
  return out;
}

// 1 GiB of pixels: far beyond what this program can train on, and reached before the machine's memory is.
constexpr std::size_t max_values = std::size_t{1} << 28;

void append(data::Dataset& set, const fs::path& path, PngColour& colour) {
  const std::string name = path.string();
  const FloatImage image =
      read_png(data::read_file(name, std::uint64_t{1} << 28), colour, {}, "'" + name + "'");
  const std::vector<std::int64_t> shape{image.height, image.width, image.channels};
  if (set.count == 0) set.item_shape = shape, colour = image.channels == 1 ? PngColour::grey : PngColour::rgb;
  if (shape != set.item_shape)
    fail(Fault::data,
         {"'", name, "' has ", image.width, " x ", image.height, " pixels, but the pictures before it have ",
          set.item_shape[1], " x ", set.item_shape[0]});
  if (set.values.size() + image.pixels.size() > max_values)
    fail(Fault::data, {"the pictures up to '", name, "' hold more than ", max_values, " values"});
  set.values.insert(set.values.end(), image.pixels.begin(), image.pixels.end());
  ++set.count;
}

}  // namespace

data::Dataset read_png_folder(const std::string& path, PngColour colour) {
  const Listing top = list(path);
  data::Dataset out;
  out.description = path;
  std::vector<Listing> classes;
  for (const fs::path& folder : top.folders) {
    Listing inside = list(folder);
    if (!inside.pictures.empty()) classes.push_back(std::move(inside));
  }
  if (!top.pictures.empty() && !classes.empty())
    fail(Fault::data, {"the folder '", path,
                       "' holds pictures both directly and in sub-folders, so that it is not clear "
                       "whether they have labels"});
  if (top.pictures.empty() && classes.empty())
    fail(Fault::data, {"the folder '", path, "' holds no PNG file"});
  for (const fs::path& picture : top.pictures) append(out, picture, colour);
  for (std::size_t c = 0; c < classes.size(); ++c)
    for (const fs::path& picture : classes[c].pictures) {
      append(out, picture, colour);
      out.labels.push_back(static_cast<std::int32_t>(c));
    }
  out.classes = static_cast<int>(classes.size());
  check(out);
  return out;
}

}  // namespace costate::cli
