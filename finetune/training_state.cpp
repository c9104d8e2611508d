#include <costate/finetune/training_state.h>

#include <bit>
#include <set>

namespace costate::finetune {

// Where a state comes from, and what of it has been taken.
struct StateVisitor::Source {
  std::function<Tensor(const std::string&)> find;  // undefined: there is none
  std::vector<std::string> names;
  std::set<std::string, std::less<>> taken;
};

std::vector<NamedTensor> StateVisitor::collect(const Walk& walk) {
  StateVisitor v;
  walk(v);
  return std::move(v.kept_);
}

void StateVisitor::run(Source& source, Device device, const Walk& walk) {
  StateVisitor v;
  v.source_ = &source, v.device_ = device;
  walk(v);
  for (const std::string& name : source.names)
    if (!source.taken.contains(name)) fail(Fault::data, {"the state of a training: '", name, "' is not of this training"});
}

void StateVisitor::restore(const std::vector<NamedTensor>& state, Device device, const Walk& walk) {
  Source source;
  std::map<std::string_view, const Tensor*> by_name;
  for (const auto& [name, tensor] : state) by_name[name] = &tensor, source.names.push_back(name);
  source.find = [&](const std::string& name) {
    const auto found = by_name.find(name);
    return found == by_name.end() ? Tensor() : found->second->to(Device::cpu).clone();
  };
  run(source, device, walk);
}

void StateVisitor::restore(const SafetensorsFile& file, Device device, const Walk& walk) {
  Source source;
  for (const SafetensorsEntry& e : file.entries()) source.names.push_back(e.name);
  source.find = [&](const std::string& name) {
    const SafetensorsEntry* e = file.find(name);
    return e ? file.tensor(*e) : Tensor();
  };
  run(source, device, walk);
}

std::string StateVisitor::enter(std::string_view name) {
  std::string outer = prefix_;
  prefix_ += std::string(name) + ".";
  return outer;
}

void StateVisitor::keep(std::string_view name, Tensor tensor) { kept_.emplace_back(full(name), std::move(tensor)); }

Tensor StateVisitor::take(std::string_view name, const Shape* shape, DType dtype, bool required) {
  const std::string key = full(name);
  Tensor t = source_->find(key);
  if (!t.defined()) {
    if (required) fail(Fault::data, {"the state of a training: '", key, "' is missing"});
    return t;
  }
  source_->taken.insert(key);
  if (required && (t.dtype() != dtype || (shape && t.shape() != *shape)))
    fail(Fault::data, {"the state of a training: '", key, "' is ", costate::name(t.dtype()), " of shape ", t.shape(),
                       ", expected ", costate::name(dtype), shape ? " of shape " + costate::to_string(*shape) : std::string()});
  return t;
}

std::vector<double> StateVisitor::take_doubles(std::string_view name) {
  return take(name, nullptr, DType::f64, true).to_doubles();
}
std::vector<std::int32_t> StateVisitor::take_integers(std::string_view name) {
  const Tensor t = take(name, nullptr, DType::i32, true);
  const auto values = t.values<std::int32_t>();
  return {values.begin(), values.end()};
}

std::int64_t StateVisitor::checked_count(std::int64_t count) const {
  if (count < 0 || count > (std::int64_t{1} << 32))
    fail(Fault::data, {"the state of a training: '", prefix_, "count' is ", count});
  return count;
}

void StateVisitor::operator()(std::string_view name, std::uint64_t& v) {
  if (!restoring()) {
    const std::int32_t halves[] = {std::bit_cast<std::int32_t>(static_cast<std::uint32_t>(v)),
                                   std::bit_cast<std::int32_t>(static_cast<std::uint32_t>(v >> 32))};
    return keep(name, Tensor::from(std::span<const std::int32_t>(halves), {2}));
  }
  const Shape shape{2};
  const Tensor t = take(name, &shape, DType::i32, true);
  const auto halves = t.values<std::int32_t>();
  v = std::bit_cast<std::uint32_t>(halves[0]) | static_cast<std::uint64_t>(std::bit_cast<std::uint32_t>(halves[1])) << 32;
}
void StateVisitor::operator()(std::string_view name, std::int64_t& v) {
  auto bits = std::bit_cast<std::uint64_t>(v);
  (*this)(name, bits);
  v = std::bit_cast<std::int64_t>(bits);
}
void StateVisitor::operator()(std::string_view name, int& v) {
  std::int64_t wide = v;
  (*this)(name, wide);
  v = static_cast<int>(wide);
}
void StateVisitor::operator()(std::string_view name, bool& v) {
  std::int64_t wide = v ? 1 : 0;
  (*this)(name, wide);
  v = wide != 0;
}
void StateVisitor::operator()(std::string_view name, double& v) {
  std::vector<double> one{v};
  (*this)(name, one);
  if (one.size() != 1) fail(Fault::data, {"the state of a training: '", full(name), "' is not one number"});
  v = one[0];
}

void StateVisitor::operator()(std::string_view name, std::vector<double>& v) {
  if (restoring()) v = take_doubles(name);
  else keep(name, Tensor::from(v, {static_cast<std::int64_t>(v.size())}));
}
void StateVisitor::operator()(std::string_view name, std::vector<int>& v) {
  if (restoring()) v = take_integers(name);
  else keep(name, Tensor::from(v, {static_cast<std::int64_t>(v.size())}));
}
void StateVisitor::operator()(std::string_view name, std::vector<std::uint8_t>& v) {
  std::vector<int> wide(v.begin(), v.end());
  (*this)(name, wide);
  if (restoring()) v.assign(wide.begin(), wide.end());
}
void StateVisitor::operator()(std::string_view name, std::vector<std::size_t>& v) {
  std::vector<int> narrow(v.begin(), v.end());
  (*this)(name, narrow);
  if (restoring()) v.assign(narrow.begin(), narrow.end());
}

void StateVisitor::operator()(std::string_view name, Tensor& v) {
  if (!restoring()) {
    if (v.defined()) keep(name, v);
    return;
  }
  const Tensor before = v;
  const Shape shape = before.defined() ? before.shape() : Shape();
  const Tensor found = take(name, before.defined() ? &shape : nullptr, before.defined() ? before.dtype() : DType::f32,
                            before.defined());
  v = found.defined() ? found.to(before.defined() ? before.device() : device_) : Tensor();
}

void StateVisitor::operator()(std::string_view name, std::vector<Tensor>& v) { list(name, v); }
void StateVisitor::operator()(std::string_view name, std::vector<std::vector<double>>& v) { list(name, v); }

void StateVisitor::operator()(std::string_view name, nn::Network& v) { parameters(name, v); }

void StateVisitor::operator()(std::string_view name, nn::AdamW& v) {
  const std::string outer = enter(name);
  const memory::TagScope scope(memory::Tag::optimiser);
  std::int64_t steps = v.steps();
  std::vector<Tensor> m = v.first_moments(), second = v.second_moments();
  (*this)("steps", steps), (*this)("m", m), (*this)("v", second);
  if (restoring()) v.restore(steps, std::move(m), std::move(second));
  prefix_ = outer;
}

void StateVisitor::operator()(std::string_view name, nn::Ema& v) {
  const std::string outer = enter(name);
  const memory::TagScope scope(memory::Tag::optimiser);
  std::int64_t updates = v.updates();
  std::vector<Tensor> average = v.average();
  (*this)("updates", updates), (*this)("average", average);
  if (restoring()) v.restore(updates, std::move(average));
  prefix_ = outer;
}

}  // namespace costate::finetune
