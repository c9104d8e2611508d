// How long is one pass of a UNet or a DiT, and how much memory does it take? The networks and the work are those of
// bench/peers/networks_torch.py.
//
//   bench_networks [--network unet|dit16|dit49|dit196] [--work forward|training|vjp] [--precision f32|bf16] [--batch N]
//                  [--threads 1] [--iterations 10] [--serve]
//
// --serve: for every line "run" on standard input one pass is timed and its seconds are printed; for "info" one line of
// JSON: so bench/compare_networks.py interleaves programs.
#include <costate/nn/dit.h>
#include <costate/nn/unet.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/precision.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "clock.h"

using namespace costate;

namespace {

// A line "key: kilobytes kB" of /proc/self/status, in bytes; 0 where there is none.
long long status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key + ":", 0) == 0) return 1024 * std::atoll(line.c_str() + key.size() + 1);
  return 0;
}

Tensor noise(const Shape& shape, std::uint32_t stream, bool normal = true) {
  Tensor x = Tensor::empty(shape);
  kernels(x).random(DType::f32, normal, 1, stream, 0, 0, 1, x.numel(), x.raw_mutable());
  return x;
}

struct Settings {
  std::string network = "dit49", work = "forward", precision = "f32";
  std::int64_t batch = 0, threads = 1, iterations = 10;
  bool serve = false;
};

int refuse(const std::string& what, const std::string& found) {
  std::fprintf(stderr, "%s is '%s', which is not offered; the head of bench/networks.cpp lists the options\n", what.c_str(),
               found.c_str());
  return 2;
}

// One pass as a function of nothing.
template <class Model>
std::function<void()> pass_of(Model model, const Shape& shape, const Settings& s) {
  // What starts at zero would make whole branches zero: noise as everywhere else.
  std::uint32_t stream = 10;
  nn::visit(model, [&](const std::string&, Var& p) {
    const auto values = p.value().to_doubles();
    if (p.rank() > 1 && std::all_of(values.begin(), values.end(), [](double v) { return v == 0; })) {
      const memory::TagScope scope(memory::Tag::parameters);
      p = affine(Var(noise(p.shape(), stream++)), 0.02, 0).value();
    }
  });
  const Precision precision = s.precision == "bf16" ? Precision::bf16_products : Precision::f32;
  const Tensor x = noise(shape, 0), t = noise({shape[0]}, 1, false), target = noise(shape, 2);
  if (s.work == "forward")
    return [=] {
      const PrecisionScope scope(precision);
      model(x, t, Tensor());
    };
  if (s.work == "vjp")
    return [=] {
      const PrecisionScope scope(precision);
      Tape tape;
      const Var watched = tape.watch(x);
      const Var y = model(watched, t, Tensor());
      std::move(tape).vjp(y, target, {&watched, 1});
    };
  return [=] {
    const PrecisionScope scope(precision);
    Tape tape;
    std::vector<Var> watched;
    const Model tuned = nn::watch(model, tape, watched);
    const Var loss = mean(square(tuned(x, t, Tensor()) - Var(target)));
    std::move(tape).vjp(loss, watched);
  };
}

std::function<void()> make(const Settings& s) {
  nn::Init init(1);
  if (s.network == "unet") {
    nn::UNetOptions o;
    o.in_channels = o.out_channels = 1;
    o.block_out_channels = {64, 128, 128};
    o.down_block_types = {"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"};
    o.up_block_types = {"AttnUpBlock2D", "UpBlock2D", "UpBlock2D"};
    o.attention_head_dim = 32;
    return pass_of(nn::make_unet(o, init), {s.batch, 28, 28, 1}, s);
  }
  nn::DitOptions o;
  o.channels = 1, o.hidden = 384, o.depth = 6, o.heads = 6;
  o.height = o.width = s.network == "dit16" ? 8 : 28;
  o.patch = s.network == "dit49" ? 4 : 2;
  return pass_of(nn::make_dit(o, init), {s.batch, o.height, o.width, 1}, s);
}

std::string information(const std::function<void()>& pass, long long before) {
  const long long between = status_bytes("VmRSS");
  std::ofstream("/proc/self/clear_refs") << "5";  // the high-water mark starts again (proc(5))
  memory::PeakScope scope;
  pass();
  std::ostringstream out;
  out << "{\"peak_resident_bytes\": " << status_bytes("VmHWM") << ", \"resident_between_passes\": " << between
      << ", \"resident_before_first_pass\": " << before << ", \"ledger_peak_bytes\": " << scope.peak().total
      << ", \"ledger_peak\": \"" << to_string(scope.peak()) << "\", \"kernels\": \""
      << kernels(Device::cpu).name << "\", \"multiplies_bf16\": "
      << (kernels(Device::cpu).multiplies_bf16() ? "true" : "false") << "}";
  return out.str();
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--serve") {
      s.serve = true;
      continue;
    }
    if (i + 1 >= argc) return refuse("an option without a value", a);
    const std::string value = argv[++i];
    if (a == "--network") s.network = value;
    else if (a == "--work") s.work = value;
    else if (a == "--precision") s.precision = value;
    else if (a == "--batch") s.batch = std::atoll(value.c_str());
    else if (a == "--threads") s.threads = std::atoll(value.c_str());
    else if (a == "--iterations") s.iterations = std::atoll(value.c_str());
    else return refuse("an option", a);
  }
  if (s.network != "unet" && s.network != "dit16" && s.network != "dit49" && s.network != "dit196")
    return refuse("--network", s.network);
  if (s.work != "forward" && s.work != "training" && s.work != "vjp") return refuse("--work", s.work);
  if (s.precision != "f32" && s.precision != "bf16") return refuse("--precision", s.precision);
  if (s.batch <= 0) s.batch = s.network == "unet" ? 16 : 32;
  const int threads = static_cast<int>(s.threads);
  set_threads(threads);
  const long long before = status_bytes("VmRSS");
  const auto pass = make(s);
  const auto timed = [&] {
    const double start = now(threads);
    pass();
    return now(threads) - start;
  };
  if (s.serve) {
    char line[64];
    while (std::fgets(line, sizeof line, stdin)) {
      if (std::strncmp(line, "run", 3) == 0) std::printf("%.9f\n", timed());
      else if (std::strncmp(line, "info", 4) == 0) std::printf("%s\n", information(pass, before).c_str());
      else break;
      std::fflush(stdout);
    }
    return 0;
  }
  for (int i = 0; i < 2; ++i) pass();
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < s.iterations; ++i) seconds.push_back(timed());
  std::sort(seconds.begin(), seconds.end());
  std::printf("%s, %s, %s, batch %lld, %d thread(s): median %.2f ms, least %.2f ms; %s\n", s.network.c_str(), s.work.c_str(),
              s.precision.c_str(), static_cast<long long>(s.batch), threads, 1e3 * seconds[seconds.size() / 2],
              1e3 * seconds[0], information(pass, before).c_str());
  return 0;
}
