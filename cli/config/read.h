// Reading a configuration: the file, then --set, strictly.
#pragma once
#include <string>
#include <vector>

#include "config/config.h"
#include "config/json.h"

namespace costate::cli {

enum class Origin : unsigned char { standard, file, command_line };

struct ReadConfig {
  Config config;
  std::vector<Origin> origins;  // of fields(), in that order
};

// `settings` are "a.b=value" of the command line: the value as JSON, or as text when it is not JSON. Throws
// Fault::argument naming the full key, what was found and what was expected (with a suggestion for unknown
// keys and words); Fault::io and Fault::data for the file itself. An empty path: the defaults.
ReadConfig read_config(const std::string& path, const std::vector<std::string>& settings);
// The same of JSON text, called `what` in sentences.
ReadConfig read_config_text(std::string_view text, std::string_view what,
                            const std::vector<std::string>& settings);

// Rules between keys that one key alone cannot show; throws Fault::argument.
void check_config(const Config& config);
// Its parts in files of their own, as in fields.h.
void check_search(const Config& config);
void check_evaluation(const Config& config);
// Those of the section `control`.
void check_control(const Config& config);
// Those of the sections `reward` and `gold`.
void check_rewards(const Config& config);

// All keys with their values, nested as in the file. Reading it back gives the same configuration.
Json to_json(const Config& config);
// A table "key  value  origin".
std::string origins_table(const ReadConfig& read);
// The reference of all keys as Markdown.
std::string config_reference();

}  // namespace costate::cli
