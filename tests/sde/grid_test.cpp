#include <costate/sde/grid.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

namespace costate::sde {
namespace {

const Schedule kEdm{.family = PathFamily::edm};

template <class F>
void expect_error(const std::string& words, const F& f) {
  try {
    f();
    ADD_FAILURE() << "accepted: " << words;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}

TEST(Grid, EveryGridIncreasesToOneAndRefusesNoSteps) {
  for (const char* word : {"uniform", "quadratic", "shifted", "karras", "linspace", "leading", "trailing"}) {
    const GridKind kind = grid_kind(word);
    EXPECT_EQ(name(kind), word);
    for (int K : {1, 2, 7, 50}) {
      const auto t = time_grid(kind, kEdm, K);
      ASSERT_EQ(t.size(), static_cast<std::size_t>(K) + 1) << word;
      EXPECT_GE(t.front(), 0) << word;
      EXPECT_EQ(t.back(), 1) << word;
      for (int k = 0; k < K; ++k) EXPECT_LT(t[k], t[k + 1]) << word << " " << k;
    }
    EXPECT_THROW(time_grid(kind, kEdm, 0), Error) << word;
  }
}

TEST(Grid, ClosedForms) {
  const auto q = quadratic_grid(5), s = shifted_grid(4, 3), one = shifted_grid(4, 1), u = uniform_grid(4);
  for (int k = 0; k <= 5; ++k) EXPECT_NEAR(1 - q[k], (1 - k / 5.0) * (1 - k / 5.0), 1e-15);
  for (int k = 0; k <= 4; ++k) {
    const double sigma = 1 - k / 4.0;
    EXPECT_NEAR(1 - s[k], 3 * sigma / (1 + 2 * sigma), 1e-15);
    EXPECT_NEAR(one[k], u[k], 1e-15);
  }
  // The levels that FlowMatchEulerDiscreteScheduler shifts: its grid is this one between its own ends.
  const auto sigmas = flow_sigmas(4, 3);
  EXPECT_EQ(sigmas.front(), 1 - s.front());
}

// The levels of Karras et al., and where they lie in our time.
TEST(Grid, KarrasLevels) {
  const auto sigma_of = [](const Schedule& path, double t) {
    const PathPoint p = path.at(t);
    return p.beta / p.alpha;
  };
  // diffusers 0.42, EDMEulerScheduler(sigma_min=0.002, sigma_max=80, rho=7).set_timesteps(8), single precision.
  const double wanted[] = {80, 34.9921875, 13.698575, 4.63707495, 1.2866143, 0.267475367, 0.0351866521, 0.00200000009};
  const auto t = karras_grid(kEdm, 8);
  EXPECT_EQ(t.front(), 0);
  for (int k = 0; k < 8; ++k) EXPECT_NEAR(sigma_of(kEdm, t[k]), wanted[k], 1e-6 * wanted[k]) << k;
  // The same levels on any path that is noisy enough: x_1 + sigma x_0 is what they speak of.
  for (const Schedule& path : {Schedule{}, Schedule{PathFamily::vp_linear}, Schedule{PathFamily::vp_squaredcos}}) {
    const auto other = karras_grid(path, 8);
    EXPECT_GT(other.front(), 0);
    for (int k = 0; k < 8; ++k) EXPECT_NEAR(sigma_of(path, other[k]), wanted[k], 2e-6 * wanted[k]) << k;
  }
  // The edm path's own uniform grid is that of sigma_min = 0.
  const auto uniform = uniform_grid(10);
  for (int k = 0; k < 10; ++k) EXPECT_NEAR(sigma_of(kEdm, uniform[k]), 80 * std::pow(1 - k / 10.0, 7), 1e-11);
}

TEST(Grid, StartSqueezesTheTimes) {
  for (GridKind kind : {GridKind::uniform, GridKind::quadratic, GridKind::shifted}) {
    const auto t = time_grid(kind, {}, 4, {.start = 0.2}), full = time_grid(kind, {}, 4);
    for (int k = 0; k <= 4; ++k) EXPECT_NEAR(t[k], 0.2 + 0.8 * full[k], 1e-15);
    EXPECT_EQ(t.back(), 1);
  }
}

TEST(Grid, RefusesInWords) {
  expect_error("\"karas\" is not a time grid; there are uniform", [] { grid_kind("karas"); });
  expect_error("did you mean \"karras\"", [] { grid_kind("karas"); });
  expect_error("number of steps is 0", [] { uniform_grid(0); });
  expect_error("number of steps is -1", [] { quadratic_grid(-1); });
  expect_error("the shift is 0", [] { shifted_grid(3, 0); });
  expect_error("sigma_max is 81, but on the edm", [] { karras_grid(kEdm, 3, 0.002, 81); });
  expect_error("sigma_min is 0", [] { karras_grid(kEdm, 3, 0); });
  expect_error("sigma_min is 2", [] { karras_grid(kEdm, 3, 2, 2); });
  EXPECT_EQ(karras_grid(kEdm, 1, 2, 2).size(), 2u);
  expect_error("rho is 0.5", [] { karras_grid(kEdm, 3, 0.002, 80, 0.5); });
  expect_error("in double precision", [] { karras_grid(Schedule{}, 3, 1e-18, 1e-17); });
  expect_error("start is 1", [] { time_grid(GridKind::uniform, {}, 4, {.start = 1}); });
  expect_error("shift applies to the shifted grid only", [] { time_grid(GridKind::uniform, {}, 4, {.shift = 2}); });
  expect_error("start applies to", [] { time_grid(GridKind::karras, kEdm, 4, {.start = 0.1}); });
  expect_error("rho applies to", [] { time_grid(GridKind::shifted, {}, 4, {.rho = 3}); });
  expect_error("steps_offset applies to", [] { time_grid(GridKind::trailing, {}, 4, {.steps_offset = 1}); });
  expect_error("train_timesteps applies to", [] { time_grid(GridKind::quadratic, {}, 4, {.train_timesteps = 10}); });
  expect_error("11 steps of a model with 10", [] { time_grid(GridKind::leading, {}, 11, {.train_timesteps = 10}); });
}

}  // namespace
}  // namespace costate::sde
