// The tape: what is computed, saved, freed and accumulated.
#include <costate/autograd/ops.h>
#include <costate/tensor/pointwise.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace costate {
namespace {

Tensor random(const Shape& shape, std::uint32_t step, DType dtype = DType::f64) {
  const Tensor t = Tensor::empty({1, shape.numel()}, dtype);
  random_normal(t, 5, Stream::user, 0, step);
  return t.reshape(shape);
}

void expect_near(const Tensor& a, const std::vector<double>& b, double tolerance) {
  const auto v = a.to_doubles();
  ASSERT_EQ(v.size(), b.size());
  for (std::size_t i = 0; i < v.size(); ++i) EXPECT_NEAR(v[i], b[i], tolerance) << i;
}

std::int64_t live() { return memory::live().total; }

TEST(Tape, AFrozenNetworkStoresNothingForItsWeights) {
  const auto before = live();
  Tape tape;
  const Tensor w = Tensor::full({64, 64}, 0.01), b = Tensor::zeros({64});
  const Tensor start = Tensor::full({128, 64}, 0.1);
  const auto forward = [&](Var h, const Var& weight, const Var& bias) {
    for (int i = 0; i < 10; ++i) h = add(linear(h, weight, bias), matmul(h, weight));
    return h;
  };
  const auto fixed = live() - before;
  {
    const Var x = tape.watch(start);
    const Var y = forward(x, w, b);
    // The result alone: linear and matmul save the (already living) weight for the state's sake, and no activation.
    EXPECT_EQ(live() - before, fixed + 128 * 64 * 4);
    const auto dx = tape.vjp(y, Tensor::full({128, 64}, 1), {&x, 1});
    EXPECT_EQ(dx[0].shape(), (Shape{128, 64}));
  }
  tape.clear();
  EXPECT_EQ(live() - before, fixed);
  // With the weights watched, every state is stored.
  const Var weight = tape.watch(w);
  const Var y = forward(Var(start), weight, b);
  EXPECT_GE(live() - before, fixed + 10 * 128 * 64 * 4);
}

// Their derivatives are constants, so that the tape holds none of the operands; that of a product holds both.
TEST(Tape, LinearOpsKeepNoOperands) {
  using Op = std::function<Var(const Var&, const Var&, const Var&)>;
  const auto kept = [](const Op& op) {
    Tape tape;
    const std::int64_t before = live();
    std::vector<Var> leaves;
    for (int i = 0; i < 3; ++i) leaves.push_back(tape.watch(Tensor::full({256}, i, DType::f64)));
    const Var y = op(leaves[0], leaves[1], leaves[2]);
    const std::int64_t result = y.value().bytes();
    leaves.clear();
    return (live() - before - result) / result;  // operands
  };
  EXPECT_EQ(kept([](const Var& x, const Var& y, const Var&) { return mul(x, y); }), 2);
  const Op linear[] = {[](const Var& x, const Var& y, const Var&) { return add(x, y); },
                       [](const Var& x, const Var& y, const Var&) { return sub(x, y); },
                       [](const Var& x, const Var&, const Var&) { return neg(x); },
                       [](const Var& x, const Var&, const Var&) { return affine(x, 2, 3); },
                       [](const Var& x, const Var& y, const Var&) { return axpby(2, x, 3, y); },
                       [](const Var& x, const Var& y, const Var& z) { return pointwise(Pointwise::chain_step, {&x, &y, &z}, {1, 2, 3}); },
                       [](const Var& x, const Var& y, const Var& z) {
                         return pointwise(Pointwise::matching_residual, {&x, &y, &z}, {1, 2});
                       }};
  for (std::size_t i = 0; i < std::size(linear); ++i) EXPECT_EQ(kept(linear[i]), 0) << "op " << i;
}

TEST(Tape, SweepsOnlyWhatIsAskedFor) {
  Tape tape;
  const Tensor w = random({64, 64}, 0), x0 = random({32, 64}, 1);
  const Var weight = tape.watch(w), x = tape.watch(x0);
  Var y = x;
  for (int i = 0; i < 4; ++i) y = matmul(y, weight);
  const Tensor c = Tensor::full(y.shape(), 1, DType::f64);
  const auto peak = [&](std::span<const Var> wrt) {
    const memory::PeakScope scope;
    const auto before = live();
    tape.vjp(y, c, wrt);
    return scope.peak().total - before;
  };
  const Var both[] = {x, weight};
  // Two cotangents of the state, what one product g W^T works in, and no (64, 64) gradient.
  MatmulShape product;
  product.dtype = DType::f64, product.transpose_b = true;
  product.m = 32, product.n = product.k = 64;
  EXPECT_EQ(peak({both, 1}), 2 * 32 * 64 * 8 + kernels(w).matmul_workspace(product));
  EXPECT_GT(peak(both), 64 * 64 * 8);
}

TEST(Tape, MovedTapesFreeAsTheySweep) {
  const auto run = [](bool moved) {
    Tape tape;
    Var y = tape.watch(Tensor::full({1000}, 0.1));
    const Var x = y;
    for (int i = 0; i < 50; ++i) y = exp(sin(y));
    const Tensor c = Tensor::full({1000}, 1.0);
    const memory::PeakScope scope;
    const auto at = live();
    const auto g = moved ? std::move(tape).vjp(y, c, {&x, 1}) : tape.vjp(y, c, {&x, 1});
    return std::pair{scope.peak().total - at, g[0].to_doubles()};
  };
  const auto kept = run(false), freed = run(true);
  EXPECT_EQ(kept.second, freed.second);
  // One cotangent, written over as it goes; the freed records make up for it from the second step on.
  EXPECT_LE(freed.first, 4032);
  EXPECT_LE(kept.first, 2 * 4032);
  EXPECT_LE(freed.first, kept.first);
}

TEST(Tape, AMovedTapeReturnsItsMemory) {
  const auto before = live();
  {
    Tape tape;
    std::vector<Tensor> g;
    {
      const Var x = tape.watch(Tensor::full({1000}, 0.1));
      Var y = x;
      for (int i = 0; i < 50; ++i) y = exp(sin(y));
      g = std::move(tape).vjp(y, Tensor::full({1000}, 1.0), {&x, 1});
    }
    EXPECT_EQ(tape.size(), 0);
    EXPECT_EQ(live() - before, 4032);
    const Var again = tape.watch(Tensor::scalar(3));
    EXPECT_EQ(tape.vjp(square(again), again).item(), 6);
  }
  EXPECT_EQ(live(), before);
}

TEST(Tape, AMillionRecords) {
  const auto before = live();
  for (const bool moved : {true, false}) {
    Tape tape;
    const Var x = tape.watch(Tensor::scalar(1.0, DType::f64));
    Var y = x;
    for (int i = 0; i < 1'000'000; ++i) y = mul(y, Var(Tensor::scalar(1.0, DType::f64)));
    EXPECT_EQ(tape.size(), 1'000'001);
    const Tensor g = moved ? std::move(tape).vjp(y, x) : tape.vjp(y, x);
    EXPECT_EQ(g.item(), 1.0);
  }
  EXPECT_EQ(live(), before);
}

TEST(Tape, HessianVectorProduct) {
  // f = sum(tanh(A x)^2): grad = A^T (2 t (1 - t^2)), Hessian = A^T diag((1 - t^2)(2 - 6 t^2)) A.
  const std::int64_t m = 5, n = 3;
  const Tensor a = random({m, n}, 1), x0 = random({n, 1}, 2), v = random({n, 1}, 3);
  Tape tape;
  const Var x = tape.watch(x0);
  const Var f = sum(square(tanh(matmul(Var(a), x))));
  const auto g = tape.recorded_vjp(f, Var(Tensor::scalar(1, DType::f64)), {&x, 1});
  const Tensor hv = tape.vjp(sum(mul(g[0], Var(v))), x);
  const auto A = a.values<double>(), X = x0.values<double>(), V = v.values<double>();
  std::vector<double> gradient(n, 0), product(n, 0);
  for (std::int64_t i = 0; i < m; ++i) {
    double ax = 0, av = 0;
    for (std::int64_t j = 0; j < n; ++j) ax += A[i * n + j] * X[j], av += A[i * n + j] * V[j];
    const double t = std::tanh(ax);
    for (std::int64_t j = 0; j < n; ++j) {
      gradient[j] += A[i * n + j] * 2 * t * (1 - t * t);
      product[j] += A[i * n + j] * (1 - t * t) * (2 - 6 * t * t) * av;
    }
  }
  expect_near(g[0].value(), gradient, 1e-13);
  expect_near(hv, product, 1e-13);
}

TEST(Tape, SeveralResultsInOneSweep) {
  // <c, d sin x> + <d, d x^2> with the constant left out by an undefined cotangent; one result is the other's operand.
  const Tensor x0 = Tensor::from(std::vector<double>{0.3, -1.2}, {2});
  const Tensor c = Tensor::from(std::vector<double>{2, 3}, {2}), d = Tensor::from(std::vector<double>{5, 7}, {2});
  Tape tape;
  const Var x = tape.watch(x0), s = sin(x), q = square(s), left_out = exp(q);
  const std::vector<Var> results{q, s, left_out, x, Var(x0)};
  const std::vector<Tensor> cotangents{d, c, Tensor(), c, c};
  const auto expected = [&](int i) {
    const double v = x0.values<double>()[i], ci = c.values<double>()[i], di = d.values<double>()[i];
    return di * 2 * std::sin(v) * std::cos(v) + ci * std::cos(v) + ci;
  };
  for (const bool keep : {true, false}) {
    const std::vector<Tensor> g =
        keep ? tape.vjp(results, cotangents, {&x, 1}) : std::move(tape).vjp(results, cotangents, {&x, 1});
    for (int i = 0; i < 2; ++i) EXPECT_NEAR(g[0].values<double>()[i], expected(i), 1e-14);
  }
}

TEST(Tape, WithRespectToIntermediateRepeatedAndIndependentValues) {
  Tape tape;
  const Var x = tape.watch(Tensor::scalar(2, DType::f64)), other = tape.watch(Tensor::full({3}, 1, DType::f64));
  const Var h = square(x), y = mul(h, h);  // x^4
  const Var wrt[] = {h, x, h, other, y};
  for (int round = 0; round < 2; ++round) {
    const auto g = tape.vjp(y, wrt);
    EXPECT_EQ(g[0].item(), 8);
    EXPECT_EQ(g[1].item(), 32);
    EXPECT_EQ(g[2].item(), 8);
    EXPECT_EQ(g[3].to_doubles(), (std::vector<double>{0, 0, 0}));
    EXPECT_EQ(g[4].item(), 1);
  }
  EXPECT_EQ(tape.vjp(Var(Tensor::scalar(1, DType::f64)), x).item(), 0);  // a constant
  EXPECT_TRUE(tape.vjp(y, std::span<const Var>()).empty());
}

TEST(Tape, AccumulatesOverManyUses) {
  Tape tape;
  const Var x = tape.watch(Tensor::full({2}, 3, DType::f64));
  Var y = x;
  for (int i = 0; i < 99; ++i) y = add(y, x);
  EXPECT_EQ(tape.vjp(sum(y), x).to_doubles(), (std::vector<double>{100, 100}));
  EXPECT_EQ(tape.vjp(sum(add(x, x)), x).to_doubles(), (std::vector<double>{2, 2}));
  EXPECT_EQ(tape.vjp(sum(mul(x, x)), x).to_doubles(), (std::vector<double>{6, 6}));
}

TEST(Tape, CotangentsAreNotWrittenTo) {
  // Sums hand one cotangent to both terms, rules write over cotangents where they may: never over the caller's, never
  // over one that another value still waits for.
  Tape tape;
  const Var x = tape.watch(Tensor::full({4}, 2.0)), z = tape.watch(Tensor::full({4}, 5.0));
  const Var h = add(x, z), s = sub(h, mul(x, z)), y = add(mul(s, s), h);
  Tensor c = Tensor::full({4}, 1.0);
  const Var wrt[] = {x, z, h, s, y};
  for (int round = 0; round < 2; ++round) {
    const auto g = tape.vjp(y, c, wrt);
    EXPECT_EQ(c.to_doubles()[0], 1);
    EXPECT_EQ(g[4].to_doubles()[0], 1);
    EXPECT_EQ(g[3].to_doubles()[0], -6);       // 2 s, s = -3
    EXPECT_EQ(g[2].to_doubles()[0], -5);       // 1 + 2 s
    EXPECT_EQ(g[0].to_doubles()[0], -5 + 30);  // dh + 6 z
    EXPECT_EQ(g[1].to_doubles()[0], -5 + 12);
    EXPECT_EQ(x.value().to_doubles()[0], 2);
    EXPECT_EQ(s.value().to_doubles()[0], -3);
  }
}

TEST(Tape, ResultsShareStorageWithNothing) {
  Tape tape;
  const Var x = tape.watch(Tensor::zeros({4})), z = tape.watch(Tensor::zeros({4}));
  const Tensor c = Tensor::full({4}, 1.0);
  const Var wrt[] = {x, z};
  const auto g = tape.vjp(add(x, z), c, wrt);
  add_in_place(g[0], g[0]);
  EXPECT_EQ(g[0].to_doubles()[0], 2);
  EXPECT_EQ(g[1].to_doubles()[0], 1);
  EXPECT_EQ(c.to_doubles()[0], 1);
}

TEST(Tape, SweepsWithinSweeps) {
  // A custom rule that runs a sweep of its own must not disturb the buffers of the one it is called from.
  const CustomRule cube{"cube",
                        [](std::span<const Tensor> in) { return mul(in[0], square(Var(in[0]))).value(); },
                        [](const Tensor& g, std::span<const Tensor> in, const Tensor&) {
                          Tape inner;
                          const Var x = inner.watch(in[0]);
                          return inner.vjp(mul(x, square(x)), g, {&x, 1});
                        }};
  Tape tape;
  const Var x = tape.watch(Tensor::scalar(2, DType::f64));
  const Var in[] = {square(x)};
  const Var h[] = {custom(cube, in)};
  EXPECT_EQ(tape.vjp(mul(custom(cube, h), x), x).item(), 19.0 * std::pow(2, 18));  // x^18 x
}

TEST(Tape, AnErrorWithinASweepLeavesTheTapeUsable) {
  const CustomRule bad{"bad", [](std::span<const Tensor> in) { return in[0].clone(); },
                       [](const Tensor&, std::span<const Tensor>, const Tensor&) -> std::vector<Tensor> {
                         fail(Fault::numerical, {"bad: on purpose"});
                       }};
  Tape tape;
  const Var x = tape.watch(Tensor::scalar(2, DType::f64));
  const Var h = square(x);
  EXPECT_THROW(tape.vjp(square(custom(bad, {&h, 1})), x), Error);
  EXPECT_EQ(tape.vjp(square(h), x).item(), 32);
}

}  // namespace
}  // namespace costate
