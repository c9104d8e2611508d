// Operations that users add: custom rules and checkpoints.
#include <costate/autograd/ops.h>
#include <costate/autograd/tape.h>

namespace costate {
namespace {

std::vector<const Var*> pointers(std::span<const Var> vars) {
  std::vector<const Var*> p;
  for (const Var& v : vars) p.push_back(&v);
  return p;
}
std::vector<Tensor> values(std::span<const Var> vars) {
  std::vector<Tensor> t;
  for (const Var& v : vars) t.push_back(v.value());
  return t;
}

template <class T>
void destroy(void* attributes) {
  T* object;
  std::memcpy(&object, attributes, sizeof object);
  delete object;
}

// A record that owns `object`, with all operands (and the result, if asked for) among its extras.
template <class T>
Var record_owning(const Rule& rule, const char* op, Tensor result, std::span<const Var> inputs, bool with_result, T object) {
  const auto p = pointers(inputs);
  Tape* tape = common_tape(op, p);
  if (!tape) return Var(std::move(result));
  auto saved = values(inputs);
  if (with_result) saved.push_back(result);
  auto owned = std::make_unique<T>(std::move(object));
  T* raw = owned.get();
  Var v = tape->record(rule, std::move(result), p, save_nothing, saved, &raw, sizeof raw, &destroy<T>);
  owned.release();
  return v;
}

void custom_vjp(Backward& b) {
  const CustomRule& rule = *b.attributes<CustomRule*>();
  require(!b.recorded(), "custom op '", rule.name, "': its rule has no derivative; only first order is supported");
  std::vector<Tensor> inputs;
  for (int i = 0; i < b.inputs(); ++i) inputs.push_back(b.extra(i));
  const Tensor output = b.extra(b.inputs());
  auto cotangents = rule.vjp(b.cotangent().value(), inputs, output);
  require(static_cast<int>(cotangents.size()) == b.inputs(), "custom op '", rule.name, "': the rule returned ",
          cotangents.size(), " cotangents for ", b.inputs(), " operands");
  for (int i = 0; i < b.inputs(); ++i) {
    if (!b.needs(i) || !cotangents[i].defined()) continue;
    require(cotangents[i].shape() == inputs[i].shape() && cotangents[i].dtype() == inputs[i].dtype(), "custom op '",
            rule.name, "': cotangent ", i, " is ", cotangents[i].dtype(), " of shape ", cotangents[i].shape(), "; its operand is ",
            inputs[i].dtype(), " of shape ", inputs[i].shape());
    b.add(i, Var(std::move(cotangents[i])));
  }
}
constexpr Rule custom_rule{"custom", custom_vjp};

using Function = std::function<Var(std::span<const Var>)>;

void checkpoint_vjp(Backward& b) {
  const Function& f = *b.attributes<Function*>();
  Tape inner;
  std::vector<Var> inputs, wanted;
  std::vector<int> index;
  for (int i = 0; i < b.inputs(); ++i) {
    inputs.push_back(b.needs(i) ? inner.watch(b.extra(i)) : Var(b.extra(i)));
    if (b.needs(i)) wanted.push_back(inputs.back()), index.push_back(i);
  }
  require(!b.recorded(), "checkpoint: the sweep through a checkpoint is not differentiable; differentiate the function itself");
  const Var y = [&] {
    const memory::TagScope scope(memory::Tag::activations);  // whatever the sweep's own results are
    return f(inputs);
  }();
  b.add_through(std::move(inner), y, wanted, index);
}
constexpr Rule checkpoint_rule{"checkpoint", checkpoint_vjp};

}  // namespace

Var custom(const CustomRule& rule, std::span<const Var> inputs) {
  require(rule.forward && rule.vjp, "custom op '", rule.name, "': forward and vjp are both needed");
  const auto in = values(inputs);
  Tensor result = rule.forward(in);
  require(result.defined(), "custom op '", rule.name, "': forward returned an undefined tensor");
  return record_owning(custom_rule, "custom", std::move(result), inputs, true, rule);
}

Var checkpoint(std::function<Var(std::span<const Var>)> f, std::span<const Var> inputs) {
  std::vector<Var> constants;
  for (const Var& v : inputs) constants.emplace_back(v.value());
  const Var y = f(constants);
  require(y.defined(), "checkpoint: the function returned an undefined value");
  require(!y.tracked(), "checkpoint: the function captured a tracked value; pass it among the inputs");
  return record_owning(checkpoint_rule, "checkpoint", y.value(), inputs, false, std::move(f));
}

}  // namespace costate
