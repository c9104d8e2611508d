#include <costate/tensor/file.h>
#include <costate/tensor/safetensors.h>
#include <costate/tensor/safetensors_stream.h>
#include <costate/tensor/utf8.h>
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>

namespace costate {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace {

using utf8::quoted;

// IEEE 754 binary16 to binary32, exactly: NaNs keep their sign and payload.
std::uint32_t widen_f16(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
  if (exponent == 31) return sign | 0x7F800000u | fraction << 13;
  if (exponent == 0) {  // fraction * 2^-24, which binary32 holds as a normal number
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(fraction) * 0x1p-24f);
    return sign | magnitude;
  }
  return sign | (exponent + 112) << 23 | fraction << 13;
}

std::uint32_t widen_bf16(std::uint16_t h) { return static_cast<std::uint32_t>(h) << 16; }

SafetensorsType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return SafetensorsType::F32;
    case DType::f64:
      return SafetensorsType::F64;
    case DType::i32:
      return SafetensorsType::I32;
    case DType::bf16:
      break;  // is written from f32, see SafetensorsPart
  }
  fail(Fault::argument, {"safetensors: ", dtype, " is not a type of the format"});
}

struct Layout {
  std::vector<SafetensorsEntry> entries;
  std::vector<const SafetensorsPart*> parts;  // of the same order
};

std::vector<SafetensorsPart> as_they_are(std::span<const NamedTensor> tensors) {
  std::vector<SafetensorsPart> parts;
  for (const auto& [name, tensor] : tensors)
    parts.push_back({name, tensor, tensor.defined() ? tensor.shape() : Shape(), {}});
  return parts;
}

Layout lay_out(std::span<const SafetensorsPart> parts) {
  std::vector<const SafetensorsPart*> order;
  for (const SafetensorsPart& p : parts) {
    require(p.tensor.defined(), "safetensors: tensor ", quoted(p.name), " is undefined");
    require(!p.tensor.is_meta(), "safetensors: tensor ", quoted(p.name),
            " is on the meta device and has no values to write");
    order.push_back(&p);
  }
  std::stable_sort(order.begin(), order.end(), [](const SafetensorsPart* a, const SafetensorsPart* b) {
    const auto x = type_of(a->tensor.dtype()), y = type_of(b->tensor.dtype());
    return x != y ? x > y : a->name < b->name;
  });
  Layout layout;
  std::uint64_t at = 0;
  for (const SafetensorsPart* p : order) {
    SafetensorsEntry e;
    e.name = p->name;
    e.type = type_of(p->tensor.dtype());
    for (const std::int64_t extent : p->shape.extents()) e.shape.push_back(static_cast<std::uint64_t>(extent));
    e.begin = at;
    e.end = at += static_cast<std::uint64_t>(p->tensor.bytes());
    layout.entries.push_back(std::move(e));
    layout.parts.push_back(p);
  }
  return layout;
}

std::span<const std::byte> raw_bytes(const Tensor& t) {
  return {static_cast<const std::byte*>(t.raw()), static_cast<std::size_t>(t.bytes())};
}

}  // namespace

struct SafetensorsFile::Contents {
  std::string where;
  std::optional<InputFile> file;  // or
  std::span<const std::byte> memory;
  SafetensorsOptions options;
  SafetensorsHeader header;
  std::vector<std::uint32_t> by_name;
  std::uint64_t data_begin = 0, ignored = 0;

  std::uint64_t size() const { return file ? file->size() : memory.size(); }
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    if (file)
      file->read(offset, out);
    else if (!out.empty())
      std::memcpy(out.data(), memory.data() + offset, out.size());
  }

  void read_header() {
    std::byte first[8] = {};
    const std::uint64_t total = size();
    if (total >= 8) read(0, first);
    const std::uint64_t n = safetensors_header_length(first, total, where);
    std::string json(static_cast<std::size_t>(n), '\0');
    read(8, std::as_writable_bytes(std::span(json)));
    data_begin = 8 + n;
    header = parse_safetensors_header(json, total - data_begin, options.lenient_trailing, where);
    ignored = total - data_begin - (header.entries.empty() ? 0 : header.entries.back().end);
    for (std::uint32_t i = 0; i < header.entries.size(); ++i) by_name.push_back(i);
    std::sort(by_name.begin(), by_name.end(), [&](std::uint32_t a, std::uint32_t b) {
      return header.entries[a].name < header.entries[b].name;
    });
  }

  void check(const SafetensorsEntry& e) const {
    require(&e >= header.entries.data() && &e < header.entries.data() + header.entries.size(), where,
            ": the entry of tensor ", quoted(e.name), " is not one of this file's");
  }
};

SafetensorsFile::SafetensorsFile(const std::string& path, const SafetensorsOptions& options) {
  const auto c = std::make_shared<Contents>();
  c->where = "safetensors file '" + path + "'";
  c->file.emplace(path);
  c->options = options;
  c->read_header();
  contents_ = c;
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, const SafetensorsOptions& options) {
  const auto c = std::make_shared<Contents>();
  c->where = "safetensors bytes";
  c->memory = bytes;
  c->options = options;
  c->read_header();
  contents_ = c;
}

const std::vector<SafetensorsEntry>& SafetensorsFile::entries() const { return contents_->header.entries; }
const SafetensorsMetadata& SafetensorsFile::metadata() const { return contents_->header.metadata; }
std::uint64_t SafetensorsFile::ignored_bytes() const { return contents_->ignored; }
const std::string& SafetensorsFile::where() const { return contents_->where; }

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto& all = contents_->header.entries;
  const auto& index = contents_->by_name;
  const auto it = std::lower_bound(index.begin(), index.end(), name,
                                   [&](std::uint32_t i, std::string_view n) { return all[i].name < n; });
  return it != index.end() && all[*it].name == name ? &all[*it] : nullptr;
}

std::vector<std::byte> SafetensorsFile::bytes(const SafetensorsEntry& entry) const {
  contents_->check(entry);
  std::vector<std::byte> out(static_cast<std::size_t>(entry.bytes()));
  contents_->read(contents_->data_begin + entry.begin, out);
  return out;
}

Tensor SafetensorsFile::tensor(const SafetensorsEntry& entry) const {
  const Contents& c = *contents_;
  c.check(entry);
  const bool half = entry.type == SafetensorsType::F16 || entry.type == SafetensorsType::BF16;
  DType dtype = DType::f32;
  switch (entry.type) {
    case SafetensorsType::F32:
      break;
    case SafetensorsType::F64:
      dtype = DType::f64;
      break;
    case SafetensorsType::I32:
      dtype = DType::i32;
      break;
    case SafetensorsType::F16:
    case SafetensorsType::BF16:
      if (c.options.widen_half) break;
      fail(Fault::data, {c.where, ": tensor ", quoted(entry.name), " is ", name(entry.type),
                         ", which is read as f32 only when the option widen_half asks for it"});
    default:
      fail(Fault::data, {c.where, ": tensor ", quoted(entry.name), " has the unsupported dtype ",
                         name(entry.type), "; tensors are read from F32, F64, I32, F16 and BF16"});
  }
  std::array<std::int64_t, Shape::max_rank> extents{};
  const std::size_t rank = entry.shape.size();
  if (rank > Shape::max_rank)
    fail(Fault::data, {c.where, ": tensor ", quoted(entry.name), " has ", rank, " axes; at most ",
                       Shape::max_rank, " are supported"});
  // A shape without elements may have extents of any size.
  std::int64_t product = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const bool fits = entry.shape[i] <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    extents[i] = fits ? static_cast<std::int64_t>(entry.shape[i]) : 0;
    if (!fits || __builtin_mul_overflow(product, extents[i], &product))
      fail(Fault::data, {c.where, ": tensor ", quoted(entry.name), " has an extent of ", entry.shape[i],
                         ", which is too large"});
  }
  const Shape shape(std::span<const std::int64_t>(extents.data(), rank));
  const Tensor t = Tensor::empty(shape, dtype);
  const auto values =
      std::span(static_cast<std::byte*>(t.raw_mutable()), static_cast<std::size_t>(t.bytes()));
  if (!half) {
    c.read(c.data_begin + entry.begin, values);
    return t;
  }
  // The n halves are read into the back of the tensor and widened from the front: element i is written to
  // bytes 4i .. 4i+3, all before those of the next one to be read, 2n + 2(i+1), as i < n.
  const std::size_t n = static_cast<std::size_t>(t.numel());
  c.read(c.data_begin + entry.begin, values.subspan(2 * n));
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t h;
    std::memcpy(&h, values.data() + 2 * n + 2 * i, 2);
    const std::uint32_t wide = entry.type == SafetensorsType::F16 ? widen_f16(h) : widen_bf16(h);
    std::memcpy(values.data() + 4 * i, &wide, 4);
  }
  return t;
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  if (!entry) fail(Fault::data, {contents_->where, ": there is no tensor ", quoted(name)});
  return tensor(*entry);
}

namespace {
std::vector<NamedTensor> all_of(const SafetensorsFile& file) {
  std::vector<NamedTensor> all;
  all.reserve(file.entries().size());
  for (const SafetensorsEntry& e : file.entries()) all.emplace_back(e.name, file.tensor(e));
  return all;
}
}  // namespace

std::vector<NamedTensor> load_safetensors(const std::string& path, const SafetensorsOptions& options) {
  return all_of(SafetensorsFile(path, options));
}
std::vector<NamedTensor> load_safetensors(std::span<const std::byte> bytes,
                                          const SafetensorsOptions& options) {
  return all_of(SafetensorsFile(bytes, options));
}

std::vector<std::byte> safetensors_bytes(std::span<const NamedTensor> tensors,
                                         const SafetensorsMetadata& metadata) {
  const std::vector<SafetensorsPart> parts = as_they_are(tensors);
  const Layout layout = lay_out(parts);
  const std::string header = format_safetensors_header(layout.entries, metadata);
  std::vector<std::byte> out;
  out.reserve(header.size() +
              (layout.entries.empty() ? 0 : static_cast<std::size_t>(layout.entries.back().end)));
  const auto append = [&](std::span<const std::byte> part) {
    out.insert(out.end(), part.begin(), part.end());
  };
  append(as_bytes(header));
  for (const SafetensorsPart* p : layout.parts) append(raw_bytes(p->tensor.to(Device::cpu)));
  return out;
}

void save_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                      SafetensorsMetadata metadata) {
  save_safetensors(path, as_they_are(tensors), std::move(metadata));
}

namespace {
void write_parts(const WriteBytes& write, const Layout& layout, SafetensorsMetadata metadata) {
  metadata.emplace("format", "pt");
  write(as_bytes(format_safetensors_header(layout.entries, metadata)));
  for (const SafetensorsPart* p : layout.parts) {
    const Tensor on_host = p->tensor.to(Device::cpu);
    if (p->bytes) write(p->bytes(on_host));
    else write(raw_bytes(on_host));
  }
}
}  // namespace

void save_safetensors(const std::string& path, std::span<const SafetensorsPart> parts,
                      SafetensorsMetadata metadata) {
  const Layout layout = lay_out(parts);
  write_file_atomically(path, [&](const WriteBytes& write) { write_parts(write, layout, std::move(metadata)); });
}

void write_safetensors(const WriteBytes& write, std::span<const NamedTensor> tensors, SafetensorsMetadata metadata) {
  const std::vector<SafetensorsPart> parts = as_they_are(tensors);
  write_parts(write, lay_out(parts), std::move(metadata));
}

}  // namespace costate
