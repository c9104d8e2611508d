// A fuzzer of one parser, COSTATE_FUZZ_PARSER, for libFuzzer (llvm.org/docs/LibFuzzer.html). A finding leaves the function as
// an exception, which libFuzzer reports with the input.
#include "fuzz/parsers.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const costate::fuzz::Parser& p : costate::fuzz::parsers())
    if (p.name == COSTATE_FUZZ_PARSER) {
      p.feed(std::as_bytes(std::span(data, size)));
      return 0;
    }
  throw costate::fuzz::Finding("there is no parser '" COSTATE_FUZZ_PARSER "'");
}
