// Sampling shared by ranks: chunks of rows are dealt to them, cut as one process cuts them, and every rank has all samples in
// the end. Noise being a function of the sample's number, nothing else is sent, and the bits are those of one process.
#pragma once
#include <costate/finetune/distributed/communicator.h>
#include <costate/sde/sampler.h>
#include <costate/sde/solve.h>

#include <functional>

namespace costate::finetune {

// Rows (count, ...) that `chunk(first, rows)` makes, (rows, ...) each, in parallel, on the cpu where there are several ranks.
Tensor shared_rows(const Shape& shape, std::int64_t count, DType dtype, Device device,
                   const std::function<Tensor(std::int64_t first, std::int64_t rows)>& chunk);

// Numbers (count) of rows that `chunk(first, rows, numbers)` adds to zeros, in parallel; on every rank.
std::vector<double> shared_numbers(std::int64_t count,
                                   const std::function<void(std::int64_t first, std::int64_t rows, double* numbers)>& chunk);

// sde::sample of a chain, and of an equation by a solver, whose arguments these are.
Tensor shared_sample(const sde::Field& field, const sde::Chain& chain, const Shape& shape, std::int64_t count,
                     const Tensor& labels, const sde::NoiseKey& key, DType dtype = DType::f32, Device device = Device::cpu);
Tensor shared_sample(const sde::Sde& equation, const sde::Solver& solver, const std::vector<double>& grid, const Shape& shape,
                     std::int64_t count, const Tensor& labels, const sde::NoiseKey& key, DType dtype = DType::f32,
                     Device device = Device::cpu);

}  // namespace costate::finetune
