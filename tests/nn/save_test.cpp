// Models in files: round trips, and refusals that change nothing.
#include "../tensor/safetensors_support.h"
#include "nn_support.h"

#include <costate/nn/mlp.h>
#include <costate/nn/network.h>
#include <costate/nn/save.h>

namespace costate::nn {
namespace {

using std::string;
using std::vector;
using testing_files::TemporaryFolder;

VelocityMlp network(std::uint64_t seed, DType dtype = DType::f32) {
  MlpOptions o;
  o.hidden = 8, o.classes = 3, o.class_width = 4, o.norm = true;
  Init init(seed, dtype);
  return make_velocity_mlp(o, init);
}

vector<NamedTensor> named(const VelocityMlp& m) {
  vector<NamedTensor> list;
  const auto all = parameters(m);
  const auto of = names(m);
  for (std::size_t i = 0; i < all.size(); ++i) list.emplace_back(of[i], all[i]);
  return list;
}

TEST(Save, RoundTripsEveryParameterAndTheMetadata) {
  const TemporaryFolder folder;
  for (const DType dtype : {DType::f32, DType::f64}) {
    const VelocityMlp m = network(1, dtype);
    save(folder / "m", m, {{"step", "7"}});
    VelocityMlp other = network(2, dtype);
    const LoadReport report = load(folder / "m", other);
    EXPECT_TRUE(report.missing.empty() && report.unexpected.empty());
    EXPECT_EQ(report.metadata, (SafetensorsMetadata{{"format", "pt"}, {"step", "7"}}));
    const auto a = parameters(m), b = parameters(other);
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(same_bits(a[i], b[i]));
      EXPECT_EQ(b[i].storage()->tag, memory::Tag::parameters);
    }
    // A model of unknown type is the same file.
    save(folder / "n", Network(m), {{"step", "7"}});
    EXPECT_EQ(read_file(folder / "n"), read_file(folder / "m"));
    Network held = network(3, dtype);
    load(folder / "m", held);
    EXPECT_TRUE(same_bits(parameters(held)[1], a[1]));
  }
}

TEST(Save, LoadingLeavesModelsThatSharedTheParameters) {
  const TemporaryFolder folder;
  save(folder / "m", network(1));
  const VelocityMlp base = network(2);
  const auto before = parameters(clone(base));
  VelocityMlp tuned = base;
  load(folder / "m", tuned);
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(same_bits(parameters(base)[i], before[i]));
  EXPECT_FALSE(same_bits(parameters(tuned)[0], before[0]));
  // Watched parameters become constants of the values in the file.
  Tape tape;
  vector<Var> watched;
  VelocityMlp tracked = watch(base, tape, watched);
  load(folder / "m", tracked);
  visit(tracked, [](const string&, Var& p) { EXPECT_FALSE(p.tracked()); });
}

// Loads the tensors into a network of another seed; expects every one of `words` in the sentence and no
// change.
void expect_refused(const string& path, const vector<string>& words, const LoadOptions& options = {}) {
  VelocityMlp m = network(9);
  const auto handles_before = parameters(m);
  const auto before = parameters(clone(m));
  try {
    load(path, m, options);
    ADD_FAILURE() << "loaded; expected: " << words[0];
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::data);
    for (const string& w : words)
      EXPECT_NE(string(e.what()).find(w), string::npos) << w << " in: " << e.what();
  }
  const auto after = parameters(m);
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(same_bits(after[i], before[i]));
    EXPECT_TRUE(after[i].shares_storage_with(handles_before[i]));
  }
}

TEST(Save, AllThatDoesNotFitIsInOneSentence) {
  const TemporaryFolder folder;
  const string path = folder / "m.safetensors";
  auto tensors = named(network(1));
  std::erase_if(tensors,
                [](const NamedTensor& t) { return t.first == "output.bias" || t.first == "norms.1.weight"; });
  tensors.emplace_back("extra", Tensor::zeros({1}));
  tensors.emplace_back("layers.3.weight", Tensor::zeros({8, 8}));
  for (auto& [name, t] : tensors) {
    if (name == "layers.0.weight") t = Tensor::zeros({8, 3});
    if (name == "layers.1.bias") t = t.to(DType::f64);
  }
  save_safetensors(path, tensors);
  const string misfits =
      "2 of another shape or type ('layers.0.weight' is F32 (8, 3) in the file and f32 (8, 22) in the model, "
      "'layers.1.bias' is F64 (8,) in the file and f32 (8,) in the model)";
  expect_refused(path, {"'" + path + "'", "2 missing ('norms.1.weight', 'output.bias')",
                        "2 unexpected ('extra', 'layers.3.weight')", misfits});
  // What has another shape or type is refused even where parts are allowed.
  LoadOptions partial;
  partial.allow_partial = true;
  expect_refused(path, {misfits}, partial);
  // A rank that no tensor here has is a misfit like any other, and long lists are cut.
  vector<NamedTensor> many;
  for (int i = 10; i < 40; ++i) many.emplace_back(string("t").append(std::to_string(i)), Tensor::zeros({1}));
  save_safetensors(path, many);
  expect_refused(path, {"30 unexpected ('t10', 't11', 't12', 't13', 't14', 't15', 't16', 't17', and 22 more)",
                        "13 missing", "and 5 more"});
}

TEST(Save, PartsAreLoadedOnRequestOnly) {
  const TemporaryFolder folder;
  const string path = folder / "m";
  const VelocityMlp m = network(1);
  auto tensors = named(m);
  std::erase_if(tensors, [](const NamedTensor& t) { return t.first == "layers.0.weight"; });
  tensors.emplace_back("extra", Tensor::zeros({1}));
  save_safetensors(path, tensors);
  expect_refused(path, {"1 missing ('layers.0.weight')", "1 unexpected ('extra')"});
  LoadOptions partial;
  partial.allow_partial = true;
  VelocityMlp other = network(2);
  const Tensor kept = other.layers[0].weight.value();
  const LoadReport report = load(path, other, partial);
  EXPECT_EQ(report.missing, (vector<string>{"layers.0.weight"}));
  EXPECT_EQ(report.unexpected, (vector<string>{"extra"}));
  EXPECT_TRUE(other.layers[0].weight.value().shares_storage_with(kept));
  EXPECT_TRUE(same_bits(other.layers[1].weight.value(), m.layers[1].weight.value()));
}

TEST(Save, EveryTruncationIsRefusedAndChangesNothing) {
  const TemporaryFolder folder;
  const string path = folder / "m", cut = folder / "cut";
  save(path, network(1));
  const auto bytes = read_file(path);
  for (std::size_t n = 0; n < bytes.size(); n += 97) {
    write_file_atomically(cut, std::span(bytes).first(n));
    expect_refused(cut, {"'" + cut + "'"});
  }
  write_file_atomically(cut, std::string_view("not a checkpoint, but long enough to be one"));
  expect_refused(cut, {"too large"});
  // A tensor that cannot be read (here: of a type without values for a model) is found before anything is
  // given away.
  VelocityMlp m = network(9);
  expect_error(Fault::io, "none", [&] { load(folder / "none", m); });
}

TEST(Save, TrailingBytesAndHalvesOnRequest) {
  const TemporaryFolder folder;
  const string path = folder / "m";
  save(path, network(1));
  auto bytes = read_file(path);
  bytes.resize(bytes.size() + 4);
  write_file_atomically(path, bytes);
  expect_refused(path, {"4 bytes follow the last tensor"});
  LoadOptions lenient;
  lenient.lenient_trailing = true;
  VelocityMlp m = network(2);
  EXPECT_EQ(load(path, m, lenient).ignored_bytes, 4u);

  // One linear layer in half precision: 1, -2 in F16 and 0.5 in BF16.
  const string half = testing_files::file_of(
      R"({"weight":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},"bias":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]}})",
      string("\x00\x3C\x00\xC0\x00\x3F", 6));
  write_file_atomically(path, half);
  Linear layer{Var(Tensor::zeros({1, 2})), Var(Tensor::zeros({1}))};
  expect_error(Fault::data, "'weight' is F16 (1, 2) in the file and f32 (1, 2) in the model",
               [&] { load(path, layer); });
  LoadOptions widen;
  widen.widen_half = true;
  load(path, layer, widen);
  EXPECT_EQ(layer.weight.value().to_doubles(), (vector<double>{1, -2}));
  EXPECT_EQ(layer.bias.value().to_doubles(), (vector<double>{0.5}));
}

TEST(Save, RefusesWhatHasNoValuesAndKeepsTheOldFile) {
  const TemporaryFolder folder;
  save(folder / "m", network(1));
  const auto before = read_file(folder / "m");
  Init meta(1, DType::f32, Device::meta);
  expect_error(Fault::argument, "meta", [&] { save(folder / "m", make_velocity_mlp({}, meta)); });
  expect_error(Fault::io, "no/such", [&] { save(folder / "no/such", network(1)); });
  struct Twice {
    Var a;
    void visit(const Visitor& v) { v("a", a), v("a", a); }
  };
  expect_error(Fault::argument, "occurs twice", [&] { save(folder / "m", Twice{Var(Tensor::zeros({1}))}); });
  EXPECT_EQ(read_file(folder / "m"), before);
  EXPECT_EQ(folder.files(), 1u);
}

TEST(Save, MetaModelsLoadAsMeta) {
  const TemporaryFolder folder;
  MlpOptions o;
  Init init(1), meta(1, DType::f32, Device::meta);
  save(folder / "m", make_velocity_mlp(o, init));
  VelocityMlp m = make_velocity_mlp(o, meta);
  load(folder / "m", m);
  for (const Tensor& p : parameters(m)) EXPECT_TRUE(p.is_meta());
}

}  // namespace
}  // namespace costate::nn
