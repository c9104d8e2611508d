#include <costate/autograd/tape.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/precision.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <new>

namespace costate {

// ---------------------------------------------------------------------------------------------- arena

// Chunks are kept by the thread that freed them, so that a tape a step costs no system call.
struct Tape::Chunk {
  static constexpr std::size_t standard = std::size_t{1} << 16;
  Chunk* next;
  std::size_t bytes;
  std::byte* begin() { return reinterpret_cast<std::byte*>(this) + 64; }
};

namespace {

constexpr std::size_t align_up(std::size_t n) { return (n + 15) & ~std::size_t{15}; }

struct ChunkCache {
  std::array<void*, 64> free{};  // takes no memory: tapes are cleared where an exception must not leave
  std::size_t count = 0;
  ~ChunkCache() {
    while (count > 0) std::free(free[--count]);
  }
};
thread_local ChunkCache chunk_cache;

// Buffers of a sweep, kept for the next one on this thread; a sweep within a sweep takes others.
struct SweepBuffers {
  std::vector<Var> cotangents;
  std::vector<std::uint8_t> flags;
};
thread_local std::vector<SweepBuffers> buffer_cache;

constexpr std::uint8_t needed_flag = 1, wanted_flag = 2;

}  // namespace

void* Tape::arena(std::size_t bytes) {
  bytes = align_up(bytes);
  if (static_cast<std::size_t>(end_ - next_) < bytes) {
    const std::size_t size = std::max(Chunk::standard, bytes + 64);
    void* memory = nullptr;
    if (size == Chunk::standard && chunk_cache.count > 0) {
      memory = chunk_cache.free[--chunk_cache.count];
    } else {
      memory = std::aligned_alloc(64, (size + 63) / 64 * 64);
      if (!memory) fail(Fault::memory, {"tape: the system refused ", size, " bytes for records"});
    }
    chunks_ = new (memory) Chunk{chunks_, size};
    next_ = chunks_->begin();
    end_ = reinterpret_cast<std::byte*>(chunks_) + size;
  }
  void* p = next_;
  next_ += bytes;
  return p;
}

Tape::Tape() = default;
Tape::~Tape() { clear(); }

void Tape::destroy_node(Node* node) {
  for (int i = 0; i < node->saved_count; ++i) node->saved[i].~Tensor();
  if (node->rounded) node->rounded->~Tensor();
  if (node->destroy) node->destroy(node->attributes);
}

void Tape::clear() {
  for (Node* n : nodes_)
    if (n) destroy_node(n);
  nodes_.clear();
  while (chunks_) {
    Chunk* c = std::exchange(chunks_, chunks_->next);
    if (c->bytes == Chunk::standard && chunk_cache.count < chunk_cache.free.size()) chunk_cache.free[chunk_cache.count++] = c;
    else std::free(c);
  }
  next_ = end_ = nullptr;
}

// ---------------------------------------------------------------------------------------------- recording

Var Tape::watch(const Tensor& value) {
  static constexpr Rule leaf{"watch", nullptr};
  require(value.defined(), "watch: the tensor is undefined");
  require(is_floating(value.dtype()), "watch: the tensor is ", value.dtype(), ", which has no derivatives");
  return record(leaf, Tensor(value), {}, save_nothing, {}, nullptr, 0);
}

Tensor Tape::kept(const Tensor& value, Node* producer) {
  const DType type = current_kept_type();
  if (type == DType::f32 || value.dtype() != DType::f32 || value.storage()->tag != memory::Tag::activations) return value;
  if (producer && producer->rounded) return *producer->rounded;
  const memory::TagScope scope(memory::Tag::activations);
  Tensor rounded = value.to(type);
  if (producer) producer->rounded = new (arena(sizeof(Tensor))) Tensor(rounded);
  return rounded;
}

Var Tape::record(const Rule& rule, Tensor&& result, std::span<const Var* const> inputs, std::uint32_t save,
                 std::span<const Tensor> extras, const void* attributes, std::size_t attribute_bytes,
                 void (*destroy)(void*)) {
  const bool rounds_extras = save & round_extras;
  save &= ~static_cast<std::uint32_t>(round_extras);
  const std::size_t n = inputs.size();
  require(n <= INT16_MAX && n + extras.size() < INT16_MAX, rule.name, ": ", n, " operands are more than a record holds");
  std::size_t saved = extras.size();
  for (std::uint32_t bits = save; bits; bits &= bits - 1) ++saved;
  const std::size_t at_inputs = align_up(sizeof(Node)), at_saved = at_inputs + align_up(4 * n),
                    at_attributes = at_saved + align_up(sizeof(Tensor) * saved);
  auto* memory = static_cast<std::byte*>(arena(at_attributes + attribute_bytes));
  // Room for it first: a record that is not in the list gives nothing back.
  if (nodes_.size() == nodes_.capacity()) nodes_.reserve(std::max<std::size_t>(64, 2 * nodes_.size()));
  auto* node = new (memory) Node;
  node->rule = &rule;
  node->inputs = reinterpret_cast<std::int32_t*>(memory + at_inputs);
  node->saved = reinterpret_cast<Tensor*>(memory + at_saved);
  node->attributes = memory + at_attributes;
  node->destroy = destroy;
  node->input_count = static_cast<std::int16_t>(n);
  node->saved_count = static_cast<std::int16_t>(saved);
  node->saved_inputs = static_cast<std::uint16_t>(save);
  node->rounded = nullptr;
  node->widened = 0;
  Tensor* to = node->saved;
  // What is kept in less than its type is marked: a bf16 tensor is a rounded f32 one, or one that was bf16 all along. Beyond
  // the marks everything is kept as it is.
  const auto save_kept = [&](const Tensor& value, Node* producer) {
    const std::ptrdiff_t slot = to - node->saved;
    new (to++) Tensor(slot < 32 ? kept(value, producer) : value);
    if (slot < 32 && to[-1].dtype() != value.dtype()) node->widened |= std::uint32_t{1} << slot;
  };
  for (std::size_t i = 0; i < n; ++i) {
    node->inputs[i] = inputs[i]->tape() ? inputs[i]->node() : -1;
    if (i < 15 && (save & save_input(static_cast<int>(i))))
      save_kept(inputs[i]->value(), inputs[i]->tape() ? nodes_[inputs[i]->node()] : nullptr);
  }
  if (save & save_output) save_kept(result, node);
  node->extra_first = static_cast<std::int16_t>(to - node->saved);
  for (const Tensor& t : extras) {
    if (rounds_extras) save_kept(t, nullptr);
    else new (to++) Tensor(t);
  }
  if (attribute_bytes) std::memcpy(node->attributes, attributes, attribute_bytes);
  const auto index = static_cast<std::int32_t>(nodes_.size());
  nodes_.push_back(node);
  return Var(std::move(result), this, index);
}

Tape* common_tape(const char* op, std::span<const Var* const> inputs) {
  Tape* tape = nullptr;
  for (const Var* v : inputs) {
    if (!v->tape()) continue;
    require(!tape || tape == v->tape(), op, ": the operands are recorded on two different tapes");
    tape = v->tape();
  }
  return tape;
}

// ---------------------------------------------------------------------------------------------- what a rule sees

const Tensor& Backward::input_value(int i) const {
  require(node_->saved_inputs & save_input(i), node_->rule->name, ": operand ", i, " was not saved for the sweep");
  int at = 0;
  for (std::uint32_t before = node_->saved_inputs & (save_input(i) - 1u); before; before &= before - 1) ++at;
  return kept(node_->saved[at]);
}
Var Backward::input(int i) const {
  const Tensor& t = input_value(i);
  return recorded_ && node_->inputs[i] >= 0 ? Var(Tensor(t), tape_, node_->inputs[i]) : Var(t);
}
Var Backward::output() const {
  require(node_->saved_inputs & save_output, node_->rule->name, ": the result was not saved for the sweep");
  const Tensor& t = kept(node_->saved[node_->extra_first - 1]);
  return recorded_ ? Var(Tensor(t), tape_, index_) : Var(t);
}
const Tensor& Backward::extra(int i) const { return kept(node_->saved[node_->extra_first + i]); }

const Tensor& Backward::kept(Tensor& slot) const {
  const std::ptrdiff_t i = &slot - node_->saved;
  if (i < 32 && (node_->widened >> i & 1u) && slot.dtype() == DType::bf16) {
    widened_.emplace_back(&slot, slot);
    slot = slot.to(DType::f32);
  }
  return slot;
}
void Backward::round_again() {
  for (auto& [slot, rounded] : widened_) *slot = std::move(rounded);
  widened_.clear();
}

void Backward::add(int i, Var&& cotangent) {
  const std::int32_t id = node_->inputs[i];
  if (id < base_ || !needed_[id - base_]) return;
  Var& sum = cotangents_[id - base_];
  if (!sum.defined()) sum = std::move(cotangent);
  else if (!recorded_ && sum.value().unique()) add_in_place(sum.value(), cotangent.value());
  else sum = costate::add(sum, cotangent);
}

void Backward::add_through(Tape&& inner, const Var& y, std::span<const Var> leaf, std::span<const int> operand) {
  std::vector<Var> sums(leaf.size());
  for (std::size_t k = 0; k < leaf.size(); ++k) {
    const std::int32_t id = node_->inputs[operand[k]];
    // An operand named twice: its first leaf goes on with the sum, the others are added to it.
    if (id >= base_ && needed_[id - base_]) sums[k] = std::exchange(cotangents_[id - base_], Var());
  }
  auto through = inner.sweep({&y, 1}, {&cotangent_, 1}, leaf, true, false, sums);
  inner.clear();
  for (std::size_t k = 0; k < leaf.size(); ++k) if (through[k].defined()) add(operand[k], std::move(through[k]));
}

// ---------------------------------------------------------------------------------------------- sweep

std::vector<Var> Tape::sweep(std::span<const Var> ys, std::span<Var> seeds, std::span<const Var> wrt, bool free_nodes,
                             bool recorded, std::span<Var> sums) {
  const auto count = static_cast<std::int32_t>(nodes_.size());
  std::int32_t top = -1;
  for (std::size_t j = 0; j < ys.size(); ++j) {
    const Var &y = ys[j], &cotangent = seeds[j];
    require(cotangent.shape() == y.shape() && cotangent.dtype() == y.dtype(), "vjp: the cotangent is ", cotangent.dtype(),
            " of shape ", cotangent.shape(), "; that of the result is ", y.dtype(), " of shape ", y.shape());
    require(y.defined() && cotangent.defined() && cotangent.device() == y.device(),
            "vjp: the result and the cotangent must be defined and on one device");
    require(!y.tape() || y.tape() == this, "vjp: the result was recorded on another tape");
    require(!y.tape() || (y.node() >= 0 && y.node() < count), "vjp: the tape was cleared after the result was recorded");
    if (y.tape()) top = std::max(top, y.node());
  }
  std::int32_t base = count;
  for (const Var& v : wrt) {
    require(v.tape() == this && v.node() >= 0 && v.node() < count,
            "vjp: a value that gradients are asked for was not watched on (or computed on) this tape");
    base = std::min(base, v.node());
  }
  std::vector<Var> result(wrt.size());

  SweepBuffers buffers;
  if (!buffer_cache.empty()) {
    buffers = std::move(buffer_cache.back());
    buffer_cache.pop_back();
  }
  if (top >= base) {
    const auto span = static_cast<std::size_t>(top - base + 1);
    if (buffers.cotangents.size() < span) buffers.cotangents.resize(span);  // all undefined between sweeps
    buffers.flags.assign(span, 0);
    std::uint8_t* flags = buffers.flags.data();
    for (const Var& v : wrt)
      if (v.node() <= top) flags[v.node() - base] = needed_flag | wanted_flag;
    for (std::int32_t i = base; i <= top; ++i) {
      const Node* n = nodes_[i];
      if (!n || flags[i - base]) continue;
      for (int k = 0; k < n->input_count; ++k)
        if (n->inputs[k] >= base && flags[n->inputs[k] - base]) {
          flags[i - base] = needed_flag;
          break;
        }
    }

    Var* cotangents = buffers.cotangents.data();
    for (std::size_t j = 0; j < ys.size(); ++j) {
      if (!ys[j].tape() || ys[j].node() < base) continue;
      Var& slot = cotangents[ys[j].node() - base];
      slot = slot.defined() ? costate::add(slot, seeds[j]) : std::move(seeds[j]);
    }
    for (std::size_t k = 0; k < sums.size(); ++k)
      if (wrt[k].node() < top) cotangents[wrt[k].node() - base] = std::move(sums[k]);
    Backward b;
    b.tape_ = this, b.cotangents_ = cotangents, b.base_ = base, b.needed_ = flags, b.recorded_ = recorded;
    for (std::int32_t i = top; i >= base; --i) {
      Node* n = nodes_[i];
      Var& slot = cotangents[i - base];
      if (slot.defined() && (flags[i - base] & needed_flag)) {
        require(n != nullptr, "vjp: a record was freed by an earlier sweep");
        if (n->rule->vjp) {
          b.node_ = n, b.index_ = i;
          if (flags[i - base] & wanted_flag) b.cotangent_ = slot;
          else b.cotangent_ = std::move(slot);
          n->rule->vjp(b);
          b.round_again();
          if (b.cotangent_.defined()) b.cotangent_ = Var();
        }
      }
      if (slot.defined() && !(flags[i - base] & wanted_flag)) slot = Var();
      if (free_nodes && n) {
        destroy_node(n);
        nodes_[i] = nullptr;
      }
    }
    for (std::size_t k = 0; k < wrt.size(); ++k)
      if (wrt[k].node() <= top) result[k] = cotangents[wrt[k].node() - base];
    for (const Var& v : wrt)
      if (v.node() <= top) cotangents[v.node() - base] = Var();
  }
  if (buffer_cache.size() < 4 && buffers.cotangents.size() < (std::size_t{1} << 16)) buffer_cache.push_back(std::move(buffers));
  if (!sums.empty()) {
    for (std::size_t k = 0; k < wrt.size(); ++k)
      if (sums[k].defined()) result[k] = result[k].defined() ? costate::add(sums[k], result[k]) : std::move(sums[k]);
    return result;
  }
  for (std::size_t k = 0; k < wrt.size(); ++k)
    if (!result[k].defined()) result[k] = Tensor::zeros(wrt[k].shape(), wrt[k].dtype(), wrt[k].device());
  return result;
}

namespace {
std::vector<Tensor> values(std::vector<Var> vars) {
  std::vector<Tensor> t;
  t.reserve(vars.size());
  // Two results may be one tensor (both terms of a sum), or the caller's cotangent: whoever accumulates into one in place
  // must not change the other.
  for (Var& v : vars) t.push_back(v.value().unique() ? std::move(v.value()) : v.value().clone());
  return t;
}
Tensor one_for(const Var& y) {
  require(y.numel() == 1, "vjp: the result has shape ", y.shape(), "; without a cotangent it must be a scalar");
  return Tensor::full(y.shape(), 1.0, y.dtype(), y.device());
}
}  // namespace

std::vector<Tensor> Tape::vjp(const Var& y, const Tensor& cotangent, std::span<const Var> wrt) & {
  Var seed(cotangent);
  return values(sweep({&y, 1}, {&seed, 1}, wrt, false, false));
}
std::vector<Tensor> Tape::vjp(const Var& y, const Tensor& cotangent, std::span<const Var> wrt) && {
  Var seed(cotangent);
  auto r = values(sweep({&y, 1}, {&seed, 1}, wrt, true, false));
  clear();
  return r;
}
std::vector<Var> Tape::sweep_defined(std::span<const Var> ys, std::span<const Tensor> cotangents, std::span<const Var> wrt,
                                     bool free_nodes) {
  require(ys.size() == cotangents.size(), "vjp: ", ys.size(), " results with ", cotangents.size(), " cotangents");
  std::vector<Var> results, seeds;
  for (std::size_t j = 0; j < ys.size(); ++j)
    if (cotangents[j].defined()) results.push_back(ys[j]), seeds.emplace_back(cotangents[j]);
  return sweep(results, seeds, wrt, free_nodes, false);
}
std::vector<Tensor> Tape::vjp(std::span<const Var> ys, std::span<const Tensor> cotangents, std::span<const Var> wrt) & {
  return values(sweep_defined(ys, cotangents, wrt, false));
}
std::vector<Tensor> Tape::vjp(std::span<const Var> ys, std::span<const Tensor> cotangents, std::span<const Var> wrt) && {
  auto r = values(sweep_defined(ys, cotangents, wrt, true));
  clear();
  return r;
}
Tensor Tape::vjp(const Var& y, const Var& wrt) & { return vjp(y, one_for(y), {&wrt, 1})[0]; }
Tensor Tape::vjp(const Var& y, const Var& wrt) && { return std::move(*this).vjp(y, one_for(y), {&wrt, 1})[0]; }
std::vector<Tensor> Tape::vjp(const Var& y, std::span<const Var> wrt) & { return vjp(y, one_for(y), wrt); }
std::vector<Tensor> Tape::vjp(const Var& y, std::span<const Var> wrt) && {
  return std::move(*this).vjp(y, one_for(y), wrt);
}
std::vector<Var> Tape::recorded_vjp(const Var& y, const Var& cotangent, std::span<const Var> wrt) {
  Var seed(cotangent);
  return sweep({&y, 1}, {&seed, 1}, wrt, false, true);
}

}  // namespace costate
