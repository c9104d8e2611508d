// Data sets by name: files of several formats, or one of the generators.
#pragma once
#include <costate/finetune/data/csv.h>
#include <costate/finetune/data/dataset.h>
#include <costate/finetune/data/glyphs.h>
#include <costate/finetune/data/points.h>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace costate::cli {

enum class DataKind {
  glyphs,   // drawn digits
  mixture,  // 2-D Gaussian mixture
  moons,    // the other 2-D laws of data/points.h
  rings,
  checkerboard,
  swiss_roll,
  file,  // one of the following, told apart by the contents
  idx,   // MNIST; also gzip
  csv,   // also gzip
  npy,   // also gzip
  npz,   // an archive of arrays
  png,   // a folder
};

// "glyphs" ...; an unknown word throws Fault::argument with the nearest known one.
DataKind data_kind(std::string_view word);
std::string_view name(DataKind kind);

// Members that a kind does not use must be left as they are here: load_dataset refuses the others, naming
// them, so that no setting is ignored.
struct DataSpec {
  DataKind kind = DataKind::glyphs;

  // Files.
  std::string path;
  std::string labels;  // idx, npy: a second file of the same format; npz: an array of the archive; csv: a column
                       // ("last", a name or a number); "": none
  std::string array;   // npz: the array that holds the items; "": the only one beside the labels
  std::vector<std::int64_t>
      item_shape;  // csv, npy, npz: reading each item as (height, width, channels), say; empty: as it is
  data::CsvOptions csv;
  bool grey = false;  // png: colour pictures become grey

  // Generators.
  std::int64_t count = 0;  // items to make; files: only so many, from the front; 0: 10000 resp. all
  std::int64_t first = 0;  // number of the first item; files: items to skip
  std::uint64_t seed = 0;
  data::GlyphOptions glyphs;
  data::PlaneMixture mixture;  // mixture: its components; empty: ring_mixture(8, 1, 0.1)
  int parts = 0;               // rings: how many (0: 3); checkerboard: cells a side (0: 4)
  double noise = 0.0;          // moons, rings, swiss_roll

  // Afterwards, in this order.
  std::vector<std::int32_t> only_labels;       // keep the items of these classes; empty: all
  std::int64_t average_down = 1;               // images: the factor of averaged_down
  std::optional<std::array<double, 2>> range;  // these two values, in the units loaded, become -1 and +1
  bool standardise = false;                    // zero mean and unit deviation; excludes range
};

// Pictures of idx files, png folders and glyphs have values in [0, 1] before `range`; the others those of the
// file. Throws costate::Error with one sentence naming the file or member: io, data or argument.
data::Dataset load_dataset(const DataSpec& spec);

}  // namespace costate::cli
