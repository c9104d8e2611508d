#include <costate/finetune/data/dataset.h>
#include <costate/finetune/data/elements.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>
#include <algorithm>
#include <cmath>
#include <numeric>

namespace costate::data {
namespace {

std::string named(const Dataset& set) {
  return set.description.empty() ? "data set" : "data set '" + set.description + "'";
}

Dataset like(const Dataset& set) {
  Dataset out;
  out.item_shape = set.item_shape, out.classes = set.classes, out.description = set.description;
  out.scale = set.scale, out.offset = set.offset;
  return out;
}

// x -> (x - center) / unit, remembered in scale and offset.
Dataset mapped(const Dataset& set, double center, double unit) {
  Dataset out = set;
  for (float& v : out.values) v = static_cast<float>((v - center) / unit);
  out.scale = set.scale * unit;
  out.offset = set.scale * center + set.offset;
  return out;
}

}  // namespace

std::int64_t item_size(const Dataset& set) {
  const auto size = element_count(set.item_shape);
  if (!size) fail(Fault::data, {named(set), ": the item shape is negative or its product overflows"});
  return *size;
}

void check(const Dataset& set) {
  const std::string who = named(set);
  if (set.count <= 0) fail(Fault::data, {who, " holds no item"});
  const std::int64_t size = item_size(set);
  if (size == 0) fail(Fault::data, {who, ": an item of the given shape holds no value"});
  if (static_cast<std::int64_t>(set.values.size()) / size != set.count ||
      static_cast<std::int64_t>(set.values.size()) % size != 0)
    fail(Fault::data, {who, " holds ", set.values.size(), " values, but ", set.count, " items of ", size,
                       " values were announced"});
  if (!set.labels.empty() && static_cast<std::int64_t>(set.labels.size()) != set.count)
    fail(Fault::data, {who, " holds ", set.labels.size(), " labels for ", set.count, " items"});
  if (set.labels.empty() != (set.classes == 0))
    fail(Fault::data, {who, " announces ", set.classes, " classes but holds ", set.labels.size(), " labels"});
  for (std::size_t i = 0; i < set.labels.size(); ++i)
    if (set.labels[i] < 0 || set.labels[i] >= set.classes)
      fail(Fault::data,
           {who, ": label ", set.labels[i], " of item ", i, " is not in 0 ... ", set.classes - 1});
  for (std::size_t i = 0; i < set.values.size(); ++i)
    if (!std::isfinite(set.values[i]))
      fail(Fault::data, {who, ": value ", i % size, " of item ", i / size, " is not a finite number"});
  if (!std::isfinite(set.scale) || !std::isfinite(set.offset) || set.scale == 0)
    fail(Fault::data, {who, ": the map back to source units, ", set.scale, " * value + ", set.offset,
                       ", cannot be inverted"});
}

Dataset take(const Dataset& set, std::span<const std::int64_t> indices) {
  const std::int64_t size = item_size(set);
  Dataset out = like(set);
  out.count = static_cast<std::int64_t>(indices.size());
  out.values.reserve(indices.size() * static_cast<std::size_t>(size));
  if (!set.labels.empty()) out.labels.reserve(indices.size());
  for (const std::int64_t i : indices) {
    require(i >= 0 && i < set.count, "take: index ", i, " is not in 0 ... ", set.count - 1, " of ",
            named(set));
    const auto begin = set.values.begin() + i * size;
    out.values.insert(out.values.end(), begin, begin + size);
    if (!set.labels.empty()) out.labels.push_back(set.labels[static_cast<std::size_t>(i)]);
  }
  return out;
}

Dataset slice(const Dataset& set, std::int64_t first, std::int64_t count) {
  require(first >= 0 && count >= 0 && first <= set.count && count <= set.count - first, "slice: items ",
          first, " to ", first, " + ", count, " do not lie within the ", set.count, " of ", named(set));
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  return take(set, indices);
}

Dataset with_labels(const Dataset& set, std::span<const std::int32_t> labels) {
  require(!set.labels.empty(), "with_labels: ", named(set), " has no labels to choose by");
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < set.count; ++i)
    if (std::find(labels.begin(), labels.end(), set.labels[static_cast<std::size_t>(i)]) != labels.end())
      indices.push_back(i);
  return take(set, indices);
}

Dataset shuffled(const Dataset& set, std::uint64_t seed) {
  return take(set, permutation(set.count, seed, 0));
}

std::pair<Dataset, Dataset> split(const Dataset& set, std::int64_t first, std::uint64_t seed) {
  require(first > 0 && first < set.count, "split: the first part must hold between 1 and ", set.count - 1,
          " items of ", named(set), ", got ", first);
  const auto order = permutation(set.count, seed, 0);
  const std::span<const std::int64_t> all(order);
  return {take(set, all.first(static_cast<std::size_t>(first))),
          take(set, all.subspan(static_cast<std::size_t>(first)))};
}

Dataset scaled(const Dataset& set, double low, double high) {
  require(std::isfinite(low) && std::isfinite(high) && low < high,
          "scaled: the range must be finite and increasing, got ", low, " to ", high);
  return mapped(set, 0.5 * (low + high), 0.5 * (high - low));
}

Dataset standardised(const Dataset& set) {
  check(set);
  const double n = static_cast<double>(set.values.size());
  double mean = 0, square = 0;
  for (const float v : set.values) mean += v;
  mean /= n;
  for (const float v : set.values) square += (v - mean) * (v - mean);
  const double deviation = std::sqrt(square / n);
  if (!(deviation > 0))
    fail(Fault::data, {named(set), ": all values are equal, so they cannot be standardised"});
  return mapped(set, mean, deviation);
}

std::vector<float> original(const Dataset& set, std::span<const float> values) {
  std::vector<float> out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    out[i] = static_cast<float>(set.scale * values[i] + set.offset);
  return out;
}

Dataset averaged_down(const Dataset& images, std::int64_t factor) {
  require(images.item_shape.size() == 3, "averaged_down: items of ", named(images), " have ",
          images.item_shape.size(), " axes, but an image has 3: height, width, channels");
  const std::int64_t h = images.item_shape[0], w = images.item_shape[1], c = images.item_shape[2];
  require(factor > 0 && h % factor == 0 && w % factor == 0, "averaged_down: ", h, " x ", w,
          " pixels cannot be cut into squares of ", factor);
  Dataset out = like(images);
  out.count = images.count, out.labels = images.labels;
  out.item_shape = {h / factor, w / factor, c};
  out.values.resize(images.values.size() / static_cast<std::size_t>(factor * factor));
  const double weight = 1.0 / static_cast<double>(factor * factor);
  std::size_t at = 0;
  for (std::int64_t n = 0; n < images.count; ++n)
    for (std::int64_t y = 0; y < h; y += factor)
      for (std::int64_t x = 0; x < w; x += factor)
        for (std::int64_t k = 0; k < c; ++k) {
          double sum = 0;
          for (std::int64_t dy = 0; dy < factor; ++dy)
            for (std::int64_t dx = 0; dx < factor; ++dx)
              sum += images.values[static_cast<std::size_t>(((n * h + y + dy) * w + x + dx) * c + k)];
          out.values[at++] = static_cast<float>(sum * weight);
        }
  return out;
}

}  // namespace costate::data
