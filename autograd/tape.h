// Reverse-mode differentiation on a flat tape.
//
// A tape is a list of plain records in creation order. Recording is a property of values: a Var that was watched, or was
// computed from one, knows its tape; a Tensor is a constant. There is no mode to switch and nothing to freeze: a network
// whose parameters are not watched costs no gradient and stores nothing for one.
//
//   Tape tape;
//   Var x = tape.watch(tensor);
//   Var y = sum(square(x));
//   Tensor dx = std::move(tape).vjp(y, x);
//
// A tape belongs to one thread. It must outlive the Vars recorded on it (they may be destroyed after it, not used).
#pragma once
#include <costate/tensor/tensor.h>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace costate {

class Tape;
class Backward;

// A value that may be recorded.
class Var {
 public:
  Var() = default;
  Var(const Tensor& value) : value_(value) {}
  Var(Tensor&& value) : value_(std::move(value)) {}
  Var(Tensor&& value, Tape* tape, std::int32_t node) : value_(std::move(value)), tape_(tape), node_(node) {}

  const Tensor& value() const { return value_; }
  Tensor& value() { return value_; }
  bool tracked() const { return tape_ != nullptr; }
  bool defined() const { return value_.defined(); }
  Tape* tape() const { return tape_; }
  std::int32_t node() const { return node_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t extent(int axis) const { return value_.extent(axis); }
  int rank() const { return value_.rank(); }
  std::int64_t numel() const { return value_.numel(); }
  DType dtype() const { return value_.dtype(); }
  Device device() const { return value_.device(); }

 private:
  Tensor value_;
  Tape* tape_ = nullptr;
  std::int32_t node_ = -1;
};

// A differentiable operation: its name and its rule.
struct Rule {
  const char* name;
  void (*vjp)(Backward&);
};

// One record: operands by node, saved tensors, a few bytes of attributes. The parts lie behind it in the tape's arena.
struct Node {
  const Rule* rule;
  std::int32_t* inputs;      // node of each operand, -1 for constants
  Tensor* saved;
  void* attributes;
  void (*destroy)(void*);    // of the attributes, or null
  std::int16_t input_count, saved_count;
  std::int16_t extra_first;  // index of the first extra among `saved`
  std::uint16_t saved_inputs;  // bit i: operand i is saved; bit 15: the result is
  std::uint32_t widened;     // bit i: saved[i] is kept in less than its type (precision.h), and widened for the rule
  Tensor* rounded;           // the result in the type that tapes keep (precision.h), once a record kept it so; or null
};

// What a rule of differentiation sees of one record: operands, result, cotangent. Rules are written in ops on Vars, so
// that they can be recorded themselves.
class Backward {
 public:
  // Whether the cotangent of operand i is wanted.
  bool needs(int i) const {
    const std::int32_t id = node_->inputs[i];
    return id >= base_ && needed_[id - base_];
  }
  // The operand resp. result; must have been saved when it was recorded.
  Var input(int i) const;
  const Tensor& input_value(int i) const;
  Var output() const;
  // Further tensors that the forward function saved; constants.
  const Tensor& extra(int i) const;
  const Var& cotangent() const { return cotangent_; }
  // The cotangent as a value that the rule may write to, if no one else holds it.
  Var& take_cotangent() { return cotangent_; }
  template <class A>
  const A& attributes() const {
    return *static_cast<const A*>(node_->attributes);
  }
  // Adds to the cotangent of operand i, if that is wanted.
  void add(int i, Var&& cotangent);
  void add(int i, const Var& cotangent) { add(i, Var(cotangent)); }
  // For a rule that computes its result again on a tape of its own: sweeps y on `inner`, which is freed, and adds what
  // reaches leaf[k] to the cotangent of operand[k], term by term in the order of an unbroken tape.
  void add_through(Tape&& inner, const Var& y, std::span<const Var> leaf, std::span<const int> operand);
  // Whether this sweep is itself recorded. Rules may then not use fused kernels that have no derivative of their own.
  bool recorded() const { return recorded_; }
  int inputs() const { return node_->input_count; }

 private:
  friend class Tape;
  Tape* tape_;
  const Node* node_;
  std::int32_t index_;
  Var cotangent_;
  Var* cotangents_;              // of nodes base_..
  std::int32_t base_;
  const std::uint8_t* needed_;   // of nodes base_..
  bool recorded_;

  // What was saved, in f32 again while the rule runs if it was kept in less.
  const Tensor& kept(Tensor& slot) const;
  void round_again();
  mutable std::vector<std::pair<Tensor*, Tensor>> widened_;
};

class Tape {
 public:
  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // A leaf: gradients with respect to it can be asked for.
  Var watch(const Tensor& value);

  // <cotangent, dy/dwrt> for every one of `wrt`: what does not depend is zeros. The tape stays and can be swept again.
  // `cotangent` has the shape of y. The results share storage with nothing else.
  std::vector<Tensor> vjp(const Var& y, const Tensor& cotangent, std::span<const Var> wrt) &;
  // The same; every record is freed as the sweep passes it. The tape is empty afterwards.
  std::vector<Tensor> vjp(const Var& y, const Tensor& cotangent, std::span<const Var> wrt) &&;
  // The sum over several results of <cotangents[j], dys[j]/dwrt>, in one sweep; an undefined cotangent is zeros.
  std::vector<Tensor> vjp(std::span<const Var> ys, std::span<const Tensor> cotangents, std::span<const Var> wrt) &;
  std::vector<Tensor> vjp(std::span<const Var> ys, std::span<const Tensor> cotangents, std::span<const Var> wrt) &&;
  // The gradient of a scalar y.
  Tensor vjp(const Var& y, const Var& wrt) &;
  Tensor vjp(const Var& y, const Var& wrt) &&;
  std::vector<Tensor> vjp(const Var& y, std::span<const Var> wrt) &;
  std::vector<Tensor> vjp(const Var& y, std::span<const Var> wrt) &&;
  // Recorded: the results can be differentiated again. Refused in words by ops whose rules have no derivative.
  std::vector<Var> recorded_vjp(const Var& y, const Var& cotangent, std::span<const Var> wrt);

  // Forgets all records; Vars recorded before must not be used any more.
  void clear();
  std::int64_t size() const { return static_cast<std::int64_t>(nodes_.size()); }

  // For ops: appends a record. `save` bits as in Node; extras are saved behind the operands.
  Var record(const Rule& rule, Tensor&& result, std::span<const Var* const> inputs, std::uint32_t save,
             std::span<const Tensor> extras, const void* attributes, std::size_t attribute_bytes,
             void (*destroy)(void*) = nullptr);

 private:
  friend class Backward;
  // With `sums`, one for each of wrt: what is defined there is added to, and what nothing reaches stays undefined.
  std::vector<Var> sweep_defined(std::span<const Var> ys, std::span<const Tensor> cotangents, std::span<const Var> wrt,
                                 bool free_nodes);
  std::vector<Var> sweep(std::span<const Var> ys, std::span<Var> seeds, std::span<const Var> wrt, bool free_nodes,
                         bool recorded, std::span<Var> sums = {});
  // What a record keeps of `value`, the result of `producer` or, if null, of none.
  Tensor kept(const Tensor& value, Node* producer);
  void* arena(std::size_t bytes);
  void destroy_node(Node* node);

  std::vector<Node*> nodes_;
  struct Chunk;
  Chunk* chunks_ = nullptr;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
};

// ---------------------------------------------------------------------------------------------- writing an op

// round_extras: extras are activations, which a tape may keep in less than f32.
enum : std::uint32_t { save_nothing = 0, save_output = 1u << 15, round_extras = 1u << 16 };
constexpr std::uint32_t save_input(int i) { return 1u << i; }

// The tape of the operands, or null when none is tracked. Throws when two tapes meet.
Tape* common_tape(const char* op, std::span<const Var* const> inputs);

// Wraps the result of an op: recorded if any operand is tracked. A rule that needs operand i names it in `save`; it should
// do so only when another operand is tracked (an op saves an operand only for the sake of the others).
template <class Attributes = std::nullptr_t>
Var record(const Rule& rule, Tensor result, std::initializer_list<const Var*> inputs, std::uint32_t save = save_nothing,
           const Attributes& attributes = {}, std::span<const Tensor> extras = {}) {
  static_assert(std::is_trivially_copyable_v<Attributes>);
  Tape* tape = nullptr;
  for (const Var* v : inputs)
    if (v->tape() && v->tape() != tape) {
      if (tape) [[unlikely]]
        return Var((common_tape(rule.name, {inputs.begin(), inputs.size()}), result));
      tape = v->tape();
    }
  if (!tape) return Var(std::move(result));
  constexpr std::size_t bytes = std::is_same_v<Attributes, std::nullptr_t> ? 0 : sizeof(Attributes);
  return tape->record(rule, std::move(result), {inputs.begin(), inputs.size()}, save, extras, &attributes, bytes);
}

// A user's operation: `forward` maps the operands' values to the result; `vjp` maps (cotangent, operands, result) to a
// cotangent for every operand (an undefined Tensor stands for zeros). First order only.
struct CustomRule {
  std::string name;
  std::function<Tensor(std::span<const Tensor>)> forward;
  std::function<std::vector<Tensor>(const Tensor& cotangent, std::span<const Tensor> inputs, const Tensor& output)> vjp;
};
Var custom(const CustomRule& rule, std::span<const Var> inputs);

// f(inputs), stored as one record: the sweep computes f again (Griewank and Walther 2008, chapter 12). Everything that f
// differentiates must come through `inputs`: tracked Vars captured by f are refused.
Var checkpoint(std::function<Var(std::span<const Var>)> f, std::span<const Var> inputs);

}  // namespace costate
