// Event files that TensorBoard reads: records of the TFRecord format, each an Event of protocol buffers, written by hand.
//
//   record   u64 length | u32 mask(crc32c(length)) | event | u32 mask(crc32c(event)), little-endian
//   mask     rotate_right(crc, 15) + 0xA282EAD8
//   event    wall_time, step and one of: file version (the first of a file), session log, summary
//   summary  values by tag: a number, a picture (PNG) or a histogram
//
// Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto.
// Numbers are single precision there: the metrics of a run have them whole.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "image/png.h"

namespace costate::cli::tensorboard {

// An event as a record of a file.
std::string record(std::string_view event);

// Counts of values up to and including each limit, and above the limit before; the last limit is the largest double. Limits grow
// by tenths from 1e-12 either side of 0, as TensorFlow's own; leading and trailing empty buckets but one are left out.
struct Histogram {
  double min = 0, max = 0, count = 0, sum = 0, squares = 0;
  std::vector<double> limits, counts;  // rising
};
// Values that are not finite are not counted. None: an empty histogram.
Histogram histogram(std::span<const double> values);

using Value = std::variant<double, Raster, Histogram>;
using Values = std::vector<std::pair<std::string, Value>>;

// Events. Seconds are since 1970.
std::string version_event(double seconds);
// From here on the file says what happened from `step` on; what earlier files of the folder said about it is void.
std::string start_event(double seconds, std::int64_t step);
std::string summary_event(double seconds, std::int64_t step, const Values& values);

// Empties the event files of a folder, if there are any: what happened is to be forgotten. They are not removed, because a
// TensorBoard that reads them would wait for them for ever instead of going on to the next.
void empty_events(const std::string& folder);

// A file of events, "events.out.tfevents.SECONDS.costate.PID.N" in the folder, which is made. Every event is one write at its
// end, so that a reader never meets half of one but after a crash, at the end.
class Writer {
 public:
  // Of what happens from `first_step` on. Throws Fault::io.
  Writer(const std::string& folder, std::int64_t first_step);
  ~Writer();
  Writer(Writer&& other) noexcept : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  Writer& operator=(Writer&&) = delete;

  void write(std::int64_t step, const Values& values);
  const std::string& path() const { return path_; }

 private:
  void append(std::string_view event);
  std::string path_;
  int descriptor_ = -1;
};

}  // namespace costate::cli::tensorboard
