// The convolutions of one instruction set, and which method computes what. ConvShape and ConvCall
// (tensor/kernels.h) are the contract.
//
// A result depends on the shape and on whether packed weights are given, never on the number of threads.
#include "table.h"

#include "conv_rounded.h"
#if defined(__AVX2__) && defined(__FMA__)
#include "conv_direct.h"
#include "conv_direct_weight.h"
#include "conv_narrow_weight.h"
#include "conv_winograd.h"
#include "conv_winograd_weight.h"
#else
#include "conv_plain.h"
#endif

namespace costate::cpu::COSTATE_ISA {

#if defined(__AVX2__) && defined(__FMA__)
namespace {

using Pass = ConvShape::Pass;

// Winograd's method does a quarter of the multiplications for transforms that cost some 60 operations a pixel
// and channel: the sums must run over enough channels and the results fill the tiles of 4 x 4 pixels well
// enough to repay them.
bool winograd_fits(const ConvShape& s) {
  if (!s.winograd || s.dtype != DType::f32 || s.kernel_height != 3 || s.kernel_width != 3 || s.stride != 1 ||
      s.groups != 1 || s.channels < 16 || s.out_channels < 16)
    return false;
  const bool turned = s.pass == Pass::data_gradient;
  const std::int64_t height = turned ? s.height : s.out_height, width = turned ? s.width : s.out_width;
  return 16 * ceil_div(height, 4) * ceil_div(width, 4) <= 2 * height * width;
}
// Transforming the filters costs about as much as ten tiles of 16 pixels do: worth it at every call from a few times that
// on. Transformed filters take four times the memory of the filters: where they cost less than a twentieth of the call they
// are made for every call and not kept.
bool takes_winograd(const ConvShape& s, bool packed) {
  return winograd_fits(s) && (packed || s.n * s.height * s.width >= 400);
}
bool keeps_transformed(const ConvShape& s) { return WinogradConv(s).tiles < 200; }

template <class T>
std::int64_t direct_workspace(const ConvShape& s, bool packed) {
  if (s.pass == Pass::weight_gradient)
    return NarrowWeight<T>::fits(s) ? NarrowWeight<T>(s).workspace_size() : 0;
  return packed ? 0 : DirectConv<T>(s).packed_size();
}

template <class T>
void direct(const ConvCall& call) {
  const ConvShape& s = call.shape;
  if (s.pass == Pass::weight_gradient) {
    const T* x = static_cast<const T*>(call.x);
    const T* y = static_cast<const T*>(call.y);
    if (NarrowWeight<T>::fits(s))
      return NarrowWeight<T>(s).run(x, y, static_cast<T*>(call.out), static_cast<T*>(call.workspace));
    return DirectWeight<T>(s).run(x, y, static_cast<T*>(call.out));
  }
  const DirectConv<T> d(s);
  const T* packed = static_cast<const T*>(call.packed);
  if (!packed) {
    d.pack(static_cast<const T*>(call.weight), static_cast<T*>(call.workspace));
    packed = static_cast<const T*>(call.workspace);
  }
  d.run(static_cast<const T*>(s.pass == Pass::forward ? call.x : call.y), packed,
        static_cast<const T*>(call.bias), static_cast<T*>(call.out));
}

}  // namespace

void conv(const ConvCall& call) {
  const ConvShape& s = call.shape;
  if (rounds(s)) return conv(rounded_operands(call));
  if (!takes_winograd(s, call.packed != nullptr))
    return s.dtype == DType::f32 ? direct<float>(call) : direct<double>(call);
  const float* x = static_cast<const float*>(call.x);
  const float* y = static_cast<const float*>(call.y);
  float* workspace = static_cast<float*>(call.workspace);
  if (s.pass == Pass::weight_gradient)
    return WinogradWeight(s).run(x, y, static_cast<float*>(call.out), workspace);
  const WinogradConv w(s);
  const float* packed = static_cast<const float*>(call.packed);
  if (!packed) {
    w.pack(static_cast<const float*>(call.weight), workspace);
    packed = workspace;
    workspace += w.packed_size();
  }
  w.run(s.pass == Pass::forward ? x : y, packed, static_cast<const float*>(call.bias),
        static_cast<float*>(call.out), workspace);
}

std::int64_t conv_workspace(const ConvShape& s, bool packed) {
  if (rounds(s)) return RoundedOperands(s).bytes() + conv_workspace(after_rounding(s), false);
  if (!takes_winograd(s, packed))
    return s.dtype == DType::f32 ? 4 * direct_workspace<float>(s, packed)
                                 : 8 * direct_workspace<double>(s, packed);
  if (s.pass == Pass::weight_gradient) return 4 * WinogradWeight(s).workspace_size();
  const WinogradConv w(s);
  return 4 * (w.workspace_size() + (packed ? 0 : w.packed_size()));
}

std::int64_t conv_packed_bytes(const ConvShape& s) {
  if (s.pass == Pass::weight_gradient || rounds(s)) return 0;
  if (winograd_fits(s)) return keeps_transformed(s) ? 4 * WinogradConv(s).packed_size() : 0;
  return s.dtype == DType::f32 ? 4 * DirectConv<float>(s).packed_size()
                               : 8 * DirectConv<double>(s).packed_size();
}

void conv_pack(const ConvShape& s, const void* weight, void* packed) {
  if (winograd_fits(s))
    WinogradConv(s).pack(static_cast<const float*>(weight), static_cast<float*>(packed));
  else if (s.dtype == DType::f32)
    DirectConv<float>(s).pack(static_cast<const float*>(weight), static_cast<float*>(packed));
  else
    DirectConv<double>(s).pack(static_cast<const double*>(weight), static_cast<double*>(packed));
}

#else

void conv(const ConvCall& call) {
  if (rounds(call.shape)) return conv(rounded_operands(call));
  if (call.shape.dtype == DType::f32)
    PlainConv<float>(call.shape).run(call);
  else
    PlainConv<double>(call.shape).run(call);
}
std::int64_t conv_workspace(const ConvShape& s, bool) { return rounds(s) ? RoundedOperands(s).bytes() : 0; }
std::int64_t conv_packed_bytes(const ConvShape&) { return 0; }
void conv_pack(const ConvShape&, const void*, void*) {}

#endif

}  // namespace costate::cpu::COSTATE_ISA
