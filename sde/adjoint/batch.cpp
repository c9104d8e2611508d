#include <costate/sde/adjoint/batch.h>

#include <costate/sde/adjoint/methods.h>
#include <costate/tensor/parallel.h>

#include <algorithm>

namespace costate::sde {
namespace {

// Adds what rows share. x and d/dx_0 have gone to their places before.
void add(Gradient& sum, Gradient more) {
  detail::accumulate(sum.parameters, std::move(more.parameters));
  sum.running_cost += more.running_cost;
  sum.work.offloaded_bytes += more.work.offloaded_bytes;
}

// Each lane adds up chunks in a sum of its own; lanes are added in order. There are few enough for their sums to take at most
// this many bytes, and never more than 64.
std::int64_t lanes_of(std::int64_t chunks, const Process& process, DType dtype) {
  constexpr std::int64_t budget = std::int64_t{256} << 20;
  const std::int64_t bytes = std::max<std::int64_t>(1, process.parameter_numbers() * size_of(dtype));
  return std::min(chunks, std::clamp<std::int64_t>(budget / bytes, 1, 64));
}

}  // namespace

Gradient batch_gradient(const Tensor& x0, const std::function<Process(std::int64_t, std::int64_t)>& process_of,
                        const std::function<Tensor(std::int64_t, const Tensor&)>& terminal, const AdjointOptions& options) {
  require(x0.defined() && x0.rank() >= 1 && x0.extent(0) >= 1, "batch_gradient: x_0 ",
          x0.defined() ? sentence({"has shape ", x0.shape()}) : std::string("is undefined"), "; expected at least one row");
  require(!options.visit, "batch_gradient: chunks of rows go their ways at the same time, so that there is no order in which "
                          "to visit their steps; call gradient on the rows to be seen");
  const std::int64_t batch = x0.extent(0), rows = chunk_rows(batch), chunks = (batch + rows - 1) / rows;
  const Process first_process = process_of(0, std::min(rows, batch));
  if (const std::string why = refusal(first_process, options); !why.empty()) fail(Fault::argument, {why});
  const int steps = first_process.steps;
  Gradient result;
  result.x = Tensor::empty_like(x0);
  if (options.method != AdjointMethod::forward) result.initial = Tensor::empty_like(x0);

  const auto of_chunk = [&](std::int64_t chunk) {
    const std::int64_t first = chunk * rows, count = std::min(rows, batch - first);
    const Process own = chunk == 0 ? Process() : process_of(first, count);
    const Process& process = chunk == 0 ? first_process : own;
    require(process.steps == steps, "batch_gradient: the process of the rows from ", first, " has ", process.steps,
            " steps where that of the rows from 0 has ", steps);
    Gradient g = gradient(process, x0.slice(first, count), [&](const Tensor& x) { return terminal(first, x); }, options);
    result.x.slice(first, count).copy_from(g.x);
    if (g.initial.defined()) result.initial.slice(first, count).copy_from(g.initial);
    g.x = {}, g.initial = {};
    return g;
  };
  const std::int64_t lanes = lanes_of(chunks, first_process, x0.dtype());
  std::vector<Gradient> lane(static_cast<std::size_t>(lanes));
  parallel(lanes, [&](std::int64_t l) {
    Gradient& sum = lane[static_cast<std::size_t>(l)];
    const std::int64_t begin = chunks * l / lanes, end = chunks * (l + 1) / lanes;
    sum = of_chunk(begin);
    for (std::int64_t c = begin + 1; c < end; ++c) add(sum, of_chunk(c));
  });
  result.work = lane[0].work;
  result.work.offloaded_bytes = 0;
  for (Gradient& l : lane) add(result, std::move(l));
  return result;
}

}  // namespace costate::sde
