// A zlib stream that unpacks, ended with the object (RFC 1950 to 1952).
#pragma once
#include <costate/tensor/error.h>
#include <zlib.h>

#include <string_view>

namespace costate::cli {

struct Inflate {
  // What is around the packed bytes, as zlib's code of it and of the largest window, 2^15 bytes.
  enum class Wrapper : int { none = -15, gzip = 15 + 16 };

  // Throws Fault::memory, naming `what`, where zlib has no memory to start with.
  Inflate(Wrapper wrapper, std::string_view what) {
    if (inflateInit2(&stream, static_cast<int>(wrapper)) != Z_OK)
      fail(Fault::memory, {what, ": not enough memory to unpack it"});
  }
  ~Inflate() { inflateEnd(&stream); }
  Inflate(const Inflate&) = delete;
  Inflate& operator=(const Inflate&) = delete;

  z_stream stream{};
};

}  // namespace costate::cli
