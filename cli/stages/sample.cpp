// Samples of the base and the tuned model as arrays and pictures.
#include <costate/finetune/data/npy.h>
#include <costate/finetune/distributed/sampling.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>

#include "distributed/ranks.h"
#include "image/png.h"
#include "image/scatter.h"
#include "npz.h"
#include "stages/evaluation.h"
#include "stages/initial_law.h"
#include "stages/search.h"

namespace costate::cli {
namespace {

constexpr std::int64_t most_pictures = 64, columns = 8;

bool is_picture(const data::Dataset& d) {
  return d.item_shape.size() == 3 && (d.item_shape[2] == 1 || d.item_shape[2] == 3);
}
bool is_plane(const data::Dataset& d) { return data::item_size(d) == 2; }

// What is drawn: a grid of pictures, or points with the data's own behind them.
class Painter {
 public:
  Painter(const Config& config, const data::Dataset& data) : data_(data) {
    if (is_picture(data)) {
      const std::vector<float> all = data::original(data, data.values);
      const auto [low, high] = std::minmax_element(all.begin(), all.end());
      options_.low = *low, options_.high = std::max(*high, *low + 1e-6f);
      options_.columns = columns;
      options_.zoom = std::max<std::int64_t>(1, 48 / std::max(data.item_shape[0], data.item_shape[1]));
    } else if (is_plane(data)) {
      const std::int64_t n = std::min<std::int64_t>(data.count, config.sample.count);
      points_ = data::original(data, std::span(data.values).first(static_cast<std::size_t>(2 * n)));
      view_ = view_of({points_});
      const double x = 0.25 * (view_.x_high - view_.x_low), y = 0.25 * (view_.y_high - view_.y_low);
      view_ = {view_.x_low - x, view_.x_high + x, view_.y_low - y, view_.y_high + y};
    }
  }
  bool draws() const { return is_picture(data_) || is_plane(data_); }
  Raster draw(std::span<const float> samples) const {
    const auto count = static_cast<std::int64_t>(samples.size()) / data::item_size(data_);
    if (is_picture(data_)) {
      const std::int64_t shown = std::min(count, most_pictures);
      return grid(samples.first(static_cast<std::size_t>(shown * data::item_size(data_))), shown,
                  data_.item_shape[0], data_.item_shape[1], static_cast<int>(data_.item_shape[2]), options_);
    }
    Plot plot(480, view_);
    const double opacity = std::clamp(400.0 / static_cast<double>(count), 0.05, 0.7);
    if (!points_.empty()) plot.points(points_, {200, 200, 200}, 1.6, opacity);
    plot.points(samples, palette(0), 1.6, opacity);
    return plot.raster();
  }

 private:
  const data::Dataset& data_;
  GridOptions options_;
  std::vector<float> points_;
  View view_;
};

}  // namespace

void sample_stage(Session& s) {
  const Config& c = s.config;
  const RunData data = load_run_data(c, s.planning());
  const bool guided = c.sample.guidance > 0;
  const Tensor labels = make_labels(c.sample.labels, c.sample.count, data.model, "sample.labels", s.device);
  std::optional<Painter> painter;
  if (!s.planning()) painter.emplace(c, data.model);
  std::vector<NpzArray> archive;
  const auto keep = [&](const std::string& name, const std::vector<float>& values,
                        std::vector<std::int64_t> shape, std::vector<Raster>* row) {
    std::vector<std::byte> npy = data::npy_bytes(values, shape);
    s.directory->write("samples/" + name + ".npy", npy);
    if (c.sample.archive) archive.push_back({name, std::move(npy)});
    if (!painter->draws()) return;
    Raster raster = painter->draw(values);
    s.directory->write("samples/" + name + ".png", png_bytes(raster));
    s.log_picture("sample", name, raster);
    if (row) row->push_back(std::move(raster));
  };
  std::vector<Raster> row;
  if (!s.planning()) {
    const data::Dataset shown = data::slice(data.model, 0, std::min(data.model.count, c.sample.count));
    std::vector<std::int64_t> shape{shown.count};
    shape.insert(shape.end(), shown.item_shape.begin(), shown.item_shape.end());
    keep("data", data::original(shown, shown.values), shape, &row);
  }
  s.begin("sample", 1);
  int made = 0;
  for (const std::string model : {"base", "tuned"}) {
    if (c.sample.model != "both" && c.sample.model != model) continue;
    const nn::Network network = model == "base"
                                    ? load_network(s, data.model, base_checkpoint, base_sections)
                                    : load_tuned(s, data.model);
    sde::Field field = finetune::field_of(network);
    if (guided) field = finetune::guided(field, c.sample.guidance);
    // The control starts from it; the flow of an ordinary equation, from the noise.
    std::optional<finetune::TiltedNoise> initial;
    if (model == "tuned") initial = load_initial_law(s, data.model);
    for (const std::string& sampler : c.sample.samplers) {
      const std::int64_t wanted = sampler == "sde" ? c.sampler.steps : ode_steps(c),
                         steps = s.sampler_steps(wanted);
      const sde::Chain chain = sampler == "sde" ? make_chain(c, steps) : make_ode_chain(c, steps);
      if (model == "tuned" && !s.planning()) {
        const sde::Verdict verdict = sde::may_sample_with(
            make_chain(config_of_checkpoint(s.directory->file(tuned_file(c)))), chain);
        if (!verdict && s.progress) s.progress->note("note: " + verdict.sentence);
      }
      Tensor x, start;
      if (sampler == "sde" && initial)
        start = initial->draw(c.sample.count, {seed_of(c, Purpose::sample), 0}, labels).x;
      const auto draw = [&] {
        const sde::NoiseKey key{seed_of(c, Purpose::sample), 0};
        const Shape item = item_shape(data.model);
        x = start.defined() ? sample_from(start, field, chain, labels, key)
            : sampler == "sde" ? finetune::shared_sample(field, chain, item, c.sample.count, labels, key, DType::f32, s.device)
                               : sample_ode(c, field, steps, item, c.sample.count, labels, key, s.device);
      };
      s.rounds(steps, wanted, [&] { count_shared(s, draw); });
      if (s.planning()) continue;
      const std::vector<float> values = data::original(data.model, x.to(Device::cpu).values<float>());
      for (const float v : values)
        if (!std::isfinite(v))
          fail(Fault::numerical,
               {"sample: the samples of the ", model, " model (", sampler, ") are not all finite"});
      const auto extents = x.shape().extents();
      keep(model + "_" + sampler, values, {extents.begin(), extents.end()},
           sampler == c.sample.samplers.front() || model == "tuned" ? &row : nullptr);
      ++made;
    }
  }
  if (!c.sample.methods.empty()) {
    const finetune::Reward reward = load_reward(s, data.model);
    SearchRequest request{c.sample.count, c.sample.labels, "sample.labels", c.sample.guidance,
                          {seed_of(c, Purpose::sample), 0}, c.sample.model != "tuned", c.sample.model != "base"};
    Json facts = Json::object();
    search(s, data, reward, request, [&](const Found& found) {
      const Tensor r = reward(found.x);
      if (s.planning()) return;
      const auto extents = found.x.shape().extents();
      const Tensor values = found.x.to(Device::cpu);
      keep(found.name, data::original(data.model, values.values<float>()), {extents.begin(), extents.end()}, nullptr);
      facts[found.name] = found.facts;
      facts[found.name]["reward"] = json_estimate(finetune::mean_estimate(r.to_doubles()));
      ++made;
    });
    if (!s.planning()) s.directory->write("samples/methods.json", facts.dump(2) + "\n");
  }
  if (s.planning()) return;
  if (c.sample.archive) {
    if (labels.defined()) {
      const Tensor classes = labels.to(Device::cpu);
      archive.push_back({"labels", data::npy_bytes(classes.values<std::int32_t>(), classes.shape().extents())});
    }
    s.directory->write("samples/samples.npz", npz_bytes(archive));
  }
  std::erase_if(row, [&](const Raster& r) { return r.height != row.back().height; });
  if (row.size() > 1) s.directory->write("samples/overview.png", png_bytes(side_by_side(row, 12)));
  s.end(std::to_string(made) + " sets of " + std::to_string(c.sample.count) + " samples");
}

}  // namespace costate::cli
