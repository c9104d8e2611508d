#include <costate/sde/chain_process.h>

#include <costate/autograd/ops.h>
#include <costate/sde/watched.h>
#include <costate/tensor/hooks.h>

#include <algorithm>
#include <map>
#include <memory>

namespace costate::sde {
namespace {

using detail::watch;

struct ChainSteps {
  ParametricField field;
  Chain chain;
  Tensor labels;
  NoiseKey key;
  RunningCost cost;

  // The field on a tape of its own, at x.
  struct Record {
    std::unique_ptr<Tape> tape = std::make_unique<Tape>();
    std::vector<Var> wrt;
    Var x, t, prediction;
  };
  Record record(int k, const Tensor& x) const {
    Record r;
    const Field f = watch(field, *r.tape, r.wrt);
    r.x = r.tape->watch(x), r.t = Var(step_time(chain, k, x));
    r.prediction = f(r.x, r.t, labels);
    return r;
  }
  std::shared_ptr<std::map<int, Record>> records;  // null: none are kept

  // The state is {x_k}, and for a multistep chain {x_k, x_{k-1}, prediction_{k-1}}, of which the last two are undefined at
  // first.
  State step(int k, const State& state) const {
    const Tensor& x = state[0];
    Tensor prediction;
    if (records) {
      const memory::TagScope scope(memory::Tag::activations);
      prediction = (records->insert_or_assign(k, record(k, x)).first->second).prediction.value();
    } else {
      prediction = field.frozen(Var(x), Var(step_time(chain, k, x)), labels).value();
    }
    require(prediction.shape() == x.shape(), "chain_process: the field maps shape ", x.shape(), " to ", prediction.shape());
    if (!chain.multistep()) return {advance(chain, k, x, prediction, key)};
    return {advance(chain, k, x, prediction, key, {state[1], state[2]}), x, prediction};
  }

  // The kept record of a step from this very state, or a new one.
  Record take(int k, const Tensor& x) const {
    if (records)
      if (const auto kept = records->find(k); kept != records->end()) {
        Record r = std::move(kept->second);
        records->erase(kept);
        if (r.x.value().raw() == x.raw()) return r;
      }
    return record(k, x);
  }

  StepPullback pullback(int k, const State& state, const State& costate) const {
    check_cancelled("an adjoint");
    Record r = take(k, state[0]);
    std::vector<Var>& wrt = r.wrt;
    const Var x = r.x, t = r.t, prediction = r.prediction;
    // The mean is linear in x and in the prediction: it needs no record.
    const Tensor& a = costate[0];
    const bool later = costate.size() > 1 && costate[2].defined();
    std::vector<Var> results{prediction};
    std::vector<Tensor> seeds{later ? axpby(chain.C[k], Var(a), 1.0, Var(costate[2])).value()
                                    : affine(Var(a), chain.C[k], 0.0).value()};
    StepPullback result;
    const auto add_cost = [&](const Var& c) {
      if (!c.value().is_meta()) result.cost += c.value().item();
      seeds.push_back(Tensor::full(c.shape(), 1.0, c.value().dtype(), c.value().device()));
      results.push_back(c);
    };
    if (cost.state) add_cost(cost.state(k, x));
    if (cost.base && chain.std[k] > 0) {
      const double u = chain.C[k] / chain.std[k];
      Var squares = square(prediction - cost.base(x, t, labels));
      const Tensor weights = cost.row_weights ? cost.row_weights() : Tensor();
      if (weights.defined()) squares = mul(sum(reshape(squares, {x.extent(0), -1}), 1), Var(weights));
      add_cost(affine(sum(squares), cost.control_weight * (u * u / 2), 0.0));
    }
    wrt.push_back(x);
    std::vector<Tensor> g = std::move(*r.tape).vjp(results, seeds, wrt);
    Tensor before = axpby(chain.A[k], Var(a), 1.0, Var(g.back())).value();
    if (costate.size() > 1 && costate[1].defined()) before = axpby(1.0, Var(before), 1.0, Var(costate[1])).value();
    result.costate = {std::move(before)};
    if (chain.multistep()) {
      const bool reads = k > 0;
      result.costate.push_back(reads ? affine(Var(a), chain.B[k], 0.0).value() : Tensor());
      result.costate.push_back(reads ? affine(Var(a), chain.D[k], 0.0).value() : Tensor());
    }
    g.pop_back();
    result.parameters = std::move(g);
    return result;
  }

  std::vector<Tensor> push(int k, const Tensor& x, const std::vector<Tensor>& tangents,
                           const std::vector<std::int64_t>& numbers) const {
    Tape tape;
    std::vector<Var> wrt;
    const Field f = watch(field, tape, wrt);
    wrt.push_back(tape.watch(x));
    const Var prediction = f(wrt.back(), Var(step_time(chain, k, x)), labels);
    std::vector<Tensor> moved = detail::push_forward(tape, prediction, wrt, tangents, numbers);
    for (std::size_t i = 0; i < moved.size(); ++i)
      moved[i] = axpby(chain.A[k], Var(tangents[i]), chain.C[k], Var(moved[i])).value();
    return moved;
  }
};

}  // namespace

Process chain_process(const ParametricField& field, const Chain& chain, const Tensor& labels, const NoiseKey& key,
                      const RunningCost& cost, bool keep_records) {
  const auto s = std::make_shared<const ChainSteps>(ChainSteps{
      field, chain, labels, key, cost, keep_records ? std::make_shared<std::map<int, ChainSteps::Record>>() : nullptr});
  Process p;
  p.description = chain.description;
  p.steps = chain.steps();
  p.start = [multistep = chain.multistep()](const Tensor& x0) {
    return multistep ? State{x0, Tensor(), Tensor()} : State{x0};
  };
  p.step = [s](int k, const State& state) { return s->step(k, state); };
  p.pullback = [s](int k, const State& state, const State& costate) { return s->pullback(k, state, costate); };
  if (!chain.multistep())
    p.push = [s](int k, const Tensor& x, const std::vector<Tensor>& tangents, const std::vector<std::int64_t>& numbers) {
      return s->push(k, x, tangents, numbers);
    };
  p.parameter_shapes = detail::shapes_of(field);
  p.noisy = std::any_of(chain.std.begin(), chain.std.end(), [](double std) { return std > 0; });
  p.has_running_cost = cost.state || cost.base;
  p.step_work = {1, 0};
  p.pullback_work = {(keep_records ? 0 : 1) + (cost.base ? 1 : 0), cost.base ? 2 : 1};
  return p;
}

}  // namespace costate::sde
