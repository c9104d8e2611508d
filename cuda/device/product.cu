// Matrix products by cuBLASLt. Row-major c = op(a) op(b) is column-major c^T = op(b)^T op(a)^T: b is the library's first
// operand, and the bias along n runs along its rows. Algorithms are asked for once a shape and kept; those that add partial
// sums in no fixed order are left out. f32 is f32; TF32 is used where it is asked for; bf16 is
// multiplied by tensor cores, added in f32, bias and ReLU included, and rounded once.
#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "../pool.h"
#include "../table.h"
#include "check.h"

namespace costate::cuda {
namespace {

constexpr std::int64_t workspace_bytes = std::int64_t{32} << 20;  // what cuBLAS recommends for Hopper

// A product but for its pointers, of which only the alignment matters.
using Key = std::tuple<int, bool, bool, bool, bool, bool, bool, bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                       std::int64_t, std::int64_t, unsigned>;

struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool offered = false;
};

struct Library {
  std::mutex mutex;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::map<Key, Plan> plans;
};
// Never destroyed: calls may come until the end of the process.
Library& library() {
  static Library& l = *new Library;
  return l;
}

unsigned alignment(const void* p) {
  unsigned a = 1;
  while (a < 256 && reinterpret_cast<std::uintptr_t>(p) % (2 * a) == 0) a *= 2;
  return a;
}

Plan make_plan(Library& l, const LibraryProduct& p, unsigned aligned) {
  const auto type_of = [](DType t) { return t == DType::f64 ? CUDA_R_64F : t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; };
  const cudaDataType_t out = type_of(p.dtype), in = p.bf16 ? CUDA_R_16BF : out, scale = type_of(arithmetic_of(p.dtype));
  Plan plan;
  const cublasComputeType_t compute = p.dtype == DType::f64 ? CUBLAS_COMPUTE_64F
                                      : p.tf32              ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                            : CUBLAS_COMPUTE_32F;
  check(cublasLtMatmulDescCreate(&plan.product, compute, scale), "describing a product");
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    check(cublasLtMatmulDescSetAttribute(plan.product, name, &value, sizeof value), "describing a product");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, p.bias ? (p.relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
                                            : (p.relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT));
  if (p.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  const auto layout = [&](cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
    cublasLtMatrixLayout_t made = nullptr;
    check(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows),
          "describing an operand");
    const auto count = static_cast<std::int32_t>(p.batch);
    check(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
          "describing an operand");
    check(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
          "describing an operand");
    return made;
  };
  plan.first = p.transpose_b ? layout(in, p.k, p.n, p.stride_b) : layout(in, p.n, p.k, p.stride_b);
  plan.second = p.transpose_a ? layout(in, p.m, p.k, p.stride_a) : layout(in, p.k, p.m, p.stride_a);
  plan.result = layout(out, p.n, p.m, p.m * p.n);
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "choosing an algorithm");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value), "choosing an algorithm");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  // Partial sums in the workspace, or none: in place they are added as they come.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(name, static_cast<std::uint32_t>(aligned));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(l.handle, plan.product, plan.first, plan.second, plan.result,
                                                               plan.result, preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "choosing an algorithm");
  plan.offered = status == CUBLAS_STATUS_SUCCESS && count > 0;
  plan.algorithm = found.algo;
  return plan;
}

}  // namespace

bool library_product(const LibraryProduct& p) {
  if (p.batch > INT32_MAX) return false;
  Library& l = library();
  const std::lock_guard lock(l.mutex);
  if (!l.handle) {
    runtime::stream();
    check(cublasLtCreate(&l.handle), "starting");
    l.workspace = pool::take(workspace_bytes);
    if (!l.workspace) fail(Fault::memory, "cuda: the device refused the 32 MiB that cuBLASLt works in");
  }
  const unsigned aligned = std::min({alignment(p.a), alignment(p.b), alignment(p.c), p.bias ? alignment(p.bias) : 256u});
  const Key key{static_cast<int>(p.dtype),
                p.bf16,
                p.tf32,
                p.transpose_a,
                p.transpose_b,
                p.accumulate,
                p.relu,
                p.bias != nullptr,
                p.m,
                p.n,
                p.k,
                p.batch,
                p.stride_a,
                p.stride_b,
                aligned};
  auto found = l.plans.find(key);
  if (found == l.plans.end()) found = l.plans.emplace(key, make_plan(l, p, aligned)).first;
  const Plan& plan = found->second;
  if (!plan.offered) return false;
  runtime::count_launch();
  if (p.bias)
    check(cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias),
          "naming a bias");
  const auto run = [&](auto one, auto beta) {
    check(cublasLtMatmul(l.handle, plan.product, &one, p.b, plan.first, p.a, plan.second, &beta, p.c, plan.result, p.c,
                         plan.result, &plan.algorithm, l.workspace, workspace_bytes, runtime::stream()),
          "a product");
  };
  if (p.dtype == DType::f64)
    run(1.0, p.accumulate ? 1.0 : 0.0);
  else
    run(1.0f, p.accumulate ? 1.0f : 0.0f);
  return true;
}

}  // namespace costate::cuda
