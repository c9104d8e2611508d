#include "image/jpeg.h"

#include <costate/tensor/error.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
// Needs size_t and FILE.
#include <jpeglib.h>

namespace costate::cli {
namespace {

// libjpeg reports errors by calling error_exit, which must not return, and its default ends the process: a jump instead. It
// must not skip a destructor: the function between setjmp and libjpeg's calls owns nothing.
struct Errors {
  jpeg_error_mgr manager;
  std::jmp_buf jump;
  char reason[JMSG_LENGTH_MAX];
};

void on_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<Errors*>(info->err);  // its first member
  errors->manager.format_message(info, errors->reason);
  std::longjmp(errors->jump, 1);
}

void on_message(j_common_ptr, int) {}

bool encode(jpeg_compress_struct* jpeg, Errors* errors, const Raster* r, int quality, unsigned char** bytes,
            unsigned long* size) {
  if (setjmp(errors->jump)) return false;
  jpeg_create_compress(jpeg);
  jpeg_mem_dest(jpeg, bytes, size);
  jpeg->image_width = static_cast<JDIMENSION>(r->width), jpeg->image_height = static_cast<JDIMENSION>(r->height);
  jpeg->input_components = r->channels;
  jpeg->in_color_space = r->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(jpeg);
  jpeg_set_quality(jpeg, quality, TRUE);
  jpeg_start_compress(jpeg, TRUE);
  while (jpeg->next_scanline < jpeg->image_height) {
    auto* row = const_cast<JSAMPROW>(r->pixels.data() + static_cast<std::size_t>(jpeg->next_scanline) * r->width * r->channels);
    jpeg_write_scanlines(jpeg, &row, 1);
  }
  jpeg_finish_compress(jpeg);
  return true;
}

// What libjpeg allocates.
struct Encoder {
  jpeg_compress_struct jpeg{};
  Errors errors{};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  Encoder() {
    jpeg.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = on_error, errors.manager.emit_message = on_message;
  }
  ~Encoder() {
    jpeg_destroy_compress(&jpeg);
    std::free(bytes);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
};

}  // namespace

std::vector<std::byte> jpeg_bytes(const Raster& r, int quality) {
  require(quality >= 1 && quality <= 100, "jpeg_bytes: the quality is ", quality, ", expected 1 ... 100");
  require(r.height >= 1 && r.width >= 1 && r.height <= 65500 && r.width <= 65500,
          "jpeg_bytes: a picture has 1 ... 65500 pixels a side, got ", r.width, " x ", r.height);
  require(r.channels == 1 || r.channels == 3, "jpeg_bytes: a picture has 1 or 3 channels, got ", r.channels);
  require(static_cast<std::int64_t>(r.pixels.size()) == r.height * r.width * r.channels, "jpeg_bytes: ", r.pixels.size(),
          " bytes do not fill ", r.width, " x ", r.height, " pixels of ", r.channels, " channels");
  Encoder e;
  if (!encode(&e.jpeg, &e.errors, &r, quality, &e.bytes, &e.size)) fail(Fault::runtime, {"libjpeg: ", e.errors.reason});
  const auto* begin = reinterpret_cast<const std::byte*>(e.bytes);
  return {begin, begin + e.size};
}

}  // namespace costate::cli
