/* unload LIBRARY RUN TIMES: loads the library, opens a model of two threads, samples, scores, closes it and unloads the
 * library, so many times. It is then gone from the process each time, and neither threads nor descriptors nor memory stay
 * behind. */
#define _GNU_SOURCE
#include <costate.h>

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int entries(const char* folder) {
  int n = 0;
  DIR* d = opendir(folder);
  for (struct dirent* e; d && (e = readdir(d));) ++n;
  if (d) closedir(d);
  return n;
}

struct state {
  int mappings, of_library, threads, descriptors;
  long resident;  /* kB */
  double reserved; /* bytes of addresses */
};
static struct state look(const char* path) {
  const char* slash = strrchr(path, '/');
  const char* library = slash ? slash + 1 : path;
  struct state s = {0};
  char line[4352];
  FILE* f = fopen("/proc/self/maps", "r");
  while (f && fgets(line, sizeof line, f)) {
    unsigned long begin, end;
    ++s.mappings;
    s.of_library += strstr(line, library) != NULL;
    if (sscanf(line, "%lx-%lx", &begin, &end) == 2) s.reserved += (double)(end - begin);
  }
  if (f) fclose(f);
  s.threads = entries("/proc/self/task"), s.descriptors = entries("/proc/self/fd");
  f = fopen("/proc/self/statm", "r");
  long pages = 0;
  if (f && fscanf(f, "%*s %ld", &pages) == 1) s.resident = pages * (sysconf(_SC_PAGESIZE) / 1024);
  if (f) fclose(f);
  return s;
}

static int once(const char* path, const char* run) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return printf("%s\n", dlerror()), 0;
  int (*open_model)(const char*, const costate_options*, costate_model**, costate_error*);
  int (*sample)(costate_model*, const costate_sampling*, int64_t, float*, costate_error*);
  int (*score)(costate_model*, const float*, int64_t, float*, float*, costate_error*);
  void (*close_model)(costate_model*);
  *(void**)&open_model = dlsym(library, "costate_open");
  *(void**)&sample = dlsym(library, "costate_sample");
  *(void**)&score = dlsym(library, "costate_score");
  *(void**)&close_model = dlsym(library, "costate_close");
  if (!open_model || !sample || !score || !close_model) return printf("%s\n", dlerror()), 0;
  costate_error error;
  costate_model *model, *none;
  costate_options options = {.size = sizeof options, .threads = 2};
  static float samples[20000], rewards[10000];
  int good = open_model(run, &options, &model, &error) == COSTATE_OK;
  good = good && sample(model, NULL, 200, samples, &error) == COSTATE_OK;
  good = good && score(model, samples, 200, rewards, NULL, &error) == COSTATE_OK;
  if (!good) printf("%s\n", error.sentence);
  /* What goes wrong leaves nothing either. */
  good = good && open_model("no/such/run", NULL, &none, &error) == COSTATE_IO && sample(model, NULL, -1, samples, &error) != 0;
  close_model(model);
  return dlclose(library) == 0 && good;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int times = atoi(argv[3]), settled = times > 10 ? 10 : 1;
  struct state first = {0}, last = {0};
  for (int i = 0; i < times; ++i) {
    if (!once(argv[1], argv[2])) return 1;
    last = look(argv[1]);
    if (last.of_library != 0) return printf("after dlclose %d parts of the library are still there\n", last.of_library), 1;
    if (i + 1 == settled) first = last;
  }
  printf("%d times: %d threads, %d descriptors, %d -> %d mappings, %.1f -> %.1f MB of addresses, %ld -> %ld kB resident\n",
         times, last.threads - 2, last.descriptors, first.mappings, last.mappings, first.reserved / 1e6, last.reserved / 1e6,
         first.resident, last.resident);
  /* malloc may keep an arena more or less; a leak of one model, 30 kB, would be 2.7 MB over 90 times. A few times tell nothing
   * about memory: they are for valgrind, which looks itself. */
  const int same = last.threads == 3 && last.descriptors == first.descriptors &&
                   (times <= 10 || (last.mappings <= first.mappings + 4 && last.resident <= first.resident + 1000));
  if (!same) puts("something stays behind");
  return !same;
}
