// A reward raised too far: the proxy is the gold reward and a bump where the base has little density.
// Backpropagation of the proxy alone finds the bump, and the gold reward, which had risen, falls again; with
// the divergence from the base beside it the gold reward rises to where the tilted law has it, and stays.
// With a folder as argument, overoptimisation.csv and overoptimisation.svg are written there:
// docs/overoptimisation.md shows them.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/rollout.h>
#include <costate/nn/init.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

using namespace costate;

namespace {

struct Point {
  int update;
  double path_kl, gold, gold_error, proxy;
};
struct Curve {
  const char* objective;
  const char* colour;
  std::vector<Point> points;
};

// The gold reward against the root of the divergence, in which optimised rewards are nearly straight at first
// (Gao, Schulman and Hilton 2023, arXiv 2210.10760).
std::string svg(const std::vector<Curve>& curves) {
  constexpr double left = 60, top = 20, width = 560, height = 300;
  double far = 0, low = 0, high = -1e9;
  for (const Curve& c : curves)
    for (const Point& p : c.points)
      far = std::max(far, std::sqrt(p.path_kl)), low = std::min(low, p.gold), high = std::max(high, p.gold);
  far = std::ceil(far), low = std::floor(2 * low) / 2, high = std::ceil(2 * high) / 2;
  const auto x = [&](double root) { return left + width * root / far; };
  const auto y = [&](double gold) { return top + height * (high - gold) / (high - low); };
  char text[400];
  std::string out =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 370\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n"
      "<rect width=\"640\" height=\"370\" fill=\"white\"/>\n";
  const auto add = [&](auto... arguments) { std::snprintf(text, sizeof text, arguments...), out += text; };
  for (double g = low; g <= high; g += 0.5) {
    add("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>\n", left, y(g), left + width);
    add("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.1f</text>\n", left - 6, y(g) + 4, g);
  }
  for (double r = 0; r <= far; r += 1)
    add("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>\n", x(r), top + height + 16, r);
  add("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">root of the path KL from the base</text>\n",
      left + width / 2, 360.0);
  add("<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">gold reward</text>\n",
      top + height / 2);
  double legend = top + 18;
  for (const Curve& c : curves) {
    out += "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" + std::string(c.colour) + "\" points=\"";
    for (const Point& p : c.points) add("%.1f,%.1f ", x(std::sqrt(p.path_kl)), y(p.gold));
    out += "\"/>\n";
    add("<path d=\"M%.1f %.1fh24\" stroke-width=\"2\" stroke=\"%s\"/>\n", left + 330, legend - 4, c.colour);
    add("<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", left + 360, legend, c.objective);
    legend += 18;
  }
  return out + "</svg>\n";
}

}  // namespace

int main(int argc, char** argv) {
  // 1. The base: an exact flow model of three Gaussian modes.
  const auto modes = std::make_shared<const finetune::GaussianMixture>(
      2, std::vector<double>{0.5, 0.3, 0.2}, std::vector<double>{-1.2, -0.6, 1.0, -0.9, 0.3, 1.2},
      std::vector<double>{0.1225, 0, 0, 0.1225, 0.09, 0, 0, 0.09, 0.16, 0, 0, 0.16});
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(20));
  const sde::Field base = finetune::velocity_field(modes, chain.schedule);

  // 2. What is meant, and what is raised.
  const double fault[] = {1.82, 1.54};
  double log_density = 0;
  modes->log_density(1, fault, &log_density);
  std::printf("density of the base at the bump: %.1e\n", std::exp(log_density));
  const finetune::Reward gold = finetune::quadratic_reward({0.5, 0.4}, {2, 2});
  const finetune::Reward proxy = finetune::proxy_reward(gold, {fault[0], fault[1]}, 0.45, 6);
  const finetune::ControlProblem problem{.chain = chain, .base = base, .sample_shape = {2}, .reward = proxy};

  // 3. The same network and learning rate for all.
  constexpr int updates = 160, every = 5;
  nn::Init init(/*seed=*/3);
  const finetune::ControlNetwork network = finetune::make_control_network(
      base, {.dim = 2, .hidden = {64, 64}, .activation = Activation::silu, .time_frequencies = 3}, init);
  const auto backpropagation = [&](double kl_weight) -> std::unique_ptr<finetune::Objective> {
    finetune::BackpropagationOptions o{.batch = 128, .kl_weight = kl_weight};
    o.learner.lr.peak = 5e-4, o.learner.ema_decay = 0.9;
    return std::make_unique<finetune::Backpropagation>(problem, nn::clone(nn::Network(network)), o);
  };
  const auto adjoint_matching = [&]() -> std::unique_ptr<finetune::Objective> {
    finetune::ValueGradientOptions o{.batch = 128};
    o.learner.lr.peak = 5e-4, o.learner.ema_decay = 0.9;
    return std::make_unique<finetune::ValueGradientRegression>(problem, nn::clone(nn::Network(network)), o);
  };
  std::vector<Curve> curves{{"backpropagation alone", "#d55e00", {}},
                            {"with the divergence", "#0072b2", {}},
                            {"adjoint matching", "#009e73", {}}};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto objective = i == 2 ? adjoint_matching() : backpropagation(i == 0 ? 0 : 1);
    for (int n = 0; n <= updates; ++n) {
      if (n % every == 0) {
        const auto paths =
            finetune::simulate(finetune::field_of(objective->average()), problem, 2000, {77, 0});
        const auto kl = finetune::mean_estimate(finetune::step_likelihoods(problem, paths).path_cost());
        const auto g = finetune::mean_estimate(gold(paths.terminal()).to_doubles());
        const auto p = finetune::mean_estimate(proxy(paths.terminal()).to_doubles());
        curves[i].points.push_back({n, kl.value, g.value, g.standard_error, p.value});
      }
      if (n < updates) objective->step();
    }
    const auto best = std::max_element(curves[i].points.begin(), curves[i].points.end(),
                                       [](const Point& a, const Point& b) { return a.gold < b.gold; });
    const Point &first = curves[i].points.front(), &last = curves[i].points.back();
    std::printf(
        "%-22s gold %.2f, at best %.2f after %d updates, %.2f at the end; proxy %.2f to %.2f; path KL %.2f\n",
        curves[i].objective, first.gold, best->gold, best->update, last.gold, first.proxy, last.proxy,
        last.path_kl);
  }
  if (argc > 1) {
    std::ofstream csv(argv[1] + std::string("/overoptimisation.csv"));
    csv << "objective,update,path_kl,gold,gold_error,proxy\n";
    for (const Curve& c : curves)
      for (const Point& p : c.points)
        csv << c.objective << ',' << p.update << ',' << p.path_kl << ',' << p.gold << ',' << p.gold_error
            << ',' << p.proxy << '\n';
    std::ofstream picture(argv[1] + std::string("/overoptimisation.svg"));
    picture << svg(curves);
    if (!csv.flush() || !picture.flush()) {
      std::fprintf(stderr, "nothing could be written to %s\n", argv[1]);
      return 1;
    }
  }
  return 0;
}
