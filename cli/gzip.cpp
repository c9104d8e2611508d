#include "gzip.h"

#include <costate/tensor/error.h>

#include <algorithm>

#include "inflate.h"

namespace costate::cli {
bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

std::vector<std::byte> gunzip(std::span<const std::byte> bytes, std::uint64_t max_bytes,
                              std::string_view what) {
  if (!is_gzip(bytes)) fail(Fault::data, {what, " does not begin with the bytes 1f 8b of a gzip file"});
  std::vector<std::byte> out;
  std::vector<std::byte> piece(1 << 18);
  std::size_t at = 0;
  while (at < bytes.size()) {  // one member a round
    if (!is_gzip(bytes.subspan(at)))
      fail(Fault::data,
           {what, ": ", bytes.size() - at, " bytes that are no gzip data follow the compressed contents"});
    Inflate inflater(Inflate::Wrapper::gzip, what);
    z_stream& z = inflater.stream;
    int status = Z_OK;
    while (status != Z_STREAM_END) {
      const std::size_t given = std::min<std::size_t>(bytes.size() - at, 1 << 30);
      z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data() + at));
      z.avail_in = static_cast<uInt>(given);
      z.next_out = reinterpret_cast<Bytef*>(piece.data());
      z.avail_out = static_cast<uInt>(piece.size());
      status = inflate(&z, Z_NO_FLUSH);
      at += given - z.avail_in;
      const std::size_t made = piece.size() - z.avail_out;
      if (made > max_bytes - out.size())
        fail(Fault::data, {what, " unpacks to more than the ", max_bytes, " bytes that are read"});
      out.insert(out.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(made));
      if (status == Z_MEM_ERROR) fail(Fault::memory, {what, ": not enough memory to unpack it"});
      if (status == Z_BUF_ERROR || (status == Z_OK && at == bytes.size() && made < piece.size()))
        fail(Fault::data, {what, " ends in the middle of its compressed contents"});
      if (status != Z_OK && status != Z_STREAM_END)
        fail(Fault::data, {what, " is a damaged gzip file: ", z.msg ? z.msg : "unknown format"});
    }
  }
  return out;
}

}  // namespace costate::cli
