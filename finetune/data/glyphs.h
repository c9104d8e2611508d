// Handwritten-looking digits 0-9 at any resolution, drawn rather than stored: training data that ships with
// the library.
//
// A digit is one of several writing styles; a style is a few pen strokes through key points of the unit
// square (x to the right, y down). The key points are jittered, the strokes interpolated by Catmull-Rom
// splines, and the curve sent through a smooth random displacement field (after the elastic deformations of
// Simard, Steinkraus and Platt, "Best practices for convolutional neural networks", ICDAR 2003, here in the
// plane of the pen, hence for any resolution) and a random affine map. The pixel at distance d from a stroke
// of half-width r is
//     ink * (S((r - d) / w) - S((-r - d) / w)),
// S the cubic step from 0 at -1 to 1 at +1 and w the pen's softness widened by the pixel's own footprint: the
// integral of a smooth pixel kernel across the stroke, so that thin pens get lighter instead of breaking up.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <cstdint>

namespace costate::data {

// Strengths are in units of the picture's side, standard deviations truncated at two unless stated otherwise;
// 0 turns a variation off.
struct GlyphOptions {
  int resolution = 16;  // pixels a side, 6 ... 512
  int label = -1;       // 0 ... 9: only this digit; -1: every block of ten indices holds each digit once
  double size = 0.80;   // longer side of the digit's box, before the pen's own width
  double size_spread = 0.05;  // of that size
  double jitter = 0.032;      // of each key point
  double elastic = 0.032;     // of the smooth displacement
  double slant = 0.20;        // shear dx/dy
  double rotation = 0.12;     // radians
  double aspect = 0.15;       // of the logarithm of width / height
  double translation = 0.03;  // of the digit's centre, as far as the picture has room
  double pen = 0.045;         // mean half-width of the pen
  double pen_spread = 0.25;   // of the logarithm of the half-width
  double softness =
      0.012;          // mean width of the stroke's soft edge; uniform between half and one and a half times
  double ink = 0.15;  // darkest value of a stroke is uniform in [1 - ink, 1], and it varies along the stroke
  bool operator==(const GlyphOptions&) const = default;
};

// What was drawn for one index before any pixel was computed: usable as attributes of the picture.
struct GlyphTraits {
  int label = 0;        // the digit
  int style = 0;        // 0 ... glyph_styles(label) - 1
  double slant = 0;     // shear dx/dy, positive leans to the right
  double rotation = 0;  // radians, positive turns clockwise
  double aspect = 1;    // width / height relative to the style's own
  double size = 0;      // longer side of the digit's box
  double pen = 0;       // half-width of the pen
  double softness = 0;  // width of the soft edge
  double ink = 1;       // darkest value
};

// The number of writing styles of a digit 0 ... 9.
int glyph_styles(int digit);

// The traits of glyph number `index`, a function of (options, seed, index) alone.
GlyphTraits glyph_traits(const GlyphOptions& options, std::uint64_t seed, std::int64_t index);

// Glyphs first ... first+count-1 with their labels: values in [0, 1], shape (count, resolution, resolution,
// 1). Each is a function of (options, seed, index) alone: not of first, count or the number of threads.
// Throws Fault::argument for options outside their range.
Dataset glyphs(const GlyphOptions& options, std::uint64_t seed, std::int64_t first, std::int64_t count);

}  // namespace costate::data
