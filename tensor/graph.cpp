#include <costate/tensor/graph.h>

#include <costate/tensor/backend.h>
#include <costate/tensor/flops.h>
#include <costate/tensor/parallel.h>

namespace costate {
namespace {

// What is allocated comes from the graph's memory, and the calling thread works alone: the order of allocations, which decides
// addresses, is then that of the program.
class Recording {
 public:
  Recording(const Backend& backend, void* graph) : backend_(backend), threads_(threads()) {
    set_threads(1);
    backend_.use_graph_memory(graph);
  }
  ~Recording() {
    backend_.use_graph_memory(nullptr);
    set_threads(threads_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  const Backend& backend_;
  int threads_;
};

}  // namespace

Graph::Graph(Device device) : device_(device) {
  require(device.kind == DeviceKind::cuda, "graph: work is recorded on a cuda device, not on the ", device);
  graph_ = backend_of(device).make_graph();
}
Graph::~Graph() { backend_of(device_).free_graph(graph_); }

void Graph::record(std::uint64_t first_sample, const std::function<void()>& body) {
  const Backend& backend = backend_of(device_);
  const Recording scope(backend, graph_);
  backend.begin_capture(graph_);
  try {
    body();
  } catch (...) {
    backend.end_capture(graph_, false);
    if (*backend.capture_refusal() == '\0') throw;
    state_ = State::refused, refusal_ = backend.capture_refusal();
    return;
  }
  backend.end_capture(graph_, true);
  state_ = State::recorded, first_sample_ = first_sample;
}

void Graph::run(std::uint64_t first_sample, const std::function<void()>& body, const std::vector<const void*>& addresses) {
  if (addresses != addresses_ && state_ != State::refused) state_ = State::empty, addresses_ = addresses;
  const std::int64_t before = flops();
  if (state_ == State::rehearsed) record(first_sample, body);
  switch (state_) {
    case State::recorded:
      backend_of(device_).launch_graph(graph_, first_sample - first_sample_);
      break;
    case State::refused:
      body();
      break;
    default: {
      const Recording scope(backend_of(device_), graph_);
      body();
      state_ = State::rehearsed, flops_ = flops() - before;
    }
  }
  detail::exchange_flops(before + flops_);
}

}  // namespace costate
