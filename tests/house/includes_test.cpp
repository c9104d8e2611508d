// The direction of knowledge, read from every #include of the source tree:
//
//            tensor <- autograd <- nn | sde <- finetune <- cli, examples, bench, tests
//
// nn and sde do not know each other; no library folder includes cuda, no installed header anything of third parties.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path root = COSTATE_SOURCE_DIR;
const std::set<std::string> library = {"tensor", "autograd", "nn", "sde", "finetune"};
const std::map<std::string, std::set<std::string>> may_include = {
    {"tensor", {"tensor"}},
    {"cuda", {"tensor", "cuda"}},
    {"autograd", {"tensor", "autograd"}},
    {"nn", {"tensor", "autograd", "nn"}},
    {"sde", {"tensor", "autograd", "sde"}},
    {"finetune", {"tensor", "autograd", "nn", "sde", "finetune"}},
    {"cli", library},
    {"examples", library},
    {"bench", library},
    {"tests", {"tensor", "autograd", "nn", "sde", "finetune", "cli"}},
};

struct Include {
  fs::path file;       // relative to the root
  std::string folder;  // its first part
  std::string target;
  bool angled;
};

bool is_source(const fs::path& p) {
  const auto e = p.extension();
  return e == ".h" || e == ".cpp" || e == ".def" || e == ".cu";
}

std::vector<fs::path> sources() {
  std::vector<fs::path> all;
  for (const auto& [folder, known] : may_include)
    if (fs::exists(root / folder))
      for (const auto& entry : fs::recursive_directory_iterator(root / folder))
        if (entry.is_regular_file() && is_source(entry.path())) all.push_back(fs::relative(entry.path(), root));
  return all;
}

std::string text_of(const fs::path& p) {
  std::ifstream file(root / p, std::ios::binary);
  std::stringstream s;
  s << file.rdbuf();
  return s.str();
}

std::vector<Include> includes() {
  std::vector<Include> all;
  const std::regex line(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
  for (const fs::path& p : sources()) {
    std::istringstream text(text_of(p));
    for (std::string s; std::getline(text, s);) {
      std::smatch m;
      if (std::regex_search(s, m, line)) all.push_back({p, p.begin()->string(), m[2], m[1] == "<"});
    }
  }
  return all;
}

TEST(House, IncludesFollowThePicture) {
  int edges = 0;
  for (const Include& i : includes()) {
    if (i.angled && i.target.rfind("costate/", 0) == 0) {
      const std::string to = i.target.substr(8, i.target.find('/', 8) - 8);
      EXPECT_TRUE(may_include.at(i.folder).count(to)) << i.file << " includes <" << i.target << ">";
      ++edges;
    }
    if (library.count(i.folder)) {
      EXPECT_EQ(i.target.find("cuda"), std::string::npos) << i.file;
    }
  }
  EXPECT_GT(edges, 100);
}

TEST(House, LocalQuotesStayWithinOneFolder) {
  for (const Include& i : includes()) {
    if (i.angled) continue;
    const fs::path beside = (i.file.parent_path() / i.target).lexically_normal(),
                   from_tests = (fs::path("tests") / i.target).lexically_normal(),
                   from_program = (fs::path("cli") / i.target).lexically_normal();
    const bool found = fs::exists(root / beside);
    if (found) {
      EXPECT_EQ(beside.begin()->string(), i.folder) << i.file << " includes \"" << i.target << "\"";
    } else if (i.folder == "tests") {
      EXPECT_TRUE(fs::exists(root / from_tests) || fs::exists(root / from_program)) << i.file << " includes \"" << i.target << "\"";
    } else {
      // The program names its own headers from its folder, and so does a bench that asks it for objectives by their names.
      EXPECT_TRUE(fs::exists(root / from_program) && (i.folder == "cli" || i.folder == "bench"))
          << i.file << " includes \"" << i.target << "\"";
    }
  }
}

TEST(House, InstalledHeadersNeedNothingOfThirdParties) {
  const std::regex standard(R"([a-z_0-9]+|math\.h)");  // math.h: C's names, for device compilers
  int headers = 0;
  for (const Include& i : includes()) {
    if (!library.count(i.folder) || i.file.extension() != ".h" || !i.angled) continue;
    if (i.file.string().find("/isa/") != std::string::npos) continue;  // compiled into the library, not installed
    ++headers;
    EXPECT_TRUE(i.target.rfind("costate/", 0) == 0 || std::regex_match(i.target, standard)) << i.file << " includes <" << i.target << ">";
  }
  EXPECT_GT(headers, 50);
}

TEST(House, OnlyTheProgramReadsJson) {
  for (const Include& i : includes())
    if (i.folder != "cli" && i.folder != "tests") {
      EXPECT_EQ(i.target.find("nlohmann"), std::string::npos) << i.file;
    }
}

TEST(House, HeadersAreGuarded) {
  for (const fs::path& p : sources())
    if (p.extension() == ".h") {
      EXPECT_NE(text_of(p).find("#pragma once"), std::string::npos) << p;
    }
}

// Paths of one machine: home folders, temporary and working directories. A system's own folders are named in scripts.
TEST(House, NoPathOfOneMachine) {
  // Written in pieces, so that this file does not name them.
  const std::vector<std::string> prefixes = {std::string("/ho") + "me/", std::string("/ro") + "ot/", std::string("/wo") + "rk/",
                                             std::string("/Us") + "ers/", std::string("C:") + "\\"};
  const std::set<std::string> suffixes = {".h", ".cpp", ".def", ".txt", ".cmake", ".md", ".sh", ".py", ".json", ".in", ".yml"};
  int files = 0;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator(); ++it) {
    const std::string name = it->path().filename().string();
    if (it->is_directory() && (name == ".git" || name.rfind("build", 0) == 0 || name.rfind("out", 0) == 0 || name == "runs")) {
      it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file() || !suffixes.count(it->path().extension().string())) continue;
    ++files;
    const std::string text = text_of(fs::relative(it->path(), root));
    for (const std::string& prefix : prefixes)
      for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
        // "frame/work/" is no path of a machine: one begins where a word does not go on.
        const bool begins = at == 0 || !(std::isalnum(static_cast<unsigned char>(text[at - 1])) || text[at - 1] == '.' ||
                                         text[at - 1] == '_' || text[at - 1] == '}');
        EXPECT_FALSE(begins) << it->path() << ": " << text.substr(at, 40);
      }
  }
  EXPECT_GT(files, 60);
}

}  // namespace
