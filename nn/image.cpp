#include <costate/nn/image.h>

namespace costate::nn {

Var as_pictures(const Var& x, std::int64_t height, std::int64_t width, std::int64_t channels,
                std::string_view where) {
  const bool flat = x.rank() == 3 && channels == 1;
  const bool fits = (x.rank() == 4 || flat) && x.extent(0) > 0 && x.extent(1) > 0 && x.extent(2) > 0 &&
                    (height == 0 || x.extent(1) == height) && (width == 0 || x.extent(2) == width) &&
                    (flat || x.extent(3) == channels);
  const auto extent = [](std::int64_t n, const char* any) {
    return n ? std::to_string(n) : std::string(any);
  };
  require(fits, where, ": x has shape ", x.shape(), "; expected (rows, ", extent(height, "height"), ", ",
          extent(width, "width"), ", ", channels, ")");
  return flat ? reshape(x, {x.extent(0), x.extent(1), x.extent(2), 1}) : x;
}

void check_rows(const Var& v, std::int64_t rows, std::string_view what, std::string_view where) {
  require(v.defined() && v.rank() == 1 && v.extent(0) == rows, where, ": ", what, " has shape ", v.shape(),
          "; expected (", rows, ",)");
}

}  // namespace costate::nn
