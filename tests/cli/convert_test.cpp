// costate convert and costate diff.
#include <costate/tensor/random.h>

#include "checkpoints.h"

namespace costate::cli::testing {
namespace {

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

// What a run makes of a checkpoint goes back into the folders that it came from.
TEST(Convert, TunedNetworksGoHome) {
  const Folder f;
  struct Original {
    string name, folder;  // of the weights
    Json path, data, network;
  };
  const Original originals[] = {
      {"unet_pipeline",
       "/unet",
       {{"family", "vp_table"}, {"beta_schedule", "squaredcos_cap_v2"}},
       {{"kind", "glyphs"}, {"resolution", 8}, {"count", 60}},
       {{"kind", "pretrained"}, {"path", fixtures + "unet_pipeline"}}},
      {"dit",
       "",
       {{"family", "vp_table"}},
       {{"kind", "glyphs"}, {"resolution", 8}, {"count", 60}, {"only_labels", {0, 1, 2}}},
       {{"kind", "pretrained"}, {"path", fixtures + "dit"}}}};
  for (const Original& o : originals) {
    const Json config = {{"name", o.name},
                         {"data", o.data},
                         {"path", o.path},
                         {"prediction", "epsilon"},
                         {"network", o.network},
                         {"classifiers", {{"reward", {{"hidden", 8}, {"iterations", 2}, {"batch", 8}}}}},
                         {"reward", {{"kind", "classifier"}, {"targets", {1}}}},
                         {"sampler", {{"steps", 3}}},
                         {"finetune", {{"iterations", 1}, {"batch", 4}, {"lr", {{"warmup", 0}}}}}};
    f.file("c.json", config.dump());
    for (const string stage : {"pretrain", "finetune"}) {
      const Result r = run(f, {stage, "c.json", "--quiet", "--out", o.name});
      ASSERT_EQ(r.code, 0) << r.err;
    }
    const string home = o.name + "_home", tuned = o.name + "/checkpoints/tuned.safetensors";
    const Result r = run(f, {"convert", tuned, home});
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.err.find("not the same function"), string::npos) << r.err;
    const Json d = Json::parse(run(f, {"diff", home, fixtures + o.name, "--json"}).out);
    EXPECT_TRUE(d["only_in_a"].empty() && d["only_in_b"].empty()) << d;
    EXPECT_GT(d["different"].get<int>(), 5);
    for (const Json& row : d["tensors"]) EXPECT_LT(row.value("max_abs", 1.0), 1e-3) << row;  // one update of 1e-4
    for (const auto& entry : fs::recursive_directory_iterator(fixtures + o.name))
      if (entry.path().filename() == "scheduler_config.json" || entry.path().filename() == "model_index.json") {
        EXPECT_EQ(contents(f / (home + "/" + fs::relative(entry.path(), fixtures + o.name).string())),
                  contents(entry.path().string()));
      }
    // And it is the network that the run tuned: the same file serves as a base.
    const LoadedCheckpoint there = load_pretrained(f / home), here = load_pretrained(f / tuned);
    const string file = (o.name == "dit" ? "dit" : "unet") + string("_expected.safetensors");
    const Tensor x = pictures(expected(file, "x")), t = Tensor::full({x.extent(0)}, 0.5),
                 labels = o.name == "dit" ? expected(file, "labels") : Tensor();
    EXPECT_EQ(there.scheduler.has_value(), o.name == "unet_pipeline");
    const Tensor a = there.network(Var(x), Var(t), labels).value();
    const nn::TimestepMap map = there.scheduler ? there.scheduler->timestep : nn::TimestepMap{};  // a lone file has none
    const Tensor s = affine(Var(t), map.scale / 1000, map.offset / 1000).value();
    const Tensor b = here.network(Var(x), Var(s), labels).value();
    expect_close(a, b, f32_tolerance);
  }
}

// Networks of our own, too, in the files of the libraries that know them.
TEST(Convert, OwnNetworksIntoLibraryFolders) {
  const Folder f;
  for (const string kind : {"unet", "dit"}) {
    f.file("c.json", tiny(kind));
    ASSERT_EQ(run(f, {"pretrain", "c.json", "--quiet", "--out", kind}).code, 0);
    const string base = kind + "/checkpoints/base.safetensors";
    const Result r = run(f, {"convert", base, kind + "_folder"});
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_NE(r.err.find("no scheduler is written"), string::npos) << r.err;
    const LoadedCheckpoint there = load_pretrained(f / (kind + "_folder")), here = load_pretrained(f / base);
    EXPECT_FALSE(there.scheduler);
    EXPECT_EQ(there.spec.classes, 10);
    Tensor x = Tensor::empty({3, there.spec.height, there.spec.width, 1});
    random_normal(x, 1, Stream::user, 0, 0);
    for (const Tensor& labels : {Tensor(), Tensor::from(std::vector<std::int32_t>{0, 9, 4}, {3})})
      EXPECT_EQ(there.network(Var(x), Var(Tensor::full({3}, 0.25)), labels).value().to_doubles(),
                here.network(Var(x), Var(Tensor::full({3}, 0.25)), labels).value().to_doubles());
    EXPECT_EQ(run(f, {"diff", base, kind + "_folder"}).code, 0);
  }
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
