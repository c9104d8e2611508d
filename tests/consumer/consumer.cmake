# Builds and runs a foreign project against Costate:
#   cmake -D KIND=... -D BUILD_DIR=... -D SOURCE_DIR=... -D SCRATCH=... -D PREFIX=... -D GENERATOR=... -D CXX=... -D FLAGS=...
#         -D LAUNCHER=... -D CONFIG=... -D PKG_CONFIG=... -D NM=... -D STRIP=... -P consumer.cmake
# KIND: install makes PREFIX, which find_package_static, find_package_shared, pkg_config, c (the C library, by a program in C)
# and library (what the shared libraries show, weigh and need) read; fetch_content builds from SOURCE_DIR. FLAGS are those
# without which nothing links with the library that is built already: sanitizers. CC and VALGRIND are for c.
cmake_minimum_required(VERSION 3.25)
set(here ${CMAKE_CURRENT_LIST_DIR})

# step(WHAT command...): runs a command, prints how long it took, and stops with its output when it fails.
function(step what)
  string(TIMESTAMP begin "%s%f")
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(TIMESTAMP end "%s%f")
  math(EXPR ms "(${end} - ${begin}) / 1000")
  message(STATUS "${what}: ${ms} ms")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what}: exit status ${status}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
file(MAKE_DIRECTORY ${SCRATCH})
file(GLOB_RECURSE shared ${PREFIX}/*/libcostate.so)
cmake_path(GET shared PARENT_PATH libraries)

if(KIND STREQUAL "install")
  # Installed in one place and used from another: nothing in a package may depend on where it was made.
  cmake_path(GET PREFIX PARENT_PATH folder)
  file(REMOVE_RECURSE ${folder})
  step("install" ${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${folder}/first)
  file(RENAME ${folder}/first ${PREFIX})
  file(GLOB_RECURSE package ${PREFIX}/*.cmake ${PREFIX}/*.pc)
  file(GLOB_RECURSE headers ${PREFIX}/*.h ${PREFIX}/*.def)
  foreach(header tensor/tensor.h tensor/pointwise.def autograd/ops.h nn/model.h sde/chain.h)
    if(NOT EXISTS ${PREFIX}/include/costate/${header})
      message(FATAL_ERROR "<costate/${header}> was not installed")
    endif()
  endforeach()
  if(NOT package OR EXISTS ${PREFIX}/include/costate/tensor/cpu)
    message(FATAL_ERROR "the package files are missing or internal headers were installed")
  endif()
  foreach(file IN LISTS package headers)
    file(READ ${file} text)
    foreach(word "${SOURCE_DIR}" "${BUILD_DIR}" "${folder}/first" "Eigen/" "Eigen3::" "nlohmann" "<png.h>" "<zlib.h>"
            "CUDA::" "cuda_runtime" "cudart" "nvcc")
      string(FIND "${text}" "${word}" found)
      if(NOT found EQUAL -1)
        message(FATAL_ERROR "${file} mentions '${word}'")
      endif()
    endforeach()
  endforeach()
  if(EXISTS ${BUILD_DIR}/cli/costate)
    step("the installed program" ${PREFIX}/bin/costate --help)
  endif()
  # A part alone: the library without the program and without anything of CUDA.
  step("install, the library alone" ${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${SCRATCH}/library
       --component library)
  file(GLOB_RECURSE all RELATIVE ${SCRATCH}/library ${SCRATCH}/library/*)
  list(FILTER all INCLUDE REGEX "^bin/|cuda|costate_c")
  if(all)
    message(FATAL_ERROR "with the component 'library' came ${all}")
  endif()
  return()
endif()

if(KIND STREQUAL "library")
  include(${here}/library.cmake)
  return()
endif()

if(KIND STREQUAL "c")
  # The run whose model the program in C opens, moved from where it was made.
  step("a small run" ${PREFIX}/bin/costate run ${here}/run.json --quiet --out ${SCRATCH}/made)
  file(RENAME ${SCRATCH}/made ${SCRATCH}/run)
  step("configure" ${CMAKE_COMMAND} -S ${here}/c -B ${SCRATCH}/build -G ${GENERATOR} -DCMAKE_C_COMPILER=${CC}
       -DCMAKE_PREFIX_PATH=${PREFIX} -DCMAKE_C_FLAGS=${FLAGS} -DCMAKE_BUILD_TYPE=Release)
  step("the programs compiled and linked" ${CMAKE_COMMAND} --build ${SCRATCH}/build)
  step("model" ${SCRATCH}/build/consumer ${SCRATCH}/run)
  message(STATUS "${output}")
  file(GLOB_RECURSE plugin ${PREFIX}/*/libcostate_c.so)
  if(FLAGS)  # sanitizers keep threads and mappings of their own, and count leaks themselves
    return()
  endif()
  step("loaded and unloaded" ${SCRATCH}/build/unload ${plugin} ${SCRATCH}/run 100)
  message(STATUS "${output}")
  if(VALGRIND)
    set(ENV{COSTATE_CPU_ISA} baseline)
    step("the same under valgrind" ${VALGRIND} --quiet --leak-check=full --show-leak-kinds=definite,indirect
         --errors-for-leak-kinds=definite,indirect --error-exitcode=9 --suppressions=${here}/valgrind.supp
         ${SCRATCH}/build/unload ${plugin} ${SCRATCH}/run 2)
  else()
    message(STATUS "valgrind is not here: leaks were looked for in resident memory and mappings alone")
  endif()
  return()
endif()

if(KIND STREQUAL "pkg_config")
  file(GLOB_RECURSE pc ${PREFIX}/costate.pc)
  cmake_path(GET pc PARENT_PATH folder)
  cmake_path(GET folder PARENT_PATH libraries)
  set(ENV{PKG_CONFIG_PATH} ${folder})
  step("pkg-config" ${PKG_CONFIG} --cflags --libs "costate >= 0.1")
  separate_arguments(words UNIX_COMMAND "${output}")
  separate_arguments(flags UNIX_COMMAND "${FLAGS}")
  step("sampler.cpp compiled and linked" ${CXX} -std=c++20 ${flags} ${here}/sampler.cpp -o ${SCRATCH}/consumer ${words}
       -Wl,-rpath,${libraries})
  step("run" ${SCRATCH}/consumer)
  return()
endif()

# The embedded library is compiled without optimisation: the subject is the build, not the speed.
set(options -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${CXX})
if(KIND MATCHES "^find_package_(static|shared)$")
  set(shared_libs OFF)
  if(CMAKE_MATCH_1 STREQUAL "shared")
    set(shared_libs ON)
  endif()
  list(APPEND options -DCMAKE_PREFIX_PATH=${PREFIX} -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=${FLAGS}
       -DKIND=${CMAKE_MATCH_1} -DBUILD_SHARED_LIBS=${shared_libs})
  set(project find_package)
else()
  list(APPEND options -DCOSTATE_SOURCE_DIR=${SOURCE_DIR} -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_CXX_FLAGS_DEBUG=-O0 -DNDEBUG"
       -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DFETCHCONTENT_FULLY_DISCONNECTED=ON)
  set(project fetch_content)
endif()
step("configure" ${CMAKE_COMMAND} -S ${here}/${project} -B ${SCRATCH}/build ${options})
if(KIND STREQUAL "fetch_content")
  step("the library" ${CMAKE_COMMAND} --build ${SCRATCH}/build --target costate --parallel 2)
endif()
step("the program compiled and linked" ${CMAKE_COMMAND} --build ${SCRATCH}/build --target consumer)
step("run" ${SCRATCH}/build/consumer)
