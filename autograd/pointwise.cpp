// Pointwise ops: every row of pointwise.def, its vjp, and the vjp of that.
#include <costate/autograd/ops.h>
#include <costate/tensor/loop.h>
#include <costate/tensor/pointwise.h>

#include <array>
#include <optional>
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

[[noreturn, gnu::cold]] void misfit(const char* op, std::size_t i, const Tensor& x, const Tensor& first) {
  require(x.defined() && first.defined(), op, ": operand ", x.defined() ? 0 : i, " is undefined");
  require(x.device() == first.device(), op, ": operand ", i, " is on the ", x.device(), ", operand 0 on the ",
          first.device());
  fail(Fault::argument, {op, ": operand ", i, " is ", x.dtype(), "; expected ",
                         !is_floating(first.dtype()) ? Piece("f32 or f64") : Piece(first.dtype())});
}

// The shape that the operands broadcast to, in `shape`, and the loop over it.
[[gnu::noinline]] Loop broadcast_loop(const char* op, const Tensor* const* operands, std::size_t n, Shape& shape) {
  const Shape* shapes[Loop::max_operands];
  shape = operands[0]->shape();
  for (std::size_t i = 0; i < n; ++i) {
    shapes[i] = &operands[i]->shape();
    shape = broadcast(shape, *shapes[i], op);
  }
  return pointwise_loop(shape, {shapes, n});
}

// Any variant of a row. When `reuse` is one of the operands, has the shape of the result and is held by no one else, the
// result is written over it. `same` is cleared when operands are broadcast.
Tensor compute(const Attributes& a, const Tensor* const* operands, std::size_t n, bool& same, Tensor* reuse = nullptr) {
  const Tensor& first = *operands[0];
  const DType dtype = first.dtype();
  PointwiseCall call;
  same = true;
  for (std::size_t i = 0; i < n; ++i) {
    const Tensor& x = *operands[i];
    if (!x.defined() || x.dtype() != dtype || !is_floating(dtype) || x.device() != first.device()) [[unlikely]]
      misfit(rules[a.op].name, i, x, first);
    same = same && (i == 0 || x.shape() == first.shape());
    call.in[i] = x.raw();
  }
  std::optional<Shape> broadcasted;  // cleared at no cost
  if (same) call.loop.numel = first.numel();
  else call.loop = broadcast_loop(rules[a.op].name, operands, n, broadcasted.emplace());
  Tensor out = same && reuse && reuse->unique() ? std::move(*reuse)
                                                : Tensor::empty(same ? first.shape() : *broadcasted, dtype, first.device());
  call.op = a.op, call.variant = a.variant, call.dtype = dtype;
  call.operands = static_cast<int>(n);
  call.parameters = a.parameters;
  call.out = out.raw_mutable();
  if (call.loop.numel) kernels(out).pointwise(call);
  return out;
}

// The same, recorded if an operand is tracked.
Var apply(const Attributes& a, Operands operands) {
  const Rule& rule = rules[a.op];
  const std::size_t n = operands.size();
  require(n >= 1 && n <= Loop::max_operands, rule.name, ": ", n, " operands");
  std::uint32_t tracked = 0;
  Tape* tape = nullptr;
  const Tensor* values[Loop::max_operands] = {};
  for (std::size_t i = 0; i < n; ++i) {
    const Var& v = *operands[i];
    values[i] = &v.value();
    if (v.tape()) {
      tracked |= 1u << i;
      if (!tape) tape = v.tape();
      else if (tape != v.tape()) common_tape(rule.name, operands);
    }
  }
  bool same;
  Tensor out = compute(a, values, n, same);
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
  if (same) return tape->record(rule, std::move(out), operands, save, {}, &a, sizeof a);
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

Var scaled(const Var& g, double factor) { return factor == 1 ? g : affine(g, factor, 0.0); }

// The cotangent of operand i of a record with constant derivatives, or an undefined Var where it is not one of those.
Var constant_rule(const Attributes& a, int i, const Var& g) {
  if (a.variant != 0) return {};
  switch (static_cast<Pointwise>(a.op)) {
    case Pointwise::add: return g;
    case Pointwise::sub: return i == 0 ? g : neg(g);
    case Pointwise::neg: return neg(g);
    case Pointwise::affine: return scaled(g, a.parameters[0]);
    case Pointwise::axpby:
    case Pointwise::chain_step: return scaled(g, a.parameters[i]);
    case Pointwise::matching_residual:
      return scaled(g, i == 0 ? a.parameters[0] : i == 1 ? -a.parameters[0] : a.parameters[1]);
    case Pointwise::multiply_add: return i == 2 ? g : Var();
    default: return {};
  }
}

// The same on plain tensors, for a sweep that is not recorded: the last cotangent is written over the incoming one where
// that is free. Kernels and parameters are those of the recorded rule, and so are the bits.
void plain_vjp(Backward& b, const Attributes& a, int n, const Shape* shapes) {
  const int operands = b.inputs();
  const auto op = static_cast<Pointwise>(a.op);
  int last = operands - 1;
  while (last >= 0 && !b.needs(last)) --last;
  Tensor& g = b.take_cotangent().value();
  for (int i = 0; i <= last; ++i) {
    if (!b.needs(i)) continue;
    Attributes next{};
    const Tensor* in[Loop::max_operands];
    std::size_t count = 0;
    bool itself = false;
    const auto scaled = [&](double factor) {
      if (factor == 1) return void(itself = true);
      next.op = static_cast<std::int16_t>(Pointwise::affine);
      next.parameters[0] = factor;
      in[count++] = &g;
    };
    const auto times = [&](int k) {
      next.op = static_cast<std::int16_t>(Pointwise::mul);
      in[count++] = &g, in[count++] = &b.input_value(k);
    };
    const auto negative = [&] {
      next.op = static_cast<std::int16_t>(Pointwise::neg);
      in[count++] = &g;
    };
    const auto general = [&] {
      next = a;
      next.operands = static_cast<std::int16_t>(n);
      next.variant = static_cast<std::int16_t>(a.variant == 0 ? variant_first(i) : variant_second(n, a.variant - 1, i));
      for (int k = 0; k < operands; ++k) in[count++] = &b.input_value(k);
      in[count++] = &g;
    };
    if (a.variant != 0) general();
    else switch (op) {
        case Pointwise::add: itself = true; break;
        case Pointwise::sub: i == 0 ? void(itself = true) : negative(); break;
        case Pointwise::neg: negative(); break;
        case Pointwise::affine: scaled(a.parameters[0]); break;
        case Pointwise::axpby:
        case Pointwise::chain_step: scaled(a.parameters[i]); break;
        case Pointwise::matching_residual:
          scaled(i == 0 ? a.parameters[0] : i == 1 ? -a.parameters[0] : a.parameters[1]);
          break;
        case Pointwise::mul: times(1 - i); break;
        case Pointwise::multiply_add: i == 2 ? void(itself = true) : times(1 - i); break;
        default: general();
      }
    bool same;
    Tensor d = itself ? (i == last ? std::move(g) : g) : compute(next, in, count, same, i == last ? &g : nullptr);
    if (shapes && !(d.shape() == shapes[i])) b.add(i, sum_to(Var(std::move(d)), shapes[i]));
    else b.add(i, Var(std::move(d)));
  }
}

void vjp(Backward& b) {
  const auto& a = b.attributes<Attributes>();
  const bool broadcasts = a.operands < 0;
  const auto* shapes = reinterpret_cast<const Shape*>(&a + 1);
  const int n = broadcasts ? -a.operands : a.operands;
  const PointwiseRow& row = pointwise_rows[a.op];
  const auto op = static_cast<Pointwise>(a.op);
  if (!b.recorded() && a.variant <= n) return plain_vjp(b, a, n, broadcasts ? shapes : nullptr);
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
      next.operands = static_cast<std::int16_t>(n);
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
  require(static_cast<int>(op) >= 0 && static_cast<int>(op) < rows, "pointwise: there is no row ", static_cast<int>(op));
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
void cast_vjp(Backward& b) { b.add(0, cast(b.cotangent(), b.attributes<DType>())); }
constexpr Rule cast_rule{"cast", cast_vjp};
}  // namespace

Var cast(const Var& x, DType type) {
  require(x.defined() && is_floating(x.dtype()) && is_floating(type), "cast: from ",
          x.defined() ? Piece(x.dtype()) : Piece("undefined"), " to ", type, "; expected f32, f64 or bf16");
  if (x.dtype() == type) return x;
  return record(cast_rule, x.value().to(type), {&x}, save_nothing, x.dtype());
}

namespace {
void in_place(Pointwise op, const Tensor& x, const Tensor* y, double p0, double p1) {
  require(x.defined() && is_floating(x.dtype()), row(op).name, " in place: the tensor is ",
          x.defined() ? Piece(x.dtype()) : Piece("undefined"), "; expected f32 or f64");
  if (y)
    require(y->defined() && y->shape() == x.shape() && y->dtype() == x.dtype() && y->device() == x.device(), row(op).name,
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
  x.storage()->written();
}
}  // namespace

void add_in_place(const Tensor& sum, const Tensor& term) { in_place(Pointwise::add, sum, &term, 0, 0); }
void scale_in_place(const Tensor& x, double factor) { in_place(Pointwise::affine, x, nullptr, factor, 0); }
void lerp_in_place(const Tensor& x, const Tensor& towards, double weight) {
  in_place(Pointwise::axpby, x, &towards, 1 - weight, weight);
}

}  // namespace costate
