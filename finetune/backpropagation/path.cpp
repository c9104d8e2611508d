#include <costate/finetune/backpropagation/path.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/gradients.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/sampler.h>

namespace costate::finetune {
namespace {

sde::Field detached(const sde::Field& field) {
  return [field](const Var& x, const Var& t, const Tensor& labels) { return field(Var(x.value()), t, labels); };
}
sde::ParametricField detached(const sde::ParametricField& field) {
  return {detached(field.frozen),
          [watch = field.watch](Tape& tape, std::vector<Var>& watched) { return detached(watch(tape, watched)); }};
}

}  // namespace

sde::Chain stopped_chain(const sde::Chain& chain, int step) {
  require(step >= 0 && step < chain.steps(), "stopped_chain: step ", step, " of a chain of ", chain.steps(), " steps");
  const auto n = static_cast<std::size_t>(step);
  const sde::Affine estimate = sde::conversion(chain.prediction, sde::Parametrisation::x1, chain.schedule, chain.t[n]);
  sde::Chain out = chain;
  out.t.resize(n + 1), out.t.push_back(chain.t.back());
  out.A.resize(n), out.A.push_back(estimate.x);
  out.C.resize(n), out.C.push_back(estimate.prediction);
  out.std.resize(n), out.std.push_back(0);
  return out;
}

sde::Process path_process(const sde::ParametricField& field, const DifferentiatedPath& path, const Tensor& labels,
                          const sde::NoiseKey& key, const PathCost& cost, std::function<Tensor()> alive, double* state_cost,
                          bool keep_records) {
  sde::RunningCost running;
  if (cost.state)
    running.state = [cost, alive, state_cost](int k, const Var& x) {
      Var f = cost.state(k, x);
      require(f.shape() == Shape{x.extent(0)}, "state_cost: found ", f.shape(), ", expected one number a row, ",
              Shape{x.extent(0)});
      const Tensor weights = alive ? alive() : Tensor();
      if (weights.defined()) f = mul(f, Var(weights));
      const Var total = affine(sum(f), cost.state_weight, 0.0);
      if (state_cost && !total.value().is_meta()) *state_cost += total.value().item();
      return total;
    };
  running.base = cost.base, running.control_weight = cost.control_weight, running.row_weights = alive;
  sde::RunningCost cut_running = running;
  if (cost.base) cut_running.base = detached(cost.base);
  const sde::Process whole = sde::chain_process(field, path.chain, labels, key, running, keep_records);
  // Nothing needs the costate of x_first: its step is swept for the parameters alone.
  const sde::Process cut = sde::chain_process(detached(field), path.chain, labels, key, cut_running, keep_records);
  const sde::Process frozen = sde::chain_process({field.frozen, nullptr}, path.chain, labels, key, running, keep_records);
  const sde::Process unrecorded = sde::chain_process(field, path.chain, labels, key);
  // The process that step k is taken and swept by; null: its sweep asks for no network.
  const auto of_step = [path, whole, cut, frozen](int k) {
    const bool through = !path.detached && k != path.first;
    if (k < path.first) return static_cast<const sde::Process*>(nullptr);
    return path.trains(k) ? (through ? &whole : &cut) : (through ? &frozen : nullptr);
  };
  sde::Process p = whole;
  p.step = [of_step, unrecorded](int k, const sde::State& state) {
    const sde::Process* own = of_step(k);
    return (own ? *own : unrecorded).step(k, state);
  };
  p.pullback = [path, of_step, f = running.state](int k, const sde::State& state, const sde::State& costate) {
    if (const sde::Process* own = of_step(k)) return own->pullback(k, state, costate);
    sde::StepPullback out;
    Tensor before = affine(Var(costate[0]), path.chain.A[k], 0.0).value();
    if (f) {
      Tape tape;
      const Var x = tape.watch(state[0]);
      const Var c = f(k, x);
      if (!c.value().is_meta()) out.cost = c.value().item();
      const Tensor one = Tensor::full(c.shape(), 1.0, c.value().dtype(), c.value().device());
      before = axpby(1.0, Var(before), 1.0, Var(std::move(tape).vjp(c, one, {&x, 1})[0])).value();
    }
    out.costate = {std::move(before)};
    return out;
  };
  if (path.detached || !path.trained.empty()) p.push = nullptr;
  return p;
}

sde::Process batch_process(std::int64_t rows, std::int64_t parameter_bytes,
                           const std::function<sde::Process(std::int64_t, std::int64_t)>& process_of) {
  const std::int64_t size = sde::chunk_rows(rows), count = (rows + size - 1) / size;
  auto chunks = std::make_shared<std::vector<sde::Process>>();
  for (std::int64_t c = 0; c < count; ++c) chunks->push_back(process_of(c * size, std::min(size, rows - c * size)));
  sde::Process p = chunks->front();
  const auto part = [size](const sde::State& state, std::int64_t begin, std::int64_t n) {
    require(state.size() == 1 && begin / size * size == begin, "batch_process: the state is more than x");
    return sde::State{state[0].slice(begin, n)};
  };
  p.step = [=](int k, const sde::State& state) {
    const Tensor next = Tensor::empty_like(state[0]);
    sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
      next.slice(begin, n).copy_from((*chunks)[begin / size].step(k, part(state, begin, n))[0]);
    });
    return sde::State{next};
  };
  p.pullback = [=](int k, const sde::State& state, const sde::State& costate) {
    const Tensor before = Tensor::empty_like(costate[0]);
    Gradients g = sum_chunks(parameter_bytes, count, [&](std::int64_t c) {
      const std::int64_t begin = c * size, n = std::min(size, rows - begin);
      sde::StepPullback pulled = (*chunks)[c].pullback(k, part(state, begin, n), part(costate, begin, n));
      before.slice(begin, n).copy_from(pulled.costate[0]);
      return Gradients{pulled.cost, std::move(pulled.parameters)};
    });
    return sde::StepPullback{{before}, std::move(g.parameters), g.loss};
  };
  if (p.push)
    p.push = [=](int k, const Tensor& x, const std::vector<Tensor>& tangents, const std::vector<std::int64_t>& numbers) {
      std::vector<Tensor> moved;
      for (const Tensor& t : tangents) moved.push_back(Tensor::empty_like(t));
      sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
        std::vector<Tensor> own;
        for (const Tensor& t : tangents) own.push_back(t.slice(begin, n));
        own = (*chunks)[begin / size].push(k, x.slice(begin, n), own, numbers);
        for (std::size_t i = 0; i < own.size(); ++i) moved[i].slice(begin, n).copy_from(own[i]);
      });
      return moved;
    };
  return p;
}

sde::Process tail(const sde::Process& process, int first) {
  require(first >= 0 && first < process.steps, "tail: first is ", first, "; the process has ", process.steps, " steps");
  if (first == 0) return process;
  sde::Process p = process;
  p.steps = process.steps - first;
  p.step = [step = process.step, first](int k, const sde::State& s) { return step(k + first, s); };
  p.pullback = [pull = process.pullback, first](int k, const sde::State& s, const sde::State& a) {
    return pull(k + first, s, a);
  };
  if (process.push)
    p.push = [push = process.push, first](int k, const Tensor& x, const std::vector<Tensor>& tangents,
                                          const std::vector<std::int64_t>& numbers) {
      return push(k + first, x, tangents, numbers);
    };
  return p;
}

}  // namespace costate::finetune
