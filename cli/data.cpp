#include "data.h"

#include <costate/finetune/data/file.h>
#include <costate/finetune/data/idx.h>
#include <costate/finetune/data/npy.h>
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <filesystem>

#include "gzip.h"
#include "image/png.h"
#include "npz.h"

namespace costate::cli {
namespace {

constexpr std::string_view kind_names[] = {
    "glyphs", "mixture", "moons", "rings", "checkerboard", "swiss_roll", "file", "idx", "csv", "npy", "npz", "png"};

bool is_file(DataKind kind) { return kind >= DataKind::file; }

// A file's contents, unpacked when it is a gzip file.
std::vector<std::byte> contents(const std::string& path) {
  std::vector<std::byte> bytes = data::read_file(path);
  if (is_gzip(bytes)) bytes = gunzip(bytes, data::default_max_file, "'" + path + "'");
  return bytes;
}

DataKind kind_of(const std::string& path, const std::vector<std::byte>& bytes) {
  const auto at = [&](std::size_t i) { return i < bytes.size() ? std::to_integer<int>(bytes[i]) : -1; };
  if (at(0) == 0x93 && at(1) == 'N') return DataKind::npy;
  if (is_npz(bytes)) return DataKind::npz;
  if (at(0) == 0 && at(1) == 0) return DataKind::idx;
  if (at(0) == 0x89 && at(1) == 'P')
    fail(Fault::data, {"'", path, "' is a single picture; give the folder that holds the pictures"});
  return DataKind::csv;
}

// An NPY file and what sentences call it.
struct Held {
  std::string what;
  std::vector<std::byte> bytes;
};

data::Dataset from_arrays(const DataSpec& spec, const Held& items, const std::optional<Held>& classes) {
  const std::string& what = items.what;
  const data::NpyArray array = data::parse_npy(items.bytes, what);
  if (array.shape.size() < 2)
    fail(Fault::data, {what, " has ", array.shape.size(),
                       " axes, but a data set has at least two: items, and the values of one"});
  data::Dataset out;
  out.description = spec.path;
  out.count = array.shape[0];
  out.item_shape.assign(array.shape.begin() + 1, array.shape.end());
  if (!spec.item_shape.empty()) {
    if (data::element_count(spec.item_shape) != data::element_count(out.item_shape))
      fail(Fault::data, {what, " holds items of ", data::item_size(out),
                         " values, which do not fill the item_shape asked for"});
    out.item_shape = spec.item_shape;
  }
  out.values = data::npy_values<float>(array, what);
  if (classes) {
    const std::string& name = classes->what;
    const data::NpyArray labels = data::parse_npy(classes->bytes, name);
    if (labels.shape != std::vector<std::int64_t>{out.count})
      fail(Fault::data,
           {name, " must hold one label for each of the ", out.count, " items of ", what, ", in one axis"});
    out.labels = data::npy_values<std::int32_t>(labels, name);
    const auto [low, high] = std::minmax_element(out.labels.begin(), out.labels.end());
    if (!out.labels.empty() && (*low < 0 || *high > 65535))
      fail(Fault::data, {name, " holds the label ", *low < 0 ? *low : *high, ", but labels are 0 ... 65535"});
    if (!out.labels.empty()) out.classes = *high + 1;
  }
  check(out);
  return out;
}

data::Dataset from_npz(const DataSpec& spec, const std::vector<std::byte>& bytes) {
  const std::string file = "'" + spec.path + "'";
  const std::vector<NpzMember> members = npz_members(bytes, file);
  std::string all;
  for (const NpzMember& m : members) all += (all.empty() ? "" : ", ") + utf8::quoted(m.name);
  const auto held = [&](const std::string& name) -> Held {
    for (const NpzMember& m : members)
      if (m.name == name)
        return {utf8::quoted(name) + " of " + file, npz_array(bytes, m, data::default_max_file, file)};
    fail(Fault::data, {file, " has no array ", utf8::quoted(name), "; it has ", all.empty() ? "none" : all.substr(0, 400)});
  };
  std::string items = spec.array;
  if (items.empty())
    for (const NpzMember& m : members)
      if (m.name != spec.labels) {
        if (!items.empty())
          fail(Fault::argument, {"data: ", file, " has the arrays ", all.substr(0, 400),
                                 "; data.array must name the one with the items"});
        items = m.name;
      }
  return from_arrays(spec, held(items), spec.labels.empty() ? std::nullopt : std::optional(held(spec.labels)));
}

data::Dataset from_files(const DataSpec& spec) {
  require(!spec.path.empty(), "data: the kind ", name(spec.kind), " needs a path");
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(spec.path, ignored);
  DataKind kind = spec.kind;
  if (kind == DataKind::png || (kind == DataKind::file && folder)) {
    require(spec.labels.empty() && spec.item_shape.empty(),
            "data: a folder of pictures takes labels from its sub-folders and shapes from its pictures; "
            "leave labels and item_shape empty");
    return read_png_folder(spec.path, spec.grey ? PngColour::grey : PngColour::as_stored);
  }
  std::vector<std::byte> bytes = contents(spec.path);
  if (kind == DataKind::file) kind = kind_of(spec.path, bytes);
  require(!spec.grey, "data: grey applies to folders of pictures only, but '", spec.path, "' is read as ",
          name(kind));
  const std::string what = "'" + spec.path + "'";
  require(kind == DataKind::csv || spec.csv == data::CsvOptions{},
          "data: the csv options apply to csv files only, but ", what, " is read as ", name(kind));
  require(kind == DataKind::npz || spec.array.empty(), "data: array applies to npz files only, but ", what, " is read as ",
          name(kind));
  if (kind == DataKind::npz) return from_npz(spec, bytes);
  if (kind == DataKind::npy)
    return from_arrays(spec, {what, std::move(bytes)},
                       spec.labels.empty() ? std::nullopt
                                           : std::optional(Held{"'" + spec.labels + "'", contents(spec.labels)}));
  if (kind == DataKind::csv) {
    const data::CsvTable table = data::parse_csv(data::as_text(bytes), spec.csv, what);
    return csv_dataset(table, spec.labels.empty() ? -1 : csv_column(table, spec.labels), spec.item_shape);
  }
  require(spec.item_shape.empty(), "data: item_shape applies to csv, npy and npz files only, but ", what,
          " is read as idx");
  const std::vector<std::byte> labels =
      spec.labels.empty() ? std::vector<std::byte>{} : contents(spec.labels);
  if (!spec.labels.empty() && labels.empty()) fail(Fault::data, {"'", spec.labels, "' is empty"});
  return data::idx_images(bytes, what, labels, "'" + spec.labels + "'");
}

data::Dataset generated(const DataSpec& spec, std::int64_t count) {
  switch (spec.kind) {
    case DataKind::glyphs:
      return data::glyphs(spec.glyphs, spec.seed, spec.first, count);
    case DataKind::mixture:
      return data::mixture_points(spec.mixture.means.empty() ? data::ring_mixture(8, 1.0, 0.1) : spec.mixture,
                                  spec.seed, count, spec.first);
    case DataKind::moons:
      return data::two_moons(spec.noise, spec.seed, count, spec.first);
    case DataKind::rings:
      return data::rings(spec.parts == 0 ? 3 : spec.parts, spec.noise, spec.seed, count, spec.first);
    case DataKind::checkerboard:
      return data::checkerboard(spec.parts == 0 ? 4 : spec.parts, spec.seed, count, spec.first);
    case DataKind::swiss_roll:
      return data::swiss_roll(spec.noise, spec.seed, count, spec.first);
    default:
      fail(Fault::argument, {"data: ", name(spec.kind), " is not a generator"});
  }
}

// A setting that the kind would not look at is a mistake of the user, who must hear of it.
void check_unused(const DataSpec& s) {
  const auto only = [&](bool used, bool given, std::string_view member, std::string_view whose) {
    require(used || !given, "data: ", member, " applies to ", whose, " only, not to ", name(s.kind));
  };
  const bool file = is_file(s.kind),
             noisy = s.kind == DataKind::moons || s.kind == DataKind::rings || s.kind == DataKind::swiss_roll;
  only(file, !s.path.empty(), "path", "files");
  only(file, !s.labels.empty(), "labels", "files");
  only(s.kind == DataKind::npz || s.kind == DataKind::file, !s.array.empty(), "array", "npz files");
  only(file, !s.item_shape.empty(), "item_shape", "csv, npy and npz files");
  only(s.kind == DataKind::png || s.kind == DataKind::file, s.grey, "grey", "folders of pictures");
  only(!file, s.seed != 0, "seed", "generators");
  only(s.kind == DataKind::glyphs, s.glyphs != data::GlyphOptions{}, "glyphs", "glyphs");
  only(s.kind == DataKind::csv || s.kind == DataKind::file, s.csv != data::CsvOptions{}, "csv", "csv files");
  only(s.kind == DataKind::mixture, !s.mixture.means.empty(), "mixture", "the mixture");
  only(s.kind == DataKind::rings || s.kind == DataKind::checkerboard, s.parts != 0, "parts",
       "rings and checkerboard");
  only(noisy, s.noise != 0, "noise", "moons, rings and swiss_roll");
  require(!(s.range && s.standardise), "data: range and standardise exclude each other");
}

}  // namespace

DataKind data_kind(std::string_view word) {
  for (std::size_t i = 0; i < std::size(kind_names); ++i)
    if (kind_names[i] == word) return static_cast<DataKind>(i);
  const std::string near = nearest_of(word, kind_names);
  std::string all;
  for (const std::string_view k : kind_names) all += (all.empty() ? "" : ", ") + std::string(k);
  fail(Fault::argument, {"data: the kind '", word.substr(0, 64), "' is unknown, expected one of ", all,
                         near.empty() ? std::string() : "; did you mean '" + near + "'?"});
}

std::string_view name(DataKind kind) { return kind_names[static_cast<std::size_t>(kind)]; }

data::Dataset load_dataset(const DataSpec& spec) {
  check_unused(spec);
  require(spec.first >= 0 && spec.count >= 0, "data: first and count must not be negative, got ", spec.first,
          " and ", spec.count);
  data::Dataset out =
      is_file(spec.kind) ? from_files(spec) : generated(spec, spec.count == 0 ? 10000 : spec.count);
  if (is_file(spec.kind) && (spec.first > 0 || spec.count > 0)) {
    require(spec.first < out.count && spec.count <= out.count - spec.first, "data: '", spec.path, "' holds ",
            out.count, " items, too few for first = ", spec.first, ", count = ", spec.count);
    out = slice(out, spec.first, spec.count == 0 ? out.count - spec.first : spec.count);
  }
  if (!spec.only_labels.empty()) {
    require(out.classes > 0, "data: only_labels needs labels, but ", out.description, " has none");
    for (const std::int32_t label : spec.only_labels)
      require(label >= 0 && label < out.classes, "data: only_labels asks for ", label, ", but the labels of ",
              out.description, " are 0 ... ", out.classes - 1);
    out = with_labels(out, spec.only_labels);
  }
  if (spec.average_down != 1) out = averaged_down(out, spec.average_down);
  if (spec.range) out = scaled(out, (*spec.range)[0], (*spec.range)[1]);
  if (spec.standardise) out = standardised(out);
  check(out);
  return out;
}

}  // namespace costate::cli
