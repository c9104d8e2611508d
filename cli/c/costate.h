/* Costate in C: drawing samples from a model that `costate run` made, and scoring them.
 *
 *   costate_error error;
 *   costate_model* model;
 *   if (costate_open("runs/points", NULL, &model, &error)) { puts(error.sentence); return 1; }
 *   float points[200];
 *   costate_sample(model, NULL, 100, points, &error);
 *   costate_close(model);
 *
 * Every function may be called from every thread; calls to one model follow each other. A model computes on threads of its
 * own, which end with costate_close, as does its memory: afterwards the library can be unloaded (dlclose). The library throws
 * no exception into the program, prints nothing, never exits, and changes no signal handler, locale or environment. In a child
 * of fork, models of the parent refuse to compute. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What functions return; the exit codes of the program where both have them. */
enum {
  COSTATE_OK = 0,
  COSTATE_RUNTIME = 1,   /* a failure that is none of the others */
  COSTATE_ARGUMENT = 2,  /* a call or the configuration of the run is wrong */
  COSTATE_DATA = 3,      /* a file is malformed */
  COSTATE_NUMERICAL = 4, /* NaN or infinity */
  COSTATE_MEMORY = 5,    /* there is no more memory */
  COSTATE_IO = 6,        /* the system refused to read */
  COSTATE_CANCELLED = 7  /* the program asked to stop */
};

/* Filled when a function fails; wherever one is taken, NULL may be given. */
typedef struct costate_error {
  int status;          /* what the function returned */
  char sentence[1000]; /* what was found and what was expected, in UTF-8; cut where it does not fit */
} costate_error;

typedef struct costate_model costate_model;

/* The structs that are handed in begin with their size, so that later versions may add members: memset to zero, then
 * x.size = sizeof x. Zero stands for the default everywhere. */
typedef struct costate_options {
  size_t size;
  const char* model; /* "tuned" (also NULL) or "base" */
  int threads;       /* of the model; 0: one; at most 1024 */
  /* Notes and warnings, one call at a time, from threads of the model; NULL: nobody hears them. */
  void (*log)(void* context, int is_warning, const char* sentence);
  void* context;
} costate_options;

/* Opens a run directory: config.resolved.json, data.json, checkpoints/. It may have been moved from where it was made, without
 * the data. On failure *model is NULL. */
int costate_open(const char* directory, const costate_options* options, costate_model** model, costate_error* error);
void costate_close(costate_model* model); /* NULL: nothing happens */

typedef struct costate_description {
  size_t size;
  int64_t item_size;     /* floats a sample */
  int rank;              /* of an item's shape, at most 8 */
  int64_t shape[8];      /* row-major; pictures are (height, width, channels) */
  int classes;           /* of labels, 0 to classes - 1; 0: the network takes none */
  int64_t steps;         /* of the sampler as configured */
  uint64_t sample_seed;  /* of the samples that the run kept */
  int has_reward;        /* costate_score works */
  int has_gradient;      /* and knows gradients */
} costate_description;
int costate_describe(const costate_model* model, costate_description* description, costate_error* error);

typedef struct costate_sampling {
  size_t size;
  uint64_t seed, first;  /* sample i is a function of (seed, first + i), whatever the number of threads and calls */
  int64_t steps;         /* 0: as configured */
  int ode;               /* not 0: the ordinary equation of sample.ode instead of the sampler */
  int has_guidance;      /* not 0: `guidance` instead of the configured one */
  double guidance;
  const int32_t* labels; /* one a sample; NULL: none */
  /* Heard after every chunk of rows, one call at a time, from threads of the model. Another answer than 0 stops: the call
   * returns COSTATE_CANCELLED, and `samples` holds nothing of use. */
  int (*progress)(void* context, int64_t done, int64_t total);
  void* context;
} costate_sampling;

/* samples[count * item_size], in the units of the data. NULL options: seed 0, as configured. */
int costate_sample(costate_model* model, const costate_sampling* options, int64_t count, float* samples,
                   costate_error* error);

/* The reward that the run raises, without its multiplier, of count rows in the units of the data (which become those that the
 * network sees, as the reward does): rewards[count], and, unless NULL is given, gradients[count * item_size] by these rows. */
int costate_score(costate_model* model, const float* rows, int64_t count, float* rewards, float* gradients,
                  costate_error* error);

/* "0.1.0" */
const char* costate_version(void);

#ifdef __cplusplus
}
#endif
