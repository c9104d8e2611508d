# COSTATE_CUDA=AUTO|ON|OFF: the CUDA backend, a plugin (cuda/README.md). AUTO builds it where nvcc, cuBLASLt and cuDNN are
# found, unless sanitizers are asked for, of which nvcc knows nothing; ON stops where one is missing. Programs do not link it:
# they load it when a cuda device is first named.
if(NOT COSTATE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "COSTATE_CUDA is '${COSTATE_CUDA}'; expected AUTO, ON or OFF")
endif()
set(COSTATE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING
    "Architectures of the CUDA backend, in CMake's form: 80-real;90 is code for sm_80 and sm_90, and PTX for later ones")

set(COSTATE_CUDA_FOUND OFF)
if(COSTATE_CUDA STREQUAL "ON" OR (COSTATE_CUDA STREQUAL "AUTO" AND NOT COSTATE_SANITIZE))
  include(CheckLanguage)
  # A language wants a list of architectures before its compiler is tried.
  set(CMAKE_CUDA_ARCHITECTURES ${COSTATE_CUDA_ARCHITECTURES})
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit 12 QUIET)
    find_path(COSTATE_CUDNN_INCLUDE cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(COSTATE_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR})
    mark_as_advanced(COSTATE_CUDNN_INCLUDE COSTATE_CUDNN_LIBRARY)
    if(TARGET CUDA::cublasLt AND COSTATE_CUDNN_INCLUDE AND COSTATE_CUDNN_LIBRARY)
      set(COSTATE_CUDA_FOUND ON)
    else()
      set(missing "the CUDA toolkit's cuBLASLt, or cuDNN 9 (COSTATE_CUDNN_INCLUDE and COSTATE_CUDNN_LIBRARY name it)")
    endif()
  else()
    set(missing "nvcc (CMAKE_CUDA_COMPILER names it)")
  endif()
  if(NOT COSTATE_CUDA_FOUND AND COSTATE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "COSTATE_CUDA=ON: not found: ${missing}")
  endif()
endif()
add_subdirectory(cuda)
