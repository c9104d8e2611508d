#include <costate/tensor/error.h>
#include <costate/tensor/folder.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace costate {
namespace {

namespace fs = std::filesystem;

TEST(Folder, ManifestsReadBackAndNothingElseDoes) {
  const std::vector<FolderFile> files{{"state.safetensors", 1024, 0x3f6c0bd1}, {"empty", 0, 0}};
  const std::string text = format_manifest(files);
  EXPECT_TRUE(text.starts_with("costate folder 1\n3f6c0bd1 1024 state.safetensors\n00000000 0 empty\n"));
  EXPECT_EQ(parse_manifest(text, "it"), files);
  for (const std::string& wrong :
       {text + " ", text + "\n", "x" + text, std::string(), text.substr(0, text.size() - 1), "costate folder 1\n" + text}) {
    EXPECT_THROW(parse_manifest(wrong, "it"), Error) << wrong;
  }
}

TEST(Folder, NamesAreOfFiles) {
  const std::string folder = (fs::temp_directory_path() / ("costate-folder-" + std::to_string(::getpid()))).string();
  const auto nothing = [](const WriteBytes&) {};
  for (const char* name : {"", "a/b", "..", ".hidden", "manifest", "a b", "n\xC3\xA9"})
    EXPECT_THROW(write_folder_atomically(folder, {{name, nothing}}), Error) << name;
  EXPECT_THROW(write_folder_atomically(folder, {{"a", nothing}, {"a", nothing}}), Error);
  EXPECT_FALSE(fs::exists(folder));
  remove_folder(folder);  // there is none
}

TEST(Folder, LeftoversOfTheDeadGo) {
  const fs::path folder = fs::temp_directory_path() / ("costate-leftovers-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const auto touch = [&](const std::string& name) { std::ofstream(folder / name) << "x"; };
  // No process has a number beyond 2^22; process 1 lives; the others are no names of ours.
  touch("a.partial-4194305-0"), touch("b.partial-1-0"), touch("c.partial-"), touch("d.partial-4194305-0x"), touch("e");
  touch("f.partial-" + std::to_string(::getpid()) + "-7");
  fs::create_directories(folder / "g.partial-4194305-3" / "inner");
  EXPECT_EQ(remove_leftovers(folder.string()), 3);
  for (const char* kept : {"b.partial-1-0", "c.partial-", "d.partial-4194305-0x", "e"})
    EXPECT_TRUE(fs::exists(folder / kept)) << kept;
  fs::remove_all(folder);
}

}  // namespace
}  // namespace costate
