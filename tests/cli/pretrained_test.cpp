// Checkpoints that diffusers and peft wrote: what their networks put out, runs that begin with them, refusals.
#include <costate/nn/lora.h>

#include <functional>

#include "checkpoints.h"

namespace costate::cli::testing {
namespace {

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

}  // namespace
}  // namespace costate::cli::testing
