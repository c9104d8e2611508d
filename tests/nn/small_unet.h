// A small UNet with every kind of part.
#pragma once
#include <costate/nn/unet.h>

#include "nn_support.h"

namespace costate::nn {

inline UNetOptions small_unet() {
  UNetOptions o;
  o.in_channels = o.out_channels = 1, o.block_out_channels = {8, 16}, o.layers_per_block = 1,
  o.norm_num_groups = 4;
  o.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
  o.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  o.num_class_embeds = 4, o.null_class = 3;
  return o;
}
inline UNet random_unet(const UNetOptions& o, DType dtype = DType::f64, Device device = Device::cpu) {
  Init init(3, dtype, device);
  return randomised(make_unet(o, init));
}

}  // namespace costate::nn
