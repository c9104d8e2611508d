#include <costate/finetune/distributed/sampling.h>

#include <costate/tensor/hooks.h>
#include <costate/tensor/parallel.h>

#include <algorithm>

namespace costate::finetune {

Tensor shared_rows(const Shape& shape, std::int64_t count, DType dtype, Device device,
                   const std::function<Tensor(std::int64_t first, std::int64_t rows)>& chunk) {
  const Communicator& ranks = communicator();
  require(count >= 1, "sample: ", count, " samples were asked for");
  require(ranks.size() == 1 || device == Device::cpu, "sample: ", ranks.size(), " processes share samples on the cpu, not on ",
          device);
  const Tensor out = Tensor::empty(shape.with_front(count), dtype, device);
  const std::int64_t size = sde::chunk_rows(count);
  const Share own = share((count + size - 1) / size, ranks);
  const auto rows_before = [&](std::int64_t c) { return std::min(count, c * size); };
  ProgressReport report("sample", rows_before(own.end) - rows_before(own.first));
  const auto one = [&](std::int64_t i) {
    const std::int64_t first = (own.first + i) * size, rows = std::min(size, count - first);
    out.slice(first, rows).copy_from(chunk(first, rows));
    report.add(rows);
  };
  // Alone, a chunk has all threads.
  if (own.end - own.first == 1) one(0);
  else parallel(own.end - own.first, one);
  share_rows(out, size);
  return out;
}

std::vector<double> shared_numbers(std::int64_t count,
                                   const std::function<void(std::int64_t first, std::int64_t rows, double* numbers)>& chunk) {
  const std::int64_t size = sde::chunk_rows(count);
  const Share own = share((count + size - 1) / size, communicator());
  const auto rows_before = [&](std::int64_t c) { return std::min(count, c * size); };
  std::vector<double> numbers(static_cast<std::size_t>(rows_before(own.end) - rows_before(own.first)));
  parallel(own.end - own.first, [&](std::int64_t i) {
    const std::int64_t first = (own.first + i) * size;
    chunk(first, std::min(size, count - first), numbers.data() + i * size);
  });
  std::vector<double> all;
  for (const auto& of_rank : all_gather(numbers)) all.insert(all.end(), of_rank.begin(), of_rank.end());
  return all;
}

namespace {
void check_labels(const Tensor& labels, std::int64_t count) {
  require(!labels.defined() || labels.shape() == Shape{count}, "sample: labels of shape ",
          labels.defined() ? labels.shape() : Shape{}, " for ", count, " samples");
}
}  // namespace

Tensor shared_sample(const sde::Field& field, const sde::Chain& chain, const Shape& shape, std::int64_t count,
                     const Tensor& labels, const sde::NoiseKey& key, DType dtype, Device device) {
  check_labels(labels, count);
  return shared_rows(shape, count, dtype, device, [&](std::int64_t first, std::int64_t rows) {
    const sde::NoiseKey own = key.from(first);
    const Tensor start = sde::initial_noise(shape, rows, own, dtype, device);
    return sde::rollout(field, chain, start, sde::rows_of(labels, first, rows), own);
  });
}

Tensor shared_sample(const sde::Sde& equation, const sde::Solver& solver, const std::vector<double>& grid, const Shape& shape,
                     std::int64_t count, const Tensor& labels, const sde::NoiseKey& key, DType dtype, Device device) {
  check_labels(labels, count);
  const sde::BrownianPath path(grid, key);
  return shared_rows(shape, count, dtype, device, [&](std::int64_t first, std::int64_t rows) {
    return sde::solve(equation, solver, grid, sde::initial_noise(shape, rows, key.from(first), dtype, device),
                      sde::rows_of(labels, first, rows), path.from(first));
  });
}

}  // namespace costate::finetune
