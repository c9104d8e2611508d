// Products and convolutions of the backend's kernel table against the cpu's.
#include <costate/tensor/kernels.h>

#include "on_device.h"

namespace costate {
namespace {

TEST(CudaKernels, Products) {
  struct Case {
    std::int64_t m, n, k, batch;
    bool transpose_a, transpose_b;
  };
  for (const Case& c : {Case{1, 1, 1, 1, false, false}, Case{65, 70, 33, 1, false, true}, Case{3, 130, 17, 2, false, false},
                        Case{70, 9, 40, 1, true, false}, Case{20, 30, 50, 3, true, true}, Case{5, 6, 0, 1, false, true}})
    for (const DType dtype : {DType::f32, DType::f64})
      for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::silu, Activation::relu})
        for (const bool extras : {false, true})
          compare(
              [&](Device d) {
                MatmulCall call{};
                call.dtype = dtype, call.m = c.m, call.n = c.n, call.k = c.k, call.batch = c.batch;
                call.transpose_a = c.transpose_a, call.transpose_b = c.transpose_b;
                call.stride_a = c.m * c.k, call.stride_b = c.k * c.n;
                const Tensor x = noise({c.batch * c.m * c.k}, dtype, d, 29), y = noise({c.batch * c.k * c.n}, dtype, d, 30),
                             bias = noise({c.n}, dtype, d, 31), scale = noise({c.batch * c.m * c.k}, dtype, d, 32);
                const Tensor out =
                    extras ? noise({c.batch * c.m * c.n}, dtype, d, 33) : unwritten({c.batch * c.m * c.n}, dtype, d);
                const Tensor slope = unwritten({c.batch * c.m * c.n}, dtype, d), sums = unwritten({c.m}, dtype, d);
                call.a = x.raw(), call.b = y.raw(), call.c = out.raw_mutable(), call.activation = activation;
                Tensors results{out};
                if (extras)
                  call.accumulate = true, call.bias = bias.raw(), call.derivative = slope.raw_mutable(),
                  results.push_back(slope);
                // The sums come with the gradient of a weight: one product, a transposed, nothing behind it.
                if (c.transpose_a && c.batch == 1 && activation == Activation::none) {
                  call.scaled = true, call.scale_a = scale.raw();
                  call.summed = true, call.row_sums = sums.raw_mutable(), results.push_back(sums);
                }
                const Tensor workspace = Tensor::empty({kernels(d).matmul_workspace(call) / 4 + 1}, DType::f32, d);
                call.workspace = workspace.raw_mutable();
                kernels(d).matmul(call);
                return results;
              },
              8 * rounding(dtype, c.k), "product of k = " + std::to_string(c.k));
}

// Both tables round the operands alike; what is left is the order of the sum. (A device's library may cut the low bits of
// TF32 operands off instead.)
TEST(CudaKernels, ProductsOfRoundedOperands) {
  for (const auto& [precision, k] : {std::pair{Precision::bf16_products, 64}, {Precision::tf32, 64}, {Precision::tf32, 65}})
    compare(
        [&, precision = precision, k = k](Device d) {
          MatmulCall call{};
          call.dtype = DType::f32, call.precision = precision, call.m = 20, call.n = 40, call.k = k;
          call.transpose_b = true;
          const Tensor x = noise({20, k}, DType::f32, d, 34), y = noise({40, k}, DType::f32, d, 35),
                       out = unwritten({20, 40}, DType::f32, d);
          const Tensor workspace = Tensor::empty({kernels(d).matmul_workspace(call) / 4 + 1}, DType::f32, d);
          call.a = x.raw(), call.b = y.raw(), call.c = out.raw_mutable(), call.workspace = workspace.raw_mutable();
          kernels(d).matmul(call);
          return Tensors{out};
        },
        emulated() || precision == Precision::bf16_products ? 8 * rounding(DType::f32, k) : 0x1p-8,
        "product of rounded operands");
}

TEST(CudaKernels, Convolutions) {
  struct Case {
    std::int64_t n, height, width, channels, out_channels, kernel, stride, pad, groups;
  };
  // Square kernels of 1 and 3, ends inside tiles, strides, groups, and more pixels than one part of a weight gradient.
  for (const Case& c : {Case{2, 5, 6, 3, 4, 3, 1, 1, 1}, Case{1, 9, 7, 8, 70, 3, 2, 1, 1}, Case{3, 4, 4, 6, 9, 1, 1, 0, 3},
                        Case{1, 6, 6, 2, 2, 2, 2, 0, 2}, Case{2, 48, 48, 1, 2, 3, 1, 1, 1}})
    for (const auto pass : {ConvShape::Pass::forward, ConvShape::Pass::data_gradient, ConvShape::Pass::weight_gradient})
      for (const auto& [dtype, precision] : {std::pair{DType::f32, Precision::f32}, {DType::f64, Precision::f32},
                                             {DType::f32, Precision::tf32}})
        compare(
            [&, dtype = dtype, precision = precision](Device d) {
              ConvCall call;
              ConvShape& s = call.shape;
              s.dtype = dtype, s.precision = precision, s.pass = pass;
              s.n = c.n, s.height = c.height, s.width = c.width, s.channels = c.channels;
              s.out_height = (c.height + 2 * c.pad - c.kernel) / c.stride + 1,
              s.out_width = (c.width + 2 * c.pad - c.kernel) / c.stride + 1;
              s.out_channels = c.out_channels, s.kernel_height = s.kernel_width = c.kernel, s.stride = c.stride,
              s.top = s.left = c.pad;
              s.groups = c.groups;
              s.winograd = false;  // its rounding is another
              const Shape of_x{c.n, c.height, c.width, c.channels}, of_y{c.n, s.out_height, s.out_width, c.out_channels},
                  of_w{c.out_channels, c.kernel, c.kernel, c.channels / c.groups};
              const Tensor x = noise(of_x, dtype, d, 36), y = noise(of_y, dtype, d, 37), w = noise(of_w, dtype, d, 38),
                           bias = noise({c.out_channels}, dtype, d, 39);
              const bool forward = pass == ConvShape::Pass::forward, data = pass == ConvShape::Pass::data_gradient;
              const Tensor out = unwritten(forward ? of_y : data ? of_x : of_w, dtype, d);
              const Tensor workspace = Tensor::empty({kernels(d).conv_workspace(s, false) / 4 + 16}, DType::f32, d);
              if (!data) call.x = x.raw();
              if (!forward) call.y = y.raw();
              if (forward || data) call.weight = w.raw();
              if (forward) call.bias = bias.raw();
              call.out = out.raw_mutable(), call.workspace = workspace.raw_mutable();
              kernels(d).conv(call);
              return Tensors{out};
            },
            precision == Precision::tf32 && !emulated()
                ? 0x1p-8
                : 8 * rounding(dtype, pass == ConvShape::Pass::weight_gradient ? c.n * c.height * c.width
                                                                               : c.kernel * c.kernel * c.channels),
            "convolution");
}

}  // namespace
}  // namespace costate
