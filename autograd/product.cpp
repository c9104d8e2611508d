// Matrix products and the linear layer.
#include <costate/autograd/ops.h>
#include <costate/tensor/packed.h>

namespace costate {
namespace {

struct MatmulAttributes {
  bool transpose_a, transpose_b;
};

void matmul_vjp(Backward& b) {
  const auto a = b.attributes<MatmulAttributes>();
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
};

void linear_vjp(Backward& b) {
  const auto a = b.attributes<LinearAttributes>();
  require(!b.recorded() || a.activation == Activation::none,
          "linear: second derivatives through a fused activation are not offered; apply the activation as an op of its own");
  Var g = b.cotangent();
  if (a.activation != Activation::none) g = mul(g, Var(b.extra(0)));
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
constexpr Rule linear_rule{"linear", linear_vjp};

}  // namespace

Var matmul(const Var& a, const Var& b, bool transpose_a, bool transpose_b) {
  require(a.defined() && b.defined(), "matmul: an operand is undefined");
  require((a.rank() == 2 || a.rank() == 3) && a.rank() == b.rank(), "matmul: shapes ", a.shape(), " and ", b.shape(),
          "; expected two matrices or two stacks of matrices");
  require(a.dtype() == b.dtype() && a.dtype() != DType::i32 && a.device() == b.device(), "matmul: the operands are ",
          a.dtype(), " on the ", a.device(), " and ", b.dtype(), " on the ", b.device());
  const std::int64_t m = a.extent(transpose_a ? -1 : -2), k = a.extent(transpose_a ? -2 : -1),
                     kb = b.extent(transpose_b ? -1 : -2), n = b.extent(transpose_b ? -2 : -1);
  require(k == kb, "matmul: the inner extents of ", a.shape(), transpose_a ? " (transposed)" : "", " and ", b.shape(),
          transpose_b ? " (transposed)" : "", " are ", k, " and ", kb);
  const bool stack = a.rank() == 3;
  require(!stack || a.extent(0) == b.extent(0), "matmul: stacks of ", a.extent(0), " and ", b.extent(0), " matrices");
  Tensor out = Tensor::empty(stack ? Shape{a.extent(0), m, n} : Shape{m, n}, a.dtype(), a.device());
  MatmulCall call;
  call.dtype = a.dtype();
  call.transpose_a = transpose_a, call.transpose_b = transpose_b;
  call.m = m, call.n = n, call.k = k;
  if (stack) call.batch = a.extent(0), call.stride_a = m * k, call.stride_b = k * n;
  else call.packed_b = packed(b.value(), transpose_b);
  call.a = a.value().raw(), call.b = b.value().raw(), call.c = out.raw_mutable();
  if (out.numel()) kernels(out).matmul(call);
  const std::uint32_t save = (b.tracked() ? save_input(0) : 0u) | (a.tracked() ? save_input(1) : 0u);
  return record(matmul_rule, std::move(out), {&a, &b}, save, MatmulAttributes{transpose_a, transpose_b});
}

Var linear(const Var& x, const Var& weight, const Var& bias, Activation activation) {
  require(x.defined() && x.rank() >= 1 && weight.rank() == 2 && x.extent(-1) == weight.extent(1), "linear: x has shape ",
          x.shape(), " and the weight ", weight.shape(), "; expected (..., in) and (out, in)");
  const std::int64_t out_features = weight.extent(0);
  require(!bias.defined() || bias.shape() == Shape{out_features}, "linear: the bias has shape ", bias.shape(),
          "; expected (", out_features, ",)");
  require(x.dtype() == weight.dtype() && x.dtype() != DType::i32 && x.device() == weight.device() &&
              (!bias.defined() || (bias.dtype() == x.dtype() && bias.device() == x.device())),
          "linear: x is ", x.dtype(), " on the ", x.device(), " and the weight ", weight.dtype(), " on the ",
          weight.device());
  Tensor out = Tensor::empty(x.shape().with(-1, out_features), x.dtype(), x.device());
  const bool tracked = x.tracked() || weight.tracked() || bias.tracked();
  Tensor derivative;
  if (tracked && activation != Activation::none) derivative = Tensor::empty_like(out);
  MatmulCall call;
  call.dtype = x.dtype();
  call.transpose_b = true;
  call.m = x.extent(-1) ? x.numel() / x.extent(-1) : out.numel() / (out_features ? out_features : 1);
  call.n = out_features, call.k = x.extent(-1);
  call.a = x.value().raw(), call.b = weight.value().raw(), call.c = out.raw_mutable();
  call.packed_b = packed(weight.value(), true);
  call.bias = bias.defined() ? bias.value().raw() : nullptr;
  call.activation = activation;
  call.derivative = derivative.defined() ? derivative.raw_mutable() : nullptr;
  if (out.numel()) kernels(out).matmul(call);
  if (!tracked) return Var(std::move(out));
  const std::uint32_t save = (weight.tracked() ? save_input(0) : 0u) | (x.tracked() ? save_input(1) : 0u);
  const LinearAttributes a{bias.defined(), activation};
  const std::span<const Tensor> extras{&derivative, derivative.defined() ? 1u : 0u};
  if (bias.defined()) return record(linear_rule, std::move(out), {&x, &weight, &bias}, save, a, extras);
  return record(linear_rule, std::move(out), {&x, &weight}, save, a, extras);
}

}  // namespace costate
