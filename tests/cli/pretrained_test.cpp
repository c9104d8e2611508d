// Checkpoints that diffusers and peft wrote (tests/reference/make_checkpoint_fixtures.py): what their
// networks put out, conversions, comparisons, and refusals.
#include <costate/nn/lora.h>
#include <costate/tensor/file.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "pretrained/checkpoint.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

using std::string;
const string fixtures = COSTATE_SOURCE_DIR "/tests/cli/fixtures/";

Tensor expected(const string& file, const string& name) {
  return SafetensorsFile(fixtures + file).tensor(name);
}
Tensor pictures(const Tensor& t) { return permute(Var(t), {0, 2, 3, 1}).value(); }

void expect_close(const Tensor& a, const Tensor& b, double tolerance) {
  ASSERT_EQ(a.shape(), b.shape());
  const auto u = a.to_doubles(), v = b.to_doubles();
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < u.size(); ++i)
    largest = std::max(largest, std::abs(v[i])), worst = std::max(worst, std::abs(u[i] - v[i]));
  EXPECT_LE(worst, tolerance * largest);
}

// The network at the timesteps of a fixture: t is what its map takes there.
Tensor at_timesteps(const LoadedCheckpoint& c, const Tensor& x, const Tensor& steps,
                    const Tensor& labels = {}) {
  const nn::TimestepMap map = c.scheduler ? c.scheduler->timestep : nn::TimestepMap{};
  const Var t = affine(Var(steps), 1 / map.scale, -map.offset / map.scale);
  return c.network(Var(pictures(x)), t, labels).value();
}

// In single precision another order of sums shows at 1e-5 of the largest output.
constexpr double f32_tolerance = 2e-5;

TEST(Pretrained, UnetPipelineComputesWhatDiffusersDoes) {
  const LoadedCheckpoint c = load_pretrained(fixtures + "unet_pipeline");
  EXPECT_EQ(c.files.pipeline, "DDPMPipeline");
  EXPECT_EQ(c.spec.dialect, Dialect::unet);
  ASSERT_TRUE(c.scheduler);
  EXPECT_EQ(c.scheduler->schedule.description(), "vp_table(squaredcos_cap_v2, timesteps=1000)");
  EXPECT_EQ(c.scheduler->prediction, sde::Parametrisation::epsilon);
  expect_close(
      at_timesteps(c, expected("unet_expected.safetensors", "x"), expected("unet_expected.safetensors", "t")),
      pictures(expected("unet_expected.safetensors", "y")), f32_tolerance);
  // The bare pair is the same network, without a scheduler.
  const LoadedCheckpoint bare =
      load_pretrained(fixtures + "unet_pipeline/unet/diffusion_pytorch_model.safetensors");
  EXPECT_TRUE(bare.scheduler);  // the pipeline's, which lies beside it
}

TEST(Pretrained, ShardedFlowModelIsTurnedRound) {
  const LoadedCheckpoint c = load_pretrained(fixtures + "unet_sharded");
  ASSERT_TRUE(c.scheduler && c.scheduler->flow && c.scheduler->negated);
  EXPECT_EQ(c.scheduler->schedule.family, sde::PathFamily::linear);
  const Tensor y = pictures(expected("unet_expected.safetensors", "y"));
  expect_close(
      at_timesteps(c, expected("unet_expected.safetensors", "x"), expected("unet_expected.safetensors", "t")),
      neg(Var(y)).value(), f32_tolerance);
  // The library's sigmas for five steps, shifted twice at the ends.
  const std::vector<double> t = c.scheduler->grid(5);
  const double sigma[] = {1, .90035909, .75112110, .50298506, .00892857, 0};
  for (int k = 0; k < 6; ++k) EXPECT_NEAR(1 - t[k], sigma[k], 1e-7);
}

TEST(Pretrained, DiffusersDitWithSharedEmbedders) {
  const LoadedCheckpoint c = load_pretrained(fixtures + "dit");
  EXPECT_EQ(c.spec.dialect, Dialect::dit_diffusers);
  EXPECT_EQ(c.spec.classes, 3);
  const string file = "dit_expected.safetensors";
  const Tensor y = pictures(expected(file, "y"));  // (2, 8, 8, 2): prediction and variance
  expect_close(at_timesteps(c, expected(file, "x"), expected(file, "t"), expected(file, "labels")),
               narrow(Var(y), 3, 0, 1).value(), f32_tolerance);
}

TEST(Pretrained, PeftAdapters) {
  LoadedCheckpoint c = load_pretrained(fixtures + "unet_pipeline");
  // alpha is written in adapter_config.json: 4.
  nn::load_lora(fixtures + "unet_lora/adapter_model.safetensors", c.network, 4);
  EXPECT_GE(nn::lora_layers(c.network).size(), 10u);
  expect_close(
      at_timesteps(c, expected("unet_expected.safetensors", "x"), expected("unet_expected.safetensors", "t")),
      pictures(expected("unet_lora_expected.safetensors", "y")), f32_tolerance);
  // Written again, the tensors have the same bits under the same names.
  const Folder folder;
  nn::save_lora(folder / "l.safetensors", c.network);
  const SafetensorsFile a(fixtures + "unet_lora/adapter_model.safetensors"), b(folder / "l.safetensors");
  ASSERT_EQ(a.entries().size(), b.entries().size());
  for (const SafetensorsEntry& e : a.entries()) {
    ASSERT_NE(b.find(e.name), nullptr) << e.name;
    EXPECT_EQ(a.bytes(e), b.bytes(*b.find(e.name)));
    EXPECT_EQ(e.shape, b.find(e.name)->shape);
  }
}

TEST(Pretrained, LoadingTakesNoSecondCopy) {
  const memory::PeakScope scope;
  const std::int64_t before = memory::live().total;
  const LoadedCheckpoint c = load_pretrained(fixtures + "unet_pipeline");
  const std::int64_t kept = memory::live().total - before;
  // Filters are turned round one by one: the largest has 8 x 16 x 9 numbers.
  EXPECT_LE(scope.peak().total - before, kept + 2 * 8 * 16 * 9 * 4 + 4096);
}

// ------------------------------------------------------------------------------------------------ convert
// and diff

// The checkpoint as the base model of a run: the whole of it, and adapters alone.
TEST(Pretrained, IsTheBaseModelOfARun) {
  const Folder f;
  Json config = {{"name", "p"},
                 {"data", {{"kind", "glyphs"}, {"resolution", 8}, {"count", 100}}},
                 {"path", {{"family", "vp_table"}, {"beta_schedule", "squaredcos_cap_v2"}}},
                 {"prediction", "epsilon"},
                 {"network", {{"kind", "pretrained"}, {"path", fixtures + "unet_pipeline"}}},
                 {"classifiers", {{"reward", {{"hidden", 8}, {"iterations", 3}, {"batch", 8}}}}},
                 {"reward", {{"kind", "classifier"}, {"targets", {3}}}},
                 {"sampler", {{"steps", 4}}},
                 {"finetune", {{"iterations", 2}, {"batch", 4}, {"lora", {{"rank", 2}, {"targets", {"to_q", "conv1"}}}}}},
                 {"sample", {{"count", 4}}},
                 {"evaluate", {{"count", 6}, {"projections", 4}}}};
  f.file("c.json", config.dump());
  const Result planned = costate(f, {"plan", "c.json", "--json", "--threads", "2"});
  ASSERT_EQ(planned.code, 0) << planned.err;
  const Result r = costate(f, {"run", "c.json", "--quiet", "--out", "run", "--threads", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(fs::exists(f / "run/checkpoints/base.safetensors"));
  EXPECT_TRUE(fs::exists(f / "run/checkpoints/tuned.lora.safetensors"));
  EXPECT_TRUE(fs::exists(f / "run/evaluation.json"));
  const Json plan = Json::parse(planned.out), record = Json::parse(contents(f / "run/run.json"));
  EXPECT_FALSE(plan["stages"].contains("pretrain"));
  for (const auto& [stage, measured] : record["stages"].items())
    EXPECT_EQ(plan["stages"][stage]["peak"], measured["peak"]) << stage;
  config["finetune"].erase("lora");
  f.file("c.json", config.dump());
  const Result whole = costate(f, {"finetune", "c.json", "--quiet", "--out", "run", "--overwrite"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_TRUE(fs::exists(f / "run/checkpoints/tuned.safetensors"));
  const auto refused = [&](const string& setting, const string& words) {
    const Result found = costate(f, {"plan", "c.json", "--set", setting});
    EXPECT_EQ(found.code, 2) << found.err;
    EXPECT_NE(found.err.find(words), string::npos) << found.err;
  };
  refused("path.beta_schedule=linear", "set path.family=vp_table, path.beta_schedule=squaredcos_cap_v2");
  refused("prediction=x1", "predicts \"epsilon\"");
  refused("data.resolution=10", "sees pictures of 8 x 8 x 1");
  refused("network.conditional=true", "has no classes");
  refused("network.path=", "expected the checkpoint");
  refused("network.kind=mlp", "network.path: applies to pretrained only");
}

Result run(const Folder& f, std::vector<string> arguments) { return costate(f, arguments); }

TEST(Convert, WhatDoesNotChangeKeepsItsBytes) {
  const Folder f;
  ASSERT_EQ(run(f, {"convert", fixtures + "unet_pipeline", "copy"}).code, 0);
  for (const char* name : {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
                           "unet/diffusion_pytorch_model.safetensors"})
    EXPECT_EQ(contents(f / (string("copy/") + name)), contents(fixtures + "unet_pipeline/" + name)) << name;
  // A sharded set put together is the file of the pipeline; a file cut up again is found equal.
  const Result joined = run(f, {"convert", fixtures + "unet_sharded", "joined/model.safetensors"});
  ASSERT_EQ(joined.code, 0) << joined.err;
  EXPECT_EQ(contents(f / "joined/model.safetensors"),
            contents(fixtures + "unet_pipeline/unet/diffusion_pytorch_model.safetensors"));
  ASSERT_EQ(run(f, {"convert", "copy", "cut", "--max-shard", "20KB"}).code, 0);
  EXPECT_TRUE(fs::exists(f / "cut/unet/diffusion_pytorch_model.safetensors.index.json"));
  EXPECT_EQ(run(f, {"diff", "cut", fixtures + "unet_sharded"}).code, 0);
  const Result shown = run(f, {"inspect", "cut", "--json"});
  ASSERT_EQ(shown.code, 0) << shown.err;
  const Json seen = Json::parse(shown.out);
  EXPECT_EQ(seen["network"]["dialect"], "unet");
  EXPECT_EQ(seen["network"]["parameters"], seen["total"]["numbers"]);
  EXPECT_EQ(seen["scheduler"]["class"], "DDPMScheduler");
  EXPECT_TRUE(seen["tensors"][0].contains("shard"));
}

TEST(Convert, DitFromOneDialectToTheOtherAndBack) {
  const Folder f;
  const Result away = run(f, {"convert", fixtures + "dit", "original", "--dialect", "dit"});
  ASSERT_EQ(away.code, 0) << away.err;
  EXPECT_NE(away.err.find("not the same function"), string::npos) << away.err;
  const SafetensorsFile original(f / "original/model.safetensors");
  for (const char* name :
       {"pos_embed", "x_embedder.proj.weight", "t_embedder.mlp.0.weight", "y_embedder.embedding_table.weight",
        "blocks.1.attn.qkv.bias", "blocks.0.adaLN_modulation.1.weight", "final_layer.linear.weight"})
    EXPECT_NE(original.find(name), nullptr) << name;
  EXPECT_EQ(original.entries().size(),
            31u + 1);  // two blocks of 10, 3 embedders of 5 tensors, 2 + 4, and the positions
  const LoadedCheckpoint there = load_pretrained(f / "original"), here = load_pretrained(fixtures + "dit");
  EXPECT_EQ(there.spec.dialect, Dialect::dit_facebook);
  const string file = "dit_expected.safetensors";
  const Tensor x = expected(file, "x"), t = expected(file, "t"), labels = expected(file, "labels");
  const auto a = at_timesteps(there, x, t, labels).to_doubles(),
             b = at_timesteps(here, x, t, labels).to_doubles();
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  EXPECT_GT(worst, 1e-6);  // the dialects are kept apart
  ASSERT_EQ(run(f, {"convert", "original", "back", "--dialect", "dit-diffusers"}).code, 0);
  EXPECT_EQ(contents(f / "back/diffusion_pytorch_model.safetensors"),
            contents(fixtures + "dit/diffusion_pytorch_model.safetensors"));
  const LoadedCheckpoint back = load_pretrained(f / "back");
  EXPECT_EQ(at_timesteps(back, x, t, labels).to_doubles(), b);
}

TEST(Convert, OldAttentionNames) {
  const Folder f;
  // A checkpoint of old: attention under query, key, value and proj_attn, as 1 x 1 convolutions, no
  // attention_head_dim.
  std::vector<string> notes;
  const SafetensorsSet set = open_weights(fixtures + "unet_pipeline/unet", notes);
  State old;
  for (const auto& e : set.entries()) {
    RawTensor t{e.entry->type, e.entry->shape, set.raw(e)};
    string name = e.name();
    constexpr std::pair<const char*, const char*> pairs[] = {
        {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    for (const auto& [now, then] : pairs)
      if (const auto at = name.find(now); at != string::npos) {
        name.replace(at, string(now).size(), then);
        if (t.shape.size() == 2) t.shape.insert(t.shape.end(), {1, 1});
      }
    old[name] = std::move(t);
  }
  Json config = Json::parse(contents(fixtures + "unet_pipeline/unet/config.json"));
  config["attention_head_dim"] = 4;
  fs::create_directories(f / "old");
  f.file("old/config.json", config.dump());
  write_state(f / "old", "diffusion_pytorch_model", old, {{"format", "pt"}}, 0, false);
  const Result r = run(f, {"convert", "old", "new", "--dialect", "unet"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(contents(f / "new/diffusion_pytorch_model.safetensors"),
            contents(fixtures + "unet_pipeline/unet/diffusion_pytorch_model.safetensors"));
  config.erase("attention_head_dim");
  f.file("old/config.json", config.dump());
  const LoadedCheckpoint c = load_pretrained(f / "old");
  EXPECT_FALSE(std::get<nn::UNetOptions>(c.spec.options).attention_head_dim);  // one head, and a note
  ASSERT_FALSE(c.spec.notes.empty());
  EXPECT_NE(c.spec.notes[0].find("one head is taken"), string::npos);
}

TEST(Convert, ElementTypes) {
  const Folder f;
  const string file = fixtures + "unet_pipeline/unet/diffusion_pytorch_model.safetensors";
  for (const string type : {"f64", "bf16", "f16"}) {
    const Result r = run(f, {"convert", file, type + ".safetensors", "--dtype", type});
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.err.find("are rounded") != string::npos, type != "f64") << r.err;
    ASSERT_EQ(run(f, {"convert", type + ".safetensors", type + "_back.safetensors", "--dtype", "f32"}).code,
              0);
  }
  EXPECT_EQ(contents(f / "f64_back.safetensors"), contents(file));
  EXPECT_EQ(run(f, {"diff", file, "bf16_back.safetensors"}).code, 1);
  EXPECT_EQ(run(f, {"diff", file, "bf16_back.safetensors", "--rtol", "0.00390625"}).code,
            0);  // 2^-8: half a unit of 8 bits
  EXPECT_EQ(run(f, {"diff", file, "f16_back.safetensors", "--rtol", "0.00048828125", "--atol", "3e-8"}).code,
            0);
  const Result d = run(f, {"diff", file, "bf16.safetensors", "--json"});
  EXPECT_EQ(Json::parse(d.out)["agree"], false);
}

TEST(Convert, HalvesRoundToTheNearestEven) {
  const auto f16 = [](double v) {
    RawTensor t{SafetensorsType::F64, {1}, std::vector<std::byte>(8)};
    std::memcpy(t.bytes.data(), &v, 8);
    const RawTensor h = to_type(t, SafetensorsType::F16);
    std::uint16_t bits;
    std::memcpy(&bits, h.bytes.data(), 2);
    return bits;
  };
  EXPECT_EQ(f16(1), 0x3C00);
  EXPECT_EQ(f16(-2), 0xC000);
  EXPECT_EQ(f16(65504), 0x7BFF);
  EXPECT_EQ(f16(65519.9), 0x7BFF);
  EXPECT_EQ(f16(65520), 0x7C00);
  EXPECT_EQ(f16(0x1p-24), 0x0001);
  EXPECT_EQ(f16(0x1p-25), 0x0000);                // a tie, to even
  EXPECT_EQ(f16(0x1.8p-24), 0x0002);              // a tie, to even
  EXPECT_EQ(f16(0x1.ffcp-15 + 0x1p-26), 0x0400);  // up into the normal numbers
  EXPECT_EQ(f16(1 + 0x1p-11), 0x3C00);
  EXPECT_EQ(f16(1 + 0x1.8p-10), 0x3C02);
  EXPECT_EQ(f16(-0.0), 0x8000);
  EXPECT_TRUE((f16(std::nan("")) & 0x7C00) == 0x7C00 && (f16(std::nan("")) & 0x3FF));
  for (int h = 0; h < 0x10000; ++h) {  // every half comes back, to itself
    RawTensor t{SafetensorsType::F16, {1}, {std::byte(h & 255), std::byte(h >> 8)}};
    if ((h & 0x7C00) == 0x7C00 && (h & 0x3FF)) continue;
    EXPECT_EQ(to_type(to_type(t, SafetensorsType::F64), SafetensorsType::F16).bytes, t.bytes) << h;
    t.type = SafetensorsType::BF16;
    if ((h & 0x7F80) == 0x7F80 && (h & 0x7F)) continue;
    EXPECT_EQ(to_type(to_type(t, SafetensorsType::F32), SafetensorsType::BF16).bytes, t.bytes) << h;
  }
  // From double to bf16 at once: a tie of floats that is none of doubles.
  const double v = 1 + 0x1p-8 + 0x1p-40;
  RawTensor t{SafetensorsType::F64, {1}, std::vector<std::byte>(8)};
  std::memcpy(t.bytes.data(), &v, 8);
  EXPECT_EQ(to_doubles(to_type(t, SafetensorsType::BF16))[0], 1 + 0x1p-7);
}

TEST(Diff, TellsWhatDiffers) {
  const Folder f;
  const Tensor a = Tensor::from(std::vector<float>{1, 2, -0.0f}, {3}),
               b = Tensor::from(std::vector<float>{1, 2.5f, 0.0f}, {3});
  save_safetensors(f / "a.safetensors",
                   std::vector<NamedTensor>{{"same", a}, {"x", a}, {"gone", a}, {"shape", a}});
  save_safetensors(f / "b.safetensors",
                   std::vector<NamedTensor>{{"same", a}, {"x", b}, {"new", a}, {"shape", a.reshape({3, 1})}});
  const Result r = run(f, {"diff", "a.safetensors", "b.safetensors", "--json"});
  EXPECT_EQ(r.code, 1);
  const Json d = Json::parse(r.out);
  EXPECT_EQ(d["only_in_a"], Json::parse(R"(["gone"])"));
  EXPECT_EQ(d["only_in_b"], Json::parse(R"(["new"])"));
  EXPECT_EQ(d["identical"], 1);
  EXPECT_EQ(d["different"], 2);
  for (const Json& row : d["tensors"])
    if (row["name"] == "x") {
      EXPECT_EQ(row["max_abs"], 0.5);
      EXPECT_EQ(row["max_rel"], 0.2);
      EXPECT_EQ(row["equal_numbers"], 1);  // the zeros differ in sign
    }
  EXPECT_EQ(run(f, {"diff", "a.safetensors", "a.safetensors"}).code, 0);
  EXPECT_EQ(run(f, {"diff", "a.safetensors", "nowhere.safetensors"}).code, 6);
}

// ------------------------------------------------------------------------------------------------ what is
// refused

struct Case {
  string name, words;
  std::function<void(const Folder&)> spoil;  // changes the copy "m" of a fixture
  string fixture = "unet_sharded";
};

void edit(const Folder& f, const string& file, const std::function<void(Json&)>& change) {
  Json json = Json::parse(contents(f / file));
  change(json);
  f.file(file, json.dump());
}
const string index_file = "m/diffusion_pytorch_model.safetensors.index.json",
             shard3 = "diffusion_pytorch_model-00003-of-00003.safetensors";

auto index_edit(const std::function<void(Json&)>& change) {
  return [change](const Folder& f) { edit(f, index_file, change); };
}
auto config_edit(const string& key, const Json& value) {
  return [=](const Folder& f) { edit(f, "m/config.json", [&](Json& j) { j[key] = value; }); };
}
auto scheduler_edit(const string& key, const Json& value) {
  return [=](const Folder& f) { edit(f, "m/scheduler_config.json", [&](Json& j) { j[key] = value; }); };
}
auto ddpm(const string& key, const Json& value) {
  return [=](const Folder& f) {
    f.file("m/scheduler_config.json", Json({{"_class_name", "DDPMScheduler"}, {key, value}}).dump());
  };
}
auto text(const string& file, const string& what) {
  return [=](const Folder& f) { f.file(file, what); };
}

const std::vector<Case> cases = {
    {"index_not_json", "not valid JSON", text(index_file, "{")},
    {"index_a_list", "expected an object", text(index_file, "[]")},
    {"index_twice", "given twice",
     text(index_file, R"({"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}})")},
    {"index_deep", "nested", text(index_file, string(100000, '['))},
    {"index_without_map", "weight_map is absent", index_edit([](Json& j) { j.erase("weight_map"); })},
    {"index_map_a_list", "weight_map is", index_edit([](Json& j) { j["weight_map"] = Json::array(); })},
    {"index_empty", "it lists no tensors", index_edit([](Json& j) { j["weight_map"] = Json::object(); })},
    {"index_unknown_key", "is not known; expected weight_map", index_edit([](Json& j) { j["extra"] = 1; })},
    {"index_file_a_number", "expected a file name",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = 3; })},
    {"index_traversal", "may not reach outside",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = "../m/" + shard3; })},
    {"index_absolute", "may not reach outside",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = "/" + shard3; })},
    {"index_backslash", "may not reach outside",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = "a\\" + shard3; })},
    {"index_nul", "may not reach outside",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = string("a\0", 2) + shard3; })},
    {"index_pickle", "may not reach outside",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = "pytorch_model.bin"; })},
    {"index_size_negative", "total_size is -1",
     index_edit([](Json& j) { j["metadata"]["total_size"] = -1; })},
    {"index_size_text", "total_size is", index_edit([](Json& j) { j["metadata"]["total_size"] = "1e3"; })},
    {"index_metadata_a_list", "metadata is", index_edit([](Json& j) { j["metadata"] = Json::array(); })},
    {"shard_missing", shard3, [](const Folder& f) { fs::remove(f / ("m/" + shard3)); }},
    {"shard_short", shard3, [](const Folder& f) { fs::resize_file(f / ("m/" + shard3), 500); }},
    {"shard_unlisted_tensor", "which the index does not list",
     index_edit([](Json& j) { j["weight_map"].erase("conv_in.bias"); })},
    {"shard_swapped", "but the index has it in",
     index_edit([](Json& j) { j["weight_map"]["conv_in.bias"] = shard3; })},
    {"tensor_not_there", "is not in shard", index_edit([](Json& j) { j["weight_map"]["more"] = shard3; })},
    {"pickle", "holds pickled weights",
     [](const Folder& f) {
       fs::remove_all(f / "m");
       fs::create_directories(f / "m");
       f.file("m/diffusion_pytorch_model.bin", "PK");
     }},
    {"nothing", "holds 0 safetensors files",
     [](const Folder& f) { fs::remove_all(f / "m"), fs::create_directories(f / "m"); }},
    {"config_missing", "has no config.json", [](const Folder& f) { fs::remove(f / "m/config.json"); }},
    {"config_class", "expected \"UNet2DModel\"", config_edit("_class_name", "UNet2DConditionModel")},
    {"config_class_absent", "_class_name",
     [](const Folder& f) { edit(f, "m/config.json", [](Json& j) { j.erase("_class_name"); }); }},
    {"config_block", "SkipDownBlock2D",
     config_edit("down_block_types", Json({"SkipDownBlock2D", "AttnDownBlock2D"}))},
    {"config_mid_block", "UNetMidBlock2DCrossAttn", config_edit("mid_block_type", "UNetMidBlock2DCrossAttn")},
    {"config_too_few_blocks", "down_block_types has", config_edit("down_block_types", Json({"DownBlock2D"}))},
    {"config_groups", "norm_num_groups", config_edit("norm_num_groups", 3)},
    {"config_text_for_number", "in_channels is", config_edit("in_channels", "1")},
    {"config_float_for_integer", "layers_per_block is", config_edit("layers_per_block", 1.5)},
    {"config_negative", "in_channels is -1", config_edit("in_channels", -1)},
    {"config_huge", "in_channels is", config_edit("in_channels", 18446744073709551615u)},
    {"config_padding", "downsample_padding is 2", config_edit("downsample_padding", 2)},
    {"config_activation", "act_fn", config_edit("act_fn", "mish")},
    {"config_time", "time_embedding_type", config_edit("time_embedding_type", "rotary")},
    {"config_shape", "of another shape or type", config_edit("in_channels", 2)},
    {"config_more_layers", "missing", config_edit("layers_per_block", 2)},
    {"config_no_attention", "unexpected", config_edit("add_attention", false)},
    {"config_duplicate", "given twice",
     text("m/config.json", R"({"_class_name": "UNet2DModel", "in_channels": 1, "in_channels": 1})")},
    {"scheduler_class", "expected DDPMScheduler, DDIMScheduler",
     scheduler_edit("_class_name", "PNDMScheduler")},
    {"scheduler_dynamic_shift", "depends on the size", scheduler_edit("use_dynamic_shifting", true)},
    {"scheduler_shift", "shift is 0", scheduler_edit("shift", 0)},
    {"scheduler_betas", "\"linaer\" is not a law of beta", ddpm("beta_schedule", "linaer")},
    {"scheduler_beta_end", "beta_start <= beta_end < 1", ddpm("beta_end", 1.0)},
    {"scheduler_prediction", "prediction_type is", ddpm("prediction_type", "flow")},
    {"scheduler_zero_snr", "rescale_betas_zero_snr is true", ddpm("rescale_betas_zero_snr", true)},
    {"scheduler_spacing", "timestep_spacing", ddpm("timestep_spacing", "random")},
    {"scheduler_variance", "variance_type is", ddpm("variance_type", "fixed_large_log")},
    {"scheduler_trained", "beta 0 is 2", ddpm("trained_betas", Json({2.0}))},
    {"dit_norm", "ada_norm_zero", config_edit("norm_type", "layer_norm"), "dit"},
    {"dit_channels", "out_channels is 3", config_edit("out_channels", 3), "dit"},
    {"dit_patch", "patch 3 does not divide", config_edit("patch_size", 3), "dit"},
    {"dit_depth", "missing", config_edit("num_layers", 3), "dit"},
    {"dit_copies", "should be copies of one another",
     [](const Folder& f) {
       const string file = f / "m/diffusion_pytorch_model.safetensors";
       std::vector<NamedTensor> all = load_safetensors(file);
       for (auto& [name, t] : all)
         if (name == "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias")
           t.mutate<float>()[0] += 1;
       save_safetensors(file, all);
     },
     "dit"},
    {"dit_hole", "no block 0",
     [](const Folder& f) {
       const string file = f / "m/diffusion_pytorch_model.safetensors";
       std::vector<NamedTensor> all = load_safetensors(file);
       std::erase_if(all, [](const NamedTensor& t) { return t.first.starts_with("transformer_blocks.0."); });
       save_safetensors(file, all);
     },
     "dit"},
};

class Refused : public ::testing::TestWithParam<Case> {};
TEST_P(Refused, InOneSentence) {
  const Folder f;
  fs::copy(fixtures + GetParam().fixture, f / "m", fs::copy_options::recursive);
  GetParam().spoil(f);
  try {
    load_pretrained(f / "m");
    ADD_FAILURE() << "no error; expected one about: " << GetParam().words;
  } catch (const Error& e) {
    EXPECT_NE(string(e.what()).find(GetParam().words), string::npos) << e.what();
    EXPECT_TRUE(e.fault() == Fault::data || (GetParam().name == "shard_missing" && e.fault() == Fault::io))
        << e.what();
  }
}
INSTANTIATE_TEST_SUITE_P(Pretrained, Refused, ::testing::ValuesIn(cases),
                         [](const auto& one) { return one.param.name; });

TEST(Convert, RefusesInWords) {
  const Folder f;
  const auto refused = [&](std::vector<string> arguments, int code, const string& words) {
    const Result r = run(f, std::move(arguments));
    EXPECT_EQ(r.code, code) << r.err;
    EXPECT_NE(r.err.find(words), string::npos) << r.err;
  };
  const string dit = fixtures + "dit", unet = fixtures + "unet_pipeline";
  refused({"convert", "nowhere", "x"}, 6, "does not exist");
  refused({"convert", dit, "x", "--dialect", "unet"}, 2, "holds a DiT; expected dit or dit-diffusers");
  refused({"convert", unet, "x", "--dialect", "dit"}, 2, "holds a UNet; expected unet");
  refused({"convert", unet, "x", "--dialect", "kohya"}, 2, "expected unet, dit or dit-diffusers");
  refused({"convert", unet, "x", "--dtype", "int8"}, 2, "expected f32, f64, f16 or bf16");
  refused({"convert", unet, "x", "--max-shard", "0"}, 2, "expected a size");
  refused({"convert", unet, "x", "--max-shard", "2 GB"}, 2, "expected a size");
  refused({"convert", unet, "x.safetensors", "--max-shard", "2GB"}, 2, "a single file");
  EXPECT_FALSE(fs::exists(f / "x"));
  ASSERT_EQ(run(f, {"convert", unet, "x"}).code, 0);
  refused({"convert", unet, "x"}, 2, "exists already; give --overwrite");
  EXPECT_EQ(run(f, {"convert", unet, "x", "--overwrite"}).code, 0);
}

}  // namespace
}  // namespace costate::cli::testing
