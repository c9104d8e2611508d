// safetensors written piece by piece to wherever the bytes are to go.
#pragma once
#include <costate/tensor/file.h>
#include <costate/tensor/safetensors.h>

namespace costate {

// The bytes of save_safetensors, without more memory than one tensor from a device.
void write_safetensors(const WriteBytes& write, std::span<const NamedTensor> tensors, SafetensorsMetadata metadata = {});

}  // namespace costate
