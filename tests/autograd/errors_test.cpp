// Malformed calls: each one throws Error(Fault::argument) with a sentence that names the op, and nothing is recorded.
#include <costate/autograd/ops.h>
#include <costate/tensor/pointwise.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace costate {
namespace {

struct Case {
  const char* op;
  std::function<void()> call;
};

TEST(Errors, MalformedCallsNameTheirOp) {
  constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  Tape tape, second;
  const Var none;
  const Var x = tape.watch(Tensor::full({2, 3}, 1)), y = tape.watch(Tensor::full({4, 5}, 1)), s = tape.watch(Tensor::scalar(1));
  const Var elsewhere = second.watch(Tensor::full({2, 3}, 1));
  const Var wide(Tensor::full({2, 3}, 1, DType::f64)), whole(Tensor::zeros({2, 3}, DType::i32)),
      meta(Tensor::zeros({2, 3}, DType::f32, Device::meta));
  const Tensor index = Tensor::from(std::vector<std::int32_t>{0, 1}, {2}), outside = Tensor::from(std::vector<std::int32_t>{0, 2}, {2}),
               below = Tensor::from(std::vector<std::int32_t>{-1, 0}, {2});
  const Tensor one = Tensor::scalar(1);
  const auto zeros = [](const Shape& shape) { return Var(Tensor::zeros(shape)); };
  const Var image = zeros({2, 3, 3, 4}), tokens = zeros({2, 3, 4}), row = zeros({2, 4});
  const Var picture = tape.watch(Tensor::zeros({2, 5, 4, 6})), filters(Tensor::zeros({4, 3, 3, 6}));
  constexpr int most = std::numeric_limits<int>::max();
  const auto typed = [](const Shape& shape, DType type) { return Var(Tensor::zeros(shape, type)); };
  const auto nowhere = [](const Shape& shape, DType type = DType::f32) { return Var(Tensor::zeros(shape, type, Device::meta)); };
  const Case cases[] = {
      {"exp", [&] { exp(none); }},
      {"exp", [&] { exp(whole); }},
      {"add", [&] { add(x, y); }},
      {"mul", [&] { mul(x, wide); }},
      {"mul", [&] { mul(none, x); }},
      {"div", [&] { div(x, meta); }},
      {"sub", [&] { sub(x, elsewhere); }},
      {"multiply_add", [&] { multiply_add(x, x, none); }},
      {"clamp", [&] { clamp(x, 2, 1); }},
      {"clamp", [&] { clamp(x, std::nan(""), 1); }},
      {"cast", [&] { cast(none, DType::f32); }},
      {"cast", [&] { cast(whole, DType::f32); }},
      {"cast", [&] { cast(x, DType::i32); }},
      {"mul", [&] { pointwise(Pointwise::mul, {&x}); }},
      {"affine", [&] { pointwise(Pointwise::affine, {&x}, {1}); }},
      {"pointwise", [&] { pointwise(static_cast<Pointwise>(pointwise_count), {&x}); }},
      {"sum", [&] { sum(none); }},
      {"sum", [&] { sum(whole); }},
      {"sum", [&] { sum(x, 2); }},
      {"sum", [&] { sum(x, -3); }},
      {"mean", [&] { mean(none); }},
      {"mean", [&] { mean(x, 5); }},
      {"mean", [&] { mean(Var(Tensor::zeros({0, 3})), 0); }},
      {"mean", [&] { mean(Var(Tensor::zeros({0}))); }},
      {"sum_to", [&] { sum_to(x, {5}); }},
      {"sum_to", [&] { sum_to(none, {}); }},
      {"broadcast_to", [&] { broadcast_to(x, {3, 2}); }},
      {"broadcast_to", [&] { broadcast_to(x, {3}); }},
      {"broadcast_to", [&] { broadcast_to(none, {}); }},
      {"reshape", [&] { reshape(x, {5}); }},
      {"reshape", [&] { reshape(x, {-1, 4}); }},
      {"reshape", [&] { reshape(none, Shape{}); }},
      {"permute", [&] { permute(x, {0}); }},
      {"permute", [&] { permute(x, {0, 0}); }},
      {"permute", [&] { permute(x, {0, 2}); }},
      {"permute", [&] { permute(none, {}); }},
      {"transpose", [&] { transpose(s); }},
      {"concat", [&] { concat({}, 0); }},
      {"concat", [&] { concat({&x, &y}, 0); }},
      {"concat", [&] { concat({&x, &wide}, 0); }},
      {"concat", [&] { concat({&x, &none}, 0); }},
      {"concat", [&] { concat({&x, &meta}, 0); }},
      {"concat", [&] { concat({&s, &s}, 0); }},
      {"concat", [&] { concat({&x, &elsewhere}, 0); }},
      {"concat", [&] { concat({&none, &x}, 0); }},
      {"concat", [&] { concat({&x, &tokens}, 0); }},
      {"concat", [&] { concat({&x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x, &x}, 0); }},
      {"narrow", [&] { narrow(x, 1, 2, 2); }},
      {"narrow", [&] { narrow(x, 0, huge, huge); }},
      {"narrow", [&] { narrow(x, 0, -1, 1); }},
      {"narrow", [&] { narrow(x, 0, 0, -1); }},
      {"narrow", [&] { narrow(x, 1, 0, 4); }},
      {"narrow", [&] { narrow(x, 1, 1, 3); }},
      {"narrow", [&] { narrow(s, 0, 0, 1); }},
      {"matmul", [&] { matmul(x, x); }},
      {"matmul", [&] { matmul(x, s); }},
      {"matmul", [&] { matmul(x, none); }},
      {"matmul", [&] { matmul(x, wide, false, true); }},
      {"matmul", [&] { matmul(x, elsewhere, false, true); }},
      {"matmul", [&] { matmul(Var(Tensor::zeros({2, 3, 4})), Var(Tensor::zeros({3, 4, 5}))); }},
      {"matmul", [&] { matmul(none, x); }},
      {"matmul", [&] { matmul(x, meta, false, true); }},
      {"matmul", [&] { matmul(whole, whole, false, true); }},
      {"matmul", [&] { matmul(tokens, zeros({4, 5})); }},
      {"matmul", [&] { matmul(image, image, false, true); }},
      {"matmul", [&] { matmul(s, s); }},
      {"linear", [&] { linear(x, y, none); }},
      {"linear", [&] { linear(x, Var(Tensor::zeros({4, 3})), s); }},
      {"linear", [&] { linear(x, Var(Tensor::zeros({4, 3}, DType::f64)), none); }},
      {"linear", [&] { linear(none, x, none); }},
      {"linear", [&] { linear(s, x, none); }},
      {"linear", [&] { linear(x, zeros({1, 4, 3}), none); }},
      {"linear", [&] { linear(x, nowhere({4, 3}), none); }},
      {"linear", [&] { linear(whole, typed({4, 3}, DType::i32), none); }},
      {"linear", [&] { linear(x, zeros({4, 3}), typed({4}, DType::f64)); }},
      {"linear", [&] { linear(x, zeros({4, 3}), nowhere({4})); }},
      {"softmax", [&] { softmax(s); }},
      {"softmax", [&] { softmax(Var(Tensor::zeros({2, 0}))); }},
      {"log_softmax", [&] { log_softmax(whole); }},
      {"log_softmax", [&] { log_softmax(none); }},
      {"log_softmax", [&] { log_softmax(zeros({0, 0})); }},
      {"softmax", [&] { softmax(whole); }},
      {"layer_norm", [&] { layer_norm(s, 1e-5); }},
      {"layer_norm", [&] { layer_norm(x, std::nan("")); }},
      {"layer_norm", [&] { layer_norm(none, 1e-5); }},
      {"layer_norm", [&] { layer_norm(x, -1); }},
      {"group_norm", [&] { group_norm(none, none, none, 1, 1e-5); }},
      {"group_norm", [&] { group_norm(zeros({4}), none, none, 1, 1e-5); }},
      {"group_norm", [&] { group_norm(image, none, none, 3, 1e-5); }},
      {"group_norm", [&] { group_norm(image, none, none, 0, 1e-5); }},
      {"group_norm", [&] { group_norm(image, none, none, 2, -1e-5); }},
      {"group_norm", [&] { group_norm(zeros({2, 0, 4}), none, none, 2, 1e-5); }},
      {"group_norm", [&] { group_norm(image, zeros({3}), none, 2, 1e-5); }},
      {"group_norm", [&] { group_norm(whole, none, none, 1, 1e-5); }},
      {"group_norm", [&] { group_norm(zeros({2, 3, 0}), none, none, 1, 1e-5); }},
      {"group_norm", [&] { group_norm(image, nowhere({4}), none, 2, 1e-5); }},
      {"group_norm", [&] { group_norm(image, none, none, 2, std::nan("")); }},
      {"group_norm", [&] { group_norm(image, none, Var(Tensor::zeros({4}, DType::f64)), 2, 1e-5); }},
      {"group_norm", [&] { group_norm(image, none, none, 2, 1e-5, Activation::silu, zeros({4})); }},
      {"group_norm", [&] { group_norm(image, none, none, 2, 1e-5, Activation::silu, none, zeros({3, 4})); }},
      {"group_norm", [&] { group_norm(x, second.watch(Tensor::zeros({3})), none, 1, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(row, row, row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, row, none, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, none, row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(none, row, row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(image, row, row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(zeros({2, 3, 0}), zeros({2, 0}), zeros({2, 0}), 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(typed({2, 3, 4}, DType::i32), row, row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, typed({2, 4}, DType::f64), row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, row, nowhere({2, 4}), 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, row, row, -1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, zeros({3, 4}), row, 1e-5); }},
      {"modulated_layer_norm", [&] { modulated_layer_norm(tokens, row, row, std::nan("")); }},
      {"attention", [&] { attention(tokens, tokens, none, 2); }},
      {"attention", [&] { attention(row, row, row, 2); }},
      {"attention", [&] { attention(tokens, tokens, tokens, 3); }},
      {"attention", [&] { attention(tokens, tokens, tokens, 0); }},
      {"attention", [&] { attention(tokens, tokens, zeros({2, 2, 4}), 1); }},
      {"attention", [&] { attention(tokens, zeros({1, 3, 4}), zeros({1, 3, 4}), 1); }},
      {"attention", [&] { attention(tokens, zeros({2, 0, 4}), zeros({2, 0, 4}), 1); }},
      {"attention", [&] { attention(tokens, tokens, Var(Tensor::zeros({2, 3, 4}, DType::f64)), 1); }},
      {"attention", [&] { attention(none, 1); }},
      {"attention", [&] { attention(none, tokens, tokens, 2); }},
      {"attention", [&] { attention(tokens, none, tokens, 2); }},
      {"attention", [&] { attention(tokens, row, row, 2); }},
      {"attention", [&] { attention(row, tokens, tokens, 2); }},
      {"attention", [&] { attention(tokens, zeros({2, 3, 6}), zeros({2, 3, 6}), 2); }},
      {"attention", [&] { attention(zeros({2, 3, 0}), zeros({2, 3, 0}), zeros({2, 3, 0}), 2); }},
      {"attention", [&] { attention(tokens, typed({2, 3, 4}, DType::f64), tokens, 1); }},
      {"attention", [&] { attention(tokens, nowhere({2, 3, 4}), tokens, 1); }},
      {"attention", [&] { attention(tokens, tokens, nowhere({2, 3, 4}), 1); }},
      {"attention",
       [&] { attention(typed({2, 3, 4}, DType::i32), typed({2, 3, 4}, DType::i32), typed({2, 3, 4}, DType::i32), 1); }},
      {"attention", [&] { attention(zeros({2, 12}), 2); }},
      {"attention", [&] { attention(typed({2, 3, 12}, DType::i32), 2); }},
      {"attention", [&] { attention(zeros({2, 3, 0}), 2); }},
      {"attention", [&] { attention(zeros({2, 3, 12}), 0); }},
      {"attention", [&] { attention(zeros({2, 0, 12}), 2); }},
      {"attention", [&] { attention(tokens, 1); }},
      {"attention", [&] { attention(zeros({2, 3, 12}), 3); }},
      {"attention", [&] { attention(zeros({0, 3, 12}), 2); }},
      {"dropout", [&] { dropout(none, 0.5, 1, 0, 0); }},
      {"dropout", [&] { dropout(s, 0.5, 1, 0, 0); }},
      {"dropout", [&] { dropout(x, 1, 1, 0, 0); }},
      {"dropout", [&] { dropout(x, -0.1, 1, 0, 0); }},
      {"dropout", [&] { dropout(x, std::nan(""), 1, 0, 0); }},
      {"dropout", [&] { dropout(x, 0.5, 1, ~std::uint64_t{0}, 0); }},
      {"dropout", [&] { dropout(whole, 0.5, 1, 0, 0); }},
      {"dropout", [&] { dropout(x, 0.5, 1, (std::uint64_t{1} << 48) - 1, 0); }},
      {"dropout", [&] { dropout(nowhere({1, std::int64_t{1} << 34}), 0.5, 1, 0, 0); }},
      {"gather_rows", [&] { gather_rows(x, outside); }},
      {"gather_rows", [&] { gather_rows(x, below); }},
      {"gather_rows", [&] { gather_rows(s, index); }},
      {"gather_rows", [&] { gather_rows(x, Tensor()); }},
      {"gather_rows", [&] { gather_rows(x, Tensor::zeros({2})); }},
      {"gather_rows", [&] { gather_rows(whole, index); }},
      {"gather_rows", [&] { gather_rows(x, Tensor::zeros({2, 1}, DType::i32)); }},
      {"gather_rows", [&] { gather_rows(x, Tensor::zeros({2}, DType::i32, Device::meta)); }},
      {"scatter_rows", [&] { scatter_rows(zeros({2}), index, 2); }},
      {"scatter_rows", [&] { scatter_rows(whole, index, 2); }},
      {"scatter_rows", [&] { scatter_rows(x, Tensor::zeros({2, 1}, DType::i32), 2); }},
      {"scatter_rows", [&] { scatter_rows(x, Tensor::zeros({2}), 2); }},
      {"scatter_rows", [&] { scatter_rows(x, below, 2); }},
      {"scatter_rows", [&] { scatter_rows(x, outside, 2); }},
      {"scatter_rows", [&] { scatter_rows(x, index, -1); }},
      {"scatter_rows", [&] { scatter_rows(y, index, 9); }},
      {"conv2d", [&] { conv2d(x, filters, none, {}); }},
      {"conv2d", [&] { conv2d(none, filters, none, {}); }},
      {"conv2d", [&] { conv2d(picture, none, none, {}); }},
      {"conv2d", [&] { conv2d(picture, x, none, {}); }},
      {"conv2d", [&] { conv2d(picture, filters, x, {}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {0}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {-1}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {1, -1}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {1, 0, -1}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {1, 0, 0, -1}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {1, 0, 0, 0, -1}); }},
      {"conv2d", [&] { conv2d(picture, zeros({4, 3, 3, 2}), none, {1, 0, 0, 0, 0, 4}); }},
      {"conv2d", [&] { conv2d(picture, zeros({3, 3, 3, 3}), none, {1, 0, 0, 0, 0, 2}); }},
      {"conv2d", [&] { conv2d(picture, zeros({4, 6, 3, 6}), none, {}); }},
      {"conv2d", [&] { conv2d(picture, nowhere({4, 3, 3, 6}), none, {}); }},
      {"conv2d", [&] { conv2d(picture, filters, nowhere({4}), {}); }},
      {"conv2d", [&] { conv2d(typed({2, 5, 4, 6}, DType::i32), typed({4, 3, 3, 6}, DType::i32), none, {}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {1, 0, 0, 0, 0, 2}); }},
      {"conv2d", [&] { conv2d(picture, filters, none, {1, 0, 0, 0, 0, 0}); }},
      {"conv2d", [&] { conv2d(picture, Var(Tensor::zeros({3, 3, 3, 3})), none, {1, 0, 0, 0, 0, 2}); }},
      {"conv2d", [&] { conv2d(picture, Var(Tensor::zeros({4, 3, 5, 6})), none, {}); }},
      {"conv2d", [&] { conv2d(picture, Var(Tensor::zeros({4, 0, 3, 6})), none, {}); }},
      {"conv2d", [&] { conv2d(picture, Var(Tensor::zeros({4, 3, 3, 6}, DType::f64)), none, {}); }},
      {"conv2d", [&] { conv2d(picture, filters, Var(Tensor::zeros({4}, DType::f64)), {}); }},
      {"conv2d", [&] { conv2d(Var(Tensor::zeros({2, 5, 4, 6}, DType::i32)), filters, none, {}); }},
      {"conv2d", [&] { conv2d(Var(Tensor::zeros({2, 5, 4, 6}, DType::f32, Device::meta)), filters, none, {}); }},
      {"upsample_nearest", [&] { upsample_nearest(x, 2); }},
      {"upsample_nearest", [&] { upsample_nearest(picture, 0); }},
      {"upsample_nearest", [&] { upsample_nearest(none, 2); }},
      {"average_pool", [&] { average_pool(picture, 0); }},
      {"average_pool", [&] { average_pool(picture, 5); }},
      {"average_pool", [&] { average_pool(zeros({1, 5, 6, 1}), 6); }},
      {"average_pool", [&] { average_pool(none, 1); }},
      {"upsample_nearest", [&] { upsample_nearest(typed({1, 2, 2, 1}, DType::i32), 2); }},
      {"average_pool", [&] { average_pool(Var(Tensor::zeros({1, 2, 2, 1}, DType::i32)), 2); }},
      {"pad", [&] { pad(x, 1, 1, 1, 1); }},
      {"pad", [&] { pad(picture, 0, -1, 0, 0); }},
      {"pad", [&] { pad(picture, -1, 0, 0, 0); }},
      {"pad", [&] { pad(picture, 0, 0, -1, 0); }},
      {"pad", [&] { pad(picture, 0, 0, 0, -1); }},
      {"shape", [&] { pad(picture, most, most, most, most); }},
      {"add", [&] { add_in_place(Tensor::zeros({2}), Tensor::zeros({3})); }},
      {"add", [&] { add_in_place(Tensor::zeros({2}), Tensor()); }},
      {"add", [&] { add_in_place(Tensor::zeros({2}), Tensor::zeros({2}, DType::f32, Device::meta)); }},
      {"add", [&] { add_in_place(Tensor::zeros({2}), Tensor::zeros({2}, DType::f64)); }},
      {"affine", [&] { scale_in_place(Tensor(), 2); }},
      {"affine", [&] { scale_in_place(Tensor::zeros({2}, DType::i32), 2); }},
      {"axpby", [&] { lerp_in_place(Tensor::zeros({2}), Tensor::zeros({2}, DType::f64), 0.5); }},
      {"watch", [&] { tape.watch(Tensor()); }},
      {"watch", [&] { tape.watch(index); }},
      {"vjp", [&] { tape.vjp(x, x); }},
      {"vjp", [&] { tape.vjp(x, Tensor::zeros({3, 2}), {&x, 1}); }},
      {"vjp", [&] { tape.vjp(x, Tensor::zeros({2, 3}, DType::f64), {&x, 1}); }},
      {"vjp", [&] { tape.vjp(x, Tensor::zeros({2, 3}, DType::f32, Device::meta), {&x, 1}); }},
      {"vjp", [&] { tape.vjp(s, one, {&elsewhere, 1}); }},
      {"vjp", [&] { tape.vjp(s, one, {&wide, 1}); }},
      {"vjp", [&] { second.vjp(s, one, {&elsewhere, 1}); }},
      {"vjp", [&] { tape.vjp(s, Tensor(), {&s, 1}); }},
  };
  const auto records = tape.size();
  int n = 0;
  for (const Case& c : cases) {
    try {
      c.call();
      ADD_FAILURE() << "case " << n << ", " << c.op << ": accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument) << e.what();
      EXPECT_EQ(std::string(e.what()).find(c.op), 0u) << "case " << n << ": " << e.what();
    }
    ++n;
  }
  EXPECT_EQ(tape.size(), records);
}

TEST(Errors, ClearedTapesRefuseOldValues) {
  Tape tape;
  const Var x = tape.watch(Tensor::scalar(1));
  const Var y = square(x);
  tape.clear();
  EXPECT_THROW(tape.vjp(y, x), Error);
}

}  // namespace
}  // namespace costate
