// Sums and their transpose.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>
#include <costate/tensor/loop.h>

namespace costate {
namespace {

void check_float(const char* op, const Var& x) {
  require(x.defined(), op, ": the operand is undefined");
  require(is_floating(x.dtype()), op, ": the operand is ", x.dtype(), "; expected f32 or f64");
}

struct SumAttributes {
  Shape shape;  // of the operand
  Shape kept;   // of the result with its summed axis kept
};

void sum_vjp(Backward& b) {
  const auto& a = b.attributes<SumAttributes>();
  b.add(0, broadcast_to(reshape(b.cotangent(), a.kept), a.shape));
}
constexpr Rule sum_rule{"sum", sum_vjp};

Var sum_middle(const Var& x, std::int64_t outer, std::int64_t n, std::int64_t inner, const Shape& kept, const Shape& result) {
  const Tensor in = detail::widened(x.value());
  Tensor out = Tensor::empty(result, in.dtype(), in.device());
  kernels(out).sum(in.dtype(), outer, n, inner, in.raw(), out.raw_mutable());
  return record(sum_rule, out.to(x.dtype()), {&x}, save_nothing, SumAttributes{x.shape(), kept});
}

void broadcast_vjp(Backward& b) { b.add(0, sum_to(b.cotangent(), b.attributes<Shape>())); }
constexpr Rule broadcast_rule{"broadcast_to", broadcast_vjp};

}  // namespace

Var sum(const Var& x) {
  check_float("sum", x);
  Shape ones;
  for (int i = 0; i < x.rank(); ++i) ones = ones.with_front(1);
  return sum_middle(x, 1, x.numel(), 1, ones, {});
}

Var sum(const Var& x, int axis, bool keep_axis) {
  check_float("sum", x);
  axis = x.shape().axis(axis, "sum");
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < axis; ++i) outer *= x.extent(i);
  for (int i = axis + 1; i < x.rank(); ++i) inner *= x.extent(i);
  const Shape kept = x.shape().with(axis, 1);
  return sum_middle(x, outer, x.extent(axis), inner, kept, keep_axis ? kept : x.shape().without(axis));
}

Var mean(const Var& x) {
  check_float("mean", x);
  require(x.numel() > 0, "mean: the operand of shape ", x.shape(), " has no elements");
  return affine(sum(x), 1.0 / static_cast<double>(x.numel()), 0.0);
}
Var mean(const Var& x, int axis, bool keep_axis) {
  check_float("mean", x);
  const std::int64_t n = x.extent(x.shape().axis(axis, "mean"));
  require(n > 0, "mean: axis ", axis, " of shape ", x.shape(), " has no elements");
  return affine(sum(x, axis, keep_axis), 1.0 / static_cast<double>(n), 0.0);
}

Var sum_to(const Var& x, const Shape& shape) {
  check_float("sum_to", x);
  if (x.shape() == shape) return x;
  require(broadcast(x.shape(), shape, "sum_to") == x.shape(), "sum_to: shape ", shape, " does not broadcast to ", x.shape());
  Var y = x;
  while (y.rank() > shape.rank()) y = sum(y, 0);
  for (int axis = 0; axis < shape.rank(); ++axis)
    if (shape[axis] == 1 && y.extent(axis) != 1) y = sum(y, axis, true);
  return y;
}

Var broadcast_to(const Var& x, const Shape& shape) {
  require(x.defined(), "broadcast_to: the operand is undefined");
  if (x.shape() == shape) return x;
  require(broadcast(x.shape(), shape, "broadcast_to") == shape, "broadcast_to: shape ", x.shape(),
          " does not broadcast to ", shape);
  Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  std::array<std::int64_t, Shape::max_rank> from{};
  const auto own = strides(x.shape());
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int i = axis - (shape.rank() - x.rank());
    from[axis] = i < 0 || x.extent(i) == 1 ? 0 : own[i];
  }
  kernels(out).copy(copy_loop(shape, from, strides(shape)), size_of(x.dtype()), x.value().raw(), out.raw_mutable());
  return record(broadcast_rule, std::move(out), {&x}, save_nothing, x.shape());
}

}  // namespace costate
