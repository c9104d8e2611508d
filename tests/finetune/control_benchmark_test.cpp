#include <costate/finetune/adjoint_matching.h>
#include <costate/finetune/evaluate/control_error.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

namespace costate::finetune {
namespace {

TEST(ControlBenchmark, X) {
  for (const auto name : control_benchmark_names())
   for (int mult : {1, 2, 4}) {
    const int steps = control_benchmark(name).steps() * mult;
    const ControlBenchmark b = control_benchmark(name, {steps, 0});
    const ControlObjective o = control_objective(b, optimal_field(b), 4000, {7}, DType::f64);
    const ControlObjective z = control_objective(b, b.base, 4000, {7}, DType::f64);
    const ControlErrorEstimate e = control_error(b, b.base, 4000, {7}, DType::f64);
    printf("%s %d V %.5f  cost %.5f +- %.5f cert %.5f +- %.5f zero %.5f +- %.5f energy %.5f rel %g\n", b.name.c_str(), steps, b.optimal_cost, o.cost.value, o.cost.standard_error, o.certificate.value, o.certificate.standard_error, z.cost.value, z.cost.standard_error, e.optimal.value, e.relative());
  }
}

}  // namespace
}  // namespace costate::finetune
