// Every entry of the backend's kernel table against the cpu's, for shapes that end inside a vector, a warp, a block and a
// tile, and for those that take a second pass.
#include <costate/autograd/ops.h>
#include <costate/tensor/loop.h>
#include <costate/tensor/pointwise.h>

#include <array>

#include "on_device.h"

namespace costate {
namespace {

TEST(CudaKernels, FillAndCast) {
  for (const std::int64_t n : {1, 31, 257, 5000})
    compare(
        [&](Device d) {
          const Tensor f = Tensor::full({n}, 1.25, DType::f32, d), whole = Tensor::full({n}, -3.0, DType::i32, d);
          const Tensor x = noise({n}, DType::f64, d, 1);
          return Tensors{f,
                         whole,
                         f.to(DType::f64),
                         x.to(DType::f32),
                         x.to(DType::i32),
                         whole.to(DType::f64),
                         x.to(DType::f32).to(DType::bf16).to(DType::f32)};
        },
        0, "fill and cast");
}

TEST(CudaKernels, CopyWalksStrides) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 5}, {257, 31}})
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&, rows = rows, columns = columns](Device d) {
            const Tensor x = noise({rows, columns}, dtype, d, 2), out = unwritten({columns, rows}, dtype, d);
            kernels(d).copy(
                copy_loop({columns, rows}, std::array<std::int64_t, 2>{1, columns}, std::array<std::int64_t, 2>{rows, 1}),
                size_of(dtype), x.raw(), out.raw_mutable());
            return Tensors{out, out.clone()};
          },
          0, "copy");
}

// Every variant of every row, where operands lie like the result, end inside a vector, begin off a vector's alignment, or are
// broadcast.
TEST(CudaKernels, EveryVariantOfEveryPointwiseRow) {
  const Shape shapes[] = {{7}, {3, 5}};
  for (int op = 0; op < pointwise_count; ++op) {
    const PointwiseRow& row = pointwise_rows[op];
    const int variants = 1 + row.operands + (row.order == 2 ? row.operands * (row.operands + 1) : 0);
    for (int variant = 0; variant < variants; ++variant) {
      const int operands = row.operands + (variant == 0 ? 0 : variant <= row.operands ? 1 : 2);
      for (const DType dtype : {DType::f32, DType::f64})
        for (const Shape& shape : shapes)
          compare(
              [&](Device d) {
                Tensors in;
                std::vector<const Shape*> walked;
                const Shape last{shape[-1]};
                for (int k = 0; k < operands; ++k) {
                  // Of (3, 5) every second operand is repeated along the rows. log and sqrt want what is positive.
                  const Shape& own = shape.rank() == 2 && k % 2 ? last : shape;
                  Tensor x =
                      noise({own.numel() + 1}, DType::f64, Device::cpu, static_cast<std::uint32_t>(k)).slice(1, own.numel());
                  Tensor y = Tensor::empty({own.numel()}, DType::f64);
                  const auto from = x.values<double>();
                  for (std::int64_t i = 0; i < own.numel(); ++i) y.mutate<double>()[i] = 0.3 + std::abs(from[i]);
                  in.push_back(y.to(dtype).to(d).reshape(own));
                  walked.push_back(&own);
                }
                const Tensor out = unwritten(shape, dtype, d);
                PointwiseCall call{};
                const double parameters[4] = {0.4, 1.1, -0.7, 0.2};
                call.op = op, call.variant = variant, call.dtype = dtype, call.operands = operands,
                call.parameters = parameters;
                for (int k = 0; k < operands; ++k) call.in[k] = in[static_cast<std::size_t>(k)].raw();
                call.out = out.raw_mutable(), call.loop = pointwise_loop(shape, walked);
                kernels(d).pointwise(call);
                return Tensors{out};
              },
              4 * rounding(dtype), std::string(row.name) + " variant " + std::to_string(variant));
    }
  }
}

TEST(CudaKernels, PointwiseByVectorsAndBeside) {
  for (const std::int64_t n : {1, 4, 1023, 4099})
    for (const std::int64_t offset : {0, 1})
      for (const DType dtype : {DType::f32, DType::f64})
        compare(
            [&](Device d) {
              const Tensor x = noise({n + 1}, dtype, d, 3).slice(offset, n), y = noise({n + 1}, dtype, d, 4).slice(offset, n);
              const Tensor whole = unwritten({n + 1}, dtype, d), out = whole.slice(offset, n);
              PointwiseCall call{};
              const double parameters[4] = {2, 0.5};  // exact products: one rounding, fused or not
              const Shape shape{n};
              const Shape* shapes[] = {&shape, &shape};
              call.op = static_cast<int>(Pointwise::axpby), call.dtype = dtype, call.operands = 2, call.parameters = parameters;
              call.in[0] = x.raw(), call.in[1] = y.raw(), call.out = out.raw_mutable(),
              call.loop = pointwise_loop(shape, shapes);
              kernels(d).pointwise(call);
              return Tensors{whole};
            },
            0, "axpby");
}

TEST(CudaKernels, Sums) {
  for (const std::int64_t n : {0, 1, 31, 513, 40'000})
    for (const auto& [outer, inner] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 1}, {1, 3}, {2, 33}}) {
      if (n == 40'000 && outer * inner > 3) continue;
      for (const DType dtype : {DType::f32, DType::f64})
        compare(
            [&, outer = outer, inner = inner](Device d) {
              const Tensor x = noise({outer, n, inner}, dtype, d, 5), out = unwritten({outer, inner}, dtype, d);
              kernels(d).sum(dtype, outer, n, inner, x.raw(), out.raw_mutable());
              // Three pieces, the second one empty; a device may have more than one part of each.
              const std::int64_t third = x.numel() / 3;
              const Tensor flat = x.reshape({x.numel()});
              const Tensor rest = flat.slice(third, x.numel() - third);
              const Elements pieces[] = {{x.raw(), third}, {nullptr, 0}, {rest.raw(), rest.numel()}};
              const Tensor squares = unwritten({1}, DType::f64, d);
              kernels(d).sum_squares(dtype, 3, pieces, static_cast<double*>(squares.raw_mutable()));
              return Tensors{out, squares};
            },
            rounding(dtype, n), "sum of " + std::to_string(n));
    }
}

TEST(CudaKernels, NoiseHasTheBitsOfTheCpu) {
  for (const std::int64_t per_sample : {1, 4, 7, 1001})
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&](Device d) {
            const Tensor normal = unwritten({3, per_sample}, dtype, d), uniform = unwritten({3, per_sample}, dtype, d);
            const std::uint64_t first = (std::uint64_t{5} << 32) - 2;  // across the low word of the sample's number
            random_normal(normal, 0x123456789abcdefull, Stream::noise, first, 9);
            random_uniform(uniform, 7, Stream::time, first, 1);
            const Tensor dropped = unwritten({3, per_sample}, dtype, d);
            kernels(d).dropout(dtype, 0.4, 0x66666666u, 3, 10, first, 2, 3, per_sample, normal.raw(), dropped.raw_mutable());
            return Tensors{normal, uniform, dropped};
          },
          0, "noise");
}

TEST(CudaKernels, Rows) {
  for (const std::int64_t n : {1, 31, 257, 1500}) {
    const std::int64_t rows = n > 1000 ? 2 : 9;
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&](Device d) {
            const Kernels& k = kernels(d);
            const Tensor x = noise({rows, n}, dtype, d, 6), g = noise({rows, n}, dtype, d, 7);
            Tensors out;
            for (int i = 0; i < 6; ++i) out.push_back(unwritten({rows, n}, dtype, d));
            const Tensor rstd = unwritten({rows}, dtype, d);
            for (const bool log : {false, true}) {
              k.softmax(dtype, log, rows, n, x.raw(), out[log].raw_mutable());
              k.softmax_vjp(dtype, log, rows, n, out[log].raw(), g.raw(), out[2 + log].raw_mutable());
            }
            k.layer_norm(dtype, rows, n, 1e-3, x.raw(), out[4].raw_mutable(), rstd.raw_mutable());
            k.layer_norm_vjp(dtype, rows, n, out[4].raw(), rstd.raw(), g.raw(), out[5].raw_mutable());
            out.push_back(rstd);
            return out;
          },
          8 * rounding(dtype, n), "rows of " + std::to_string(n));
  }
}

TEST(CudaKernels, GroupNorm) {
  struct Case {
    std::int64_t n, spatial, channels, groups;
    Activation activation;
    bool modulated;
  };
  for (const Case& c : {Case{2, 9, 8, 4, Activation::none, false}, Case{2, 50, 70, 7, Activation::silu, true},
                        Case{1, 300, 4, 1, Activation::gelu_tanh, true}, Case{3, 1, 6, 2, Activation::relu, false}})
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&](Device d) {
            const Shape image{c.n, c.spatial, c.channels};
            const Tensor x = noise(image, dtype, d, 8), g = noise(image, dtype, d, 9),
                         gamma = noise({c.channels}, dtype, d, 10), beta = noise({c.channels}, dtype, d, 11),
                         scale = noise({c.n, c.channels}, dtype, d, 12), shift = noise({c.n, c.channels}, dtype, d, 13);
            GroupNormCall call{dtype, c.n, c.spatial, c.channels, c.groups, 1e-3, c.activation, x.raw()};
            call.gamma = gamma.raw(), call.beta = beta.raw();
            if (c.modulated) call.scale = scale.raw(), call.shift = shift.raw();
            const Tensor out = unwritten(image, dtype, d), dx = unwritten(image, dtype, d), again = unwritten(image, dtype, d),
                         mean = unwritten({c.n, c.groups}, dtype, d), rstd = unwritten({c.n, c.groups}, dtype, d),
                         h = unwritten({c.n, c.channels}, dtype, d), hx = unwritten({c.n, c.channels}, dtype, d);
            const Kernels& k = kernels(d);
            k.group_norm(call, out.raw_mutable(), mean.raw_mutable(), rstd.raw_mutable());
            k.group_norm_vjp(call, mean.raw(), rstd.raw(), g.raw(), dx.raw_mutable(), h.raw_mutable(), hx.raw_mutable());
            k.group_norm_vjp(call, mean.raw(), rstd.raw(), g.raw(), again.raw_mutable(), nullptr, nullptr);
            return Tensors{out, mean, rstd, dx, h, hx, again};
          },
          8 * rounding(dtype, c.spatial * c.channels / c.groups), "group norm");
}

TEST(CudaKernels, ModulatedLayerNorm) {
  for (const auto& [n, t, width] : {std::array<std::int64_t, 3>{2, 3, 5}, {3, 17, 100}, {1, 2, 700}})
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&, n = n, t = t, width = width](Device d) {
            const Tensor x = noise({n, t, width}, dtype, d, 14), g = noise({n, t, width}, dtype, d, 15),
                         scale = noise({n, width}, dtype, d, 16), shift = noise({n, width}, dtype, d, 17);
            const Tensor out = unwritten({n, t, width}, dtype, d), dx = unwritten({n, t, width}, dtype, d),
                         mean = unwritten({n, t}, dtype, d), rstd = unwritten({n, t}, dtype, d),
                         dscale = unwritten({n, width}, dtype, d);
            const Kernels& k = kernels(d);
            k.modulated_layer_norm(dtype, n, t, width, 1e-3, x.raw(), scale.raw(), shift.raw(), out.raw_mutable(),
                                   mean.raw_mutable(), rstd.raw_mutable());
            k.modulated_layer_norm_vjp(dtype, n, t, width, x.raw(), scale.raw(), mean.raw(), rstd.raw(), g.raw(),
                                       dx.raw_mutable(), dscale.raw_mutable());
            return Tensors{out, mean, rstd, dx, dscale};
          },
          8 * rounding(dtype, width), "modulated layer norm");
}

TEST(CudaKernels, Attention) {
  struct Case {
    std::int64_t n, heads, queries, keys, width;
  };
  // One tile and less, ends inside a tile, several tiles, every width of the kernels with sums in registers in both sizes of
  // their tiles, and heads for which those of any width take a large and a small tile.
  for (const Case& c :
       {Case{1, 1, 1, 1, 3}, Case{2, 3, 33, 40, 8}, Case{1, 2, 70, 65, 16}, Case{1, 2, 20, 7, 24}, Case{1, 1, 130, 65, 32},
        Case{1, 1, 5, 32, 50}, Case{1, 1, 66, 129, 64}, Case{1, 1, 40, 33, 100}, Case{1, 1, 17, 9, 140},
        Case{1, 1, 9, 17, 300}})
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&](Device d) {
            const std::int64_t row = c.heads * c.width;
            const Shape of_q{c.n, c.queries, row}, of_k{c.n, c.keys, row};
            const Tensor q = noise(of_q, dtype, d, 18), k = noise(of_k, dtype, d, 19), v = noise(of_k, dtype, d, 20),
                         g = noise(of_q, dtype, d, 21);
            AttentionCall call{};
            call.dtype = dtype, call.n = c.n, call.heads = c.heads, call.queries = c.queries, call.keys = c.keys,
            call.width = c.width;
            call.row_q = call.row_k = call.row_v = row, call.q = q.raw(), call.k = k.raw(), call.v = v.raw();
            const Tensor out = unwritten(of_q, dtype, d), sums = unwritten({c.n, c.heads, c.queries}, dtype, d),
                         dq = unwritten(of_q, dtype, d), dk = unwritten(of_k, dtype, d), dv = unwritten(of_k, dtype, d);
            kernels(d).attention(call, out.raw_mutable(), sums.raw_mutable());
            kernels(d).attention_vjp(call, out.raw(), sums.raw(), g.raw(), dq.raw_mutable(), dk.raw_mutable(),
                                     dv.raw_mutable());
            return Tensors{out, sums, dq, dk, dv};
          },
          8 * rounding(dtype, c.queries + c.keys + c.width), "attention of width " + std::to_string(c.width));
}

TEST(CudaKernels, GatherAndScatter) {
  for (const std::int64_t rows : {1, 31, 300})
    compare(
        [&](Device d) {
          std::vector<std::int32_t> index(static_cast<std::size_t>(rows));
          for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<std::int32_t>(i * i % 7);
          const Tensor where = Tensor::from(index, {rows}, d), table = noise({7, 20}, DType::f32, d, 22),
                       in = noise({rows, 20}, DType::f32, d, 23);
          const Tensor picked = unwritten({rows, 20}, DType::f32, d), added = Tensor::zeros({7, 20}, DType::f32, d);
          const auto* raw = static_cast<const std::int32_t*>(where.raw());
          kernels(d).gather_rows(DType::f32, rows, 20, 7, raw, table.raw(), picked.raw_mutable());
          kernels(d).scatter_add_rows(DType::f32, rows, 20, 7, raw, in.raw(), added.raw_mutable());
          return Tensors{picked, added};
        },
        0, "gather and scatter");  // added in order: the same bits
}

// Nothing waits for the check: who reads next is told, and what follows is as ever.
TEST(CudaKernels, AWrongIndexIsToldOfWhenTheHostReads) {
  const auto told = [](const Var& x) {
    try {
      x.value().to_doubles();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  const Var table(Tensor::full({7, 3}, 1.0, DType::f32, device()));
  for (const std::int32_t wrong : {-1, 7}) {
    const Tensor index = Tensor::from(std::vector<std::int32_t>{2, wrong}, {2}, device());
    const std::string number = std::to_string(wrong) + " is outside 0 to 6";
    Var picked, added;
    EXPECT_NO_THROW(picked = gather_rows(table, index));
    EXPECT_NE(told(picked).find("gather_rows: index " + number), std::string::npos) << told(picked);
    EXPECT_EQ(picked.value().to_doubles(), (std::vector<double>{1, 1, 1, 0, 0, 0}));
    EXPECT_NO_THROW(added = scatter_rows(picked, index, 7));
    EXPECT_NE(told(added).find("scatter_rows: index " + number), std::string::npos) << told(added);
    EXPECT_EQ(told(added), "nothing");
  }
  gather_rows(table, Tensor::from(std::vector<std::int32_t>{9}, {1}, device()));
  EXPECT_THROW(synchronise(device()), Error);
  EXPECT_NO_THROW(synchronise(device()));
}

TEST(CudaKernels, UpsampleAndPool) {
  for (const std::int64_t factor : {1, 2, 3})
    compare(
        [&](Device d) {
          const Tensor a = noise({2, 3, 5, 7}, DType::f32, d, 24), b = noise({2, 3 * factor, 5 * factor, 7}, DType::f32, d, 25);
          const Tensor large = unwritten(b.shape(), DType::f32, d), small = unwritten(a.shape(), DType::f32, d);
          kernels(d).upsample(DType::f32, 2, 3, 5, 7, factor, 0.5, a.raw(), large.raw_mutable());
          kernels(d).pool(DType::f32, 2, 3, 5, 7, factor, 0.25, b.raw(), small.raw_mutable());
          return Tensors{large, small};
        },
        rounding(DType::f32), "upsample and pool");
}

// More tensors than one launch takes, of lengths on both sides of a chunk, some with averages; clipped, and not.
TEST(CudaKernels, AdamW) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const std::int64_t count : {1, 7, 300})
      compare(
          [&](Device d) {
            Tensors g, m, v, p, a, out;
            std::vector<Optimised> pieces;
            for (std::int64_t i = 0; i < count; ++i) {
              const std::int64_t n = count > 100 ? i % 3 : i == 0 ? 3000 : 1 + 257 * i;
              const auto at = static_cast<std::uint32_t>(10 * i);
              g.push_back(noise({n}, dtype, d, at)), m.push_back(noise({n}, dtype, d, at + 1));
              v.push_back(Tensor::full({n}, 0.25, dtype, d)), p.push_back(noise({n}, dtype, d, at + 2));
              a.push_back(noise({n}, dtype, d, at + 3));
              pieces.push_back({n, g.back().raw(), m.back().raw_mutable(), v.back().raw_mutable(), p.back().raw_mutable(),
                                i % 2 ? a.back().raw_mutable() : nullptr});
            }
            const auto numbers = [&](const std::vector<double>& values) {
              return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, d);
            };
            const Tensor now = numbers({0.1, 100, 0.999, 0.5, 0.7, 0.25}), squares = numbers({4}), check = numbers({1});
            const auto raw = [](const Tensor& t) { return static_cast<const double*>(t.raw()); };
            const AdamWRates rates{0.9, 0.99, 1e-8};
            const auto update = [&](const Tensor& of_squares, const Tensor& checked) {
              kernels(d).adamw(dtype, count, pieces.data(), rates, static_cast<const AdamWNow*>(now.raw()), raw(of_squares),
                               raw(checked));
            };
            update(squares, check), update(Tensor(), Tensor());
            // Numbers that are not finite: nothing changes.
            const Tensor nan = numbers({std::nan("")}), infinite = numbers({std::numeric_limits<double>::infinity()});
            update(nan, check), update(infinite, Tensor()), update(squares, nan);
            for (const Tensors* part : {&m, &v, &p, &a}) out.insert(out.end(), part->begin(), part->end());
            return out;
          },
          4 * rounding(dtype), "adamw");
}

TEST(CudaKernels, AStepOfAChainWithItsNoise) {
  const double c[3] = {0.75, -0.5, 0.25};
  for (const std::int64_t n : {1, 7, 1001})
    for (const DType dtype : {DType::f32, DType::f64})
      compare(
          [&](Device d) {
            const Tensor x = noise({3, n}, dtype, d, 30), prediction = noise({3, n}, dtype, d, 31);
            const Tensor out = unwritten({3, n}, dtype, d), e = unwritten({3, n}, dtype, d),
                         apart = unwritten({3, n}, dtype, d);
            kernels(d).noisy_step(dtype, c, 5, 0, 9, 4, 3, n, x.raw(), prediction.raw(), out.raw_mutable());
            kernels(d).random(dtype, true, 5, 0, 9, 4, 3, n, e.raw_mutable());
            PointwiseCall call{};
            call.op = static_cast<int>(Pointwise::chain_step), call.dtype = dtype, call.operands = 3, call.parameters = c;
            call.in[0] = x.raw(), call.in[1] = prediction.raw(), call.in[2] = e.raw(), call.out = apart.raw_mutable();
            call.loop.numel = 3 * n;
            kernels(d).pointwise(call);
            EXPECT_EQ(out.to_doubles(), apart.to_doubles());  // the noise that is not stored is the noise that is
            return Tensors{out};
          },
          rounding(dtype), "step with noise");
}

TEST(CudaKernels, TheLossOfValueGradientRegression) {
  for (const std::int64_t n : {1, 31, 1500})
    for (const double limit : {0.0, 0.8 * static_cast<double>(n)})
      for (const DType dtype : {DType::f32, DType::f64})
        compare(
            [&](Device d) {
              const std::int64_t rows = 9;
              const Tensor prediction = noise({rows, n}, dtype, d, 32), base = noise({rows, n}, dtype, d, 33),
                           costate = noise({rows, n}, dtype, d, 34), weight = noise({rows}, dtype, d, 35),
                           shift = noise({rows}, dtype, d, 36), w = noise({rows}, dtype, d, 37);
              const Tensor numbers = unwritten({rows, 3}, DType::f64, d), gradient = unwritten({rows, n}, dtype, d),
                           plain = unwritten({rows, 3}, DType::f64, d), other = unwritten({rows, n}, dtype, d);
              MatchingCall call{dtype, rows, n, prediction.raw(), base.raw(), costate.raw(), weight.raw(), shift.raw()};
              call.factor = 0.3, call.limit = limit;
              kernels(d).matching(call, static_cast<double*>(plain.raw_mutable()), other.raw_mutable());
              call.row_weight = w.raw();
              kernels(d).matching(call, static_cast<double*>(numbers.raw_mutable()), gradient.raw_mutable());
              return Tensors{numbers, gradient, plain, other};
            },
            rounding(dtype, n), "matching");
}

}  // namespace
}  // namespace costate
