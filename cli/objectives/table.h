// `costate objectives`: all objectives side by side.
#pragma once
#include <ostream>
#include <string>

#include "config/json.h"

namespace costate::cli {

// With the presets of each and a default configuration: name, source, whether the reward must have a gradient, rows a
// trajectory and iteration, rewards, kept tensors, and where it lands. As Markdown the names are links to the pages in
// docs/objectives.
std::string objectives_table(bool markdown);
// The same numbers, and titles and loops, by name.
Json objectives_json();

struct ObjectivesOptions {
  bool json = false, markdown = false;
};
void objectives_command(const ObjectivesOptions& options, std::ostream& out);

}  // namespace costate::cli
