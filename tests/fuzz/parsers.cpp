#include "fuzz/parsers.h"

namespace costate::fuzz {
namespace {
constexpr Parser all[] = {{"safetensors", safetensors}, {"manifest", manifest}, {"shard_index", shard_index}, {"json", json},
                          {"config", config},           {"set", set},           {"npy", npy},                 {"idx", idx},
                          {"csv", csv},                 {"png", png},           {"gzip", gzip},
                          {"npz", npz}};
}  // namespace

std::span<const Parser> parsers() { return all; }

}  // namespace costate::fuzz
