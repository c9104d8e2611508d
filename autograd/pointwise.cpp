// Pointwise ops: every row of pointwise.def, its vjp, and the vjp of that.
#include <costate/autograd/ops.h>
#include <costate/tensor/loop.h>
#include <costate/tensor/pointwise.h>

#include <array>
#include <utility>

namespace costate {
namespace {

using Operands = std::span<const Var* const>;

struct Attributes {
  std::int16_t op, variant;
  std::int16_t operands;  // of the row itself
  double parameters[4];
};

constexpr int rows = pointwise_count;

void vjp(Backward& b);
// One rule a row, for its name.
template <std::size_t... I>
constexpr std::array<Rule, rows> make_rules(std::index_sequence<I...>) {
  return {Rule{pointwise_rows[I].name.data(), vjp}...};
}
constexpr std::array<Rule, rows> rules = make_rules(std::make_index_sequence<rows>{});

// Any variant of a row, recorded if an operand is tracked.
Var apply(const Attributes& a, Operands operands) {
  const Rule& rule = rules[a.op];
  require(operands.size() >= 1 && operands.size() <= Loop::max_operands, rule.name, ": ", operands.size(), " operands");
  const Var& first = *operands[0];
  Shape shape = first.shape();
  std::uint32_t tracked = 0;
  bool same = true;
  Tape* tape = nullptr;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Var& v = *operands[i];
    require(v.defined(), rule.name, ": operand ", i, " is undefined");
    require(v.dtype() == first.dtype() && v.dtype() != DType::i32, rule.name, ": operand ", i, " is ", v.dtype(),
            "; expected ", first.dtype() == DType::i32 ? DType::f32 : first.dtype());
    require(v.device() == first.device(), rule.name, ": operand ", i, " is on the ", to_string(v.device()),
            ", operand 0 on the ", to_string(first.device()));
    if (!(v.shape() == shape)) {
      same = false;
      shape = broadcast(shape, v.shape(), rule.name);
    }
    if (v.tape()) {
      tracked |= 1u << i;
      if (!tape) tape = v.tape();
      else if (tape != v.tape()) common_tape(rule.name, operands);
    }
  }
  Tensor out = Tensor::empty(shape, first.dtype(), first.device());
  PointwiseCall call;
  call.op = a.op, call.variant = a.variant, call.dtype = first.dtype();
  call.operands = static_cast<int>(operands.size());
  call.parameters = a.parameters;
  call.out = out.raw_mutable();
  const Shape* shapes[Loop::max_operands];
  for (std::size_t i = 0; i < operands.size(); ++i) {
    call.in[i] = operands[i]->value().raw();
    shapes[i] = &operands[i]->shape();
  }
  if (same) call.loop.numel = shape.numel();
  else call.loop = pointwise_loop(shape, {shapes, operands.size()});
  if (shape.numel()) kernels(out).pointwise(call);
  if (!tape) return Var(std::move(out));

  // Operand i is needed where a derivative with respect to a tracked operand j involves it. Sums and differences
  // (derivatives that are constants) are told apart here, so that they save nothing.
  const auto op = static_cast<Pointwise>(a.op);
  std::uint32_t save = 0;
  const bool linear = op == Pointwise::add || op == Pointwise::sub || op == Pointwise::neg || op == Pointwise::affine ||
                      op == Pointwise::axpby || op == Pointwise::chain_step || op == Pointwise::matching_residual;
  if (!linear || a.variant != 0) {
    for (std::size_t i = 0; i < operands.size() && i < 15; ++i) {
      const std::uint32_t others = tracked & ~(1u << i);
      // A product needs an operand only for the others' sake; anything else may need it for its own.
      const bool bilinear = a.variant == 0 && (op == Pointwise::mul || (op == Pointwise::multiply_add && i < 2));
      const bool only_shape = a.variant == 0 && op == Pointwise::multiply_add && i == 2;
      if (only_shape) continue;
      if (!bilinear || others) save |= save_input(static_cast<int>(i));
    }
  }
  // Shapes are needed to undo broadcasting; they ride along as attributes only where shapes differ.
  if (same) {
    return tape->record(rule, std::move(out), operands, save, {}, &a, sizeof a);
  }
  struct {
    Attributes a;
    Shape shapes[Loop::max_operands];
  } with_shapes;
  with_shapes.a = a;
  with_shapes.a.operands = static_cast<std::int16_t>(-a.operands);  // negative: shapes follow
  for (std::size_t i = 0; i < operands.size() && i < Loop::max_operands; ++i) with_shapes.shapes[i] = operands[i]->shape();
  return tape->record(rule, std::move(out), operands, save, {}, &with_shapes,
                      offsetof(decltype(with_shapes), shapes) + operands.size() * sizeof(Shape));
}

// The cotangent of operand i of a record with constant derivatives, or an undefined Var where it is not one of those.
Var constant_rule(const Attributes& a, int i, const Var& g) {
  if (a.variant != 0) return {};
  switch (static_cast<Pointwise>(a.op)) {
    case Pointwise::add: return g;
    case Pointwise::sub: return i == 0 ? g : neg(g);
    case Pointwise::neg: return neg(g);
    case Pointwise::affine: return affine(g, a.parameters[0], 0.0);
    case Pointwise::axpby:
    case Pointwise::chain_step: return affine(g, a.parameters[i], 0.0);
    case Pointwise::matching_residual:
      return affine(g, i == 0 ? a.parameters[0] : i == 1 ? -a.parameters[0] : a.parameters[1], 0.0);
    case Pointwise::multiply_add: return i == 2 ? g : Var();
    default: return {};
  }
}

void vjp(Backward& b) {
  const auto& stored = b.attributes<Attributes>();
  Attributes a = stored;
  const bool broadcasts = a.operands < 0;
  if (broadcasts) a.operands = static_cast<std::int16_t>(-a.operands);
  const auto* shapes = reinterpret_cast<const Shape*>(&stored + 1);
  const int n = a.operands;
  const PointwiseRow& row = pointwise_rows[a.op];
  const auto op = static_cast<Pointwise>(a.op);
  if (b.recorded() && a.variant == 0)
    require(row.order >= 2, row.name, ": second derivatives are not offered; compose it from simpler ops");
  require(a.variant <= n, row.name, ": derivatives of third order are not offered");
  const int operands = b.inputs();
  for (int i = 0; i < operands; ++i) {
    if (!b.needs(i)) continue;
    Var d = constant_rule(a, i, b.cotangent());
    if (!d.defined() && a.variant == 0 && op == Pointwise::mul) {
      d = mul(b.cotangent(), b.input(1 - i));
    } else if (!d.defined() && a.variant == 0 && op == Pointwise::multiply_add) {
      d = mul(b.cotangent(), b.input(1 - i));
    } else if (!d.defined()) {
      Attributes next = a;
      next.variant = static_cast<std::int16_t>(a.variant == 0 ? variant_first(i)
                                                              : variant_second(n, a.variant - 1, i));
      Var in[Loop::max_operands];
      const Var* p[Loop::max_operands];
      for (int k = 0; k < operands; ++k) in[k] = b.input(k), p[k] = &in[k];
      p[operands] = &b.cotangent();
      d = apply(next, {p, static_cast<std::size_t>(operands + 1)});
    }
    if (broadcasts && !(d.shape() == shapes[i])) d = sum_to(d, shapes[i]);
    b.add(i, std::move(d));
  }
}

}  // namespace

Var pointwise(Pointwise op, std::initializer_list<const Var*> operands, std::initializer_list<double> parameters) {
  const PointwiseRow& r = row(op);
  require(static_cast<int>(operands.size()) == r.operands && static_cast<int>(parameters.size()) == r.parameters, r.name,
          ": takes ", r.operands, " operands and ", r.parameters, " parameters, not ", operands.size(), " and ",
          parameters.size());
  Attributes a{static_cast<std::int16_t>(op), 0, static_cast<std::int16_t>(r.operands), {}};
  int i = 0;
  for (const double p : parameters) a.parameters[i++] = p;
  return apply(a, {operands.begin(), operands.size()});
}

Var neg(const Var& x) { return pointwise(Pointwise::neg, {&x}); }
Var exp(const Var& x) { return pointwise(Pointwise::exp, {&x}); }
Var log(const Var& x) { return pointwise(Pointwise::log, {&x}); }
Var sqrt(const Var& x) { return pointwise(Pointwise::sqrt, {&x}); }
Var square(const Var& x) { return pointwise(Pointwise::square, {&x}); }
Var reciprocal(const Var& x) { return pointwise(Pointwise::reciprocal, {&x}); }
Var sin(const Var& x) { return pointwise(Pointwise::sin, {&x}); }
Var cos(const Var& x) { return pointwise(Pointwise::cos, {&x}); }
Var tanh(const Var& x) { return pointwise(Pointwise::tanh, {&x}); }
Var sigmoid(const Var& x) { return pointwise(Pointwise::sigmoid, {&x}); }
Var silu(const Var& x) { return pointwise(Pointwise::silu, {&x}); }
Var gelu_tanh(const Var& x) { return pointwise(Pointwise::gelu_tanh, {&x}); }
Var gelu_erf(const Var& x) { return pointwise(Pointwise::gelu_erf, {&x}); }
Var relu(const Var& x) { return pointwise(Pointwise::relu, {&x}); }
Var softplus(const Var& x) { return pointwise(Pointwise::softplus, {&x}); }
Var abs(const Var& x) { return pointwise(Pointwise::abs, {&x}); }
Var affine(const Var& x, double scale, double shift) { return pointwise(Pointwise::affine, {&x}, {scale, shift}); }
Var power(const Var& x, double exponent) { return pointwise(Pointwise::power, {&x}, {exponent}); }
Var clamp(const Var& x, double low, double high) {
  require(low <= high, "clamp: the lower bound ", low, " exceeds the upper bound ", high);
  return pointwise(Pointwise::clamp, {&x}, {low, high});
}
Var add(const Var& x, const Var& y) { return pointwise(Pointwise::add, {&x, &y}); }
Var sub(const Var& x, const Var& y) { return pointwise(Pointwise::sub, {&x, &y}); }
Var mul(const Var& x, const Var& y) { return pointwise(Pointwise::mul, {&x, &y}); }
Var div(const Var& x, const Var& y) { return pointwise(Pointwise::div, {&x, &y}); }
Var maximum(const Var& x, const Var& y) { return pointwise(Pointwise::maximum, {&x, &y}); }
Var minimum(const Var& x, const Var& y) { return pointwise(Pointwise::minimum, {&x, &y}); }
Var axpby(double a, const Var& x, double b, const Var& y) { return pointwise(Pointwise::axpby, {&x, &y}, {a, b}); }
Var multiply_add(const Var& x, const Var& y, const Var& z) { return pointwise(Pointwise::multiply_add, {&x, &y, &z}); }
Var chain_step(double a, const Var& x, double c, const Var& prediction, double std, const Var& noise) {
  return pointwise(Pointwise::chain_step, {&x, &prediction, &noise}, {a, c, std});
}
Var matching_residual(double weight, const Var& prediction, const Var& base, double scale, const Var& costate) {
  return pointwise(Pointwise::matching_residual, {&prediction, &base, &costate}, {weight, scale});
}

namespace {
void in_place(Pointwise op, const Tensor& x, const Tensor* y, double p0, double p1) {
  if (y)
    require(y->shape() == x.shape() && y->dtype() == x.dtype() && y->device() == x.device(), row(op).name,
            " in place: a tensor ", y->shape(), " of ", y->dtype(), " does not fit one of shape ", x.shape(), " of ",
            x.dtype());
  const double parameters[4] = {p0, p1};
  PointwiseCall call;
  call.op = static_cast<int>(op), call.variant = 0, call.dtype = x.dtype();
  call.operands = y ? 2 : 1;
  call.in[0] = x.raw();
  call.in[1] = y ? y->raw() : nullptr;
  call.out = x.raw_mutable();
  call.parameters = parameters;
  call.loop.numel = x.numel();
  if (x.numel()) kernels(x).pointwise(call);
  ++x.storage()->version;
}
}  // namespace

void add_in_place(const Tensor& sum, const Tensor& term) { in_place(Pointwise::add, sum, &term, 0, 0); }
void scale_in_place(const Tensor& x, double factor) { in_place(Pointwise::affine, x, nullptr, factor, 0); }
void lerp_in_place(const Tensor& x, const Tensor& towards, double weight) {
  in_place(Pointwise::axpby, x, &towards, 1 - weight, weight);
}

}  // namespace costate
