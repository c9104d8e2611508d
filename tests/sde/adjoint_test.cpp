// The discrete adjoint: stored and recomputed runs have the same bits, and both are the gradient.
#include <costate/autograd/ops.h>
#include <costate/sde/adjoint.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace costate::sde {
namespace {

// A small tanh network with the time as an input.
struct Model {
  Tensor w1, w2;
  Var call(const Var& x, const Var& t, const Var& a, const Var& b) const {
    const Var time = reshape(t, {-1, 1});
    return matmul(tanh(matmul(concat({&x, &time}, 1), a)), b);
  }
  ParametricField field() const {
    return {[this](const Var& x, const Var& t, const Tensor&) { return call(x, t, Var(w1), Var(w2)); },
            [this](Tape& tape, std::vector<Var>& watched) -> Field {
              const Var a = tape.watch(w1), b = tape.watch(w2);
              watched = {a, b};
              return [this, a, b](const Var& x, const Var& t, const Tensor&) { return call(x, t, a, b); };
            }};
  }
};
Model model(DType dtype = DType::f64) {
  Model m{Tensor::empty({3, 8}, dtype), Tensor::empty({8, 2}, dtype)};
  random_normal(m.w1, 1, Stream::user, 0, 0);
  random_normal(m.w2, 2, Stream::user, 0, 0);
  return m;
}

TEST(Adjoint, SegmentsHaveTheBitsOfStoreAll) {
  const Model m = model(DType::f32);
  const Chain chain = exact_memoryless({}, uniform_grid(13));
  const Tensor x0 = initial_noise({2}, 5, {7, 0});
  const auto terminal = [](const Tensor& x) { return square(Var(x)).value(); };
  const ChainGradient stored = chain_gradient(m.field(), chain, x0, Tensor(), {7, 0}, terminal);
  EXPECT_EQ(stored.work.recomputed, 0);
  EXPECT_EQ(stored.work.pullbacks, 13);
  for (int s = 0; s <= 15; ++s) {
    const ChainGradient g = chain_gradient(m.field(), chain, x0, Tensor(), {7, 0}, terminal,
                                           {AdjointOptions::Method::segments, s});
    EXPECT_EQ(std::memcmp(g.initial.raw(), stored.initial.raw(), g.initial.bytes()), 0) << s;
    for (int i = 0; i < 2; ++i)
      EXPECT_EQ(std::memcmp(g.parameters[i].raw(), stored.parameters[i].raw(), g.parameters[i].bytes()), 0) << s;
    const int stride = s == 0 ? 4 : std::min(s, 13);
    EXPECT_EQ(g.work.recomputed, 13 - (13 + stride - 1) / stride) << s;  // all but the first state of each segment
  }
}

TEST(Adjoint, StoreAllIsTheGradientOfTheWholeChain) {
  // One tape over all steps, in f64: equal up to the order of sums, 1e-12 relative.
  const Model m = model();
  const Chain chain = euler_maruyama({}, uniform_grid(9));
  const Tensor x0 = initial_noise({2}, 3, {4, 0}, DType::f64);
  const auto g = chain_gradient(m.field(), chain, x0, Tensor(), {4, 0},
                                [](const Tensor& x) { return affine(Var(x), 2, 0).value(); });
  Tape tape;
  std::vector<Var> watched;
  const Field f = m.field().watch(tape, watched);
  const Var start = tape.watch(x0);
  Var x = start;
  for (int k = 0; k < 9; ++k) {
    const Tensor t = step_time(chain, k, x0);
    x = chain_step(chain.A[k], x, chain.C[k], f(x, Var(t), Tensor()), chain.std[k], Var(step_noise(k, x0, {4, 0})));
  }
  watched.push_back(start);
  const auto direct = tape.vjp(sum(square(x)), watched);
  EXPECT_EQ(x.value().to_doubles(), g.x.to_doubles());
  const auto close = [](const Tensor& a, const Tensor& b) {
    const auto u = a.to_doubles(), v = b.to_doubles();
    double largest = 0, worst = 0;
    for (std::size_t i = 0; i < u.size(); ++i) {
      largest = std::max(largest, std::abs(v[i]));
      worst = std::max(worst, std::abs(u[i] - v[i]));
    }
    return worst <= 1e-12 * largest;
  };
  EXPECT_TRUE(close(g.parameters[0], direct[0]));
  EXPECT_TRUE(close(g.parameters[1], direct[1]));
  EXPECT_TRUE(close(g.initial, direct[2]));
}

TEST(Adjoint, SegmentsNeedLessMemory) {
  const Model m = model(DType::f32);
  const Chain chain = exact_memoryless({}, uniform_grid(100));
  const Tensor x0 = initial_noise({2}, 64, {7, 0});
  const auto peak = [&](AdjointOptions o) {
    const memory::PeakScope scope;
    chain_gradient(m.field(), chain, x0, Tensor(), {7, 0}, [](const Tensor& x) { return x; }, o);
    return scope.peak().total;
  };
  EXPECT_LT(peak({AdjointOptions::Method::segments, 0}), peak({}));
}

TEST(Adjoint, NoiseDoesNotDependOnTheSplitOfTheBatch) {
  const Model m = model(DType::f32);
  const Chain chain = exact_memoryless({}, uniform_grid(7));
  const Tensor all = sample(m.field().frozen, chain, {2}, 100, Tensor(), {3, 50});
  const Tensor x0 = initial_noise({2}, 10, {3, 80});
  const Tensor part = rollout(m.field().frozen, chain, x0, Tensor(), {3, 80});
  EXPECT_EQ(all.slice(30, 10).to_doubles(), part.to_doubles());
}

}  // namespace
}  // namespace costate::sde
