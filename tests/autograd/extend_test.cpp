// Users' operations and checkpoints.
#include <costate/autograd/check.h>
#include <costate/autograd/ops.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cstring>

namespace costate {
namespace {

using Inputs = std::span<const Var>;

Tensor random(const Shape& shape, std::uint32_t step, DType dtype = DType::f32) {
  const Tensor t = Tensor::empty({1, shape.numel()}, dtype);
  random_normal(t, 6, Stream::user, 0, step);
  return t.reshape(shape);
}

// x y^2
const CustomRule product{"product", [](std::span<const Tensor> in) { return mul(in[0], square(Var(in[1]))).value(); },
                         [](const Tensor& g, std::span<const Tensor> in, const Tensor& out) {
                           return std::vector<Tensor>{mul(g, square(Var(in[1]))).value(),
                                                      mul(g, div(affine(out, 2, 0), Var(in[1]))).value()};
                         }};

TEST(Custom, GradientsAgreeWithDifferences) {
  const Tensor in[] = {random({3}, 0, DType::f64), random({3}, 1, DType::f64)};
  EXPECT_EQ(check_gradients([](Inputs x) { return exp(custom(product, x)); }, in), "");
}

TEST(Custom, OnConstantsNothingIsRecorded) {
  const Var in[] = {random({3}, 0), random({3}, 1)};
  EXPECT_FALSE(custom(product, in).tracked());
}

TEST(Custom, WrongRulesAreRefused) {
  using Result = std::vector<Tensor>;
  const std::function<Result(const Tensor&)> rules[] = {
      [](const Tensor& g) { return Result{g, g}; },
      [](const Tensor&) { return Result{}; },
      [](const Tensor&) { return Result{Tensor::zeros({4})}; },
      [](const Tensor& g) { return Result{g.to(DType::f64)}; },
  };
  for (const auto& rule : rules) {
    const CustomRule wrong{"wrong", [](std::span<const Tensor> in) { return in[0].clone(); },
                           [&](const Tensor& g, std::span<const Tensor>, const Tensor&) { return rule(g); }};
    Tape tape;
    const Var x = tape.watch(random({3}, 0));
    try {
      tape.vjp(sum(custom(wrong, {&x, 1})), x);
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("'wrong'"), std::string::npos) << e.what();
    }
  }
  // An undefined cotangent stands for zeros.
  const CustomRule none{"none", [](std::span<const Tensor> in) { return in[0].clone(); },
                        [](const Tensor&, std::span<const Tensor>, const Tensor&) { return Result(1); }};
  Tape tape;
  const Var x = tape.watch(random({3}, 0));
  EXPECT_EQ(tape.vjp(sum(custom(none, {&x, 1})), x).to_doubles(), (std::vector<double>{0, 0, 0}));
  EXPECT_THROW(custom(CustomRule{"empty", {}, {}}, {&x, 1}), Error);
  EXPECT_THROW(custom(CustomRule{"undefined", [](std::span<const Tensor>) { return Tensor(); }, none.vjp}, {&x, 1}), Error);
  EXPECT_THROW(tape.recorded_vjp(sum(custom(none, {&x, 1})), Var(Tensor::scalar(1)), {&x, 1}), Error);
}

// Twelve steps of a network whose parameters every step uses, in segments of any length.
std::vector<Tensor> gradients(int every, std::int64_t* peak) {
  const Tensor w0 = affine(random({32, 32}, 1), 0.2, 0).value(), b0 = random({32}, 2), x0 = random({64, 32}, 3);
  Tape tape;
  const Var wrt[] = {tape.watch(w0), tape.watch(b0), tape.watch(x0)};
  const memory::PeakScope scope;
  const auto before = memory::live().total;
  const auto steps = [](int n) {
    return [n](Inputs in) {
      Var x = in[2];
      for (int i = 0; i < n; ++i) x = axpby(1, x, 0.1, add(linear(silu(x), in[0], in[1]), tanh(x)));
      return x;
    };
  };
  Var x = wrt[2];
  for (int done = 0; done < 12; done += every ? every : 12) {
    const Var in[] = {wrt[0], wrt[1], x};
    x = every ? checkpoint(steps(every), in) : steps(12)(in);
  }
  auto g = std::move(tape).vjp(x, random({64, 32}, 4), wrt);
  *peak = scope.peak().total - before;
  return g;
}

TEST(Checkpoint, BitsOfThePlainSweepAtALowerPeak) {
  std::int64_t plain_peak = 0;
  const auto plain = gradients(0, &plain_peak);
  for (const int every : {1, 2, 3, 4, 6, 12}) {
    std::int64_t peak = 0;
    const auto g = gradients(every, &peak);
    for (std::size_t k = 0; k < g.size(); ++k)
      EXPECT_EQ(std::memcmp(g[k].raw(), plain[k].raw(), static_cast<std::size_t>(g[k].bytes())), 0) << every << ", " << k;
    if (every <= 4) {
      EXPECT_LT(4 * peak, 3 * plain_peak) << every;  // both with what one product works in
    }
  }
}

TEST(Checkpoint, NestsAndHandlesEdges) {
  Tape tape;
  const Var x = tape.watch(Tensor::scalar(2, DType::f64));
  const auto inner = [](Inputs in) { return square(in[0]); };
  const auto outer = [&](Inputs in) {
    const Var h[] = {checkpoint(inner, in)};
    return checkpoint(inner, h);
  };
  EXPECT_EQ(tape.vjp(mul(checkpoint(outer, {&x, 1}), x), x).item(), 80);  // x^5
  // The identity, a constant, one value twice.
  EXPECT_EQ(tape.vjp(mul(checkpoint([](Inputs in) { return in[0]; }, {&x, 1}), x), x).item(), 4);
  EXPECT_EQ(tape.vjp(mul(checkpoint([](Inputs) { return Var(Tensor::scalar(3, DType::f64)); }, {&x, 1}), x), x).item(), 3);
  const Var twice[] = {x, x};
  EXPECT_EQ(tape.vjp(mul(checkpoint([](Inputs in) { return mul(in[0], in[1]); }, twice), x), x).item(), 12);
}

TEST(Checkpoint, RefusesWhatItCannotSee) {
  Tape tape;
  const Var x = tape.watch(Tensor::scalar(2)), captured = tape.watch(Tensor::scalar(3));
  EXPECT_THROW(checkpoint([&](Inputs in) { return mul(in[0], captured); }, {&x, 1}), Error);
  EXPECT_THROW(checkpoint([](Inputs) { return Var(); }, {&x, 1}), Error);
  EXPECT_THROW(tape.recorded_vjp(checkpoint([](Inputs in) { return square(in[0]); }, {&x, 1}), Var(Tensor::scalar(1)), {&x, 1}),
               Error);
}

}  // namespace
}  // namespace costate
