// Layout: what moves values without changing them.
#include <costate/autograd/ops.h>
#include <costate/tensor/loop.h>

namespace costate {
namespace {

using Axes = std::array<std::int8_t, Shape::max_rank>;
using Strides = std::array<std::int64_t, Shape::max_rank>;

void copy(const Shape& extents, const Strides& from, const Strides& to, const Tensor& in, std::int64_t in_offset,
          const Tensor& out, std::int64_t out_offset) {
  if (extents.numel() == 0) return;
  const std::int64_t item = size_of(in.dtype());
  kernels(out).copy(copy_loop(extents, from, to), item,
                    in.raw() ? static_cast<const std::byte*>(in.raw()) + in_offset * item : nullptr,
                    out.raw() ? static_cast<std::byte*>(out.raw_mutable()) + out_offset * item : nullptr);
}

void reshape_vjp(Backward& b) { b.add(0, reshape(b.cotangent(), b.attributes<Shape>())); }
constexpr Rule reshape_rule{"reshape", reshape_vjp};

Var permute_axes(const Var& x, const Axes& axes);
void permute_vjp(Backward& b) {
  const auto& axes = b.attributes<Axes>();
  Axes inverse{};
  for (int i = 0; i < b.cotangent().rank(); ++i) inverse[axes[i]] = static_cast<std::int8_t>(i);
  b.add(0, permute_axes(b.cotangent(), inverse));
}
constexpr Rule permute_rule{"permute", permute_vjp};

Var permute_axes(const Var& x, const Axes& axes) {
  const auto own = strides(x.shape());
  std::array<std::int64_t, Shape::max_rank> extents{}, from{};
  for (int i = 0; i < x.rank(); ++i) extents[i] = x.extent(axes[i]), from[i] = own[axes[i]];
  const Shape shape(std::span<const std::int64_t>(extents.data(), x.rank()));
  Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  copy(shape, from, strides(shape), x.value(), 0, out, 0);
  return record(permute_rule, std::move(out), {&x}, save_nothing, axes);
}

struct ConcatAttributes {
  int axis;
  std::int64_t first[Loop::max_operands + 1];
};
void concat_vjp(Backward& b) {
  const auto& a = b.attributes<ConcatAttributes>();
  for (int i = 0; i < b.inputs(); ++i)
    if (b.needs(i)) b.add(i, narrow(b.cotangent(), a.axis, a.first[i], a.first[i + 1] - a.first[i]));
}
constexpr Rule concat_rule{"concat", concat_vjp};

struct NarrowAttributes {
  Shape shape;
  int axis;
  std::int64_t first;
};
Var widen(const Var& x, const NarrowAttributes& a);
void narrow_vjp(Backward& b) { b.add(0, widen(b.cotangent(), b.attributes<NarrowAttributes>())); }
constexpr Rule narrow_rule{"narrow", narrow_vjp};
void widen_vjp(Backward& b) {
  const auto& a = b.attributes<NarrowAttributes>();
  b.add(0, narrow(b.cotangent(), a.axis, a.first, a.shape[1]));
}
constexpr Rule widen_rule{"narrow (transposed)", widen_vjp};

// The transpose of narrow: x amid zeros.
Var widen(const Var& x, const NarrowAttributes& a) {
  Tensor out = Tensor::zeros(a.shape, x.dtype(), x.device());
  const auto to = strides(a.shape);
  copy(x.shape(), strides(x.shape()), to, x.value(), 0, out, a.first * to[a.axis]);
  // Its own rule reads the count of narrowed items from shape[1] of a small stand-in.
  return record(widen_rule, std::move(out), {&x}, save_nothing,
                NarrowAttributes{{0, x.extent(a.axis)}, a.axis, a.first});
}

}  // namespace

Var reshape(const Var& x, const Shape& shape) {
  require(x.defined(), "reshape: the operand is undefined");
  if (x.shape() == shape) return x;
  return record(reshape_rule, x.value().reshape(shape), {&x}, save_nothing, x.shape());
}
Var reshape(const Var& x, std::initializer_list<std::int64_t> extents) {
  require(x.defined(), "reshape: the operand is undefined");
  return reshape(x, x.value().reshape(extents).shape());
}

Var permute(const Var& x, std::initializer_list<int> axes) {
  require(x.defined() && static_cast<int>(axes.size()) == x.rank(), "permute: ", axes.size(),
          " axes were given for shape ", x.shape());
  Axes a{};
  unsigned seen = 0;
  int i = 0;
  for (const int axis : axes) {
    a[i] = static_cast<std::int8_t>(x.shape().axis(axis, "permute"));
    require(!(seen & (1u << a[i])), "permute: axis ", axis, " is named twice");
    seen |= 1u << a[i++];
  }
  return permute_axes(x, a);
}
Var transpose(const Var& x) {
  require(x.rank() == 2, "transpose: shape ", x.shape(), " is not a matrix; use permute");
  return permute(x, {1, 0});
}

Var concat(std::initializer_list<const Var*> parts, int axis) {
  require(parts.size() >= 1 && parts.size() <= Loop::max_operands, "concat: ", parts.size(), " parts; expected 1 to ",
          Loop::max_operands);
  const Var& head = **parts.begin();
  require(head.defined(), "concat: part 0 is undefined");
  ConcatAttributes a{};
  a.axis = head.shape().axis(axis, "concat");
  int i = 0;
  for (const Var* p : parts) {
    require(p->rank() == head.rank() && p->shape().with(a.axis, 1) == head.shape().with(a.axis, 1) &&
                p->dtype() == head.dtype() && p->device() == head.device(),
            "concat: part ", i, " is ", p->dtype(), " of shape ", p->shape(), ", which does not fit part 0, ", head.dtype(),
            " of shape ", head.shape(), ", along axis ", a.axis);
    a.first[i + 1] = a.first[i] + p->extent(a.axis);
    ++i;
  }
  Tensor out = Tensor::empty(head.shape().with(a.axis, a.first[i]), head.dtype(), head.device());
  const auto to = strides(out.shape());
  i = 0;
  for (const Var* p : parts) copy(p->shape(), strides(p->shape()), to, p->value(), 0, out, a.first[i++] * to[a.axis]);
  return record(concat_rule, std::move(out), parts, save_nothing, a);
}

Var narrow(const Var& x, int axis, std::int64_t first, std::int64_t count) {
  axis = x.shape().axis(axis, "narrow");
  require(first >= 0 && count >= 0 && count <= x.extent(axis) && first <= x.extent(axis) - count, "narrow: ", count,
          " items from ", first, " on were asked for of ", x.extent(axis), " along axis ", axis);
  const NarrowAttributes a{x.shape(), axis, first};
  if (axis == 0) return record(narrow_rule, x.value().slice(first, count), {&x}, save_nothing, a);
  const Shape shape = x.shape().with(axis, count);
  Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  const auto from = strides(x.shape());
  copy(shape, from, strides(shape), x.value(), first * from[axis], out, 0);
  return record(narrow_rule, std::move(out), {&x}, save_nothing, a);
}

}  // namespace costate
