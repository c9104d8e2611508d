// MPI behind a table of functions (distributed/mpi_table.h): the only file that includes mpi.h. Any implementation of MPI 3
// will do; messages are bytes from and to one thread, which MPI_THREAD_FUNNELED allows beside others that compute.
#include <mpi.h>

#include <memory>
#include <string>

#include "distributed/mpi_table.h"

namespace {

constexpr int tag = 1;
MPI_Comm world = MPI_COMM_NULL;
std::string problem;

const char* check(int code, const char* call) {
  if (code == MPI_SUCCESS) return nullptr;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  problem = std::string(call) + ": " + std::string(text, static_cast<std::size_t>(length));
  return problem.c_str();
}

const char* start(int* rank, int* size) {
  int provided = 0;
  if (const char* why = check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread")) return why;
  if (provided < MPI_THREAD_FUNNELED) return "MPI_Init_thread: this MPI allows no threads beside the one that calls it";
  if (const char* why = check(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup")) return why;
  MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN);
  MPI_Comm_rank(world, rank);
  MPI_Comm_size(world, size);
  return nullptr;
}

const char* send(const void* bytes, int count, int to, void** request) {
  auto own = std::make_unique<MPI_Request>();
  const char* why = check(MPI_Isend(bytes, count, MPI_BYTE, to, tag, world, own.get()), "MPI_Isend");
  *request = own.release();
  return why;
}

const char* receive(void* bytes, int count, int from, void** request) {
  auto own = std::make_unique<MPI_Request>();
  const char* why = check(MPI_Irecv(bytes, count, MPI_BYTE, from, tag, world, own.get()), "MPI_Irecv");
  *request = own.release();
  return why;
}

const char* test(void** request, int* done) {
  auto* const own = static_cast<MPI_Request*>(*request);
  const char* why = check(MPI_Test(own, done, MPI_STATUS_IGNORE), "MPI_Test");
  if (*done || why) delete own, *request = nullptr;
  return why;
}

void finish() {
  if (world != MPI_COMM_NULL) MPI_Comm_free(&world);
  MPI_Finalize();
}

void abort_all(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

const char* library() {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<std::size_t>(length));
  problem = all.substr(0, all.find_first_of(",\n"));
  return problem.c_str();
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const costate::cli::MpiTable* costate_mpi() {
  static constexpr costate::cli::MpiTable table{costate::cli::mpi_table_version, start, send, receive, test, finish, abort_all,
                                                library};
  return &table;
}
