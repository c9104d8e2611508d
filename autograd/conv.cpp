// Convolution and its two transposes. All three are linear in both operands, and the derivatives of each are
// the others: a recorded sweep goes through the same rules, to any order.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>
#include <costate/tensor/flops.h>
#include <costate/tensor/packed.h>
#include <costate/tensor/precision.h>

#include <cstdlib>
#include <string_view>

namespace costate {
namespace {

using Pass = ConvShape::Pass;

bool winograd_allowed() {
  static const bool allowed = [] {
    const char* value = std::getenv("COSTATE_WINOGRAD");
    const std::string_view v = value ? value : "";
    require(v.empty() || v == "0" || v == "1", "COSTATE_WINOGRAD is '", v, "'; expected 0 or 1");
    return v != "0";
  }();
  return allowed;
}

// The result of one pass; `first` and `second` are the two arrays it reads, in the order x, y, weight.
Tensor run(ConvShape s, Pass pass, const Tensor& given_first, const Tensor& given_second, const Tensor* given_bias = nullptr) {
  const DType type = s.dtype;
  const Tensor first = detail::widened(given_first), second = detail::widened(given_second),
               bias = given_bias ? detail::widened(*given_bias) : Tensor();
  s.pass = pass, s.dtype = first.dtype();
  Tensor out = Tensor::empty(pass == Pass::forward ? Shape{s.n, s.out_height, s.out_width, s.out_channels}
                             : pass == Pass::data_gradient ? Shape{s.n, s.height, s.width, s.channels}
                                                           : Shape{s.out_channels, s.kernel_height,
                                                                   s.kernel_width, s.channels / s.groups},
                             s.dtype, first.device());
  if (!out.numel()) return out.to(type);
  if (s.n == 0) {
    out.fill(0);
    return out.to(type);
  }
  const Kernels& table = kernels(out);
  ConvCall call;
  call.shape = s;
  PackedConv packed;
  if (pass == Pass::weight_gradient) {
    call.x = first.raw(), call.y = second.raw();
  } else {
    (pass == Pass::forward ? call.x : call.y) = first.raw();
    call.weight = second.raw();
    if (type != DType::bf16) packed = packed_conv(second, s);  // a copy for the time of one pass is not worth a layout
    call.packed = packed.data;
  }
  call.bias = bias.raw();
  call.out = out.raw_mutable();
  const std::int64_t bytes = table.conv_workspace(s, packed.offered);
  const Tensor workspace =
      bytes ? Tensor::empty({(bytes + size_of(s.dtype) - 1) / size_of(s.dtype)}, s.dtype, out.device())
            : Tensor();
  if (bytes) call.workspace = workspace.raw_mutable();
  table.conv(call);
  detail::count_flops(2 * s.n * s.out_height * s.out_width * s.out_channels * s.kernel_height *
                      s.kernel_width * (s.channels / s.groups));
  return out.to(type);
}

Var forward(const Var& x, const Var& w, const Var& bias, const ConvShape& s);
Var data_gradient(const Var& y, const Var& w, const ConvShape& s);
Var weight_gradient(const Var& x, const Var& y, const ConvShape& s);

std::uint32_t save_for_each_other(const Var& a, const Var& b) {
  return (b.tracked() ? save_input(0) : 0u) | (a.tracked() ? save_input(1) : 0u);
}

void forward_vjp(Backward& b) {
  const auto& s = b.attributes<ConvShape>();
  const Var& g = b.cotangent();
  if (b.needs(0)) b.add(0, data_gradient(g, b.input(1), s));
  if (b.needs(1)) b.add(1, weight_gradient(b.input(0), g, s));
  if (b.inputs() == 3 && b.needs(2)) b.add(2, sum(reshape(g, {-1, s.out_channels}), 0));
}
void data_gradient_vjp(Backward& b) {
  const auto& s = b.attributes<ConvShape>();
  if (b.needs(0)) b.add(0, forward(b.cotangent(), b.input(1), Var(), s));
  if (b.needs(1)) b.add(1, weight_gradient(b.cotangent(), b.input(0), s));
}
void weight_gradient_vjp(Backward& b) {
  const auto& s = b.attributes<ConvShape>();
  if (b.needs(0)) b.add(0, data_gradient(b.input(1), b.cotangent(), s));
  if (b.needs(1)) b.add(1, forward(b.input(0), b.cotangent(), Var(), s));
}
constexpr Rule forward_rule{"conv2d", forward_vjp};
constexpr Rule data_gradient_rule{"conv2d (data gradient)", data_gradient_vjp};
constexpr Rule weight_gradient_rule{"conv2d (weight gradient)", weight_gradient_vjp};

Var forward(const Var& x, const Var& w, const Var& bias, const ConvShape& s) {
  Tensor out = run(s, Pass::forward, x.value(), w.value(), &bias.value());
  const std::uint32_t save = save_for_each_other(x, w);
  if (bias.defined()) return record(forward_rule, std::move(out), {&x, &w, &bias}, save, s);
  return record(forward_rule, std::move(out), {&x, &w}, save, s);
}
Var data_gradient(const Var& y, const Var& w, const ConvShape& s) {
  return record(data_gradient_rule, run(s, Pass::data_gradient, y.value(), w.value()), {&y, &w},
                save_for_each_other(y, w), s);
}
Var weight_gradient(const Var& x, const Var& y, const ConvShape& s) {
  return record(weight_gradient_rule, run(s, Pass::weight_gradient, x.value(), y.value()), {&x, &y},
                save_for_each_other(x, y), s);
}

}  // namespace

Var conv2d(const Var& x, const Var& weight, const Var& bias, const Conv2d& o) {
  require(x.defined() && x.rank() == 4 && weight.rank() == 4, "conv2d: x has shape ", x.shape(),
          " and the weight ", weight.shape(),
          "; expected (n, height, width, in) and (out, kernel height, kernel width, in/groups)");
  require(x.dtype() == weight.dtype() && is_floating(x.dtype()) && x.device() == weight.device() &&
              (!bias.defined() || (bias.dtype() == x.dtype() && bias.device() == x.device())),
          "conv2d: x is ", x.dtype(), " on the ", x.device(), " and the weight ", weight.dtype(), " on the ",
          weight.device(),
          ", or the bias is of another kind; expected one element type, f32 or f64, and one device");
  require(weight.numel() > 0, "conv2d: the weight has shape ", weight.shape(), ", without elements");
  require(o.stride >= 1, "conv2d: the stride is ", o.stride, "; expected at least 1");
  require(o.top >= 0 && o.bottom >= 0 && o.left >= 0 && o.right >= 0, "conv2d: the padding is ", o.top,
          " above, ", o.bottom, " below, ", o.left, " left and ", o.right,
          " right; expected none to be negative");
  require(o.groups >= 1 && weight.extent(0) % o.groups == 0 && x.extent(3) % o.groups == 0 &&
              x.extent(3) / o.groups == weight.extent(3),
          "conv2d: x has ", x.extent(3), " channels and the weight shape ", weight.shape(), " for ", o.groups,
          " groups; expected (out, kernel height, kernel width, in/groups) with in and out multiples of the "
          "groups");
  require(!bias.defined() || bias.shape() == Shape{weight.extent(0)}, "conv2d: the bias has shape ",
          bias.shape(), "; expected (", weight.extent(0), ",)");
  const std::int64_t high = x.extent(1) + o.top + o.bottom, wide = x.extent(2) + o.left + o.right;
  require(high >= weight.extent(1) && wide >= weight.extent(2), "conv2d: the filter ", weight.shape(),
          " does not fit into images of ", high, " x ", wide, " pixels (padding included)");
  ConvShape s;
  s.dtype = x.dtype();
  s.winograd = winograd_allowed();
  if (current_precision() == Precision::tf32) s.precision = Precision::tf32;
  s.n = x.extent(0), s.height = x.extent(1), s.width = x.extent(2), s.channels = x.extent(3);
  s.kernel_height = weight.extent(1), s.kernel_width = weight.extent(2);
  s.out_height = (high - s.kernel_height) / o.stride + 1,
  s.out_width = (wide - s.kernel_width) / o.stride + 1;
  s.out_channels = weight.extent(0);
  s.stride = o.stride, s.top = o.top, s.left = o.left, s.groups = o.groups;
  const bool unpadded = o.top == 0 && o.bottom == 0 && o.left == 0 && o.right == 0;
  if (s.kernel_height == 1 && s.kernel_width == 1 && o.stride == 1 && o.groups == 1 && unpadded)
    return linear(x, reshape(weight, {s.out_channels, s.channels}), bias);  // every pixel on its own
  return forward(x, weight, bias, s);
}

}  // namespace costate
