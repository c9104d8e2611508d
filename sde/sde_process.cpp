#include <costate/sde/sde_process.h>

#include <costate/autograd/ops.h>
#include <costate/sde/solver/parts.h>
#include <costate/sde/watched.h>
#include <costate/tensor/hooks.h>

namespace costate::sde {
namespace {

State values(const SolverState& state) {
  State s;
  s.reserve(state.size());
  for (const Var& v : state) s.push_back(v.value());
  return s;
}
SolverState constants(const State& state) { return {state.begin(), state.end()}; }

struct SdeSteps {
  ParametricSde sde;
  const Solver* solver;
  std::vector<double> grid;
  BrownianPath path;
  Tensor labels;

  StepInterval interval(int k) const { return {grid[static_cast<std::size_t>(k)], grid[static_cast<std::size_t>(k) + 1]}; }
  Increment noise(int k, const Tensor& x) const { return step_increment(*solver, sde.frozen, path, interval(k), x); }

  State step(int k, const State& state) const {
    check_cancelled("solving");
    return values(solver->step(sde.frozen, constants(state), interval(k), noise(k, state[0]), labels));
  }
  State unstep(int k, const State& next) const {
    return values(solver->unstep(sde.frozen, constants(next), interval(k), noise(k, next[0]), labels));
  }

  // The pullback of results computed from a state by `compute`, with the parameters' share.
  template <class Compute>
  StepPullback pull(const State& state, const State& costate, const Compute& compute) const {
    check_cancelled("an adjoint");
    Tape tape;
    std::vector<Var> wrt;
    const Sde equation = detail::watch(sde, tape, wrt);
    const std::size_t parameters = wrt.size();
    SolverState watched;
    for (const Tensor& t : state) watched.push_back(tape.watch(t));
    wrt.insert(wrt.end(), watched.begin(), watched.end());
    const SolverState results = compute(equation, watched);
    watched.clear();
    std::vector<Tensor> g = std::move(tape).vjp(results, costate, wrt);
    StepPullback result;
    result.costate.assign(std::make_move_iterator(g.begin() + static_cast<std::ptrdiff_t>(parameters)),
                          std::make_move_iterator(g.end()));
    g.resize(parameters);
    result.parameters = std::move(g);
    return result;
  }
  StepPullback pullback(int k, const State& state, const State& costate) const {
    const bool without = solver->adds_noise_last && sde.frozen.diffusion.kind == Diffusion::Kind::additive;
    const Increment w = without ? Increment() : noise(k, state[0]);
    return pull(state, costate, [&](const Sde& equation, const SolverState& s) {
      return solver->step(equation, s, interval(k), w, labels);
    });
  }
  StepPullback pull_start(const Tensor& x0, const State& costate) const {
    return pull({x0}, costate,
                [&](const Sde& equation, const SolverState& s) { return start(*solver, equation, s[0], grid[0], labels); });
  }

  IncrementPullback increment(int k, bool at_end, const Tensor& x, const Tensor& a) const {
    IncrementPullback result;
    const StepInterval i = interval(k);
    StepPullback p = pull({x}, {a}, [&](const Sde& equation, const SolverState& s) {
      const double t = at_end ? i.t1 : i.t0;
      const Var b = affine(drift(equation, s[0], t, labels), i.h(), 0.0);
      const Var f = diffuse(b, 1, sigma(equation, s[0], t, labels), Var(noise(k, x).w));
      result.increment = f.value();
      return SolverState{f};
    });
    result.costate = std::move(p.costate[0]);
    result.parameters = std::move(p.parameters);
    return result;
  }

  std::vector<Tensor> push(int k, const Tensor& x, const std::vector<Tensor>& tangents,
                           const std::vector<std::int64_t>& numbers) const {
    Tape tape;
    std::vector<Var> wrt;
    const Sde equation = detail::watch(sde, tape, wrt);
    wrt.push_back(tape.watch(x));
    const Var next = solver->step(equation, {wrt.back()}, interval(k), noise(k, x), labels)[0];
    return detail::push_forward(tape, next, wrt, tangents, numbers);
  }
};

}  // namespace

Process sde_process(const ParametricSde& sde, const Solver& solver, const std::vector<double>& grid, const BrownianPath& path,
                    const Tensor& labels) {
  if (const std::string why = refusal(solver, sde.frozen); !why.empty()) fail(Fault::argument, {why});
  require(grid.size() >= 2, "sde_process: the grid has ", grid.size(), " times, but one step needs 2");
  for (std::size_t k = 1; k < grid.size(); ++k)
    require(grid[k] > grid[k - 1], "sde_process: the grid must increase, but time ", k, " is ", grid[k], " after ", grid[k - 1]);
  const auto s = std::make_shared<const SdeSteps>(SdeSteps{sde, &solver, grid, path, labels});
  const Diffusion::Kind kind = sde.frozen.diffusion.kind;
  Process p;
  p.description = sentence({solver.name, " on ", grid.size() - 1, " steps, ", name(kind), " noise"});
  p.steps = static_cast<int>(grid.size()) - 1;
  p.start = [s](const Tensor& x0) { return values(start(*s->solver, s->sde.frozen, Var(x0), s->grid[0], s->labels)); };
  p.step = [s](int k, const State& state) { return s->step(k, state); };
  p.pullback = [s](int k, const State& state, const State& costate) { return s->pullback(k, state, costate); };
  const int n = solver.drift_evaluations;
  p.step_work = {n, 0}, p.pullback_work = {n, n};
  if (solver.start) {
    p.pull_start = [s](const Tensor& x0, const State& costate) { return s->pull_start(x0, costate); };
    p.start_work = {1, 0}, p.pull_start_work = {1, 1};
  } else {
    p.push = [s](int k, const Tensor& x, const std::vector<Tensor>& tangents, const std::vector<std::int64_t>& numbers) {
      return s->push(k, x, tangents, numbers);
    };
  }
  if (solver.unstep) {
    p.unstep = [s](int k, const State& next) { return s->unstep(k, next); };
    p.unstep_work = {n, 0};
  }
  // Where the noise does not depend on the state, Ito's equation is Stratonovich's.
  if (kind != Diffusion::Kind::diagonal || sde.frozen.calculus == Calculus::stratonovich) {
    p.increment = [s](int k, bool at_end, const Tensor& x, const Tensor& a) { return s->increment(k, at_end, x, a); };
    p.increment_work = {1, 1};
  }
  p.parameter_shapes = detail::shapes_of(sde);
  p.noisy = kind != Diffusion::Kind::none;
  return p;
}

}  // namespace costate::sde
