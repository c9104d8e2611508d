// A network of unknown type: any model that maps (x, t, labels) to a prediction of x's shape. A value; copies
// share parameters until one is written.
#pragma once
#include <costate/nn/model.h>
#include <memory>

namespace costate::nn {

// Where the masks of dropout come from, see dropout in ops.h: rows are samples first_sample, first_sample + 1,
// ... of a seed, at one step of the training.
struct DropoutKey {
  std::uint64_t seed = 0;
  std::uint64_t first_sample = 0;
  std::uint32_t step = 0;
};

class Network {
 public:
  Network() = default;
  template <class Model, class = std::enable_if_t<!std::is_same_v<std::decay_t<Model>, Network>>>
  Network(Model model) : held_(std::make_unique<Held<Model>>(std::move(model))) {}
  Network(const Network& o) : held_(o.held_ ? o.held_->copy() : nullptr) {}
  Network(Network&&) noexcept = default;
  Network& operator=(Network o) noexcept {
    held_ = std::move(o.held_);
    return *this;
  }

  // x (rows, ...), t (rows,), labels (rows,) of i32 or undefined -> (rows, ...).
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    require(defined(), "network: an undefined network was called");
    return held_->call(x, t, labels);
  }
  // An undefined network has no parameters.
  void visit(const Visitor& v) {
    if (held_) held_->visit(v);
  }
  // The network in training: with dropout, where the model has any (a member with_dropout of its own).
  Network with_dropout(const DropoutKey& key) const { return held_ ? held_->with_dropout(key) : Network(); }
  // The network with its blocks' activations computed again in the sweep, or (on = false) kept, see nn/recompute.h. Throws
  // Error(argument) when a model without blocks (a member recompute_blocks of its own) is asked for it.
  Network recompute_blocks(bool on = true) const { return held_ ? held_->recompute_blocks(on) : Network(); }
  // The network to be called many times as it is now: what its calls derive from its parameters (nn/computed.h) is made once,
  // where the model has any (a member `prepared` of its own). Later updates of the parameters are not seen by it.
  Network prepared() const { return held_ ? held_->prepared() : Network(); }
  bool defined() const { return held_ != nullptr; }

 private:
  struct Concept {
    virtual ~Concept() = default;
    virtual Var call(const Var& x, const Var& t, const Tensor& labels) const = 0;
    virtual void visit(const Visitor& v) = 0;
    virtual Network with_dropout(const DropoutKey& key) const = 0;
    virtual Network recompute_blocks(bool on) const = 0;
    virtual Network prepared() const = 0;
    virtual std::unique_ptr<Concept> copy() const = 0;
  };
  template <class Model>
  struct Held final : Concept {
    explicit Held(Model m) : model(std::move(m)) {}
    Var call(const Var& x, const Var& t, const Tensor& labels) const override { return model(x, t, labels); }
    void visit(const Visitor& v) override { model.visit(v); }
    Network with_dropout(const DropoutKey& key) const override {
      if constexpr (requires { model.with_dropout(key); })
        return Network(model.with_dropout(key));
      else
        return Network(model);
    }
    Network recompute_blocks(bool on) const override {
      if constexpr (requires { model.recompute_blocks(on); }) {
        return Network(model.recompute_blocks(on));
      } else {
        require(!on, "network: this model has no blocks whose activations could be computed again");
        return Network(model);
      }
    }
    Network prepared() const override {
      if constexpr (requires { model.prepared(); })
        return Network(model.prepared());
      else
        return Network(model);
    }
    std::unique_ptr<Concept> copy() const override { return std::make_unique<Held>(model); }
    Model model;
  };
  std::unique_ptr<Concept> held_;
};

}  // namespace costate::nn
