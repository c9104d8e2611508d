// What the plugin libcostate_mpi.so gives the program, which is built without MPI: one file, cli/mpi/plugin.cpp, knows mpi.h.
// All functions but `abort` are called by one thread, the one that has called `start`. Those that return text return null when
// all is well, and otherwise a sentence that lives until the next call.
#pragma once
#include <cstdint>

namespace costate::cli {

struct MpiTable {
  int version;
  const char* (*start)(int* rank, int* size);  // MPI_Init_thread and a communicator of the program's own
  const char* (*send)(const void* bytes, int count, int to, void** request);
  const char* (*receive)(void* bytes, int count, int from, void** request);
  // Whether a request is done, which is then forgotten.
  const char* (*test)(void** request, int* done);
  void (*finish)();          // MPI_Finalize
  void (*abort)(int code);   // ends all processes of the job
  const char* (*library)();  // "Open MPI v4.1.4"
};

inline constexpr int mpi_table_version = 1;
using MpiEntry = const MpiTable* (*)();
inline constexpr const char* mpi_entry = "costate_mpi";

}  // namespace costate::cli
