# Private compile options of every target of ours. Nothing here reaches a consumer.
function(costate_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wno-psabi)
  # A loop whose body holds a call that Clang cannot vectorise stays scalar: no fault of the program.
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -Wno-pass-failed)
  endif()
  # No fast-math: NaN and infinity keep their meaning. What is given up is errno and floating-point traps,
  # which nobody reads and which keep compilers from vectorising.
  target_compile_options(${target} PRIVATE -fno-math-errno -fno-trapping-math)
  # GCC's manual, "Program Instrumentation Options": sanitizers increase the rate of false warnings, and are not to be
  # combined with -Werror. Seen with GCC 12: <regex> (GCC bug 105616), a vector of enumerators.
  if(COSTATE_DEVELOPER AND NOT COSTATE_SANITIZE)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(NOT COSTATE_MARCH STREQUAL "portable")
    target_compile_options(${target} PRIVATE -march=${COSTATE_MARCH})
  endif()
  if(COSTATE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${COSTATE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(${target} PRIVATE -fsanitize=${COSTATE_SANITIZE})
  endif()
  if(COSTATE_FUZZ)  # counters of the edges taken, which a fuzzer's main reads
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()
