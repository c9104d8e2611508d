// The law N(mean, variance) of one coordinate.
#pragma once

namespace costate::finetune {

struct GaussianMoments {
  double mean = 0, variance = 1;
};

}  // namespace costate::finetune
