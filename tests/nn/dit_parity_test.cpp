// The diffusion transformer against PyTorch (tests/reference/make_dit_fixtures.py): both dialects.
#include "parity.h"

#include <costate/nn/dit.h>

namespace costate::nn {
namespace {

struct Case {
  std::string name;
  DitOptions options;
  Shape x;
  std::vector<double> t;
  std::vector<std::int32_t> labels;
};

std::vector<Case> cases() {
  DitOptions golden;
  golden.channels = 3, golden.height = golden.width = 8, golden.patch = 2;
  golden.hidden = 32, golden.depth = 2, golden.heads = 4, golden.classes = 10, golden.learn_sigma = true;
  DitOptions patch4;
  patch4.channels = 1, patch4.height = patch4.width = 12, patch4.patch = 4;
  patch4.hidden = 24, patch4.depth = 3, patch4.heads = 3, patch4.mlp_ratio = 2, patch4.classes = 2;
  DitOptions other = golden;
  other.dialect = diffusers_dialect;
  return {{"golden", golden, {2, 3, 8, 8}, {7, 250}, {3, 10}},
          {"patch4", patch4, {3, 1, 12, 12}, {0, 499, 999}, {0, 2, 1}},
          {"diffusers", other, {2, 3, 8, 8}, {7, 250}, {3, 10}}};
}

Dit network(const DitOptions& o, DType dtype) {
  Init init(1, dtype);
  return filled(make_dit(o, init), "pos_embed");
}

Computed computed(const Case& c, DType dtype) {
  const auto rows = static_cast<std::int64_t>(c.t.size());
  return compute(network(c.options, dtype), c.x, dtype, [&](const Dit& m, const Var& x) {
    return m.raw(x, Var(Tensor::from(c.t, {rows}).to(dtype)), Tensor::from(c.labels, {rows}));
  });
}

TEST(DitParity, DoublePrecision) {
  // 1e-9 is the requirement; what is left of it is the last bits of sines and exponentials.
  for (const Case& c : cases()) expect_parity(computed(c, DType::f64), "dit_" + c.name, 1e-9, 1e-9, 1e-12);
}

TEST(DitParity, SinglePrecision) {
  // 1e-5 of the largest element is the requirement.
  for (const Case& c : cases()) expect_parity(computed(c, DType::f32), "dit_" + c.name, 1e-5, 1e-5, 1e-6);
}

TEST(DitParity, DialectsDiffer) {
  const auto all = cases();
  const auto a = computed(all[0], DType::f64).y, b = computed(all[2], DType::f64).y;
  double difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference = std::max(difference, std::abs(a[i] - b[i]));
  EXPECT_GT(difference, 1e-3);
}

TEST(DitParity, GoldenVectorFromTheFillRuleAlone) {
  const Case c = cases()[0];
  const Computed r = computed(c, DType::f64);
  // Published with nine decimals by another implementation, whose table of positions may differ in the last
  // bit of single precision: 1e-8 for values of size 1, 1e-9 of the norms.
  const double first[] = {0.810217643, -1.557118256, 0.548106157, -1.495481370, 0.291424266, -1.355568743};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(r.y[i], first[i], 1e-8);
  const double last[] = {-1.098886723, -0.546366008, -1.001295232};  // y[1, 5, 7, 5:]
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(r.y[r.y.size() - 3 + i], last[i], 1e-8);
  double sum = 0, squares = 0, dx = 0;
  for (const double v : r.y) sum += v, squares += v * v;
  for (const double v : r.dx) dx += v * v;
  EXPECT_NEAR(sum, 48.311020225896904, 1e-9 * 48.3);
  EXPECT_NEAR(std::sqrt(squares), 27.90572283988852, 1e-9 * 27.9);
  EXPECT_NEAR(r.loss, -9.776656090347, 1e-9 * 27.9);
  EXPECT_NEAR(r.dx[0], 0.046047102813, 1e-9);
  EXPECT_NEAR(r.dx[1], 0.029268104800, 1e-9);
  EXPECT_NEAR(r.dx[2], 0.030008058000, 1e-9);
  EXPECT_NEAR(std::sqrt(dx), 0.562809172165, 1e-9);
  EXPECT_NEAR(r.total, 229.345512668738, 1e-9 * 1e3);
  std::int64_t count = 0;
  Dit m = network(c.options, DType::f32);
  visit_state(m, [&](const std::string&, Var& p) { count += p.numel(); });
  EXPECT_EQ(count, 51288);
  EXPECT_EQ(r.gradients.size(), 31u);
}

}  // namespace
}  // namespace costate::nn
