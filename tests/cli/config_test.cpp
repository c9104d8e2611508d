// The configuration: what is written can be read, every key is documented, and where a value comes from is
// known.
#include "config/read.h"

#include <gtest/gtest.h>

#include <costate/sde/diffusion.h>
#include <costate/sde/edm.h>
#include <costate/sde/exponential.h>
#include <costate/tensor/error.h>

#include "build.h"
#include "config/fields.h"
#include "objectives/objectives.h"
#include "program.h"

namespace costate::cli {
namespace {

TEST(Config, ResolvedTextReadsBackAsItself) {
  for (const std::string& text : {std::string("{}"), testing::tiny_points, testing::tiny_digits, testing::tiny_unet, testing::tiny_dit}) {
    const Json resolved = to_json(read_config_text(text, "test", {}).config);
    EXPECT_EQ(to_json(read_config_text(resolved.dump(), "test", {}).config), resolved);
  }
}

TEST(Config, SettingsWinOverTheFileAndTheirOriginIsKnown) {
  const ReadConfig read = read_config_text(
      R"({"seed": 3, "pretrain": {"batch": 7, "lr": {"peak": 0.5}}})", "test",
      {"pretrain.batch=9", "name=words, not JSON", "finetune.lr={\"peak\": 0.25, \"decay\": \"cosine\"}"});
  EXPECT_EQ(read.config.seed, 3);
  EXPECT_EQ(read.config.pretrain.batch, 9);
  EXPECT_EQ(read.config.name, "words, not JSON");
  EXPECT_EQ(read.config.finetune.optimiser.lr.peak, 0.25);
  EXPECT_EQ(read.config.pretrain.optimiser.lr.peak, 0.5);
  const std::vector<Field>& list = fields();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string& p = list[i].path;
    const Origin expected =
        p == "pretrain.batch" || p == "name" || p == "finetune.lr.peak" || p == "finetune.lr.decay"
            ? Origin::command_line
        : p == "seed" || p == "pretrain.lr.peak" ? Origin::file
                                                 : Origin::standard;
    EXPECT_EQ(read.origins[i], expected) << p;
  }
  EXPECT_NE(origins_table(read).find("--set"), std::string::npos);
}

TEST(Config, ReferenceNamesEveryKeyWithItsMeaning) {
  const std::string reference = config_reference();
  for (const Field& f : fields()) {
    EXPECT_NE(reference.find("| `" + f.path + "` | "), std::string::npos) << f.path;
    EXPECT_TRUE(f.doc.size() > 5 && f.doc.ends_with(".")) << f.path << ": " << f.doc;
  }
}

TEST(Config, KeysOfAnotherNetworkAreRefused) {
  const auto refused = [](const std::string& text, const std::string& words) {
    try {
      read_config_text(text, "test", {});
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  refused(R"({"network": {"kind": "unet", "hidden": 64}})", "network.hidden");
  refused(R"({"network": {"kind": "mlp", "unet": {"layers": 3}}})", "network.unet: applies to unet only");
  refused(R"({"network": {"kind": "unet", "dit": {"patch": 2}}})", "network.dit: applies to dit only");
  refused(R"({"network": {"kind": "unet", "unet": {"attention_levels": [3]}}})", "the levels are 0 to 2");
  refused(R"({"network": {"kind": "unet", "unet": {"channels": []}}})", "network.unet.channels: found 0 levels");
  refused(R"({"network": {"kind": "transformer"}})", "network.kind");
}

// An empty key is no section: the keys below it are not those of the one that it is in.
TEST(Config, EmptyKeysAreRefused) {
  for (const char* text : {R"({"": {"seed": 3}})", R"({"": 3})", R"({"pretrain": {"": {"batch": 3}}})"}) {
    try {
      read_config_text(text, "test", {});
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_NE(std::string(e.what()).find("\"\": there is no such key"), std::string::npos) << e.what();
    }
  }
}

// The objective is looked for before anything is read, wherever it is written, and whatever else is there.
TEST(Config, TheObjectiveSetsDefaultsFromWhereverItComes) {
  const auto standard = [](const std::string& objective) {
    Config own;
    own.finetune = standard_finetune(objective);
    return to_json(own)["finetune"];
  };
  const auto read = [](const std::string& text, const std::vector<std::string>& settings) {
    return to_json(read_config_text(text, "test", settings).config)["finetune"];
  };
  const std::string usual = Config().finetune.objective, other = "tdpo_r";
  ASSERT_NE(standard(other)["policy_gradient"], standard(usual)["policy_gradient"]);
  EXPECT_EQ(read("{}", {"finetune.objective=" + other}), standard(other));
  EXPECT_EQ(read("{}", {"finetune.objective=\"" + other + "\""}), standard(other));
  EXPECT_EQ(read(R"({"finetune": {"objective": ")" + other + "\"}}", {}), standard(other));
  EXPECT_EQ(read(R"({"finetune": {}})", {}), standard(usual));
  for (const char* text : {R"({"finetune": 3})", R"({"finetune": {"objective": 3}})", R"({"finetune": {"objective": "x"}})"})
    EXPECT_THROW(read_config_text(text, "test", {}), Error) << text;
  for (const char* value : {"x", "\"", "\"x", "x\"", ""})
    EXPECT_THROW(read_config_text("{}", "test", {std::string("finetune.objective=") + value}), Error) << value;
  EXPECT_THROW(read_config_text(R"({"seed": 18446744073709551615})", "test", {}), Error);
}

// What is JSON is read as strictly as a file; what is not is text.
TEST(Config, SettingsAreReadAsStrictlyAsFiles) {
  try {
    read_config_text("{}", "test", {R"(finetune.lr={"peak": 1, "peak": 2})"});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()), "the value of --set finetune.lr: the key 'peak' is given twice");
  }
  EXPECT_EQ(read_config_text("{}", "test", {R"(name={"peak": 1)"}).config.name, R"({"peak": 1)");
}

// What the words of path, sampler, grid and sample.ode make.
TEST(Config, PathsGridsAndSamplersOfTheWords) {
  const auto chain = [](const std::string& text) { return make_chain(read_config_text(text, "test", {}).config); };
  const auto ode = [](const std::string& text) { return make_ode_chain(read_config_text(text, "test", {}).config); };
  const auto same = [](const sde::Chain& a, const sde::Chain& b) {
    EXPECT_TRUE(a.schedule == b.schedule && a.noise == b.noise && a.prediction == b.prediction) << a.description;
    EXPECT_EQ(a.t, b.t) << a.description;
    EXPECT_EQ(a.A, b.A) << a.description;
    EXPECT_EQ(a.C, b.C) << a.description;
    EXPECT_EQ(a.std, b.std) << a.description;
    EXPECT_EQ(a.D, b.D) << a.description;
    EXPECT_EQ(a.description, b.description);
  };
  const sde::Schedule linear, edm{.family = sde::PathFamily::edm, .sigma_max = 20, .rho = 3};
  const auto u = sde::uniform_grid(50);
  same(chain("{}"), sde::exact_memoryless(linear, u));
  same(chain(R"({"sampler": {"kind": "flow_sde", "a": 0.5, "grid": {"kind": "shifted", "shift": 3}, "steps": 8}})"),
       sde::flow_sde(linear, sde::shifted_grid(8, 3), 0.5));
  same(chain(R"({"sampler": {"kind": "ddim", "eta": 0.5, "grid": {"kind": "quadratic"}, "steps": 8}})"),
       sde::ddim(linear, sde::quadratic_grid(8), 0.5));
  same(chain(R"({"path": {"family": "vp_table"}, "prediction": "epsilon",
                 "sampler": {"kind": "ddpm", "variance": "fixed_large", "steps": 8, "grid": {"kind": "leading", "steps_offset": 1}}})"),
       sde::ddpm_fixed_large(sde::diffusion_schedule(sde::BetaLaw::linear, 1000),
                             sde::grid_of_timesteps(sde::timesteps(sde::TimestepSpacing::leading, 1000, 8, 1), 1000),
                             sde::Parametrisation::epsilon));
  const std::string churned = R"({"path": {"family": "edm", "sigma_max": 20, "rho": 3}, "prediction": "v_prediction",
    "sampler": {"kind": "churned", "steps": 12, "churn": {"amount": 2, "sigma_min": 0.1, "sigma_max": 10, "noise": 1.003},
                "grid": {"kind": "karras", "sigma_min": 0.01, "sigma_max": 20, "rho": 5}},
    "sample": {"ode": "dpmpp_2m", "ode_steps": 20}})";
  same(chain(churned), sde::churned(edm, sde::karras_grid(edm, 12, 0.01, 20, 5), {2, 0.1, 10, 1.003},
                                    sde::Parametrisation::v_prediction));
  const sde::Chain multistep = ode(churned);
  same(multistep, sde::dpmpp_2m(edm, sde::karras_grid(edm, 20, 0.01, 20, 5), sde::Parametrisation::v_prediction));
  EXPECT_TRUE(multistep.multistep());
  same(ode(R"({"sample": {"ode": "exponential"}})"), sde::exponential(linear, u));
  same(ode("{}"), sde::euler_ode(linear, u));
  for (const auto& [text, schedule] :
       {std::pair{R"({"path": {"family": "power", "power": 3}})", sde::Schedule{.family = sde::PathFamily::power, .power = 3}},
        {R"({"path": {"family": "vp_scaled_linear", "beta_min": 0.85, "beta_max": 12}})",
         sde::Schedule{sde::PathFamily::vp_scaled_linear, 0.85, 12}},
        {R"({"path": {"family": "vp_sigmoid"}})", sde::Schedule{sde::PathFamily::vp_sigmoid}},
        {R"({"path": {"family": "vp_squaredcos"}})", sde::Schedule{sde::PathFamily::vp_squaredcos}}})
    EXPECT_TRUE(make_schedule(read_config_text(text, "test", {}).config) == schedule) << text;
}

// docs/configuration.md is what `costate config-reference` prints; this is where a change of a key is noticed.
TEST(Config, PageIsUpToDate) {
  EXPECT_TRUE(testing::contents(COSTATE_SOURCE_DIR "/docs/configuration.md") == config_reference())
      << "make it again: costate config-reference > docs/configuration.md";
}

TEST(Config, EveryKeyRefusesAnotherType) {
  for (const Field& f : fields()) {
    try {
      read_config_text("{}", "test", {f.path + "={\"x\": 1}"});
      ADD_FAILURE() << f.path << " took an object";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_NE(std::string(e.what()).find(f.path), std::string::npos) << e.what();
    }
  }
}

TEST(Config, ShippedFilesAreGood) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(COSTATE_SOURCE_DIR "/examples"))
    if (entry.path().extension() == ".json") {
      EXPECT_NO_THROW(read_config(entry.path().string(), {})) << entry.path();
      ++count;
    }
  EXPECT_GE(count, 3);
}

TEST(Json, RefusesWhatIsNotStrict) {
  for (const char* text : {"", "{", "{\"a\":1,}", "[1,]", "01", "+1", "1.", "'a'", "nan", "{\"a\":1 \"b\":2}",
                           "{\"a\":1}x", "/* c */ {}", "\"\x01\"", "{\"a\":[{\"b\":1,\"b\":2}]}"})
    EXPECT_THROW(parse_json(text, "test"), Error) << text;
  // The same key in different objects is no duplicate.
  EXPECT_NO_THROW(parse_json(R"({"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]})", "test"));
}

}  // namespace
}  // namespace costate::cli
