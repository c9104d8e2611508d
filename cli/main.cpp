// costate: the command-line program. Results go to stdout, everything else to stderr; one sentence and an
// exit code tell what went wrong.
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <sys/uio.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <new>

#include "commands.h"
#include "distributed/ranks.h"
#include "objectives/table.h"
#include "run/stop.h"

namespace {

using namespace costate;
using namespace costate::cli;

constexpr const char* footer =
    "Exit codes: 0 done; 1 other failures; 2 wrong command line or configuration; 3 malformed data or file;\n"
    "4 numerical failure (NaN, divergence); 5 out of memory; 6 reading or writing refused by the system;\n"
    "75 stopped by SIGINT or SIGTERM, with everything that --resume auto needs to go on.";

// A name as JSON, which has no other text than UTF-8.
std::string json_name(const std::string& out) {
  require(utf8::find_invalid(out) == std::string::npos, "--out '", out, "': the name is not UTF-8");
  return Json(out).dump();
}

int exit_code(Fault fault) {
  switch (fault) {
    case Fault::argument:
      return 2;
    case Fault::data:
      return 3;
    case Fault::numerical:
      return 4;
    case Fault::memory:
      return 5;
    case Fault::io:
      return 6;
    default:
      return 1;
  }
}

// Takes no memory: there may be none. In one piece, or what others write to the same stderr comes between.
int complain(std::string_view sentence, int code) {
  const auto part = [](std::string_view text) { return iovec{const_cast<char*>(text.data()), text.size()}; };
  const iovec line[] = {part("costate: "), part(sentence), part("\n")};
  [[maybe_unused]] const ssize_t written = ::writev(STDERR_FILENO, line, 3);  // when it fails there is nobody to tell
  return code;
}

struct Arguments {
  RunOptions run;
  std::string out, path, seed, threads, device;
  bool print_config = false, origins = false, json = false;
};

void add_options(CLI::App& command, Arguments& a, bool runs, bool fits) {
  command.add_option("config,--config", a.run.config,
                     "The configuration, a JSON file (see costate config-reference)");
  command
      .add_option("--set", a.run.settings, "KEY=VALUE: overrides a key of the configuration; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command.add_option("--seed", a.seed, "The same as --set seed=N")->type_name("N");
  command.add_option("--threads", a.threads, "The same as --set threads=N; 0: one a processor")
      ->type_name("N");
  command.add_option("--device", a.device, "The same as --set device=NAME: cpu, cuda:0, ...")->type_name("NAME");
  command.add_option("--out", a.out, "The run directory, the same as --set out=DIR");
  command.add_flag("--print-config", a.print_config,
                   "Print the resolved configuration as JSON and do nothing else");
  command.add_flag("--origins", a.origins,
                   "Print every key with its value and where it comes from, and do nothing else");
  if (fits)
    command
        .add_option("--mem-limit", a.run.mem_limit,
                    "Largest peak memory, such as 2GB or 512MiB: choose finetune.micro_batch, keep_activations and recompute, "
                    "which leave the law of the result alone, for the fewest operations that fit")
        ->type_name("SIZE");
  command.add_flag("--json", a.run.json, "Print the result as JSON");
  if (!runs) return;
  command
      .add_option("--resume", a.run.resume,
                  "Go on with the run in the run directory: auto, from the newest state of a training that is whole; or from "
                  "the one at PATH. The result has the bits of a run that was never stopped. Without a run there, begin one")
      ->type_name("auto|PATH");
  command.add_flag("--overwrite", a.run.overwrite, "Replace what an earlier run left in the run directory");
  command.add_flag("--quiet", a.run.quiet, "No progress on stderr");
}

// What CLI11 found wrong, as one sentence with a suggestion.
std::string usage_sentence(const CLI::App& app, const CLI::ParseError& error,
                           const std::vector<std::string>& words) {
  std::string text = error.what();
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  for (char& c : text)
    if (c == '\n') c = ' ';
  const CLI::App* command = &app;
  for (const CLI::App* sub : app.get_subcommands()) command = sub;
  std::vector<std::string> known;
  for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(sub->get_name());
  for (const CLI::Option* option : command->get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  for (const std::string& word : words) {
    const std::string bare = word.substr(0, word.find('='));
    if (bare.empty() || std::find(known.begin(), known.end(), bare) != known.end()) continue;
    if (command != &app && !bare.starts_with("-")) continue;
    if (const std::string near = nearest_of(bare, known); !near.empty())
      return "'" + bare + "' is not known; did you mean '" + near + "'?";
    if (command == &app && !bare.starts_with("-")) {
      text = "'" + bare + "' is not a command; the commands are";
      for (std::size_t i = 0; i < known.size(); ++i)
        if (!known[i].starts_with("-")) text += (text.ends_with("commands are") ? " " : ", ") + known[i];
      return text;
    }
  }
  return text + " (costate --help shows what can be given)";
}

int run(int argc, char** argv) {
  CLI::App app("Fine-tuning of diffusion and flow models as stochastic optimal control.", "costate");
  app.set_version_flag("--version",
                       std::string("costate ") + COSTATE_VERSION + " (" + COSTATE_COMPILER + ")");
  app.require_subcommand(1);
  app.footer(footer);
  Arguments a;
  for (int i = 0; i < argc; ++i) a.run.argv.push_back(argv[i]);

  const auto command = [&](const char* name, const char* text, bool runs) {
    CLI::App* sub = app.add_subcommand(name, text);
    sub->footer(footer);
    const std::string_view word = name;
    add_options(*sub, a, runs, word == "run" || word == "finetune" || word == "plan");
    return sub;
  };
  const std::vector<std::pair<CLI::App*, std::vector<Stage>>> stages{
      {command("run", "Pretrain, fine-tune, sample and evaluate", true),
       {Stage::pretrain, Stage::finetune, Stage::sample, Stage::evaluate}},
      {command("pretrain", "Train the base model by flow matching, and the classifiers", true),
       {Stage::pretrain}},
      {command("finetune", "Fine-tune the base model of a run directory toward the reward", true),
       {Stage::finetune}},
      {command("sample", "Draw samples and pictures from the models of a run directory", true),
       {Stage::sample}},
      {command("evaluate", "Compare base and tuned model of a run directory", true), {Stage::evaluate}}};
  CLI::App* plan =
      command("plan", "Predict memory, operations and network evaluations of a run, without running it", false);
  CLI::App* inspect =
      app.add_subcommand("inspect", "Show what is in a .safetensors file, a checkpoint or a run directory");
  inspect->add_option("path", a.path, "The file or directory")->required();
  inspect->add_flag("--json", a.json, "As JSON");
  inspect->footer(footer);
  StudyOptions study;
  CLI::App* studies = app.add_subcommand("study", "Compare adjoint methods on networks: memory, work, time and error");
  studies->add_option("config,--config", study.config, "The study, a JSON file (see docs/adjoints.md)")->required();
  studies->add_option("--set", study.settings, "KEY=VALUE: overrides a top-level key; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  studies->add_option("--out", a.out, "Where to write, the same as --set out=DIR");
  studies->add_option("--threads", a.threads, "The same as --set threads=N; 0: one a processor")->type_name("N");
  studies->add_flag("--plan", study.plan, "Predict peaks and counts, and run nothing");
  studies->add_flag("--overwrite", study.overwrite, "Replace what an earlier study left there");
  studies->add_flag("--quiet", study.quiet, "No progress on stderr");
  studies->add_flag("--json", study.json, "Print the result as JSON");
  studies->footer(footer);
  CompareOptions compare;
  CLI::App* compares = app.add_subcommand(
      "compare", "Compare run directories, seeds of one setting together: a table and, with --out, a page with plots");
  compares->add_option("runs", compare.runs, "Run directories")->required()->type_name("DIR");
  compares->add_option("--out", compare.out, "The folder for compare.csv, compare.json and report.html; none: the table alone");
  compares
      ->add_option("--ignore", compare.ignore,
                   "Keys of the configuration, or sections, that do not tell settings apart: evaluate, say")
      ->type_name("KEY")
      ->allow_extra_args(false);
  compares->add_flag("--overwrite", compare.overwrite, "Replace an earlier comparison there");
  compares->add_flag("--json", compare.json, "Print the result as JSON");
  compares->footer(footer);
  CheckGradOptions check;
  CLI::App* checks = app.add_subcommand(
      "check-grad", "Compare every adjoint method, and central differences, on the problem of a run; writes nothing");
  checks->add_option("config,--config", check.config, "The configuration, a JSON file (see costate config-reference)")
      ->required();
  checks->add_option("--set", check.settings, "KEY=VALUE: overrides a key of the configuration; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  checks->add_option("--out", a.out, "The run directory whose weights are taken, the same as --set out=DIR");
  checks->add_option("--model", check.model, "base or tuned: which weights of the run directory; base");
  checks
      ->add_option("--processes", check.processes,
                   "chain, or solvers on the path's flow, such as heun or (with noise sigma (1 - t)) heun:SIGMA, separated by "
                   "commas; chain,reversible_heun")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAMES");
  checks->add_option("--steps", check.steps, "Steps of each process; min(sampler.steps, 16)")->type_name("N");
  checks->add_option("--rows", check.rows, "Samples; 4")->type_name("N");
  checks->add_option("--directions", check.directions, "Random directions of the differences; 4")->type_name("N");
  checks->add_option("--seed", check.seed, "Of noise and directions; the configuration's")->type_name("N");
  checks->add_option("--threads", a.threads, "The same as --set threads=N; 0: one a processor")->type_name("N");
  checks->add_flag("--control-cost", check.control_cost, "Add the chain's control cost against the base model");
  checks->add_flag("--quiet", check.quiet, "No progress on stderr");
  checks->add_flag("--json", check.json, "Print the result as JSON");
  checks->footer(footer);
  CLI::App* reports = app.add_subcommand("report", "Write one HTML page about a run: results, samples, curves, costs, settings");
  reports->add_option("directory", a.path, "The run directory")->required();
  reports->add_option("--out", a.out, "The file, which is replaced if it is there; report.html in the run directory");
  reports->footer(footer);
  ConvertOptions convert;
  CLI::App* converts =
      app.add_subcommand("convert", "Write a checkpoint in another dialect, layout or element type");
  converts
      ->add_option("from", convert.from,
                   "A .safetensors file, an index of shards, or the folder of a checkpoint")
      ->required();
  converts->add_option("to", convert.to, "A .safetensors file or a folder")->required();
  converts->add_option("--dialect", convert.dialect,
                       "unet, dit (original) or dit-diffusers; without it names stay as they are");
  converts->add_option("--dtype", convert.dtype, "f32, f64, bf16 or f16, for every tensor of floating point");
  converts->add_option("--max-shard", convert.max_shard,
                       "Largest size of a file, such as 2GB or 500MiB: a sharded set");
  converts->add_flag("--overwrite", convert.overwrite, "Replace files that are there");
  converts->add_flag("--lenient-trailing", convert.lenient_trailing, "Ignore bytes behind the last tensor");
  converts->footer(footer);
  DiffOptions diff;
  CLI::App* differs = app.add_subcommand("diff", "Compare two checkpoints; exit code 1 when they differ");
  differs->add_option("a", diff.a, "A .safetensors file, an index of shards, or the folder of a checkpoint")
      ->required();
  differs->add_option("b", diff.b, "Another")->required();
  differs->add_option("--rtol", diff.rtol, "Relative tolerance of a number; 0")
      ->check(CLI::NonNegativeNumber);
  differs->add_option("--atol", diff.atol, "Absolute tolerance of a number; 0")
      ->check(CLI::NonNegativeNumber);
  differs->add_flag("--json", diff.json, "As JSON");
  differs->footer(footer);
  ObjectivesOptions table;
  CLI::App* registry = app.add_subcommand("objectives", "Compare the objectives: what each asks for, and where it lands");
  registry->add_flag("--json", table.json, "As JSON");
  registry->add_flag("--markdown", table.markdown, "As Markdown, for docs/objectives.md");
  registry->footer(footer);
  CLI::App* doctor = app.add_subcommand("doctor", "What this machine computes with: devices, versions, measured rates");
  doctor->add_flag("--json", a.json, "As JSON");
  doctor->footer(footer);
  CLI::App* reference =
      app.add_subcommand("config-reference", "Print all keys of the configuration as Markdown");
  reference->footer(footer);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return complain(usage_sentence(app, e, {a.run.argv.begin() + std::min(argc, 1), a.run.argv.end()}), 2);
  }

  const Launch launch = launch_of_environment();
  const auto running = [](const auto& stage) { return stage.first->parsed(); };
  if (launch.size > 1 && (a.print_config || a.origins || std::none_of(stages.begin(), stages.end(), running)))
    return launch.rank > 0 ? silent(2)
                           : complain(launch.by + " started " + std::to_string(launch.size) +
                                          " processes, but they share run, pretrain, finetune, sample and evaluate alone",
                                      2);

  if (inspect->parsed()) return inspect_command(a.path, a.json, std::cout), 0;
  if (reports->parsed()) return report_command(a.path, a.out, std::cout), 0;
  if (converts->parsed()) {
    for (const std::string& note : convert_command(convert, std::cout)) std::cerr << "note: " << note << "\n";
    return 0;
  }
  if (differs->parsed()) return diff_command(diff, std::cout) ? 0 : 1;
  if (registry->parsed()) return objectives_command(table, std::cout), 0;
  if (doctor->parsed()) return doctor_command(a.json, std::cout), 0;
  if (reference->parsed()) return std::cout << config_reference(), 0;
  if (compares->parsed()) {
    for (const std::string& sentence : compare_command(compare, std::cout)) std::cerr << "note: " << sentence << "\n";
    return 0;
  }
  if (studies->parsed()) {
    if (!a.threads.empty()) study.settings.push_back("threads=" + a.threads);
    if (!a.out.empty()) study.settings.push_back("out=" + json_name(a.out));
    return study_command(study, std::cout), 0;
  }
  if (checks->parsed()) {
    if (!a.threads.empty()) check.settings.push_back("threads=" + a.threads);
    if (!a.out.empty()) check.settings.push_back("out=" + a.out);
    return check_grad_command(check, std::cout), 0;
  }
  if (!a.seed.empty()) a.run.settings.push_back("seed=" + a.seed);
  if (!a.threads.empty()) a.run.settings.push_back("threads=" + a.threads);
  if (!a.device.empty()) a.run.settings.push_back("device=" + a.device);
  if (!a.out.empty()) a.run.settings.push_back("out=" + json_name(a.out));
  if (a.print_config || a.origins) {
    const ReadConfig read = read_config(a.run.config, a.run.settings);
    if (a.origins)
      std::cout << origins_table(read);
    else
      std::cout << to_json(read.config).dump(2) << "\n";
    return 0;
  }
  require(!a.run.config.empty(),
          "no configuration was given; expected a JSON file, such as examples/digits.json");
  if (plan->parsed()) return plan_command(a.run, std::cout), 0;
  for (const auto& [sub, list] : stages)
    if (sub->parsed())
      return run_by_ranks(launch, [&, stage_list = list] { run_command(a.run, stage_list, std::cout); }, complain, exit_code);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int code = run(argc, argv);
    std::cout.flush();
    return std::cout ? code : complain("stdout could not be written", 6);
  } catch (const costate::Error& e) {
    return complain(e.what(), exit_code(e.fault()));
  } catch (const Interrupted& e) {
    return complain(e.what(), interrupted_code);
  } catch (const std::bad_alloc&) {
    return complain("the system has no more memory; costate plan CONFIG.json shows what a run needs", 5);
  } catch (const std::exception& e) {
    return complain(e.what(), 1);
  }
}
