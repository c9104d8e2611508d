// IDX, the format of the MNIST files (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
// digits"): bytes 0, 0, type, rank; then `rank` extents as big-endian u32; then the elements, row-major and
// big-endian. Types: 0x08 u8, 0x09 i8, 0x0B i16, 0x0C i32, 0x0D f32, 0x0E f64.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <costate/finetune/data/elements.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace costate::data {

struct IdxArray {
  Element element = Element::u8;
  std::vector<std::int64_t> shape;      // 1 ... 8 extents
  std::span<const std::byte> elements;  // within the bytes given to parse_idx; big-endian
};

// Throws Fault::data, naming `what` (a file name, say), unless the bytes are one IDX array of exactly the
// announced size.
IdxArray parse_idx(std::span<const std::byte> bytes, std::string_view what);

// A data set of the images of one file, u8 of shape (count, height, width) scaled from 0 ... 255 to [0, 1],
// and the labels of another, u8 of shape (count). No label bytes: a set without labels. Shape (count, height,
// width, 1).
Dataset idx_images(std::span<const std::byte> images, std::string_view images_name,
                   std::span<const std::byte> labels, std::string_view labels_name);

}  // namespace costate::data
