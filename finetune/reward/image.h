// Rewards of pictures (rows, height, width, channels), as means over pixels and channels: they do not depend on the resolution.
#pragma once
#include <costate/finetune/reward/reward.h>

namespace costate::finetune {

// scale times the mean value: the ink of a drawing, the brightness of a photograph.
Reward brightness_reward(double scale = 1.0);

// -scale times the mean of (x - flip x)^2: 0 for a picture that is its own mirror image.
enum class MirrorAxis { left_right, up_down };
Reward symmetry_reward(MirrorAxis axis, double scale = 1.0);

// -scale times the total variation, the sum over pairs of neighbours, right and below, of sqrt(d^2 + eps^2) - eps, over the
// number of values (Rudin, Osher and Fatemi 1992, anisotropic; smoothed by eps, so that it has a gradient everywhere). eps is
// in the units of x. 0 for a picture of one colour; throws Error(Fault::argument) for pictures of one pixel.
Reward total_variation_reward(double scale = 1.0, double eps = 1e-2);

}  // namespace costate::finetune
