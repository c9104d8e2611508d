#include <costate/sde/adjoint/offloaded.h>

#include <costate/tensor/backend.h>

namespace costate::sde::detail {

// A block of the host's memory, pinned.
struct Offloaded::Pinned {
  const Backend& backend;
  void* data;
  Pinned(Device device, std::int64_t bytes) : backend(backend_of(device)), data(backend.pin(bytes)) {
    if (!data && bytes > 0)
      fail(Fault::memory, {"two_level: the host has no ", bytes, " bytes of memory that a device could copy a state to"});
  }
  ~Pinned() {
    if (data) backend.unpin(data);
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
};

Offloaded::Offloaded(const std::string& folder, bool host_memory) : folder_(folder), host_memory_(host_memory) {}
Offloaded::~Offloaded() {
  try {
    let_go(0);
    if (coming_ >= 0 && arriving_copy_)
      for (const Tensor& t : arriving_)
        if (t.defined()) backend_of(t.device()).finish_copy(arriving_copy_);
  } catch (...) {  // a device that has failed has told of it elsewhere
  }
}

// All but the latest copies are waited for by what is launched from now on; what they read may be written again.
void Offloaded::let_go(std::size_t keep) {
  for (; leaving_.size() > keep; leaving_.pop_front())
    backend_of(leaving_.front().held.device()).finish_copy(leaving_.front().number);
}

std::int64_t Offloaded::write(int step, const State& state) {
  Entry& entry = entries_[step];
  entry.clear();
  const std::uint64_t from = size_;
  for (const Tensor& t : state) {
    entry.push_back({t.defined(), t.shape(), t.dtype(), t.device(), size_, nullptr});
    if (!t.defined()) continue;
    if (host_memory_ && t.device().kind == DeviceKind::cuda) {
      let_go(1);
      entry.back().pinned = std::make_shared<Pinned>(t.device(), t.bytes());
      if (t.numel()) leaving_.push_back({backend_of(t.device()).start_copy(t.raw(), entry.back().pinned->data, t.bytes()), t});
    } else if (!t.is_meta()) {
      if (!file_) file_ = std::make_unique<ScratchFile>(folder_);
      const Tensor on_host = t.to(Device::cpu);
      file_->write(size_, {static_cast<const std::byte*>(on_host.raw()), static_cast<std::size_t>(t.bytes())});
    }
    size_ += static_cast<std::uint64_t>(t.bytes());
  }
  return static_cast<std::int64_t>(size_ - from);
}

State Offloaded::bring(const Entry& entry) {
  const memory::TagScope scope(memory::Tag::trajectory);
  State state;
  for (const Part& p : entry) {
    if (!p.defined) {
      state.emplace_back();
      continue;
    }
    if (p.pinned) {
      state.push_back(Tensor::empty(p.shape, p.dtype, p.device));
      if (state.back().numel())
        arriving_copy_ = backend_of(p.device).start_copy(p.pinned->data, state.back().raw_mutable(), state.back().bytes());
      continue;
    }
    const bool meta = p.device == Device::meta;
    const Tensor t = Tensor::empty(p.shape, p.dtype, meta ? Device::meta : Device::cpu);
    if (!meta) file_->read(p.offset, {static_cast<std::byte*>(t.raw_mutable()), static_cast<std::size_t>(t.bytes())});
    state.push_back(t.to(p.device));
  }
  return state;
}

State Offloaded::read(int step, int next) {
  let_go(0);
  State state = coming_ == step ? std::move(arriving_) : bring(entries_.at(step));
  for (const Tensor& t : state)
    if (t.defined() && t.device().kind == DeviceKind::cuda && arriving_copy_) {
      backend_of(t.device()).finish_copy(arriving_copy_);
      break;
    }
  coming_ = -1, arriving_copy_ = 0;
  const auto ahead = entries_.find(next);
  const bool pinned = ahead != entries_.end() && !ahead->second.empty() && ahead->second[0].pinned;
  if (pinned) arriving_ = bring(ahead->second), coming_ = next;
  return state;
}

int Offloaded::last_below(int step) const {
  const auto found = entries_.lower_bound(step);
  return found == entries_.begin() ? -1 : std::prev(found)->first;
}

}  // namespace costate::sde::detail
