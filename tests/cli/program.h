// Runs the built program as a user does.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace costate::cli::testing {

namespace fs = std::filesystem;

// A folder of its own for a test, removed afterwards.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "costate-cli-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return *this / name;
  }

 private:
  fs::path path_;
};

inline std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Result {
  int code;
  std::string out, err;
};

// The program with these arguments, in `folder`.
inline Result costate(const Folder& folder, const std::vector<std::string>& arguments) {
  std::string line = "cd '" + folder.path() + "' && '" COSTATE_PROGRAM "'";
  for (const std::string& a : arguments) {
    line += " '";
    for (const char c : a) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += "'";
  }
  line += " > '" + folder.path() + "/.out' 2> '" + folder.path() + "/.err' < /dev/null";
  const int status = std::system(line.c_str());
  return {status < 0 ? -1 : WEXITSTATUS(status), contents(folder / ".out"), contents(folder / ".err")};
}

// Configurations that run in a blink. Points: a mixture with a quadratic reward; digits: a classifier as
// reward.
inline const std::string tiny_points = R"({
  "name": "tiny",
  "data": {"kind": "mixture", "count": 300, "mixture": {"means": [[-1, 0], [1, 0.5]], "deviations": [0.3, 0.4]}},
  "network": {"hidden": 16, "depth": 2, "time_frequencies": 3},
  "pretrain": {"iterations": 12, "batch": 32, "log_every": 5, "checkpoint_every": 5},
  "reward": {"kind": "quadratic", "coefficients": [1, 0], "precision": [[0.5, 0.5]]},
  "sampler": {"steps": 6},
  "finetune": {"iterations": 5, "batch": 40, "micro_batch": 25, "early_steps": 2, "late_steps": 2, "log_every": 2},
  "sample": {"count": 70},
  "evaluate": {"count": 90, "projections": 8}
})";
inline const std::string tiny_digits = R"({
  "name": "tiny",
  "data": {"kind": "glyphs", "resolution": 6, "count": 200, "held_out": 0.3},
  "network": {"hidden": 16, "depth": 2, "time_frequencies": 2, "conditional": true},
  "pretrain": {"iterations": 6, "batch": 32, "log_every": 3},
  "classifiers": {"reward": {"hidden": 12, "iterations": 5, "batch": 16}, "judge": {"hidden": 10, "iterations": 4, "batch": 16}},
  "reward": {"kind": "classifier", "targets": [3, 8], "multiplier": 2},
  "sampler": {"kind": "euler_maruyama", "steps": 5},
  "finetune": {"iterations": 4, "batch": 33, "labels": [1, 2], "loss_clip": 3, "denoised_endpoint": true, "log_every": 2},
  "sample": {"count": 20, "labels": [0, 1, 2], "guidance": 1.5},
  "evaluate": {"count": 70, "projections": 4}
})";

// The digits, tinier still, with a network of pictures.
inline std::string tiny_pictures(const std::string& network) {
  return R"({
  "name": "tiny",
  "data": {"kind": "glyphs", "resolution": 8, "count": 60, "held_out": 0.3},
  "network": )" +
         network + R"(,
  "pretrain": {"iterations": 3, "batch": 12, "log_every": 3},
  "classifiers": {"reward": {"hidden": 12, "iterations": 5, "batch": 16}, "judge": {"hidden": 10, "iterations": 4, "batch": 16}},
  "reward": {"kind": "classifier", "targets": [3, 8], "multiplier": 2},
  "sampler": {"steps": 3},
  "finetune": {"iterations": 2, "batch": 9, "labels": [1, 2], "log_every": 2},
  "sample": {"count": 6, "labels": [0, 1, 2], "guidance": 1.5},
  "evaluate": {"count": 10, "projections": 4}
})";
}
inline const std::string tiny_unet = tiny_pictures(
    R"({"kind": "unet", "conditional": true, "unet": {"channels": [8, 12], "layers": 1, "attention_levels": [1],
        "head_channels": 4, "groups": 4, "time_conditioning": "scale_shift", "resampling": "resnet", "dropout": 0.1}})");
inline const std::string tiny_dit = tiny_pictures(
    R"({"kind": "dit", "conditional": true, "dit": {"patch": 4, "hidden": 16, "depth": 2, "heads": 2, "mlp_ratio": 2}})");

inline const std::string& tiny(const std::string& name) {
  return name == "points" ? tiny_points : name == "digits" ? tiny_digits : name == "unet" ? tiny_unet : tiny_dit;
}

}  // namespace costate::cli::testing
