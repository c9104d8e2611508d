// The state of a training: everything that its next update depends on but its settings, so that a training which is given
// back the state of another one goes on with that one's bits. Parameters, moments of optimisers, averages, replay buffers,
// running statistics and counts are of it; random numbers are not, because they are functions of counts (tensor/random.h).
//
// One walk says what the state is, and serves for keeping it and for giving it back:
//
//   void Learner::visit_state(StateVisitor& v) { v("network", network_); v("optimiser", optimiser_); v("updates", updates_); }
//
//   std::vector<NamedTensor> kept = StateVisitor::collect([&](StateVisitor& v) { learner.visit_state(v); });
//   StateVisitor::restore(kept, Device::cpu, [&](StateVisitor& v) { learner.visit_state(v); });
//
// Numbers are tensors as well, doubles whole: a state is a file of safetensors.
#pragma once
#include <costate/nn/network.h>
#include <costate/nn/optim.h>
#include <costate/tensor/safetensors.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace costate::finetune {

class StateVisitor {
 public:
  using Walk = std::function<void(StateVisitor&)>;
  // Handles of the tensors of a state, which share their storage, and its numbers; in the order of the walk.
  static std::vector<NamedTensor> collect(const Walk& walk);
  // Tensors get storage of their own, on the device of what they replace or, where there was nothing, on `device`. Throws
  // Fault::data naming what is missing, of another shape or type, or left over; what is walked is then not to be used.
  static void restore(const std::vector<NamedTensor>& state, Device device, const Walk& walk);
  static void restore(const SafetensorsFile& file, Device device, const Walk& walk);

  bool restoring() const { return source_ != nullptr; }

  void operator()(std::string_view name, bool& v);
  void operator()(std::string_view name, int& v);
  void operator()(std::string_view name, std::int64_t& v);
  void operator()(std::string_view name, std::uint64_t& v);
  void operator()(std::string_view name, double& v);
  void operator()(std::string_view name, std::vector<double>& v);
  void operator()(std::string_view name, std::vector<int>& v);
  void operator()(std::string_view name, std::vector<std::uint8_t>& v);
  void operator()(std::string_view name, std::vector<std::size_t>& v);
  // A tensor that has a shape already keeps it; one that is undefined takes what the state has, or stays undefined. So do the
  // entries of a list whose length the state decides.
  void operator()(std::string_view name, Tensor& v);
  void operator()(std::string_view name, std::vector<Tensor>& v);
  void operator()(std::string_view name, std::vector<std::vector<double>>& v);
  // Its parameters; buffers and frozen weights are settings.
  void operator()(std::string_view name, nn::Network& v);
  template <class Model>
  void parameters(std::string_view name, Model& model);
  void operator()(std::string_view name, nn::AdamW& v);
  void operator()(std::string_view name, nn::Ema& v);
  template <class Part>
    requires requires(Part& part, StateVisitor& v) { part.visit_state(v); }
  void operator()(std::string_view name, Part& part) {
    const std::string outer = enter(name);
    part.visit_state(*this);
    prefix_ = outer;
  }
  // A list of parts, which are made as the first one is where the state has more.
  template <class List>
  void list(std::string_view name, List& parts) {
    const std::string outer = enter(name);
    auto count = static_cast<std::int64_t>(parts.size());
    (*this)("count", count);
    if (restoring()) parts.clear(), parts.resize(static_cast<std::size_t>(checked_count(count)));
    std::int64_t i = 0;
    for (auto& part : parts) (*this)(std::to_string(i++), part);
    prefix_ = outer;
  }

 private:
  struct Source;  // of a state that is given back
  StateVisitor() = default;
  std::string enter(std::string_view name);  // the prefix before
  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  void keep(std::string_view name, Tensor tensor);
  Tensor take(std::string_view name, const Shape* shape, DType dtype, bool required);  // on the cpu
  std::vector<double> take_doubles(std::string_view name);
  std::vector<std::int32_t> take_integers(std::string_view name);
  std::int64_t checked_count(std::int64_t count) const;
  static void run(Source& source, Device device, const Walk& walk);

  std::string prefix_;
  std::vector<NamedTensor> kept_;
  Source* source_ = nullptr;
  Device device_ = Device::cpu;
};

template <class Model>
void StateVisitor::parameters(std::string_view name, Model& model) {
  const std::string outer = enter(name);
  nn::visit(model, [&](const std::string& parameter, Var& p) {
    Tensor t = p.value();
    const memory::TagScope scope(memory::Tag::parameters);
    (*this)(parameter, t);
    if (restoring()) p = Var(std::move(t));
  });
  prefix_ = outer;
}

}  // namespace costate::finetune
