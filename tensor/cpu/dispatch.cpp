// Chooses the kernel table: the best instruction set that this processor has. COSTATE_CPU_ISA=baseline|avx2|avx512 in the
// environment asks for a lesser one.
#include <costate/tensor/tensor.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "isa/table.h"

namespace costate {

namespace {

struct Tables {
  const Kernels* table[3];
  int count = 0;
  const Kernels* chosen = nullptr;
  Tables() {
#ifdef COSTATE_X86_ISAS
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      table[count++] = &cpu::avx512::kernels;
    if (avx2) table[count++] = &cpu::avx2::kernels;
#endif
    table[count++] = &cpu::baseline::kernels;
    chosen = table[0];
    const char* wish = std::getenv("COSTATE_CPU_ISA");
    if (!wish || !*wish) return;
    chosen = nullptr;
    std::string offered;
    for (int i = 0; i < count; ++i) {
      const std::string_view full(table[i]->name), isa = full.substr(5, full.size() - 6);  // "cpu (avx2)"
      if (isa == wish) chosen = table[i];
      offered += (i ? ", " : "") + std::string(isa);
    }
    require(chosen, "COSTATE_CPU_ISA is '", wish, "'; this processor offers ", offered);
  }
};
const Tables& tables() {
  static const Tables t;
  return t;
}

}  // namespace

namespace detail {

constinit std::atomic<const Kernels*> cpu_table{nullptr};

const Kernels& choose_cpu_table() {
  cpu_table.store(tables().chosen, std::memory_order_release);
  return *tables().chosen;
}

}  // namespace detail

std::span<const Kernels* const> cpu_tables() { return {tables().table, static_cast<std::size_t>(tables().count)}; }

}  // namespace costate
