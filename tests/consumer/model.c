/* model RUN: everything of costate.h, with a model in the plane whose reward is quadratic. The samples are those that the run
 * kept; one call, two halves and three threads give the same bits; what is wrong is said in sentences. */
#include <costate.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;
static void check(int holds, const char* what) {
  if (!holds) printf("failed: %s\n", what), ++failures;
}
static void refused(int status, int expected, const costate_error* error, const char* sentence) {
  if (status == expected && error->status == expected && strstr(error->sentence, sentence)) return;
  printf("failed: status %d (%d) '%s', expected %d '%s'\n", status, error->status, error->sentence, expected, sentence);
  ++failures;
}

static int stop_early(void* context, int64_t done, int64_t total) {
  *(int64_t*)context = done;
  return done > 0 && total == 5000;
}
static void count_notes(void* context, int is_warning, const char* sentence) {
  *(int*)context += !is_warning && strlen(sentence) > 20;
}

struct half {
  costate_model* model;
  float* samples;
  uint64_t first;
};
static void* draw_half(void* argument) {
  struct half* h = argument;
  costate_sampling s = {.size = sizeof s, .seed = 11, .first = h->first};
  return costate_sample(h->model, &s, 128, h->samples, NULL) == COSTATE_OK ? h : NULL;
}

/* The numbers behind the header of an .npy file. */
static size_t kept(const char* run, const char* name, float* out, size_t most) {
  char path[4096];
  unsigned char start[10];
  snprintf(path, sizeof path, "%s/samples/%s.npy", run, name);
  FILE* f = fopen(path, "rb");
  if (!f || fread(start, 1, 10, f) != 10) return 0;
  fseek(f, 10 + start[8] + 256L * start[9], SEEK_SET);
  const size_t n = fread(out, sizeof(float), most, f);
  fclose(f);
  return n;
}

/* A number of data.json. */
static float fact(const char* run, const char* key) {
  char path[4096], text[4096];
  snprintf(path, sizeof path, "%s/data.json", run);
  FILE* f = fopen(path, "rb");
  text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
  if (f) fclose(f);
  const char* at = strstr(text, key);
  at = at ? strchr(at, ':') : NULL;
  return at ? strtof(at + 1, NULL) : NAN;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  costate_error error;
  int notes = 0;
  costate_options options = {.size = sizeof options, .threads = 3, .log = count_notes, .context = &notes};
  costate_model *tuned, *base;
  if (costate_open(argv[1], &options, &tuned, &error) != COSTATE_OK) {
    puts(error.sentence);
    return 1;
  }
  options.model = "base", options.threads = 0;
  check(costate_open(argv[1], &options, &base, NULL) == COSTATE_OK, "the base opens");
  check(strlen(costate_version()) >= 5, "version");

  costate_description d = {.size = sizeof d};
  check(costate_describe(tuned, &d, &error) == COSTATE_OK, "describe");
  check(d.item_size == 2 && d.rank == 1 && d.shape[0] == 2 && d.classes == 0 && d.steps == 12 && d.has_reward && d.has_gradient,
        "the description");

  /* What the run kept, by both models and samplers. */
  static float samples[512], again[512], mine[512];
  const char* const names[] = {"tuned_sde", "tuned_ode", "base_sde", "base_ode"};
  for (int i = 0; i < 4; ++i) {
    costate_sampling s = {.size = sizeof s, .seed = d.sample_seed, .ode = i % 2};
    check(kept(argv[1], names[i], samples, 512) == 512, "256 kept samples");
    check(costate_sample(i < 2 ? tuned : base, &s, 256, mine, &error) == COSTATE_OK, "sample");
    check(memcmp(samples, mine, sizeof mine) == 0, names[i]);
  }

  /* Two threads of the program at once, each half of the samples. */
  costate_sampling s = {.size = sizeof s, .seed = 11};
  check(costate_sample(tuned, &s, 256, samples, NULL) == COSTATE_OK, "sample");
  struct half halves[2] = {{tuned, again, 0}, {tuned, again + 256, 128}};
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, draw_half, &halves[i]);
  for (int i = 0; i < 2; ++i) {
    void* done = NULL;
    pthread_join(threads[i], &done);
    check(done != NULL, "half");
  }
  check(memcmp(samples, again, sizeof samples) == 0, "two halves");

  /* r = u - (u u + v v)/4 of (u, v) = (x - offset)/scale, the units that the network sees; gradients are by x. Two dozen
   * roundings of numbers of order 10. */
  const float scale = fact(argv[1], "scale"), offset = fact(argv[1], "offset");
  check(scale > 1.2f && fabsf(offset) > 0.5f, "the data are standardised");
  static float rewards[256], gradients[512];
  check(costate_score(tuned, samples, 256, rewards, gradients, &error) == COSTATE_OK, "score");
  for (int i = 0; i < 256; ++i) {
    const float u = (samples[2 * i] - offset) / scale, v = (samples[2 * i + 1] - offset) / scale;
    check(fabsf(rewards[i] - (u - 0.25f * (u * u + v * v))) < 2e-5f, "the value of a reward");
    check(fabsf(gradients[2 * i] - (1 - 0.5f * u) / scale) < 1e-5f, "a gradient");
    check(fabsf(gradients[2 * i + 1] + 0.5f * v / scale) < 1e-5f, "a gradient");
  }
  float alone;
  check(costate_score(base, samples, 1, &alone, NULL, NULL) == COSTATE_OK && alone == rewards[0], "values alone");

  /* An option that changes the law. */
  s.steps = 24;
  check(costate_sample(tuned, &s, 256, again, NULL) == COSTATE_OK && memcmp(samples, again, sizeof samples) != 0, "steps");
  s.steps = 0;

  /* Progress, and a stop. */
  int64_t done = 0;
  float* many = malloc(10000 * sizeof(float));
  s.progress = stop_early, s.context = &done;
  check(costate_sample(tuned, &s, 200, again, NULL) == COSTATE_OK && done == 200, "progress");
  refused(costate_sample(tuned, &s, 5000, many, &error), COSTATE_CANCELLED, &error, "stop");
  check(done < 5000, "stopped before the end");
  free(many);
  s.progress = NULL;
  check(costate_sample(tuned, &s, 256, again, NULL) == COSTATE_OK && memcmp(samples, again, sizeof samples) == 0,
        "the same after a stop");

  /* Sentences. */
  const int32_t labels[2] = {0, 0};
  refused(costate_sample(tuned, &s, 0, again, &error), COSTATE_ARGUMENT, &error, "sample: 0 samples were asked for");
  refused(costate_sample(tuned, &s, 2, NULL, &error), COSTATE_ARGUMENT, &error, "samples is NULL");
  refused(costate_sample(NULL, &s, 2, again, &error), COSTATE_ARGUMENT, &error, "model is NULL");
  s.labels = labels;
  refused(costate_sample(tuned, &s, 2, again, &error), COSTATE_ARGUMENT, &error, "has no classes");
  s.labels = NULL, s.has_guidance = 1, s.guidance = -1;
  refused(costate_sample(tuned, &s, 2, again, &error), COSTATE_ARGUMENT, &error, "the guidance is -1");
  s.has_guidance = 0, s.size = 3;
  refused(costate_sample(tuned, &s, 2, again, &error), COSTATE_ARGUMENT, &error, "costate_sampling: size is 3");
  s.size = sizeof s;
  refused(costate_score(tuned, NULL, 2, rewards, NULL, &error), COSTATE_ARGUMENT, &error, "rows is NULL");
  refused(costate_score(tuned, samples, -1, rewards, NULL, &error), COSTATE_ARGUMENT, &error, "found -1 rows");
  refused(costate_sample(tuned, &s, INT64_MAX / 64, again, &error), COSTATE_ARGUMENT, &error, "more bytes than any machine");
  costate_model* none = tuned;
  refused(costate_open("no/such/run", NULL, &none, &error), COSTATE_IO, &error, "no/such/run");
  check(none == NULL, "no model after a failure");
  options.model = "best";
  refused(costate_open(argv[1], &options, &none, &error), COSTATE_ARGUMENT, &error, "found 'best', expected base or tuned");
  options.model = NULL, options.threads = 5000;
  refused(costate_open(argv[1], &options, &none, &error), COSTATE_ARGUMENT, &error, "5000 threads");
  refused(costate_open(NULL, NULL, &none, &error), COSTATE_ARGUMENT, &error, "directory is NULL");

  costate_close(tuned), costate_close(base), costate_close(NULL);
  if (failures == 0) puts("everything of costate.h holds");
  return failures != 0;
}
