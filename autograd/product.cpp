// Matrix products and the linear layer.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>
#include <costate/tensor/flops.h>
#include <costate/tensor/packed.h>
#include <costate/tensor/precision.h>

#include <utility>

namespace costate {
namespace {

using detail::widened;

// Runs the product into c and, if defined, row_sums, in a workspace that the ledger sees.
void run(MatmulCall& call, const Tensor& c) {
  const Kernels& table = kernels(c);
  call.c = c.raw_mutable();
  const std::int64_t bytes = table.matmul_workspace(call);
  const StorageRef workspace = bytes ? StorageRef::allocate(bytes, c.device()) : StorageRef();
  if (bytes) call.workspace = workspace->data;
  table.matmul(call);
  detail::count_flops(2 * call.batch * call.m * call.n * call.k);
}
// `b` is the operand as it was given: a copy for the time of one product is not worth a layout.
void give_packed(MatmulCall& call, const Tensor& b) {
  if (b.dtype() == DType::bf16) return;
  const PackedMatrix p = packed(b, call.transpose_b, call.precision);
  call.packed = p.offered, call.packed_b = p.data;
}

struct MatmulAttributes {
  bool transpose_a, transpose_b;
  Precision precision;
};

void matmul_vjp(Backward& b) {
  const auto a = b.attributes<MatmulAttributes>();
  const PrecisionScope scope(a.precision);
  const Var& g = b.cotangent();
  // C = op(A) op(B): op(A)' = G op(B)^T, op(B)' = op(A)^T G; transposed operands receive the transposed products.
  if (b.needs(0))
    b.add(0, a.transpose_a ? matmul(b.input(1), g, a.transpose_b, true) : matmul(g, b.input(1), false, !a.transpose_b));
  if (b.needs(1))
    b.add(1, a.transpose_b ? matmul(g, b.input(0), true, a.transpose_a) : matmul(b.input(0), g, !a.transpose_a, false));
}
constexpr Rule matmul_rule{"matmul", matmul_vjp};

struct LinearAttributes {
  bool with_bias;
  Activation activation;
  Precision precision;
};

// Written in ops, for a sweep that is itself recorded.
void recorded_linear_vjp(Backward& b) {
  const auto a = b.attributes<LinearAttributes>();
  require(a.activation == Activation::none,
          "linear: second derivatives through a fused activation are not offered; apply the activation as an op of its own");
  const PrecisionScope scope(a.precision);
  const Var g = b.cotangent();
  const Var rows = reshape(g, {-1, g.extent(-1)});
  if (b.needs(0)) {
    const Var w = b.input(1);
    b.add(0, reshape(matmul(rows, w), g.shape().with(-1, w.extent(1))));
  }
  if (b.needs(1)) {
    const Var x = b.input(0);
    b.add(1, matmul(rows, reshape(x, {-1, x.extent(-1)}), true, false));
  }
  if (a.with_bias && b.needs(2)) b.add(2, sum(rows, 0));
}

// With d the derivative of the activation: x' = (g d) W, W' = (g d)^T x, b' = the columns of g d added. The products
// multiply by d while they pack g, and the second adds the columns: g d is never stored.
void linear_vjp(Backward& b) {
  if (b.recorded()) return recorded_linear_vjp(b);
  const auto a = b.attributes<LinearAttributes>();
  const DType type = b.cotangent().dtype();
  const Tensor g = widened(b.cotangent().value());
  const std::int64_t out = g.extent(-1), rows = out ? g.numel() / out : 0;
  const bool activated = a.activation != Activation::none;
  const Tensor derivative = activated ? widened(b.extra(0)) : Tensor();
  MatmulCall call;
  call.dtype = g.dtype();
  call.precision = a.precision;
  call.a = g.raw();
  if (activated) call.scaled = true, call.scale_a = derivative.raw();
  if (b.needs(0)) {
    const Tensor& given = b.input_value(1);
    const Tensor w = widened(given);
    MatmulCall dx = call;
    dx.m = rows, dx.n = w.extent(1), dx.k = out;
    dx.b = w.raw();
    give_packed(dx, given);
    Tensor c = Tensor::empty(g.shape().with(-1, w.extent(1)), g.dtype(), g.device());
    if (c.numel()) run(dx, c);
    b.add(0, cast(std::move(c), type));
  }
  const bool needs_bias = a.with_bias && b.needs(2);
  if (b.needs(1)) {
    const Tensor x = widened(b.input_value(0));
    MatmulCall dw = call;
    dw.transpose_a = true;
    dw.m = out, dw.n = x.extent(-1), dw.k = rows;
    dw.b = x.raw();
    Tensor c = Tensor::empty({out, x.extent(-1)}, g.dtype(), g.device());
    Tensor bias;
    if (needs_bias && c.numel()) {
      bias = Tensor::empty({out}, g.dtype(), g.device());
      dw.summed = true, dw.row_sums = bias.raw_mutable();
    }
    if (c.numel()) run(dw, c);
    b.add(1, cast(std::move(c), type));
    if (bias.defined()) return b.add(2, cast(std::move(bias), type));
  }
  if (needs_bias) {
    Var scaled(g);
    if (activated) scaled = mul(scaled, Var(derivative));
    b.add(2, cast(sum(reshape(scaled, {-1, out}), 0), type));
  }
}
constexpr Rule linear_rule{"linear", linear_vjp};

}  // namespace

Var matmul(const Var& a, const Var& b, bool transpose_a, bool transpose_b) {
  require(a.defined() && b.defined(), "matmul: an operand is undefined");
  require((a.rank() == 2 || a.rank() == 3) && a.rank() == b.rank(), "matmul: shapes ", a.shape(), " and ", b.shape(),
          "; expected two matrices or two stacks of matrices");
  require(a.dtype() == b.dtype() && is_floating(a.dtype()) && a.device() == b.device(), "matmul: the operands are ",
          a.dtype(), " on the ", a.device(), " and ", b.dtype(), " on the ", b.device());
  const std::int64_t m = a.extent(transpose_a ? -1 : -2), k = a.extent(transpose_a ? -2 : -1),
                     kb = b.extent(transpose_b ? -1 : -2), n = b.extent(transpose_b ? -2 : -1);
  require(k == kb, "matmul: the inner extents of ", a.shape(), transpose_a ? " (transposed)" : "", " and ", b.shape(),
          transpose_b ? " (transposed)" : "", " are ", k, " and ", kb);
  const bool stack = a.rank() == 3;
  require(!stack || a.extent(0) == b.extent(0), "matmul: stacks of ", a.extent(0), " and ", b.extent(0), " matrices");
  const Tensor x = widened(a.value()), y = widened(b.value());
  Tensor out = Tensor::empty(stack ? Shape{a.extent(0), m, n} : Shape{m, n}, x.dtype(), x.device());
  MatmulCall call;
  call.dtype = x.dtype();
  call.transpose_a = transpose_a, call.transpose_b = transpose_b;
  call.m = m, call.n = n, call.k = k;
  call.precision = current_precision();
  if (stack) call.batch = a.extent(0), call.stride_a = m * k, call.stride_b = k * n;
  else give_packed(call, b.value());
  call.a = x.raw(), call.b = y.raw();
  if (out.numel()) run(call, out);
  out = std::exchange(out, Tensor()).to(a.dtype());
  const std::uint32_t save = (b.tracked() ? save_input(0) : 0u) | (a.tracked() ? save_input(1) : 0u);
  return record(matmul_rule, std::move(out), {&a, &b}, save, MatmulAttributes{transpose_a, transpose_b, call.precision});
}

Var linear(const Var& x, const Var& weight, const Var& bias, Activation activation) {
  require(x.defined() && x.rank() >= 1 && weight.rank() == 2 && x.extent(-1) == weight.extent(1), "linear: x has shape ",
          x.shape(), " and the weight ", weight.shape(), "; expected (..., in) and (out, in)");
  const std::int64_t out_features = weight.extent(0);
  require(!bias.defined() || bias.shape() == Shape{out_features}, "linear: the bias has shape ", bias.shape(),
          "; expected (", out_features, ",)");
  require(x.dtype() == weight.dtype() && is_floating(x.dtype()) && x.device() == weight.device() &&
              (!bias.defined() || (bias.dtype() == x.dtype() && bias.device() == x.device())),
          "linear: x is ", x.dtype(), " on the ", x.device(), " and the weight ", weight.dtype(), " on the ",
          weight.device());
  const Tensor in = widened(x.value()), w = widened(weight.value()), shift = widened(bias.value());
  Tensor out = Tensor::empty(x.shape().with(-1, out_features), in.dtype(), in.device());
  const bool tracked = x.tracked() || weight.tracked() || bias.tracked();
  Tensor derivative;
  if (tracked && activation != Activation::none) derivative = Tensor::empty_like(out);
  MatmulCall call;
  call.dtype = in.dtype();
  call.transpose_b = true;
  call.m = x.extent(-1) ? x.numel() / x.extent(-1) : out.numel() / (out_features ? out_features : 1);
  call.n = out_features, call.k = x.extent(-1);
  call.precision = current_precision();
  call.a = in.raw(), call.b = w.raw();
  give_packed(call, weight.value());
  call.bias = shift.raw();
  call.activation = activation;
  call.derivative = derivative.defined() ? derivative.raw_mutable() : nullptr;
  if (out.numel()) run(call, out);
  out = std::exchange(out, Tensor()).to(x.dtype());
  if (derivative.defined()) derivative = std::exchange(derivative, Tensor()).to(x.dtype());
  if (!tracked) return Var(std::move(out));
  const std::uint32_t save = (weight.tracked() ? save_input(0) : 0u) | (x.tracked() ? save_input(1) : 0u) | round_extras;
  const LinearAttributes a{bias.defined(), activation, call.precision};
  const std::span<const Tensor> extras{&derivative, derivative.defined() ? 1u : 0u};
  if (bias.defined()) return record(linear_rule, std::move(out), {&x, &weight, &bias}, save, a, extras);
  return record(linear_rule, std::move(out), {&x, &weight}, save, a, extras);
}

}  // namespace costate
