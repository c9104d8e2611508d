#include "distributed/launch.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace costate::cli {
namespace {

// -1 where the variable is missing or no number.
int number(const char* name) {
  const char* const text = std::getenv(name);
  if (!text) return -1;
  const std::string_view digits = text;
  int value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && end == digits.data() + digits.size() ? value : -1;
}

}  // namespace

Launch launch_of_environment() {
  // Open MPI; MPICH, Intel MPI and whatever speaks PMI; MVAPICH; steps of Slurm (the script of a batch job is none).
  struct Variables {
    const char *by, *size, *rank;
  };
  constexpr Variables launchers[] = {{"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                     {"mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
                                     {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
                                     {"mpirun", "PMI_SIZE", "PMI_RANK"}};
  for (const Variables& v : launchers) {
    const int size = number(v.size), rank = number(v.rank);
    if (size > 1 && rank >= 0 && rank < size) return {v.by, size, rank};
  }
  return {};
}

}  // namespace costate::cli
