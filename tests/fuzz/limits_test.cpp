// Damaged and hostile files cost little: an error of a stated kind, or what the file now says, within 100 ms of processor time
// and 64 MB, whatever sizes the file claims; and a model that could not be loaded is as it was.
#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <costate/nn/linear.h>
#include <costate/nn/save.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <costate/tensor/memory.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "fuzz/allocations.h"
#include "fuzz/parsers.h"

namespace costate::fuzz {
namespace {

constexpr double most_seconds = 0.1;
constexpr std::size_t most_bytes = 64'000'000;

// Of this thread: other programs of a busy machine do not count.
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Cost {
  double seconds = 0;
  std::size_t bytes = 0;
};
template <class Body>
Cost cost_of(const Body& body) {
  reset_peak_bytes();
  memory::reset_peak();
  const std::size_t live = live_bytes();
  const std::int64_t tensors = memory::live().total;
  const double start = processor_seconds();
  body();
  return {processor_seconds() - start, peak_bytes() - live + static_cast<std::size_t>(memory::peak().total - tensors)};
}

struct Model {
  nn::Linear a;
  void visit(const nn::Visitor& v) {
    v("a", a);
  }
};
Model model(std::uint64_t seed) {
  nn::Init init(seed);
  return {nn::make_linear(init, 3, 2)};
}
std::vector<double> values(Model m) {
  std::vector<double> out;
  nn::visit_state(m, [&](const std::string&, Var& v) {
    const std::vector<double> one = v.value().to_doubles();
    out.insert(out.end(), one.begin(), one.end());
  });
  return out;
}

class Checkpoint : public ::testing::Test {
 protected:
  Checkpoint() : path_((std::filesystem::temp_directory_path() / ("costate-limits-" + std::to_string(::getpid()))).string()) {
    nn::save(path_, model(1), {{"costate.step", "12"}});
    bytes_ = read_file(path_);
    for (int i = 7; i >= 0; --i) header_ = header_ << 8 | std::to_integer<std::size_t>(bytes_[static_cast<std::size_t>(i)]);
    header_ += 8;
    file_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  }
  ~Checkpoint() override {
    ::close(file_);
    std::filesystem::remove(path_);
  }

  // Loads the file as it is now; whether that went well.
  bool load() {
    Model m = target_;
    bool loaded = false;
    const Cost cost = cost_of([&] {
      try {
        nn::load(path_, m);
        loaded = true;
      } catch (const Error& e) {
        EXPECT_EQ(e.fault(), Fault::data) << e.what();
        EXPECT_NE(std::string(e.what()).find(path_), std::string::npos) << e.what();
      }
    });
    EXPECT_EQ(values(m), loaded ? saved_ : untouched_);
    slowest_ = std::max(slowest_, cost.seconds), largest_ = std::max(largest_, cost.bytes);
    return loaded;
  }
  void set_byte(std::size_t at, std::byte value) {
    ASSERT_EQ(::pwrite(file_, &value, 1, static_cast<off_t>(at)), 1);
  }

  std::string path_;
  std::vector<std::byte> bytes_;
  std::size_t header_ = 0;  // where the data begins
  int file_ = -1;
  Model target_ = model(2);
  std::vector<double> saved_ = values(model(1)), untouched_ = values(target_);
  double slowest_ = 0;
  std::size_t largest_ = 0;
};

TEST_F(Checkpoint, EveryPrefixIsRefusedAtLittleCost) {
  ASSERT_TRUE(load());
  ASSERT_NE(saved_, untouched_);
  for (std::size_t n = bytes_.size(); n-- > 0;) {
    ASSERT_EQ(::ftruncate(file_, static_cast<off_t>(n)), 0);
    ASSERT_FALSE(load()) << n << " bytes of " << bytes_.size();
  }
  EXPECT_LT(slowest_, most_seconds);
  EXPECT_LT(largest_, most_bytes);
}

// Every byte of the length and the header, every other value. Some files are still good: metadata that says something else, white
// space of another kind.
TEST_F(Checkpoint, EveryChangedByteOfTheHeaderIsReadOrRefusedAtLittleCost) {
  int read = 0, refused = 0;
  for (std::size_t at = 0; at < header_; ++at)
    for (int value = 0; value < 256; ++value) {
      std::vector<std::byte> changed = bytes_;
      if (changed[at] == static_cast<std::byte>(value)) continue;
      changed[at] = static_cast<std::byte>(value);
      const Cost cost = cost_of([&] {
        try {
          load_safetensors(changed);
          ++read;
        } catch (const Error& e) {
          ++refused;
          EXPECT_EQ(e.fault(), Fault::data) << e.what();
        }
      });
      slowest_ = std::max(slowest_, cost.seconds), largest_ = std::max(largest_, cost.bytes);
    }
  EXPECT_EQ(read + refused, static_cast<int>(255 * header_));
  EXPECT_GT(read, 1000);
  EXPECT_GT(refused, 20000);
  EXPECT_LT(slowest_, most_seconds);
  EXPECT_LT(largest_, most_bytes);
}

// Every bit of them, in the file and into a model, which has all the values of the file or is as it was.
TEST_F(Checkpoint, EveryFlippedBitOfTheHeaderIsLoadedWholeOrNotAtAll) {
  int loaded = 0, refused = 0;
  for (std::size_t at = 0; at < header_; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      set_byte(at, bytes_[at] ^ std::byte{1} << bit);
      ++(load() ? loaded : refused);
    }
    set_byte(at, bytes_[at]);
    if (HasFailure()) FAIL() << "at byte " << at;
  }
  EXPECT_GT(loaded, 50);
  EXPECT_GT(refused, 1000);
  EXPECT_LT(slowest_, most_seconds);
  EXPECT_LT(largest_, most_bytes);
}

// Headers of the other formats that claim as much as their fields can hold, and bombs.
TEST(Limits, ClaimsOfSeedsCostLittle) {
  for (const Parser& parser : parsers())
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(COSTATE_SOURCE_DIR) / "tests/fuzz/corpus" /
                                                                 parser.name)) {
      const std::vector<std::byte> bytes = read_file(entry.path().string());
      const Cost cost = cost_of([&] { parser.feed(bytes); });
      EXPECT_LT(cost.seconds, most_seconds) << entry.path();
      EXPECT_LT(cost.bytes, most_bytes) << entry.path();
    }
}

}  // namespace
}  // namespace costate::fuzz
