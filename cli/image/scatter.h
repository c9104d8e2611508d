// Pictures of point sets in the plane: points with soft edges or a density, in a box.
#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "image/png.h"

namespace costate::cli {

// The part of the plane that is shown; y upwards. low < high.
struct View {
  double x_low = -1, x_high = 1, y_low = -1, y_high = 1;
};

// The smallest square view that holds all finite points of the sets, (count, 2) each, with a margin of 5 %.
// (-1, 1)^2 when there is none.
View view_of(std::initializer_list<std::span<const float>> sets);

struct Colour {
  std::uint8_t red = 0, green = 0, blue = 0;
};

// Ten well distinguishable colours, repeated: for labels.
Colour palette(std::int64_t i);

class Plot {
 public:
  // A white square of `side` pixels, 16 ... 8192, with a thin dark box and tick marks at round numbers.
  Plot(std::int64_t side, const View& view);

  // Discs of `radius` pixels (any positive number) laid over what is there with an opacity in [0, 1]. points:
  // (count, 2). Points that are not finite or lie outside the view are not drawn. Colours: one, or by label.
  void points(std::span<const float> points, Colour colour, double radius, double opacity);
  void points(std::span<const float> points, std::span<const std::int32_t> labels, double radius,
              double opacity);

  // Replaces the inside of the box by the density of the points: a Gaussian kernel of `bandwidth` pixels, the
  // square root of density over its maximum mapped from white to dark blue.
  void density(std::span<const float> points, double bandwidth);

  // A polygon line through (count, 2) points, for paths.
  void line(std::span<const float> points, Colour colour, double width, double opacity);

  const Raster& raster() const { return raster_; }

 private:
  double column(double x) const;
  double row(double y) const;
  void blend(std::int64_t row, std::int64_t column, Colour colour, double weight);
  void disc(double row, double column, Colour colour, double radius, double opacity);
  void frame();

  View view_;
  Raster raster_;
  std::int64_t margin_ = 0;  // pixels between the picture's edge and the box
};

}  // namespace costate::cli
