// The corpus of the fuzzers, without a fuzzer: every file goes the way that its name says, and so does everything near it.
#include <gtest/gtest.h>

#include <costate/tensor/file.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "fuzz/parsers.h"

namespace costate::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path corpus = fs::path(COSTATE_SOURCE_DIR) / "tests/fuzz/corpus";

struct Seed {
  fs::path path;
  std::vector<std::byte> bytes;
};
std::vector<Seed> seeds(const Parser& parser) {
  std::vector<Seed> out;
  for (const auto& entry : fs::directory_iterator(corpus / parser.name))
    out.push_back({entry.path(), read_file(entry.path().string())});
  std::sort(out.begin(), out.end(), [](const Seed& a, const Seed& b) { return a.path < b.path; });
  return out;
}

class Replay : public ::testing::TestWithParam<Parser> {};

TEST_P(Replay, SeedsGoTheWayThatTheirNamesSay) {
  int accepted = 0, refused = 0;
  for (const Seed& seed : seeds(GetParam())) {
    const std::string name = seed.path.filename().string();
    Outcome outcome{};
    ASSERT_NO_THROW(outcome = GetParam().feed(seed.bytes)) << seed.path;
    if (!name.starts_with("found-")) {
      EXPECT_TRUE(name.starts_with(outcome == Outcome::accepted ? "accepted-" : "refused-")) << seed.path;
    }
    EXPECT_LE(seed.bytes.size(), 8192u) << seed.path;
    ++(outcome == Outcome::accepted ? accepted : refused);
  }
  EXPECT_GE(accepted, 2);
  EXPECT_GE(refused, 4);
}

// In memory of exactly their length, so that a sanitizer sees any access behind them.
TEST_P(Replay, EveryPrefixIsReadOrRefused) {
  for (const Seed& seed : seeds(GetParam()))
    for (std::size_t n = 0; n < std::min<std::size_t>(seed.bytes.size(), 1024); ++n) {
      const std::vector<std::byte> prefix(seed.bytes.begin(), seed.bytes.begin() + static_cast<std::ptrdiff_t>(n));
      ASSERT_NO_THROW(GetParam().feed(prefix)) << seed.path << ", " << n << " bytes";
    }
}

// 400 random edits of every seed: bits flipped, bytes set, removed and doubled.
TEST_P(Replay, EditedSeedsAreReadOrRefused) {
  const Philox random{20260101, Stream::user};
  std::uint64_t sample = 0;
  for (const Seed& seed : seeds(GetParam()))
    for (int edit = 0; edit < 400; ++edit, ++sample) {
      std::vector<std::byte> bytes = seed.bytes;
      const std::uint32_t edits = 1 + random.below(4, sample, 0, 0);
      for (std::uint32_t i = 0; i < edits && !bytes.empty(); ++i) {
        const auto at = bytes.begin() + random.below(static_cast<std::uint32_t>(bytes.size()), sample, 1, i);
        const auto value = static_cast<std::byte>(random.below(256, sample, 2, i));
        switch (random.below(4, sample, 3, i)) {
          case 0:
            *at ^= std::byte{1} << (std::to_integer<int>(value) % 8);
            break;
          case 1:
            *at = value;
            break;
          case 2:
            bytes.erase(at);
            break;
          default:
            bytes.insert(at, *at);
        }
      }
      ASSERT_NO_THROW(GetParam().feed(bytes)) << seed.path << ", edit " << edit;
    }
}

INSTANTIATE_TEST_SUITE_P(Parsers, Replay, ::testing::ValuesIn(parsers().begin(), parsers().end()),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(Corpus, BelongsToTheParsers) {
  std::set<std::string> folders, names;
  for (const auto& entry : fs::directory_iterator(corpus)) folders.insert(entry.path().filename().string());
  for (const Parser& p : parsers()) names.insert(std::string(p.name));
  EXPECT_EQ(folders, names);
}

}  // namespace
}  // namespace costate::fuzz
