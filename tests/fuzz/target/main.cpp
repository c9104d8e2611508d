// A fuzzer of one parser, the function COSTATE_FUZZ_PARSER, for libFuzzer (llvm.org/docs/LibFuzzer.html). A finding leaves the
// function as an exception, which libFuzzer reports with the input.
#include "fuzz/parsers.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  costate::fuzz::COSTATE_FUZZ_PARSER(std::as_bytes(std::span(data, size)));
  return 0;
}
