// Folders of files when the system fails: whatever call fails, is cut short, or is the last one of process or machine,
// every name of a finished folder has all of it, and what came before is whole.
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <costate/tensor/error.h>
#include <costate/tensor/folder.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "faults/system_calls.h"

namespace costate::faults {
namespace {

namespace fs = std::filesystem;

std::vector<FolderPart> parts(char letter) {
  const auto text = [letter](std::size_t n) {
    return [letter, n](const WriteBytes& write) {
      write(as_bytes(std::string(n, letter)));
      write(as_bytes(std::string(n / 2, '!')));
    };
  };
  return {{"state.safetensors", text(6000)}, {"progress.json", text(40)}};
}

// Keeps the newest two, as a training does.
void save_and_prune(const std::string& folder, int step) {
  const std::string path = folder + "/step_" + std::to_string(step);
  write_folder_atomically(path, parts(static_cast<char>('a' + step)));
  check_folder(path);
  if (step >= 2) remove_folder(folder + "/step_" + std::to_string(step - 2));
}

class Folder : public ::testing::Test {
 protected:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "costate-faults-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    folder_ = pattern;
    reset();
  }
  ~Folder() override { fs::remove_all(folder_); }
  // Steps 0 and 1 are there, as they are on the disk.
  void reset() {
    for (const auto& entry : fs::directory_iterator(folder_)) fs::remove_all(entry.path());
    save_and_prune(folder_, 0), save_and_prune(folder_, 1);
  }
  std::size_t calls_of_saving() {
    const Scope scope(folder_, {});
    save_and_prune(folder_, 2);
    return scope.calls().size();
  }
  // The newest that is there; every one that has a name of its own is whole.
  int newest_whole() {
    int newest = -1;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      if (name.find(".partial-") != std::string::npos) continue;
      EXPECT_TRUE(name.starts_with("step_")) << name;
      EXPECT_NO_THROW(check_folder(entry.path().string())) << name;
      newest = std::max(newest, std::stoi(name.substr(5)));
    }
    return newest;
  }
  std::string folder_;
};

TEST_F(Folder, IsWhatWasWritten) {
  const std::vector<FolderFile> files = check_folder(folder_ + "/step_1");
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].name, "state.safetensors");
  EXPECT_EQ(files[0].bytes, 9000u);
  const auto bytes = read_file(folder_ + "/step_1/state.safetensors");
  EXPECT_EQ(as_text(bytes), std::string(6000, 'b') + std::string(3000, '!'));
  EXPECT_THROW(write_folder_atomically(folder_ + "/step_1", parts('x')), Error);  // it is there
  EXPECT_EQ(newest_whole(), 1);
}

TEST_F(Folder, DamageIsFound) {
  const std::string path = folder_ + "/step_1", state = path + "/state.safetensors", manifest = path + "/manifest";
  const auto refused = [&](const std::string& why) {
    try {
      check_folder(path);
      ADD_FAILURE() << "accepted, but " << why;
    } catch (const Error& e) {
      EXPECT_TRUE(e.fault() == Fault::data || e.fault() == Fault::io) << e.what();
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
    }
  };
  const auto bytes = read_file(state), text = read_file(manifest);
  for (std::size_t at = 0; at < bytes.size(); at += 997) {  // one bit a kilobyte
    auto changed = bytes;
    changed[at] ^= std::byte{4};
    write_file_atomically(state, changed);
    refused("a bit of byte " + std::to_string(at) + " is another");
  }
  write_file_atomically(state, std::span(bytes).first(bytes.size() - 1));
  refused("a byte is missing");
  write_file_atomically(state, bytes);
  EXPECT_NO_THROW(check_folder(path));
  for (std::size_t at = 0; at < text.size(); ++at) {  // every byte of the manifest, every other value; every prefix
    for (int value = 0; value < 256; ++value) {
      auto changed = text;
      if (changed[at] == static_cast<std::byte>(value)) continue;
      changed[at] = static_cast<std::byte>(value);
      EXPECT_THROW(parse_manifest(as_text(changed), "it"), Error) << at << ": " << value;
    }
    EXPECT_THROW(parse_manifest(as_text(std::span(text).first(at)), "it"), Error) << at;
  }
  fs::remove(manifest);
  refused("there is no manifest");
}

TEST_F(Folder, AnyFailingCallLeavesWhatWasThereAndNothingElse) {
  const std::size_t calls = calls_of_saving();
  ASSERT_GT(calls, 20u);
  int failures = 0;
  for (const int reason : {ENOSPC, EIO, EDQUOT, EROFS})
    for (std::size_t n = 0; n < calls; ++n) {
      reset();
      std::string at;
      try {
        const Scope scope(folder_, [&](Call call, std::size_t index) {
          if (index == n) at = std::string(name(call)) + ", call " + std::to_string(n);
          return Verdict{.reason = index == n ? reason : 0};
        });
        save_and_prune(folder_, 2);
      } catch (const Error& e) {
        EXPECT_EQ(e.fault(), Fault::io) << e.what();
        EXPECT_NE(std::string(e.what()).find(std::generic_category().message(reason)), std::string::npos) << e.what();
        ++failures;
      }
      EXPECT_GE(newest_whole(), 1) << at;
      EXPECT_NO_THROW(check_folder(folder_ + "/step_1")) << at;
      // Siblings stay where removing was what failed; they go with the next start.
      remove_leftovers(folder_);
      for (const auto& entry : fs::directory_iterator(folder_))
        EXPECT_TRUE(entry.path().filename().string().find(".partial-") == std::string::npos) << at << entry.path();
      EXPECT_NO_THROW(fs::exists(folder_ + "/step_2") ? void() : save_and_prune(folder_, 2)) << at;
      EXPECT_EQ(newest_whole(), 2) << at;
    }
  EXPECT_GE(failures, static_cast<int>(4 * (calls - 12)));  // all but the closing of files that were read or flushed
}

TEST_F(Folder, AFullDiskLeavesWhatWasThere) {
  for (std::size_t room = 0; room < 9000; room += 511) {
    reset();
    std::size_t left = room;
    {
      const Scope scope(folder_, [&](Call call, std::size_t) {
        if (call != Call::write) return Verdict{};
        if (left == 0) return Verdict{.reason = ENOSPC};
        const std::size_t most = std::min<std::size_t>(left, 1024);
        left -= most;
        return Verdict{.most = most};
      });
      EXPECT_THROW(save_and_prune(folder_, 2), Error) << room;
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2) << room;
    EXPECT_EQ(newest_whole(), 1) << room;
  }
}

TEST_F(Folder, ShortAndInterruptedCallsChangeNothing) {
  for (const std::size_t most : {1, 4096}) {
    reset();
    bool interrupted = false;
    const Scope scope(folder_, [&](Call call, std::size_t) {
      interrupted = !interrupted && (call == Call::open || call == Call::read || call == Call::pread || call == Call::write ||
                                     call == Call::fsync);
      return interrupted && call != Call::open ? Verdict{.reason = EINTR} : Verdict{.most = most};
    });
    ASSERT_NO_THROW(save_and_prune(folder_, 2)) << most;
    EXPECT_NO_THROW(check_folder(folder_ + "/step_2"));
  }
}

// The process, or the machine, ends within any call of the first save, of one over others, and of one that prunes.
TEST_F(Folder, DyingWithinAnyCallLeavesWholeFolders) {
  const std::size_t calls = calls_of_saving();
  int points = 0;
  for (const Death death : {Death::killed, Death::power, Death::power_in_order})
    for (int step : {0, 1, 2})
      for (std::size_t n = 0; n < calls; ++n) {
        for (const auto& entry : fs::directory_iterator(folder_)) fs::remove_all(entry.path());
        for (int before = 0; before < step; ++before) save_and_prune(folder_, before);
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
          const Scope scope(folder_, [&](Call call, std::size_t index) {
            return Verdict{.most = call == Call::write && index == n ? 1u : ~std::size_t{0},
                           .dies = index == n ? death : Death::none};
          }, death != Death::killed);
          save_and_prune(folder_, step);
          ::_exit(0);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        if (WEXITSTATUS(status) == 0) continue;  // it makes fewer calls
        ASSERT_EQ(WEXITSTATUS(status), 137) << n;
        ++points;
        EXPECT_GE(newest_whole(), step - 1) << static_cast<int>(death) << ", step " << step << ", call " << n;
        remove_leftovers(folder_);
        if (!fs::exists(folder_ + "/step_" + std::to_string(step))) {
          EXPECT_NO_THROW(save_and_prune(folder_, step)) << n;
        }
        EXPECT_EQ(newest_whole(), step);
      }
  EXPECT_GE(points, 3 * 3 * 20);
  RecordProperty("points", points);
}

}  // namespace
}  // namespace costate::faults
