// The discrete adjoint: any plan of checkpoints.h, run on states.
#include <costate/sde/adjoint/methods.h>
#include <costate/tensor/file.h>

#include <map>

namespace costate::sde::detail {
namespace {

// States on disk, one behind the other in a file without a name. On the meta device nothing is written.
class Offloaded {
 public:
  explicit Offloaded(const std::string& folder) : folder_(folder) {}

  std::int64_t write(int step, const State& state) {
    Entry& entry = entries_[step];
    const std::uint64_t from = size_;
    for (const Tensor& t : state) {
      entry.tensors.push_back({t.defined(), t.shape(), t.dtype(), t.device(), size_});
      if (!t.defined()) continue;
      if (!t.is_meta()) {
        if (!file_) file_ = std::make_unique<ScratchFile>(folder_);
        const Tensor on_host = t.to(Device::cpu);
        file_->write(size_, {static_cast<const std::byte*>(on_host.raw()), static_cast<std::size_t>(t.bytes())});
      }
      size_ += static_cast<std::uint64_t>(t.bytes());
    }
    return static_cast<std::int64_t>(size_ - from);
  }
  State read(int step) const {
    const memory::TagScope scope(memory::Tag::trajectory);
    State state;
    for (const Entry::Part& p : entries_.at(step).tensors) {
      if (!p.defined) {
        state.emplace_back();
        continue;
      }
      const bool meta = p.device == Device::meta;
      const Tensor t = Tensor::empty(p.shape, p.dtype, meta ? Device::meta : Device::cpu);
      if (!meta) file_->read(p.offset, {static_cast<std::byte*>(t.raw_mutable()), static_cast<std::size_t>(t.bytes())});
      state.push_back(t.to(p.device));
    }
    return state;
  }
  void drop(int step) { entries_.erase(step); }
  bool holds(int step) const { return entries_.contains(step); }

 private:
  struct Entry {
    struct Part {
      bool defined;
      Shape shape;
      DType dtype;
      Device device;
      std::uint64_t offset;
    };
    std::vector<Part> tensors;
  };
  std::string folder_;
  std::unique_ptr<ScratchFile> file_;
  std::map<int, Entry> entries_;
  std::uint64_t size_ = 0;
};

}  // namespace

Gradient discrete(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options,
                  const CheckpointPlan& plan) {
  Gradient result;
  std::map<int, State> kept;
  Offloaded disk(options.scratch);
  State current = process.start(x0), costate;
  count(result.work, process.start_work);
  int at = 0;
  std::int64_t taken = 0;
  const auto take_step = [&](const State& state, int k) {
    count(result.work, process.step_work);
    ++taken;
    return process.step(k, state);
  };
  for (const CheckpointAction a : plan) switch (a.kind) {
      using Kind = CheckpointAction::Kind;
      case Kind::keep:
        for (const Tensor& t : current)
          if (t.defined()) t.storage().charge_to(memory::Tag::trajectory);
        kept[a.step] = current;
        break;
      case Kind::offload:
        result.work.offloaded_bytes += disk.write(a.step, current);
        break;
      case Kind::load:
        current.clear();
        current = disk.holds(a.step) ? disk.read(a.step) : kept.at(a.step);
        at = a.step;
        break;
      case Kind::drop:
        disk.drop(a.step);
        kept.erase(a.step);
        break;
      case Kind::advance:
        for (; at < a.step; ++at) current = take_step(current, at);
        break;
      case Kind::finish: {
        const State last = take_step(current, at);
        result.x = last[0];
        costate = terminal_costate(last, terminal);
        break;
      }
      case Kind::pullback: {
        if (options.visit) options.visit(a.step, current[0], costate[0]);
        StepPullback p = process.pullback(a.step, current, costate);
        count(result.work, process.pullback_work);
        costate = std::move(p.costate);
        accumulate(result.parameters, std::move(p.parameters));
        result.running_cost += p.cost;
        break;
      }
    }
  result.work.recomputed = taken - process.steps;
  finish(process, x0, std::move(costate), result);
  return result;
}

}  // namespace costate::sde::detail
