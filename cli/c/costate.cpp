#include "costate.h"

#include <costate/tensor/hooks.h>
#include <costate/tensor/parallel.h>

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>

#include "build.h"
#include "loaded_model.h"
#include "thread.h"

using costate::Fault;

// The model and all that it computes with. The loaded model is made, used and destroyed on the thread.
struct costate_model {
  costate_options options{};
  pid_t process = getpid();
  std::optional<costate::ThreadPool> pool;
  std::optional<costate::cli::LoadedModel> loaded;
  costate_description description{};
  costate::c::Thread thread;
};

namespace {

int report(costate_error* error, int status, const char* sentence) {
  if (!error) return status;
  error->status = status;
  std::size_t length = std::strlen(sentence);
  if (length >= sizeof error->sentence) {
    length = sizeof error->sentence - 4;
    while (length > 0 && (static_cast<unsigned char>(sentence[length]) & 0xC0) == 0x80) --length;  // whole characters
    std::memcpy(error->sentence + length, "...", 4);
  } else {
    error->sentence[length] = 0;
  }
  std::memcpy(error->sentence, sentence, length);
  return status;
}

int status_of(Fault fault) {
  switch (fault) {
    case Fault::argument: return COSTATE_ARGUMENT;
    case Fault::data: return COSTATE_DATA;
    case Fault::numerical: return COSTATE_NUMERICAL;
    case Fault::memory: return COSTATE_MEMORY;
    case Fault::io: return COSTATE_IO;
    case Fault::runtime: break;
  }
  return COSTATE_RUNTIME;
}

// Does it, and turns whatever is thrown into a status.
template <class Work>
int guarded(costate_error* error, const Work& work) noexcept {
  try {
    work();
    return report(error, COSTATE_OK, "");
  } catch (const costate::Cancelled& e) {
    return report(error, COSTATE_CANCELLED, e.what());
  } catch (const costate::Error& e) {
    return report(error, status_of(e.fault()), e.what());
  } catch (const std::bad_alloc&) {
    return report(error, COSTATE_MEMORY, "the system has no more memory");
  } catch (const std::exception& e) {
    return report(error, COSTATE_RUNTIME, e.what());
  } catch (...) {
    return report(error, COSTATE_RUNTIME, "an exception of unknown type");
  }
}

// A struct of the caller's, of this version or an earlier one; null stands for zeros.
template <class Struct>
Struct taken(const Struct* given, const char* what) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  Struct own{};
  if (!given) return own;
  costate::require(given->size >= sizeof own.size && given->size <= sizeof own, what, ": size is ", given->size,
                   ", expected sizeof, ", sizeof own);
  std::memcpy(static_cast<void*>(&own), given, given->size);
  return own;
}

void require_there(const void* pointer, const char* what) { costate::require(pointer != nullptr, what, " is NULL"); }

// On the thread of the model, with its hooks.
template <class Work>
int on_thread(costate_model* model, costate_error* error, costate::Hooks hooks, const Work& work) noexcept {
  return guarded(error, [&] {
    require_there(model, "the model");
    costate::require(model->process == getpid(),
                     "the model was opened by the process ", static_cast<long>(model->process),
                     ", whose threads this child of fork does not have; open one here");
    std::exception_ptr thrown;
    model->thread.run([&] {
      try {
        const costate::HookScope scope(std::move(hooks));
        work();
      } catch (...) {
        thrown = std::current_exception();
      }
    });
    if (thrown) std::rethrow_exception(thrown);
  });
}

costate::Hooks hooks_of(costate_model* model) {
  costate::Hooks hooks;
  hooks.executor = model->pool ? &*model->pool : nullptr;
  if (model->options.log)
    hooks.log = [log = model->options.log, context = model->options.context](costate::Severity s, std::string_view text) {
      log(context, s == costate::Severity::warning, std::string(text).c_str());
    };
  return hooks;
}

costate_description describe(const costate::cli::LoadedModel& m) {
  costate_description d{};
  d.item_size = m.item_size();
  const auto& shape = m.data().item_shape;
  costate::require(shape.size() <= std::size(d.shape), "an item of the data has ", shape.size(), " axes, expected at most ",
                   std::size(d.shape));
  d.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), d.shape);
  d.classes = m.config().network.conditional ? m.data().classes : 0;
  d.steps = m.config().sampler.steps;
  d.sample_seed = costate::cli::seed_of(m.config(), costate::cli::Purpose::sample);
  d.has_reward = m.has_reward(), d.has_gradient = m.has_reward() && m.reward().differentiable();
  return d;
}

}  // namespace

extern "C" {

int costate_open(const char* directory, const costate_options* options, costate_model** model, costate_error* error) {
  if (model) *model = nullptr;
  std::unique_ptr<costate_model> made;
  int status = guarded(error, [&] {
    require_there(directory, "costate_open: directory");
    require_there(model, "costate_open: model");
    const costate_options own = taken(options, "costate_options");
    costate::require(own.threads >= 0 && own.threads <= 1024, "costate_options: ", own.threads,
                     " threads were asked for; expected 1 to 1024, or 0 for one");
    made = std::make_unique<costate_model>();
    made->options = own;
  });
  if (status != COSTATE_OK) return status;
  status = on_thread(made.get(), error, hooks_of(made.get()), [&] {
    const int threads = std::max(1, made->options.threads);
    if (threads > 1) made->pool.emplace();
    costate::set_threads(threads);
    made->loaded.emplace(directory, made->options.model ? made->options.model : "tuned");
    made->description = describe(*made->loaded);
  });
  if (status != COSTATE_OK) {
    costate_close(made.release());
    return status;
  }
  *model = made.release();
  return COSTATE_OK;
}

void costate_close(costate_model* model) {
  if (!model) return;
  if (model->process != getpid()) return;  // a child of fork cannot end the threads of its parent
  model->thread.run([model] {
    model->loaded.reset();
    model->pool.reset();
  });
  delete model;
}

int costate_describe(const costate_model* model, costate_description* description, costate_error* error) {
  return guarded(error, [&] {
    require_there(model, "costate_describe: the model");
    require_there(description, "costate_describe: description");
    const std::size_t size = taken(description, "costate_description").size;
    costate_description d = model->description;
    d.size = size;
    std::memcpy(static_cast<void*>(description), &d, size);
  });
}

int costate_sample(costate_model* model, const costate_sampling* options, int64_t count, float* samples,
                   costate_error* error) {
  if (!model) return guarded(error, [&] { require_there(model, "costate_sample: the model"); });
  std::stop_source stop;
  costate_sampling own{};
  if (const int status = guarded(error, [&] {
        own = taken(options, "costate_sampling");
        require_there(samples, "costate_sample: samples");
      });
      status != COSTATE_OK)
    return status;
  costate::Hooks hooks = hooks_of(model);
  if (own.progress) {
    hooks.stop = stop.get_token();
    hooks.progress = [&](const costate::Progress& p) {
      if (own.progress(own.context, p.done, p.total) != 0) stop.request_stop();
    };
  }
  return on_thread(model, error, std::move(hooks), [&] {
    costate::cli::LoadedModel::Request r;
    r.count = count, r.seed = own.seed, r.first = own.first, r.steps = own.steps, r.ode = own.ode != 0;
    if (own.has_guidance) r.guidance = own.guidance;
    if (own.labels && count > 0) r.labels = {own.labels, static_cast<std::size_t>(count)};
    const std::vector<float> values = model->loaded->sample(r);
    costate::check_cancelled("sampling");  // the last report may have been answered by a stop
    std::copy(values.begin(), values.end(), samples);
  });
}

int costate_score(costate_model* model, const float* rows, int64_t count, float* rewards, float* gradients,
                  costate_error* error) {
  if (!model) return guarded(error, [&] { require_there(model, "costate_score: the model"); });
  return on_thread(model, error, hooks_of(model), [&] {
    require_there(rows, "costate_score: rows");
    require_there(rewards, "costate_score: rewards");
    costate::require(count >= 1 && count <= (std::int64_t{1} << 40) / model->description.item_size, "costate_score: found ",
                     count, " rows, expected at least 1");
    const auto n = static_cast<std::size_t>(count), all = n * static_cast<std::size_t>(model->description.item_size);
    std::vector<float> values(n), slopes(gradients ? all : 0);
    model->loaded->score({rows, all}, count, values, slopes);
    std::copy(values.begin(), values.end(), rewards);
    if (gradients) std::copy(slopes.begin(), slopes.end(), gradients);
  });
}

const char* costate_version(void) { return COSTATE_VERSION; }

}  // extern "C"
