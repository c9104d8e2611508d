// Whether this process is one of several that mpirun or srun has started: read from the environment, before MPI is.
#pragma once
#include <string>

namespace costate::cli {

struct Launch {
  std::string by = "";  // "mpirun", "srun"; "": nobody, or a single process
  int size = 1, rank = 0;
};

Launch launch_of_environment();

}  // namespace costate::cli
