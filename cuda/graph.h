// Recorded work: the kernels and copies of a stretch of the program, launched again as one, and memory of its own that stays
// where it was. See tensor/graph.h for the use.
#pragma once
#include <cstdint>

namespace costate::cuda::graph {

void* make();
void free(void* graph);  // its memory, where tensors still lie in it, becomes the common pool's
// What is allocated from now on comes from the memory of `graph`; null: from the common pool.
void use_memory(void* graph);
// Between the two, kernels and copies are recorded and do not run; what cannot be recorded throws, and is then the refusal.
// end: forgets what was recorded unless `keep`.
void begin(void* graph);
void end(void* graph, bool keep);
const char* refusal();  // of the last capture; "": none
// Runs what was recorded, with `sample_shift` added to the numbers of all samples of noise.
void launch(void* graph, std::uint64_t sample_shift);

// Throws when a capture is under way: `what` cannot be recorded.
void refuse(const char* what);

}  // namespace costate::cuda::graph
