// Tensors in safetensors files (see safetensors_header.h for the format): the exchange format of the field's
// checkpoints.
//
//   save_safetensors("model.safetensors", {{"weight", w}, {"bias", b}}, {{"step", "1000"}});
//   for (const auto& [name, tensor] : load_safetensors("model.safetensors")) ...
//
// F32, F64 and I32 are read and written; F16 and BF16 are read as f32 on request; all types are read as raw
// bytes.
#pragma once
#include <costate/tensor/safetensors_header.h>
#include <costate/tensor/tensor.h>

#include <functional>
#include <memory>
#include <utility>

namespace costate {

struct SafetensorsOptions {
  // Bytes behind the last tensor are passed over instead of refused; see SafetensorsFile::ignored_bytes.
  bool lenient_trailing = false;
  // F16 and BF16 become f32, which holds all their values exactly; otherwise a tensor of these types is
  // refused.
  bool widen_half = false;
};

using NamedTensor = std::pair<std::string, Tensor>;

// A file whose header has been read and checked in full; tensors are read one by one, each straight into its
// own memory. Copies share the open file.
class SafetensorsFile {
 public:
  // Throws Fault::io when the system refuses, Fault::data when the file is malformed, with a sentence that
  // names it.
  explicit SafetensorsFile(const std::string& path, const SafetensorsOptions& options = {});
  // The same of bytes in memory, which must outlive the object.
  explicit SafetensorsFile(std::span<const std::byte> bytes, const SafetensorsOptions& options = {});

  const std::vector<SafetensorsEntry>& entries() const;  // in the order of their bytes in the file
  const SafetensorsMetadata& metadata() const;
  const SafetensorsEntry* find(std::string_view name) const;  // null when there is none of this name
  std::uint64_t ignored_bytes() const;  // behind the last tensor; 0 unless lenient_trailing

  // A tensor on the cpu. Throws Fault::data, naming file and tensor, for the types that a tensor cannot have
  // and beyond Shape::max_rank axes; Fault::argument when the entry is not one of this file's.
  Tensor tensor(const SafetensorsEntry& entry) const;
  Tensor tensor(std::string_view name) const;  // Fault::data when there is none of this name
  // The bytes as they are in the file, of any type.
  std::vector<std::byte> bytes(const SafetensorsEntry& entry) const;

  const std::string& where() const;  // "safetensors file 'x'": for sentences

 private:
  struct Contents;
  std::shared_ptr<const Contents> contents_;
};

// All tensors, in the order of their bytes in the file.
std::vector<NamedTensor> load_safetensors(const std::string& path, const SafetensorsOptions& options = {});
std::vector<NamedTensor> load_safetensors(std::span<const std::byte> bytes,
                                          const SafetensorsOptions& options = {});

// The bytes of a file with these tensors: f64 first, then f32, then i32 (descending order of the format's
// types, which aligns every tensor), by name among equals; the header padded so that data begins at a
// multiple of 8. Metadata is written as it is, keys ascending. Throws Fault::argument when a name cannot be
// written (see format_safetensors_header), a tensor is undefined or has no values (meta).
std::vector<std::byte> safetensors_bytes(std::span<const NamedTensor> tensors,
                                         const SafetensorsMetadata& metadata = {});

// The same into a file, all or nothing (see write_file_atomically). Readers of the field want to be told
// which library's conventions the tensors follow: "format" is "pt" unless the metadata says otherwise.
void save_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                      SafetensorsMetadata metadata = {});
// Tensors whose elements have another order in the file: its shape there, and the bytes, made when they are written; null:
// those in memory.
struct SafetensorsPart {
  std::string name;
  Tensor tensor;
  Shape shape;
  std::function<std::vector<std::byte>(const Tensor&)> bytes;
};
void save_safetensors(const std::string& path, std::span<const SafetensorsPart> parts,
                      SafetensorsMetadata metadata = {});

}  // namespace costate
