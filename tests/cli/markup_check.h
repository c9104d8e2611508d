// Whether a page or a picture is well-formed.
#pragma once
#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

namespace costate::cli::testing {

// What is wrong with a text as XML: tags that do not balance, attributes twice, bare < or &; "": nothing. Comments, CDATA and
// the like do not occur here, and the one style sheet holds none of < & >.
inline std::string fault_in_markup(const std::string& s) {
  std::vector<std::string> open;
  std::size_t roots = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '&') {
      const std::size_t end = s.find(';', i);
      const std::string name = end == s.npos ? "" : s.substr(i + 1, end - i - 1);
      if (name != "amp" && name != "lt" && name != "gt" && name != "quot" && name != "#39") return "a bare & at " + std::to_string(i);
    }
    if (s[i] == '>') return "a bare > at " + std::to_string(i);
    if (s[i] != '<') continue;
    if (s.compare(i, 15, "<!DOCTYPE html>") == 0) {
      i += 14;
      continue;
    }
    std::size_t end = i + 1;
    for (bool quoted = false; end < s.size() && (quoted || s[end] != '>'); ++end) {
      if (s[end] == '"') quoted = !quoted;
      if (s[end] == '<') return "a < within a tag at " + std::to_string(end);
    }
    if (end == s.size()) return "a tag without an end at " + std::to_string(i);
    const std::string tag = s.substr(i + 1, end - i - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /\n", 1));
    if (tag[0] == '/') {
      if (open.empty() || "/" + open.back() != tag) return "<" + tag + "> closes nothing";
      open.pop_back();
    } else {
      if (open.empty() && ++roots > 1) return "a second root, <" + name + ">";
      if (!std::isalpha(static_cast<unsigned char>(tag[0]))) return "<" + tag + "> is no tag";
      std::vector<std::string> names;
      for (std::size_t k = tag.find(' '); k != tag.npos && k + 1 < tag.size() && tag[k + 1] != '/';) {
        const std::size_t equals = tag.find("=\"", k), close = equals == tag.npos ? tag.npos : tag.find('"', equals + 2);
        if (close == tag.npos) return "an attribute without a value in <" + tag + ">";
        names.push_back(tag.substr(k + 1, equals - k - 1));
        if (std::count(names.begin(), names.end(), names.back()) > 1) return names.back() + " twice in <" + tag + ">";
        k = close + 1;
        if (k < tag.size() && tag[k] != ' ' && tag[k] != '/') return "no space behind an attribute of <" + tag + ">";
        if (k >= tag.size() || tag[k] == '/') break;
      }
      if (tag.back() != '/') open.push_back(name);
    }
    i = end;
  }
  return open.empty() ? roots == 1 ? "" : "no root" : "<" + open.back() + "> stays open";
}

}  // namespace costate::cli::testing
