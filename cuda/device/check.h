// What CUDA and its libraries answer, as sentences.
#pragma once
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include <string>

#include "../runtime.h"

namespace costate::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  fail(error == cudaErrorMemoryAllocation ? Fault::memory : Fault::runtime,
       std::string("cuda: ") + what + " failed: " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}
inline void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(Fault::runtime, std::string("cuda: ") + what + " failed in cuBLASLt: " + cublasLtGetStatusString(status));
}
inline void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    fail(Fault::runtime, std::string("cuda: ") + what + " failed in cuDNN: " + cudnnGetErrorString(status));
}

}  // namespace costate::cuda
