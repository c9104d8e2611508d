// The control benchmark: what each problem costs without control, under the optimal control, and at best.
#include <costate/finetune/evaluate/control_error.h>
#include <costate/tensor/error.h>

#include <cstdio>

int main() {
  using namespace costate;
  using namespace costate::finetune;
  try {
    std::printf("%-20s %22s %22s %10s %10s\n", "", "no control", "optimal control", "chain", "limit");
    for (const std::string_view name : control_benchmark_names()) {
      const ControlBenchmark problem = control_benchmark(name);
      const Estimate zero = control_objective(problem, problem.base, 1000, {1}).cost;
      const Estimate best = control_objective(problem, optimal_field(problem), 1000, {1}).certificate;
      std::printf("%-20s %11.4f +- %7.4f %11.4f +- %7.4f %10s %10.4f\n", problem.name.c_str(), zero.value, zero.standard_error,
                  best.value, best.standard_error,
                  problem.chain_optimal_cost ? std::to_string(*problem.chain_optimal_cost).c_str() : "-", problem.optimal_cost);
    }
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
