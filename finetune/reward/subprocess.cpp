#include <costate/finetune/reward/child_process.h>
#include <costate/finetune/reward/features.h>
#include <costate/finetune/reward/subprocess.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>

namespace costate::finetune {
namespace {

constexpr std::string_view hello = "costate-reward 1";
constexpr std::size_t longest_line = 4096;

// Printable text as it is, the rest as \xNN; at most 80 bytes.
std::string shown(std::string_view bytes) {
  std::string out;
  for (const char c : bytes.substr(0, 80)) {
    constexpr char digits[] = "0123456789abcdef";
    const auto u = static_cast<unsigned char>(c);
    if (c == '\n')
      out += "\\n";
    else if (u >= 32 && u < 127)
      out += c;
    else
      out.append("\\x").append(1, digits[u / 16]).append(1, digits[u % 16]);
  }
  return out + (bytes.size() > 80 ? "..." : "");
}

class Program {
 public:
  explicit Program(SubprocessOptions options) : options_(std::move(options)) {
    for (const std::string& w : options_.command) name_ += (name_.empty() ? "" : " ") + w;
  }

  // Fills value (rows,) and, if it is wanted, gradient, of the shape of x.
  void ask(const Tensor& x, Tensor& value, Tensor* gradient) {
    const std::chrono::duration<double> patience(options_.timeout);
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(patience);
    try {
      if (!child_) start(deadline);
      exchange(x, value, gradient, deadline);
    } catch (const Error& e) {
      if (e.fault() == Fault::io) child_.reset();  // what it would say next answers nothing
      throw;
    }
  }
  const std::string& name() const { return name_; }

 private:
  using Deadline = ChildProcess::Deadline;

  [[noreturn]] void broken(const std::string& doing) {
    const std::string state = child_->state(), came = shown(child_->arrived());
    const std::string how = state == "still runs" ? sentence({"gave no answer within ", options_.timeout, " s"}) : state;
    fail(Fault::io, {"reward command '", name_, "': ", how, " ", doing,
                     came.empty() ? std::string("; nothing had come from it")
                                  : sentence({"; what came from it begins with \"", came, "\""})});
  }
  [[noreturn]] void unexpected(const std::string& line, const std::string& expected) {
    fail(Fault::io, {"reward command '", name_, "': answered \"", shown(line), "\", expected ", expected});
  }
  std::string line(Deadline deadline, const std::string& doing) {
    if (!child_->await(longest_line, true, deadline)) broken(doing);
    const std::size_t end = child_->arrived().find('\n');
    if (end == std::string::npos) unexpected(child_->arrived(), "a line");
    std::string out = child_->take(end + 1);
    out.pop_back();
    if (!out.empty() && out.back() == '\r') out.pop_back();
    return out;
  }

  void start(Deadline deadline) {
    try {
      child_.emplace(options_.command);
    } catch (const Error& e) {
      fail(e.fault(), {"reward command: ", e.what()});
    }
    const std::string greeting = std::string(hello) + "\n";
    if (!child_->write(greeting, deadline)) broken("before it had said hello");
    if (const std::string answer = line(deadline, "before it had said hello"); answer != hello)
      unexpected(answer, sentence({"the line \"", hello, "\""}));
  }

  void exchange(const Tensor& x, Tensor& value, Tensor* gradient, Deadline deadline) {
    const std::int64_t rows = x.extent(0);
    std::string request = sentence({gradient ? "gradient " : "score ", rows, " ", x.rank() - 1});
    for (int i = 1; i < x.rank(); ++i) request += sentence({" ", x.extent(i)});
    request += "\n";
    const Tensor narrow = x.to(DType::f32);
    const auto values = narrow.values<float>();
    request.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    if (!child_->arrived().empty()) unexpected(child_->arrived(), "nothing, as nothing had been asked");
    if (!child_->write(request, deadline)) broken("before it had read its samples");
    const std::string answer = line(deadline, "before it had answered"), wanted = gradient ? "ok gradient" : "ok";
    if (answer == "error" || answer.starts_with("error "))
      fail(Fault::runtime,
           {"reward command '", name_, "' reports an error: ", shown(answer.substr(std::min<std::size_t>(6, answer.size())))});
    if (answer != wanted) unexpected(answer, sentence({"\"", wanted, "\" or \"error\" with a message"}));
    read(value, deadline);
    if (gradient) read(*gradient, deadline);
    if (child_->await(1, false, std::chrono::steady_clock::now()))
      unexpected(child_->arrived(),
                 sentence({"nothing behind the ", rows + (gradient ? x.numel() : 0), " floats of the answer"}));
  }
  void read(Tensor& out, Deadline deadline) {
    const auto to = out.mutate<float>();
    if (!child_->await(to.size_bytes(), false, deadline))
      broken(sentence({"after ", child_->arrived().size(), " of the ", to.size_bytes(), " bytes of its answer"}));
    const std::string bytes = child_->take(to.size_bytes());
    std::memcpy(to.data(), bytes.data(), bytes.size());
  }

  SubprocessOptions options_;
  std::string name_;
  std::optional<ChildProcess> child_;
};

}  // namespace

Reward subprocess_reward(SubprocessOptions options) {
  require(!options.command.empty() && !options.command[0].empty(), "reward command: found no program to start");
  require(std::isfinite(options.timeout) && options.timeout > 0 && options.timeout <= 1e6, "reward command: the timeout is ",
          options.timeout, " s, expected a number in (0, 1e6]");
  for (const std::string& w : options.command)
    require(w.find('\0') == std::string::npos, "reward command: a word contains a null character");
  require(std::endian::native == std::endian::little, "reward command: this machine's floats are not little-endian");
  const bool gradient = options.gradient;
  const auto program = std::make_shared<Program>(std::move(options));
  Reward out;
  out.name = program->name();
  const auto values = [program](const Tensor& x) {
    Tensor value = Tensor::zeros({x.extent(0)}, DType::f32, x.device());
    if (!x.is_meta()) program->ask(x, value, nullptr);
    return value.to(x.dtype());
  };
  if (!gradient) {
    out.black_box = values;
    return out;
  }
  const ValueWithGradient both = [program](const Tensor& x, Tensor& value, Tensor& slope) { program->ask(x, value, &slope); };
  out.value = [name = program->name(), values, both](const Var& x) {
    return x.tracked() ? with_given_gradient(name, x, both) : Var(values(x.value()));
  };
  return out;
}

}  // namespace costate::finetune
