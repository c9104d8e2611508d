#include <costate/nn/filters.h>
#include <costate/nn/save.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cstring>

namespace costate::nn::detail {
namespace {

constexpr std::size_t most_listed = 8;  // of one kind of fault: a sentence, not a log

struct FaultList {
  std::string what;
  std::vector<std::string> items;
};

std::string to_string(const FaultList& faults) {
  std::string s = std::to_string(faults.items.size()) + " " + faults.what + " (";
  for (std::size_t i = 0; i < std::min(most_listed, faults.items.size()); ++i)
    s.append(i ? ", " : "").append(faults.items[i]);
  if (faults.items.size() > most_listed)
    s += ", and " + std::to_string(faults.items.size() - most_listed) + " more";
  return s + ")";
}

std::vector<std::string> quoted(std::vector<std::string> names) {
  for (std::string& n : names) n = utf8::quoted(n);
  return names;
}

SafetensorsType type_of(DType dtype) {
  return dtype == DType::f32   ? SafetensorsType::F32
         : dtype == DType::f64 ? SafetensorsType::F64
                               : SafetensorsType::I32;
}

bool same_type(const SafetensorsEntry& e, DType dtype, bool widen_half) {
  const bool half = e.type == SafetensorsType::F16 || e.type == SafetensorsType::BF16;
  return e.type == type_of(dtype) || (half && widen_half && dtype == DType::f32);
}

bool same_shape(const SafetensorsEntry& e, const Shape& shape) {
  const auto extents = shape.extents();
  return std::equal(e.shape.begin(), e.shape.end(), extents.begin(), extents.end(),
                    [](std::uint64_t a, std::int64_t b) { return a == static_cast<std::uint64_t>(b); });
}

std::string in_words(const SafetensorsEntry& e) {
  std::string s(name(e.type));
  s += " (";
  for (std::size_t i = 0; i < e.shape.size(); ++i) s.append(i ? ", " : "").append(std::to_string(e.shape[i]));
  return s + (e.shape.size() == 1 ? ",)" : ")");
}

// The elements of filters in the order of files, one bank of them at a time and beside the ledger.
std::vector<std::byte> filter_bytes(const Tensor& t) {
  const std::int64_t out = t.extent(0), area = t.extent(1) * t.extent(2), in = t.extent(3);
  const std::size_t item = static_cast<std::size_t>(size_of(t.dtype()));
  const auto* from = static_cast<const std::byte*>(t.raw());
  std::vector<std::byte> bytes(static_cast<std::size_t>(t.bytes()));
  std::byte* to = bytes.data();
  for (std::int64_t o = 0; o < out; ++o)
    for (std::int64_t i = 0; i < in; ++i)
      for (std::int64_t p = 0; p < area; ++p, to += item)
        std::memcpy(to, from + static_cast<std::size_t>((o * area + p) * in + i) * item, item);
  return bytes;
}

}  // namespace

void save(const std::string& path, const Walk& walk, const SafetensorsMetadata& metadata) {
  std::vector<SafetensorsPart> parts;
  walk([&](const std::string& name, Var& p) {
    if (p.defined() && p.rank() == 4)
      parts.push_back({name, p.value(), shape_in_file(p.shape()), filter_bytes});
    else
      parts.push_back({name, p.value(), p.defined() ? p.shape() : Shape(), {}});
  });
  save_safetensors(path, parts, metadata);
}

LoadReport load(const std::string& path, const Walk& walk, const LoadOptions& options) {
  SafetensorsOptions reading;
  reading.lenient_trailing = options.lenient_trailing;
  reading.widen_half = options.widen_half;
  const SafetensorsFile file(path, reading);

  LoadReport report;
  std::vector<std::string> misfits;
  std::vector<Var*> parameters;                 // in visiting order
  std::vector<const SafetensorsEntry*> chosen;  // of the same order; null: missing
  std::vector<bool> used(file.entries().size(), false);
  walk([&](const std::string& name, Var& p) {
    const SafetensorsEntry* e = file.find(name);
    parameters.push_back(&p);
    chosen.push_back(e);
    if (!e) {
      report.missing.push_back(name);
      return;
    }
    used[static_cast<std::size_t>(e - file.entries().data())] = true;
    const Shape shape = shape_in_file(p.shape());
    if (!same_shape(*e, shape) || !same_type(*e, p.dtype(), options.widen_half))
      misfits.push_back(utf8::quoted(name) + " is " + in_words(*e) + " in the file and " +
                        std::string(costate::name(p.dtype())) + " " + costate::to_string(shape) + " in the model");
  });
  for (std::size_t i = 0; i < used.size(); ++i)
    if (!used[i]) report.unexpected.push_back(file.entries()[i].name);

  std::vector<FaultList> faults;
  if (!options.allow_partial && !report.missing.empty())
    faults.push_back({"missing", quoted(report.missing)});
  if (!options.allow_partial && !report.unexpected.empty())
    faults.push_back({"unexpected", quoted(report.unexpected)});
  if (!misfits.empty()) faults.push_back({"of another shape or type", misfits});
  if (!faults.empty()) {
    std::string all;
    for (const FaultList& f : faults) all += (all.empty() ? "" : "; ") + to_string(f);
    fail(Fault::data, {file.where(), " does not fit the model: parameters ", all});
  }

  // Everything is read before anything is given away, and giving away cannot fail.
  std::vector<Tensor> values;
  {
    const memory::TagScope scope(memory::Tag::parameters);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      Tensor t = chosen[i] ? file.tensor(*chosen[i]).to(parameters[i]->device()) : Tensor();
      if (t.defined() && t.rank() == 4) t = filters_from_file(t);
      values.push_back(std::move(t));
    }
  }
  report.metadata = file.metadata();
  report.ignored_bytes = file.ignored_bytes();
  for (std::size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i]) *parameters[i] = Var(std::move(values[i]));
  return report;
}

}  // namespace costate::nn::detail
