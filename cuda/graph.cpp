#include "graph.h"

#include <string>

#include "cells.h"
#include "pool.h"
#include "runtime.h"

namespace costate::cuda::graph {
namespace {

struct Graph {
  int memory = 0;                     // of the pool
  runtime::Recorded* work = nullptr;  // null: nothing was recorded yet
};
int next_memory = 0;
std::string refused;

}  // namespace

void* make() { return new Graph{++next_memory}; }

void free(void* graph) {
  auto* const g = static_cast<Graph*>(graph);
  if (g->work) runtime::forget(g->work);
  pool::merge(g->memory);
  delete g;
}

void use_memory(void* graph) { pool::use(graph ? static_cast<Graph*>(graph)->memory : 0); }

void begin(void* graph) {
  refused.clear();
  auto* const g = static_cast<Graph*>(graph);
  if (g->work) runtime::forget(std::exchange(g->work, nullptr));
  runtime::begin_recording();
}

void end(void* graph, bool keep) {
  runtime::Recorded* const work = runtime::end_recording(keep);
  static_cast<Graph*>(graph)->work = work;
}

const char* refusal() { return refused.c_str(); }

void launch(void* graph, std::uint64_t sample_shift) {
  auto* const g = static_cast<Graph*>(graph);
  if (!g->work) fail(Fault::argument, "cuda: a graph was launched that holds nothing");
  if (sample_shift) cells::set_sample_shift(sample_shift);
  runtime::launch_recorded(g->work);
  if (sample_shift) cells::set_sample_shift(0);
  cells::expect_wrong_index();
}

void refuse(const char* what) {
  if (!runtime::recording()) return;
  refused = std::string("a captured stretch of work cannot contain ") + what;
  fail(Fault::runtime, "cuda: " + refused);
}

}  // namespace costate::cuda::graph
