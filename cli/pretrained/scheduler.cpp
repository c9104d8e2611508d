#include "pretrained/scheduler.h"

#include <costate/tensor/error.h>

#include "pretrained/keys.h"

namespace costate::cli {
namespace {

template <class F>
auto in_file(const Keys& keys, const std::string& key, const F& f) {
  try {
    return f();
  } catch (const Error& e) {
    fail(Fault::data, {keys.where(), ": ", key, ": ", e.what()});
  }
}

void note_unknown(const Keys& keys, std::vector<std::string>& notes) {
  std::string list;
  for (const std::string& k : keys.unknown()) list += (list.empty() ? "" : ", ") + k;
  if (!list.empty()) notes.push_back(keys.where() + ": not known here and not looked at: " + list);
}

void import_flow(Keys& keys, ImportedScheduler& s) {
  s.flow = true;
  s.train_timesteps = static_cast<int>(keys.integer("num_train_timesteps", 1000, 1, 1000000));
  s.shift = keys.number("shift", 1);
  if (!(s.shift > 0)) keys.refuse("shift", "a positive number");
  keys.only("use_dynamic_shifting", false,
            "false: a shift that depends on the size of the picture is not supported");
  for (const char* key : {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas"})
    keys.only(key, false, "false: other spacings of sigma are not supported");
  keys.only("stochastic_sampling", false, "false: take one of our samplers with noise instead");
  if (const Json* v = keys.raw("shift_terminal"); v && !v->is_null()) keys.refuse("shift_terminal", "null");
  for (const char* key :
       {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"})
    keys.raw(key);  // of dynamic shifting
  s.prediction = sde::Parametrisation::velocity;
  s.negated = true;
  s.timestep = {-static_cast<double>(s.train_timesteps), static_cast<double>(s.train_timesteps)};
  s.notes.push_back("the network predicts noise - data at " + std::to_string(s.train_timesteps) +
                    " sigma; our velocity is minus that, at t = 1 - sigma");
  if (s.shift != 1)
    s.notes.push_back(
        sentence({"shift ", s.shift,
                  " is applied twice to the ends of sigma, as the library does (its issue 13243)"}));
}

void import_discrete(Keys& keys, ImportedScheduler& s) {
  s.train_timesteps = static_cast<int>(keys.integer("num_train_timesteps", 1000, 1, 1000000));
  s.beta_start = keys.number("beta_start", 1e-4), s.beta_end = keys.number("beta_end", 0.02);
  s.law = in_file(keys, "beta_schedule", [&] { return sde::beta_law(keys.word("beta_schedule", "linear")); });
  keys.only("rescale_betas_zero_snr", false,
            "false: a path without any signal at the noise end is not supported");
  if (const Json* v = keys.raw("trained_betas"); v && !v->is_null()) {
    if (!v->is_array() || v->empty() || v->size() > 1000000)
      keys.refuse("trained_betas", "null or a list of numbers");
    std::vector<float> betas;
    for (const Json& b : *v) {
      if (!b.is_number()) keys.refuse("trained_betas", "null or a list of numbers");
      betas.push_back(b.get<float>());
    }
    s.trained_betas = true;
    s.train_timesteps = static_cast<int>(betas.size());
    s.schedule = in_file(keys, "trained_betas",
                         [&] { return sde::diffusion_schedule(betas, "vp_table(trained betas)"); });
  } else {
    s.schedule = in_file(keys, "beta_schedule", [&] {
      return sde::diffusion_schedule(s.law, s.train_timesteps, s.beta_start, s.beta_end);
    });
  }
  const std::string p = keys.word("prediction_type", "epsilon");
  if (p == "epsilon")
    s.prediction = sde::Parametrisation::epsilon;
  else if (p == "sample")
    s.prediction = sde::Parametrisation::x1;
  else if (p == "v_prediction")
    s.prediction = sde::Parametrisation::v_prediction;
  else
    keys.refuse("prediction_type", "epsilon, sample or v_prediction");
  s.timestep = {-static_cast<double>(s.train_timesteps), static_cast<double>(s.train_timesteps - 1)};
  s.spacing = in_file(keys, "timestep_spacing",
                      [&] { return sde::timestep_spacing(keys.word("timestep_spacing", "leading")); });
  s.steps_offset = static_cast<int>(keys.integer("steps_offset", 0, 0, s.train_timesteps - 1));
  s.variance_type = keys.word("variance_type", "fixed_small");
  if (s.variance_type != "fixed_small" && s.variance_type != "fixed_large") {
    if (s.variance_type == "fixed_small_log")  // the same number, computed in logarithms
      s.variance_type = "fixed_small";
    else if (s.variance_type == "learned" || s.variance_type == "learned_range") {
      s.notes.push_back("variance_type " + s.variance_type +
                        ": samplers here have the variance of fixed_small; the learned one is not used");
      s.variance_type = "fixed_small";
    } else {
      keys.refuse("variance_type", "fixed_small, fixed_small_log, fixed_large, learned or learned_range");
    }
  }
  if (keys.boolean("clip_sample", true) || keys.boolean("thresholding", false))
    s.notes.push_back(
        "clip_sample and thresholding are not applied: estimates of the data are used as the network makes "
        "them");
  for (const char* key : {"clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"})
    keys.raw(key);
  if (keys.has("set_alpha_to_one") && !keys.boolean("set_alpha_to_one", true))
    s.notes.push_back(
        "set_alpha_to_one is false there: the last step here goes to the data itself, not to timestep 0");
  keys.raw("clip_sample"), keys.raw("thresholding");
}

}  // namespace

ImportedScheduler import_scheduler(const Json& config, const std::string& where) {
  Keys keys(config, where);
  ImportedScheduler s;
  const Json* named = keys.raw("_class_name");
  if (!named || !named->is_string()) keys.refuse("_class_name", "the name of a scheduler");
  s.class_name = named->get<std::string>();
  if (s.class_name == "DDPMScheduler" || s.class_name == "DDIMScheduler")
    import_discrete(keys, s);
  else if (s.class_name == "FlowMatchEulerDiscreteScheduler")
    import_flow(keys, s);
  else
    keys.refuse("_class_name", "DDPMScheduler, DDIMScheduler or FlowMatchEulerDiscreteScheduler");
  note_unknown(keys, s.notes);
  return s;
}

std::vector<double> ImportedScheduler::grid(int n) const {
  if (!flow)
    return sde::grid_of_timesteps(sde::timesteps(spacing, train_timesteps, n, steps_offset), train_timesteps);
  std::vector<double> t;
  for (const double s : sde::flow_sigmas(n, shift, double_shift, train_timesteps)) t.push_back(1 - s);
  return t;
}

sde::Chain ImportedScheduler::chain(int n, double eta) const {
  if (flow) return sde::euler_ode(schedule, grid(n), prediction);
  if (class_name == "DDIMScheduler") return sde::ddim(schedule, grid(n), eta, prediction);
  return variance_type == "fixed_large" ? sde::ddpm_fixed_large(schedule, grid(n), prediction)
                                        : sde::exact_memoryless(schedule, grid(n), prediction);
}

}  // namespace costate::cli
