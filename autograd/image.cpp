// Images: nearest upsampling, average pooling, zero padding.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>
#include <costate/tensor/loop.h>

namespace costate {
namespace {

void check_image(const char* op, const Var& x) {
  require(x.defined() && x.rank() == 4, op, ": x has shape ", x.shape(),
          "; expected images (n, height, width, channels)");
  require(is_floating(x.dtype()), op, ": x is ", x.dtype(), "; expected f32 or f64");
}

struct Scaling {
  std::int64_t factor;
  double scale;
};
Var enlarge(const Var& x, const Scaling& a);
Var shrink(const Var& x, const Scaling& a);

void enlarge_vjp(Backward& b) { b.add(0, shrink(b.cotangent(), b.attributes<Scaling>())); }
void shrink_vjp(Backward& b) { b.add(0, enlarge(b.cotangent(), b.attributes<Scaling>())); }
constexpr Rule enlarge_rule{"upsample_nearest", enlarge_vjp};
constexpr Rule shrink_rule{"average_pool", shrink_vjp};

// Every pixel becomes a square of `factor` pixels a side, times `scale`; shrink is the transpose.
Var enlarge(const Var& x, const Scaling& a) {
  const Tensor in = detail::widened(x.value());
  Tensor out = Tensor::empty({x.extent(0), a.factor * x.extent(1), a.factor * x.extent(2), x.extent(3)},
                             in.dtype(), x.device());
  if (out.numel())
    kernels(out).upsample(in.dtype(), x.extent(0), x.extent(1), x.extent(2), x.extent(3), a.factor, a.scale,
                          in.raw(), out.raw_mutable());
  return record(enlarge_rule, out.to(x.dtype()), {&x}, save_nothing, a);
}
Var shrink(const Var& x, const Scaling& a) {
  const Tensor in = detail::widened(x.value());
  Tensor out = Tensor::empty({x.extent(0), x.extent(1) / a.factor, x.extent(2) / a.factor, x.extent(3)},
                             in.dtype(), x.device());
  if (out.numel())
    kernels(out).pool(in.dtype(), out.extent(0), out.extent(1), out.extent(2), out.extent(3), a.factor,
                      a.scale, in.raw(), out.raw_mutable());
  return record(shrink_rule, out.to(x.dtype()), {&x}, save_nothing, a);
}

struct Frame {
  std::int64_t top, bottom, left, right;
};
Var add_frame(const Var& x, const Frame& f);
Var remove_frame(const Var& x, const Frame& f);

void add_frame_vjp(Backward& b) { b.add(0, remove_frame(b.cotangent(), b.attributes<Frame>())); }
void remove_frame_vjp(Backward& b) { b.add(0, add_frame(b.cotangent(), b.attributes<Frame>())); }
constexpr Rule add_frame_rule{"pad", add_frame_vjp};
constexpr Rule remove_frame_rule{"pad (transposed)", remove_frame_vjp};

// Copies the pixels that the small image and the large one around it share.
void copy_inside(const Tensor& small, const Tensor& large, const Frame& f, bool outwards) {
  if (small.numel() == 0) return;
  const auto inner = strides(small.shape()), outer = strides(large.shape());
  const std::int64_t item = size_of(small.dtype()), offset = (f.top * outer[1] + f.left * outer[2]) * item;
  std::byte* const corner = large.raw() ? static_cast<std::byte*>(large.raw_mutable()) + offset : nullptr;
  if (outwards)
    kernels(large).copy(copy_loop(small.shape(), inner, outer), item, small.raw(), corner);
  else
    kernels(large).copy(copy_loop(small.shape(), outer, inner), item, corner, small.raw_mutable());
}
Var add_frame(const Var& x, const Frame& f) {
  Tensor out = Tensor::zeros(
      {x.extent(0), x.extent(1) + f.top + f.bottom, x.extent(2) + f.left + f.right, x.extent(3)}, x.dtype(),
      x.device());
  copy_inside(x.value(), out, f, true);
  return record(add_frame_rule, std::move(out), {&x}, save_nothing, f);
}
Var remove_frame(const Var& x, const Frame& f) {
  Tensor out = Tensor::empty(
      {x.extent(0), x.extent(1) - f.top - f.bottom, x.extent(2) - f.left - f.right, x.extent(3)}, x.dtype(),
      x.device());
  copy_inside(out, x.value(), f, false);
  return record(remove_frame_rule, std::move(out), {&x}, save_nothing, f);
}

}  // namespace

Var upsample_nearest(const Var& x, int factor) {
  check_image("upsample_nearest", x);
  require(factor >= 1, "upsample_nearest: the factor is ", factor, "; expected at least 1");
  return enlarge(x, {factor, 1.0});
}

Var average_pool(const Var& x, int window) {
  check_image("average_pool", x);
  require(window >= 1 && window <= x.extent(1) && window <= x.extent(2), "average_pool: the window is ",
          window, "; expected 1 to the height and width of x, ", x.shape());
  const std::int64_t below = x.extent(1) % window, beside = x.extent(2) % window;
  const Scaling a{window, 1.0 / (static_cast<double>(window) * window)};
  return below || beside ? shrink(remove_frame(x, {0, below, 0, beside}), a) : shrink(x, a);
}

Var pad(const Var& x, int top, int bottom, int left, int right) {
  check_image("pad", x);
  require(top >= 0 && bottom >= 0 && left >= 0 && right >= 0, "pad: ", top, " rows above, ", bottom,
          " below, ", left, " columns left and ", right,
          " right were asked for; expected none to be negative");
  return add_frame(x, {top, bottom, left, right});
}

}  // namespace costate
