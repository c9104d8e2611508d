// A data set in memory: items of one shape, with labels when there are any, and the affine map back to the
// units in which they came.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace costate::data {

struct Dataset {
  std::vector<float>
      values;  // (count, item_shape...), row-major; images are (count, height, width, channels)
  std::vector<std::int64_t> item_shape;  // of one item: (2) for points, (height, width, channels) for images
  std::vector<std::int32_t> labels;      // (count), each in 0 ... classes-1; empty without labels
  std::int64_t count = 0;
  int classes = 0;          // 0 without labels
  std::string description;  // a phrase for reports, such as "glyph digits 16x16, seed 1"
  // value in the units of the source = scale * value here + offset.
  double scale = 1.0;
  double offset = 0.0;
};

// The product of the item shape.
std::int64_t item_size(const Dataset& set);

// Throws Fault::data, naming the description, unless sizes agree, there is at least one item, every value is
// finite and every label lies in 0 ... classes-1.
void check(const Dataset& set);

// The items of these indices, in this order; an index may repeat. Throws Fault::argument when one is out of
// range.
Dataset take(const Dataset& set, std::span<const std::int64_t> indices);
// Items first ... first+count-1.
Dataset slice(const Dataset& set, std::int64_t first, std::int64_t count);
// The items with one of these labels, in their order. `classes` and the labels themselves stay as they were.
Dataset with_labels(const Dataset& set, std::span<const std::int32_t> labels);

// The items in the order of costate::permutation(count, seed, 0).
Dataset shuffled(const Dataset& set, std::uint64_t seed);
// A random part of `first` items and the rest, without overlap. 0 < first < count.
std::pair<Dataset, Dataset> split(const Dataset& set, std::int64_t first, std::uint64_t seed);

// Maps values affinely so that `low` becomes -1 and `high` becomes +1; values outside are mapped alike, not
// clipped. scale and offset are updated, so that `original` still returns the units of the source.
Dataset scaled(const Dataset& set, double low, double high);
// Subtracts the mean of all values and divides by the standard deviation of all values (one number each, so
// that the geometry of an item keeps its proportions).
Dataset standardised(const Dataset& set);
// scale * value + offset for values in the set's units, such as samples of a model trained on it.
std::vector<float> original(const Dataset& set, std::span<const float> values);

// Images with height and width divided by `factor`, each pixel the mean of factor x factor pixels. Both must
// be multiples of the factor.
Dataset averaged_down(const Dataset& images, std::int64_t factor);

}  // namespace costate::data
