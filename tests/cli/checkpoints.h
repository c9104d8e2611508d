// Checkpoints that diffusers and peft wrote (tests/reference/make_checkpoint_fixtures.py), for the tests that read them.
#pragma once
#include <costate/tensor/file.h>
#include <gtest/gtest.h>

#include <cmath>

#include "pretrained/checkpoint.h"
#include "program.h"

namespace costate::cli::testing {

using std::string;
inline const string fixtures = COSTATE_SOURCE_DIR "/tests/cli/fixtures/";

inline Tensor expected(const string& file, const string& name) {
  return SafetensorsFile(fixtures + file).tensor(name);
}
inline Tensor pictures(const Tensor& t) { return permute(Var(t), {0, 2, 3, 1}).value(); }

inline void expect_close(const Tensor& a, const Tensor& b, double tolerance) {
  ASSERT_EQ(a.shape(), b.shape());
  const auto u = a.to_doubles(), v = b.to_doubles();
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < u.size(); ++i)
    largest = std::max(largest, std::abs(v[i])), worst = std::max(worst, std::abs(u[i] - v[i]));
  EXPECT_LE(worst, tolerance * largest);
}

// The network at the timesteps of a fixture: t is what its map takes there.
inline Tensor at_timesteps(const LoadedCheckpoint& c, const Tensor& x, const Tensor& steps,
                    const Tensor& labels = {}) {
  const nn::TimestepMap map = c.scheduler ? c.scheduler->timestep : nn::TimestepMap{};
  const Var t = affine(Var(steps), 1 / map.scale, -map.offset / map.scale);
  return c.network(Var(pictures(x)), t, labels).value();
}

// In single precision another order of sums shows at 1e-5 of the largest output.
constexpr double f32_tolerance = 2e-5;

}  // namespace costate::cli::testing
