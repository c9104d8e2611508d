// A reward as a program, for the tests of the protocol: scorer MODE.
//   good      values sum_i i x_i, gradients i
//   nan       the same, but a sample whose first feature is negative cannot be scored
//   short     half of the floats, then the end
//   error     the message "no tape" to the first request, the good answers afterwards
//   long      one float too many
//   chatty    1 MiB of nothing before the request was read
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {
bool line(std::string& out) {
  out.clear();
  for (int c; (c = std::getchar()) != EOF;) {
    if (c == '\n') return true;
    out += static_cast<char>(c);
  }
  return false;
}
void put(const std::vector<float>& v) { std::fwrite(v.data(), sizeof(float), v.size(), stdout); }
}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "good";
  std::string text;
  if (!line(text) || text != "costate-reward 1") return 2;
  std::puts("costate-reward 1");
  std::fflush(stdout);
  for (int number = 0; line(text); ++number) {
    char verb[16];
    long rows = 0, rank = 0, extent = 0;
    int used = 0;
    if (std::sscanf(text.c_str(), "%15s %ld %ld%n", verb, &rows, &rank, &used) != 3) return 3;
    long n = 1;
    for (const char* at = text.c_str() + used; rank > 0; --rank, at += used, n *= extent)
      if (std::sscanf(at, " %ld%n", &extent, &used) != 1) return 4;
    if (mode == "chatty") {
      const std::vector<float> zeros(1 << 18);
      put(zeros);
      std::fflush(stdout);
    }
    std::vector<float> x(static_cast<std::size_t>(rows * n)), value(static_cast<std::size_t>(rows)), gradient(x.size());
    if (std::fread(x.data(), sizeof(float), x.size(), stdin) != x.size()) return 5;
    if (mode == "error" && number == 0) {
      std::puts("error no tape");
      std::fflush(stdout);
      continue;
    }
    for (long r = 0; r < rows; ++r)
      for (long i = 0; i < n; ++i)
        value[r] += static_cast<float>(i) * x[r * n + i], gradient[r * n + i] = static_cast<float>(i);
    if (mode == "nan")
      for (long r = 0; r < rows; ++r)
        if (x[r * n] < 0) value[r] = NAN;
    const bool both = std::strcmp(verb, "gradient") == 0;
    std::puts(both ? "ok gradient" : "ok");
    if (mode == "short") {
      value.resize(value.size() / 2);
      put(value);
      return 0;
    }
    put(value);
    if (both) put(gradient);
    if (mode == "long") put({1.0f});
    std::fflush(stdout);
  }
  return 0;
}
