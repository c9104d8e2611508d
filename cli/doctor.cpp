// costate doctor: what this machine computes with. Rates are measured on the spot, a fraction of a second each.
#include <costate/autograd/ops.h>
#include <costate/tensor/backend.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/precision.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <thread>

#include "commands.h"

namespace costate::cli {
namespace {

constexpr double enough = 0.03;  // seconds that one measurement should take

// The least of three times of body(), in seconds, the device's work included.
double seconds(Device device, const std::function<void()>& body) {
  double best = 1e30;
  for (int i = 0; i < 3; ++i) {
    synchronise(device);
    const auto start = std::chrono::steady_clock::now();
    body();
    synchronise(device);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// Bytes read and written a second by a copy within the device's memory. Sizes double until a copy takes long enough.
double copy_rate(Device device) {
  double rate = 0;
  for (std::int64_t bytes = 1 << 20; bytes <= std::int64_t{1} << 30; bytes *= 2) {
    const Tensor from = Tensor::zeros({bytes / 4}, DType::f32, device), to = Tensor::zeros({bytes / 4}, DType::f32, device);
    const double t = seconds(device, [&] { to.copy_from(from); });
    rate = 2.0 * static_cast<double>(bytes) / t;
    if (t > enough / 2) break;
  }
  return rate;
}

// Operations a second of square matrix products.
double product_rate(Device device, Precision precision) {
  const PrecisionScope scope(precision);
  double rate = 0;
  for (std::int64_t n = 32; n <= 8192; n *= 2) {
    const Var a(Tensor::full({n, n}, 0.5, DType::f32, device)), b(Tensor::full({n, n}, 0.25, DType::f32, device));
    const double t = seconds(device, [&] { matmul(a, b); });
    rate = std::max(rate, 2.0 * std::pow(static_cast<double>(n), 3) / t);
    if (t > enough) break;
  }
  return rate;
}

Json rates(Device device, bool bf16) {
  Json r = {{"copy_bytes_per_second", copy_rate(device)}, {"f32_flops_per_second", product_rate(device, Precision::f32)}};
  if (device.kind == DeviceKind::cuda) r["tf32_flops_per_second"] = product_rate(device, Precision::tf32);
  if (bf16) r["bf16_flops_per_second"] = product_rate(device, Precision::bf16_products);
  return r;
}

std::string number(double v, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, v < 10 ? "%.2f %s" : "%.0f %s", v, unit);
  return text;
}
std::string line(const Json& r) {
  std::string s = number(r.at("copy_bytes_per_second").get<double>() / 1e9, "GB/s copied, ") + "matrix products " +
                  number(r.at("f32_flops_per_second").get<double>() / 1e9, "GFLOP/s in f32");
  if (r.contains("tf32_flops_per_second"))
    s += ", " + number(r.at("tf32_flops_per_second").get<double>() / 1e9, "in tf32");
  if (r.contains("bf16_flops_per_second"))
    s += ", " + number(r.at("bf16_flops_per_second").get<double>() / 1e9, "with bf16 operands");
  return s;
}
double gib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

Json cuda_report() {
  const LoadedBackend& loaded = cuda_backend();
  Json report = {{"devices", Json::array()}};
  if (!loaded.backend) {
    report["problem"] = loaded.problem;
    return report;
  }
  report["plugin"] = loaded.path;
  report["libraries"] = loaded.backend->libraries();
  try {
    const int count = loaded.backend->device_count();
    if (count == 0) report["problem"] = "the driver finds no device";
    for (int i = 0; i < count; ++i) {
      DeviceProperties p;
      loaded.backend->properties(i, &p);
      report["devices"].push_back({{"name", p.name},
                                   {"compute_capability", std::to_string(p.major) + "." + std::to_string(p.minor)},
                                   {"multiprocessors", p.multiprocessors},
                                   {"memory_bytes", p.memory},
                                   {"free_bytes", p.free_memory}});
    }
    if (count > 0) report["devices"][0]["rates"] = rates(Device::cuda(0), true);
  } catch (const Error& e) {
    report["problem"] = e.what();
  }
  return report;
}

}  // namespace

void doctor_command(bool as_json, std::ostream& out) {
  const int processors = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  set_threads(processors);
  const Kernels& cpu = kernels(Device::cpu);
  Json report = {{"version", COSTATE_VERSION}, {"compiler", COSTATE_COMPILER}};
  report["cpu"] = {{"kernels", cpu.name},
                   {"threads", processors},
                   {"multiplies_bf16", cpu.multiplies_bf16()},
                   {"rates", rates(Device::cpu, cpu.multiplies_bf16())}};
  report["cuda"] = cuda_report();
  if (as_json) {
    out << report.dump(2) << "\n";
    return;
  }
  out << "costate " << COSTATE_VERSION << " (" << COSTATE_COMPILER << ")\n";
  out << cpu.name << ", " << processors << " threads: " << line(report["cpu"]["rates"]) << "\n";
  const Json& cuda = report["cuda"];
  if (cuda.contains("libraries"))
    out << "CUDA backend: " << cuda["plugin"].get<std::string>() << ", " << cuda["libraries"].get<std::string>() << "\n";
  int index = 0;
  for (const Json& d : cuda["devices"]) {
    out << "cuda:" << index++ << ": " << d["name"].get<std::string>() << ", compute capability "
        << d["compute_capability"].get<std::string>() << ", " << d["multiprocessors"] << " multiprocessors, "
        << number(gib(d["memory_bytes"].get<std::int64_t>()), "GiB, ")
        << number(gib(d["free_bytes"].get<std::int64_t>()), "free");
    if (d.contains("rates")) out << ": " << line(d["rates"]);
    out << "\n";
  }
  if (cuda.contains("problem")) out << "no cuda device: " << cuda["problem"].get<std::string>() << "\n";
}

}  // namespace costate::cli
