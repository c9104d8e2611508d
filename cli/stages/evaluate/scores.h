// Rewards of many samples, a slice at a time.
#pragma once
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/reward/reward.h>

#include <algorithm>
#include <vector>

namespace costate::cli {

// Calls body(rows) for slices of x: as many samples as rewards and judges look at at a time.
template <class Body>
void each_slice(const Tensor& x, const Body& body) {
  constexpr std::int64_t rows = 1024;
  for (std::int64_t first = 0; first < x.extent(0); first += rows)
    body(x.slice(first, std::min(rows, x.extent(0) - first)));
}

// (rows), by the policy of the reward; rows that were skipped are 0 and not valid.
struct Rewards {
  std::vector<double> value;
  std::vector<std::uint8_t> valid;
  std::int64_t failed = 0;

  finetune::Estimate mean() const { return finetune::mean_estimate(kept()); }
  std::vector<double> kept() const { return kept(value); }
  // Of numbers a row, those of rows that are valid.
  std::vector<double> kept(const std::vector<double>& all) const;
};

// Throws Error(numerical) where no row is valid, and as Reward::scores does.
Rewards rewards_of(const finetune::Reward& reward, const Tensor& x);

}  // namespace costate::cli
