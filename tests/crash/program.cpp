#include "crash/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <costate/tensor/folder.h>

extern char** environ;

namespace costate::crash {
namespace fs = std::filesystem;

Folder::Folder() {
  std::string pattern = (fs::temp_directory_path() / "costate-crash-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
  path_ = pattern;
}
Folder::~Folder() {
  std::error_code gone;
  fs::remove_all(path_, gone);
}

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

End live(const Folder& folder, const Life& life) {
  std::vector<std::string> words{COSTATE_PROGRAM};
  words.insert(words.end(), life.arguments.begin(), life.arguments.end());
  std::vector<std::string> variables;
  for (char** v = environ; *v; ++v) variables.emplace_back(*v);
  for (const auto& [name, value] : life.environment) variables.push_back(name + "=" + value);
  std::vector<char*> argv, envp;
  for (std::string& w : words) argv.push_back(w.data());
  for (std::string& v : variables) envp.push_back(v.data());
  argv.push_back(nullptr), envp.push_back(nullptr);
  const std::string errors = folder / ".err", output = folder / ".out";
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no process");
  if (child == 0) {
    constexpr int anew = O_WRONLY | O_CREAT | O_TRUNC;
    const int out = ::open(output.c_str(), anew, 0666), err = ::open(errors.c_str(), anew, 0666);
    ::dup2(out, 1), ::dup2(err, 2);
    if (::chdir(folder.path().c_str()) == 0) ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  End end;
  clockid_t clock{};
  const bool watched = life.kill_after >= 0 && ::clock_getcpuclockid(child, &clock) == 0;
  int status = 0;
  rusage usage{};
  for (bool asked = false;;) {
    timespec used{};
    if (watched && !asked && ::clock_gettime(clock, &used) == 0 &&
        static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec) >= life.kill_after) {
      asked = true;
      ::kill(child, life.signal);
      if (life.twice) ::kill(child, life.signal);
    }
    const pid_t ended = ::wait4(child, &status, watched && !asked ? WNOHANG : 0, &usage);
    if (ended == child) break;
    if (ended == 0) std::this_thread::sleep_for(std::chrono::microseconds(500));
    else if (errno != EINTR) throw std::runtime_error("the program is not there to be waited for");
  }
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  end.seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  if (WIFEXITED(status)) end.code = WEXITSTATUS(status);
  else end.signal = WTERMSIG(status);
  end.errors = contents(errors);
  return end;
}

std::vector<std::string> objectives() { return {"adjoint_matching", "tdpo_r", "draft_k", "pi_ft"}; }

std::string configuration(const Folder& folder, const std::string& objective, int updates) {
  nlohmann::json c{{"name", "crash"},
                   {"threads", 1},
                   {"data", {{"kind", "mixture"}, {"count", 64}}},
                   {"network", {{"hidden", 8}, {"depth", 1}}},
                   {"pretrain", {{"iterations", 8}, {"batch", 16}, {"log_every", 3}, {"checkpoint_every", 4}}},
                   {"reward", {{"kind", "quadratic"}, {"coefficients", {1, 0}}, {"precision", {{0.5, 0.5}}}}},
                   {"sampler", {{"steps", 4}}},
                   {"finetune",
                    {{"objective", objective},
                     {"iterations", updates},
                     {"batch", 16},
                     {"log_every", 3},
                     {"checkpoint_every", 5},
                     {"ema_decay", 0.8},
                     {"lr", {{"peak", 1e-2}, {"warmup", 3}, {"decay", "cosine"}}}}},
                   {"sample", {{"count", 8}}},
                   {"evaluate", {{"count", 16}, {"projections", 2}, {"checkpoints", true}}},
                   {"resume", {{"every", 2}}}};
  if (objective == "tdpo_r")
    c["finetune"]["policy_gradient"] = {{"critic", {{"reset_every", 2}}}, {"replay", 2}};
  if (objective == "pi_ft") c["finetune"]["regression"] = {{"replay", {{"size", 32}, {"passes", 3}}}};
  const std::string name = objective + ".json";
  std::ofstream(folder / name) << c.dump(1);
  return name;
}

std::map<std::string, std::string> results(const std::string& run) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string name = fs::relative(entry.path(), run).string();
    if (entry.is_directory()) out[name] = "a folder";
    else if (name != "run.json" && name != "timing.csv" && name != "summary.md") out[name] = contents(entry.path().string());
  }
  const auto record = nlohmann::json::parse(contents(run + "/run.json"), nullptr, false);
  if (record.is_object() && record.contains("stages"))
    for (const auto& [name, stage] : record["stages"].items())
      out["run.json: " + name] = stage["evaluations"].dump() + stage["flops"].dump();
  return out;
}

std::string difference(const std::map<std::string, std::string>& a, const std::map<std::string, std::string>& b) {
  std::string out;
  for (const auto& [name, bytes] : a)
    if (!b.contains(name)) out += name + " is missing\n";
    else if (b.at(name) != bytes) out += name + " differs\n";
  for (const auto& [name, bytes] : b)
    if (!a.contains(name)) out += name + " should not be there\n";
  return out;
}

int check_states(const std::string& run) {
  int states = 0;
  for (const char* stage : {"pretrain", "finetune"}) {
    const std::string folder = run + "/checkpoints/" + stage;
    if (!fs::is_directory(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().filename().string().find(".partial-") == std::string::npos)
        check_folder(entry.path().string()), ++states;
  }
  return states;
}

}  // namespace costate::crash
