// Runs of the program that are killed, that fail and that go on.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace costate::crash {

// A folder of its own for a test, removed afterwards.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string contents(const std::string& path);

// How a life of the program ended.
struct End {
  int code = -1;    // its exit code; -1: by a signal
  int signal = 0;
  double seconds = 0;     // of processor time
  std::string errors;     // what it said
  bool done() const { return code == 0; }
};

struct Life {
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment{};
  double kill_after = -1;  // seconds of its processor time, so that a busy machine changes nothing; below 0: never
  int signal = 9;          // that it is killed by
  bool twice = false;      // by a second one after the first
};
// In `folder`.
End live(const Folder& folder, const Life& life);

// Objectives to be killed: regression on the adjoint, a policy gradient with a critic that is reset and replay, backpropagation
// of the reward with a schedule; and a regression whose trajectories are replayed, on a value network.
std::vector<std::string> objectives();
// A run of a blink of one of them, in a file of the folder; `updates` of fine-tuning.
std::string configuration(const Folder& folder, const std::string& objective, int updates);

// Everything that a finished run leaves and that does not depend on time: names and bytes; counts of run.json.
std::map<std::string, std::string> results(const std::string& run);
// What differs between two of them, in words; "": nothing.
std::string difference(const std::map<std::string, std::string>& a, const std::map<std::string, std::string>& b);
// Every kept state of a training below a run that has a name is whole; how many. Throws costate::Error for one that is not.
int check_states(const std::string& run);

}  // namespace costate::crash
