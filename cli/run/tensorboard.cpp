#include "run/tensorboard.h"

#include <costate/tensor/checksum.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <system_error>

namespace costate::cli::tensorboard {
namespace {

constexpr std::string_view file_prefix = "events.out.tfevents.";

std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xA282EAD8u; }

template <class Word>
void put(std::string& out, Word word) {
  for (std::size_t i = 0; i < sizeof word; ++i) out.push_back(static_cast<char>(word >> 8 * i & 255));
}

// A message of protocol buffers (protobuf.dev/programming-guides/encoding): keys are field number * 8 + wire type.
class Message {
 public:
  Message& integer(int field, std::uint64_t v) {
    varint(static_cast<std::uint64_t>(field) << 3);
    varint(v);
    return *this;
  }
  Message& number(int field, double v) {
    varint(static_cast<std::uint64_t>(field) << 3 | 1);
    put(bytes_, std::bit_cast<std::uint64_t>(v));
    return *this;
  }
  Message& single(int field, float v) {
    varint(static_cast<std::uint64_t>(field) << 3 | 5);
    put(bytes_, std::bit_cast<std::uint32_t>(v));
    return *this;
  }
  Message& bytes(int field, std::string_view v) {
    varint(static_cast<std::uint64_t>(field) << 3 | 2);
    varint(v.size());
    bytes_ += v;
    return *this;
  }
  Message& numbers(int field, std::span<const double> values) {  // packed
    std::string packed;
    for (const double v : values) put(packed, std::bit_cast<std::uint64_t>(v));
    return bytes(field, packed);
  }
  Message& message(int field, const Message& m) { return bytes(field, m.text()); }
  const std::string& text() const { return bytes_; }

 private:
  void varint(std::uint64_t v) {
    for (; v >= 128; v >>= 7) bytes_.push_back(static_cast<char>(v | 128));
    bytes_.push_back(static_cast<char>(v));
  }
  std::string bytes_;
};

// Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7.
Message event(double seconds, std::int64_t step) {
  Message m;
  m.number(1, seconds);
  if (step != 0) m.integer(2, static_cast<std::uint64_t>(step));
  return m;
}

// Summary.Value: tag 1, simple_value 2, image 4, histo 5.
struct Encode {
  Message& value;
  void operator()(double v) const { value.single(2, static_cast<float>(v)); }
  void operator()(const Raster& r) const {
    const std::vector<std::byte> png = png_bytes(r);
    Message image;
    image.integer(1, static_cast<std::uint64_t>(r.height)).integer(2, static_cast<std::uint64_t>(r.width));
    image.integer(3, static_cast<std::uint64_t>(r.channels));
    image.bytes(4, {reinterpret_cast<const char*>(png.data()), png.size()});
    value.message(4, image);
  }
  void operator()(const Histogram& h) const {
    Message m;
    m.number(1, h.min).number(2, h.max).number(3, h.count).number(4, h.sum).number(5, h.squares);
    value.message(5, m.numbers(6, h.limits).numbers(7, h.counts));
  }
};

// -max, ..., -1e-12, 1e-12, ..., max.
const std::vector<double>& all_limits() {
  static const std::vector<double> limits = [] {
    std::vector<double> positive;
    for (double v = 1e-12; v < 1e20; v *= 1.1) positive.push_back(v);
    positive.push_back(std::numeric_limits<double>::max());
    std::vector<double> out;
    for (auto v = positive.rbegin(); v != positive.rend(); ++v) out.push_back(-*v);
    out.insert(out.end(), positive.begin(), positive.end());
    return out;
  }();
  return limits;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

[[noreturn]] void refused(std::string_view what, const std::string& path, int reason) {
  fail(Fault::io, {what, " '", path, "': ", std::generic_category().message(reason)});
}

}  // namespace

std::string record(std::string_view event) {
  std::string out;
  put(out, static_cast<std::uint64_t>(event.size()));
  put(out, masked(crc32c(as_bytes(out))));
  out += event;
  put(out, masked(crc32c(as_bytes(event))));
  return out;
}

Histogram histogram(std::span<const double> values) {
  const std::vector<double>& limits = all_limits();
  std::vector<double> counts(limits.size());
  Histogram h;
  for (const double v : values) {
    if (!std::isfinite(v)) continue;
    h.min = h.count == 0 ? v : std::min(h.min, v), h.max = h.count == 0 ? v : std::max(h.max, v);
    h.count += 1, h.sum += v, h.squares += v * v;
    counts[static_cast<std::size_t>(std::lower_bound(limits.begin(), limits.end(), v) - limits.begin())] += 1;
  }
  if (h.count == 0) return h;
  std::size_t begin = 0, end = counts.size();
  while (counts[begin] == 0) ++begin;
  while (counts[end - 1] == 0) --end;
  if (begin > 0) --begin;  // an empty bucket whose limit is the lower end of the first full one
  h.limits.assign(limits.begin() + static_cast<std::ptrdiff_t>(begin), limits.begin() + static_cast<std::ptrdiff_t>(end));
  h.counts.assign(counts.begin() + static_cast<std::ptrdiff_t>(begin), counts.begin() + static_cast<std::ptrdiff_t>(end));
  return h;
}

std::string version_event(double seconds) { return event(seconds, 0).bytes(3, "brain.Event:2").text(); }

std::string start_event(double seconds, std::int64_t step) {
  return event(seconds, step).message(7, Message().integer(1, 1)).text();  // SessionLog: status 1, START 1
}

std::string summary_event(double seconds, std::int64_t step, const Values& values) {
  Message summary;
  for (const auto& [tag, v] : values) {
    Message value;
    value.bytes(1, tag);
    std::visit(Encode{value}, v);
    summary.message(1, value);
  }
  return event(seconds, step).message(5, summary).text();
}

void empty_events(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.path().filename().string().starts_with(file_prefix)) continue;
    std::error_code reason;
    fs::resize_file(entry.path(), 0, reason);
    if (reason) refused("cannot write", entry.path().string(), reason.value());
  }
}

Writer::Writer(const std::string& folder, std::int64_t first_step) {
  static std::atomic<unsigned> serial{0};
  std::error_code reason;
  std::filesystem::create_directories(folder, reason);
  if (reason) refused("cannot make", folder, reason.value());
  const double seconds = now();
  for (int attempt = 0; descriptor_ < 0; ++attempt) {  // a process before may have had this number within this second
    char name[64];
    std::snprintf(name, sizeof name, "%010lld.costate.%d.%u", static_cast<long long>(seconds), static_cast<int>(::getpid()),
                  serial.fetch_add(1));
    path_ = folder + "/" + std::string(file_prefix) + name;
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && (errno != EEXIST || attempt == 100)) break;
  }
  if (descriptor_ < 0) refused("cannot write", path_, errno);
  append(version_event(seconds));
  append(start_event(seconds, first_step));
}

Writer::~Writer() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Writer::write(std::int64_t step, const Values& values) { append(summary_event(now(), step, values)); }

void Writer::append(std::string_view event) {
  const std::string bytes = record(event);
  for (std::string_view rest = bytes; !rest.empty();) {
    const ssize_t n = ::write(descriptor_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refused("cannot write", path_, errno);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace costate::cli::tensorboard
