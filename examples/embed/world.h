// The host's own world, which knows nothing of models: balls are thrown from (0, 1) toward a basket behind a wall, under a
// ceiling, through air that drags and against the wind. There is no window: what happens is counted.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace embed {

constexpr double tick = 1.0 / 120;  // seconds of the world
constexpr double basket = 6, reach = 0.5, wall = 3, wall_height = 2.2, ceiling = 4.5;

struct Ball {
  double x = 0, y = 1, vx = 0, vy = 0;
  bool flying = true, lost = false;
};

// One tick: gravity, quadratic drag relative to the wind, a wall that stops what flies too low, the ground.
inline void step(Ball& b, double wind) {
  const double rx = b.vx - wind, ry = b.vy, drag = 0.02 * std::hypot(rx, ry), before = b.x;
  b.vx -= tick * drag * rx, b.vy -= tick * (9.81 + drag * ry);
  b.x += tick * b.vx, b.y += tick * b.vy;
  if (before < wall && b.x >= wall && b.y < wall_height) b.x = wall, b.vx = 0;
  b.lost = b.y > ceiling;  // among the lamps
  b.flying = b.y > 0 && !b.lost;
}

// How far from the basket a throw comes down: a flight of its own, in the wind that blows now. NaN if it does not.
inline double miss(double vx, double vy, double wind) {
  Ball b{.vx = vx, .vy = vy};
  while (b.flying) step(b, wind);
  return b.lost ? std::numeric_limits<double>::quiet_NaN() : std::abs(b.x - basket);
}

class World {
 public:
  double wind() const { return -0.5; }
  void throw_ball(double vx, double vy) { balls_.push_back({.vx = vx, .vy = vy}); }
  // Moves every ball by one tick; those that came down are counted.
  void advance() {
    for (Ball& b : balls_) {
      step(b, wind());
      if (!b.flying) landed_.push_back(!b.lost && std::abs(b.x - basket) < reach);
    }
    std::erase_if(balls_, [](const Ball& b) { return !b.flying; });
    ++ticks_;
  }
  std::int64_t ticks() const { return ticks_; }
  const std::vector<bool>& landed() const { return landed_; }  // in order: in the basket or not

 private:
  std::vector<Ball> balls_;
  std::vector<bool> landed_;
  std::int64_t ticks_ = 0;
};

}  // namespace embed
