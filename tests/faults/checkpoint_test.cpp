// Checkpoints when the system fails: whatever call fails, is cut short, is interrupted or is the last one of the process, the
// path holds the checkpoint before or the new one, whole; a model that cannot be loaded is as it was.
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <costate/nn/linear.h>
#include <costate/nn/save.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "faults/system_calls.h"

namespace costate::faults {
namespace {

namespace fs = std::filesystem;

struct Model {
  nn::Linear a, b;
  void visit(const nn::Visitor& v) {
    v("a", a);
    v("b", b);
  }
};
Model model(std::uint64_t seed) {
  nn::Init init(seed);
  return {nn::make_linear(init, 40, 30), nn::make_linear(init, 30, 2)};
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
  Checkpoint() {
    std::string pattern = (fs::temp_directory_path() / "costate-faults-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    folder_ = pattern, path_ = folder_ + "/model.safetensors";
    nn::save(path_, model(2));
    new_ = read_file(path_);
    reset();
  }
  ~Checkpoint() override { fs::remove_all(folder_); }

  void reset() {
    for (const auto& entry : fs::directory_iterator(folder_)) fs::remove(entry.path());
    nn::save(path_, model(1));
    old_ = read_file(path_);
  }
  std::size_t files() const { return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), {})); }
  // The calls of saving without a fault.
  std::vector<Record> calls_of_saving() {
    const Scope scope(folder_, {});
    nn::save(path_, model(2));
    return scope.calls();
  }
  // Index of the first call of this kind.
  static std::size_t first(const std::vector<Record>& calls, Call call) {
    return static_cast<std::size_t>(
        std::find_if(calls.begin(), calls.end(), [&](const Record& r) { return r.call == call; }) - calls.begin());
  }

  std::string folder_, path_;
  std::vector<std::byte> old_, new_;
};

// Power may fail at any time and lose whatever was not flushed: the bytes of a file since its last fsync, and names since the last
// fsync of their folder. So every write must be flushed before the name changes, and the name before saving is over.
TEST_F(Checkpoint, IsFlushedBeforeItIsNamedAndNamedBeforeItIsSaid) {
  const std::vector<Record> calls = calls_of_saving();
  const std::size_t rename = first(calls, Call::rename);
  ASSERT_LT(rename, calls.size());
  EXPECT_EQ(calls[rename].path, path_);
  std::size_t written = 0, last_write = 0, flush = calls.size();
  std::string sibling;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].call == Call::write) {
      EXPECT_NE(calls[i].path, path_);
      EXPECT_TRUE(sibling.empty() || calls[i].path == sibling);
      sibling = calls[i].path, written += calls[i].bytes, last_write = i;
    }
    if (calls[i].call == Call::fsync && calls[i].path == sibling) flush = i;
  }
  EXPECT_EQ(written, new_.size());
  EXPECT_LT(last_write, flush);
  EXPECT_LT(flush, rename);
  EXPECT_TRUE(std::any_of(calls.begin() + static_cast<std::ptrdiff_t>(rename), calls.end(),
                          [&](const Record& r) { return r.call == Call::fsync && r.path == folder_; }));
  EXPECT_EQ(read_file(path_), new_);
}

TEST_F(Checkpoint, AnyFailingCallLeavesTheOldOneOrTheNewOne) {
  const std::vector<Record> calls = calls_of_saving();
  const std::size_t rename = first(calls, Call::rename);
  int failures = 0;
  for (const int reason : {ENOSPC, EIO, EDQUOT, EROFS})
    for (std::size_t n = 0; n < calls.size(); ++n) {
      reset();
      std::string sentence;
      {
        const Scope scope(folder_, [&](Call, std::size_t index) { return Verdict{.reason = index == n ? reason : 0}; });
        try {
          nn::save(path_, model(2));
        } catch (const Error& e) {
          EXPECT_EQ(e.fault(), Fault::io) << e.what();
          sentence = e.what();
          ++failures;
        }
      }
      const std::string at = std::string(name(calls[n].call)) + ", call " + std::to_string(n);
      // Behind the rename there is the opening, flushing and closing of the folder: only a flush that failed is worth a word.
      if (n <= rename || calls[n].call == Call::fsync) {
        EXPECT_NE(sentence.find(path_), std::string::npos) << at;
        EXPECT_NE(sentence.find(std::generic_category().message(reason)), std::string::npos) << at << ": " << sentence;
      }
      EXPECT_EQ(read_file(path_), n <= rename ? old_ : new_) << at;
      EXPECT_EQ(files(), 1u) << at;
    }
  EXPECT_GE(failures, 4 * static_cast<int>(rename));
}

// The disk is full after any number of bytes.
TEST_F(Checkpoint, AFullDiskLeavesTheOldOne) {
  for (std::size_t room = 0; room < new_.size(); room += 97) {
    reset();
    std::size_t left = room;
    {
      const Scope scope(folder_, [&](Call call, std::size_t) {
        if (call != Call::write) return Verdict{};
        if (left == 0) return Verdict{.reason = ENOSPC};
        const std::size_t most = std::min<std::size_t>(left, 512);
        left -= most;  // at least what is written: the file is larger than the room
        return Verdict{.most = most};
      });
      EXPECT_THROW(nn::save(path_, model(2)), Error) << room;
    }
    EXPECT_EQ(read_file(path_), old_) << room;
    EXPECT_EQ(files(), 1u) << room;
  }
}

TEST_F(Checkpoint, ShortAndInterruptedCallsChangeNothing) {
  for (const std::size_t most : {1, 7, 4096}) {
    reset();
    {
      bool interrupted = false;  // every call but the closing of a file, which is not repeated, is interrupted once
      const Scope scope(folder_, [&](Call call, std::size_t) {
        interrupted = !interrupted && call != Call::close && call != Call::rename && call != Call::unlink;
        return interrupted ? Verdict{.reason = EINTR} : Verdict{.most = most};
      });
      ASSERT_NO_THROW(nn::save(path_, model(2))) << most;
      Model loaded = model(3);
      ASSERT_NO_THROW(nn::load(path_, loaded)) << most;
      EXPECT_EQ(values(loaded), values(model(2)));
      ASSERT_EQ(read_file(path_), new_);
    }
    EXPECT_EQ(read_file(path_), new_) << most;
  }
}

// The process ends within any call. What it leaves behind besides hinders nobody.
TEST_F(Checkpoint, AProcessThatDiesLeavesTheOldOneOrTheNewOne) {
  const std::vector<Record> calls = calls_of_saving();
  const std::size_t rename = first(calls, Call::rename);
  for (std::size_t n = 0; n < calls.size(); ++n) {
    reset();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const Scope scope(folder_, [&](Call call, std::size_t index) {
        return Verdict{.most = call == Call::write && index == n ? 1u : ~std::size_t{0},
                       .dies = index == n ? Death::killed : Death::none};
      });
      nn::save(path_, model(2));
      ::_exit(1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 137) << n;
    EXPECT_EQ(read_file(path_), n <= rename ? old_ : new_) << name(calls[n].call) << ", call " << n;
    Model loaded = model(3);
    EXPECT_NO_THROW(nn::load(path_, loaded)) << n;
    EXPECT_NO_THROW(nn::save(path_, model(2))) << n;
    EXPECT_EQ(read_file(path_), new_) << n;
  }
}

TEST_F(Checkpoint, AFailingReadLeavesTheModelAsItWas) {
  std::size_t calls = 0;
  {
    const Scope scope(folder_, {});
    Model m = model(3);
    nn::load(path_, m);
    calls = scope.calls().size();
  }
  ASSERT_GE(calls, 6u);  // open, the length, the header, four tensors, close
  int failures = 0;
  for (std::size_t n = 0; n < calls; ++n) {
    Model m = model(3);
    const Scope scope(folder_, [&](Call, std::size_t index) { return Verdict{.reason = index == n ? EIO : 0}; });
    try {
      nn::load(path_, m);
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::io) << e.what();
      EXPECT_NE(std::string(e.what()).find(path_), std::string::npos) << e.what();
      EXPECT_EQ(values(m), values(model(3))) << n;
      ++failures;
      continue;
    }
    EXPECT_EQ(values(m), values(model(1))) << n;
  }
  EXPECT_GE(failures, static_cast<int>(calls) - 1);  // all but the closing
}

}  // namespace
}  // namespace costate::faults
