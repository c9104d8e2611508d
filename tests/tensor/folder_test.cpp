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

TEST(Folder, NamesAndNumbersOfFilesHaveLimits) {
  const std::string folder = (fs::temp_directory_path() / ("costate-limits-" + std::to_string(::getpid()))).string();
  const auto nothing = [](const WriteBytes&) {};
  EXPECT_THROW(write_folder_atomically(folder, {{std::string(256, 'a'), nothing}}), Error);
  std::vector<FolderPart> parts;
  for (int i = 0; i < 4096; ++i) parts.push_back({std::to_string(i), nothing});
  EXPECT_THROW(write_folder_atomically(folder, parts), Error);  // the manifest is one of 4096
  EXPECT_FALSE(fs::exists(folder));
  std::vector<FolderFile> files(4097);
  for (std::size_t i = 0; i < files.size(); ++i) files[i].name = std::to_string(i);
  EXPECT_THROW(parse_manifest(format_manifest(files), "it"), Error);
}

TEST(Folder, AFolderInAFileIsRefused) {
  const fs::path folder = fs::temp_directory_path() / ("costate-folders-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  std::ofstream(folder / "file") << "x";
  for (const char* name : {"file", "file/inner", "file/inner/most"}) {
    try {
      make_folders((folder / name).string());
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::io);
      EXPECT_NE(std::string(e.what()).find((folder / name).string()), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("Not a directory"), std::string::npos) << e.what();
    }
  }
  make_folders((folder / "a" / "b").string());
  EXPECT_TRUE(fs::is_directory(folder / "a" / "b"));
  EXPECT_THROW(remove_leftovers((folder / "nowhere").string()), Error);
  fs::remove_all(folder);
}

TEST(Folder, LeftoversOfTheDeadGo) {
  const fs::path folder = fs::temp_directory_path() / ("costate-leftovers-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const auto touch = [&](const std::string& name) { std::ofstream(folder / name) << "x"; };
  // No process has a number beyond 2^22; process 1 lives; the others are no names of ours.
  touch("a.partial-4194305-0"), touch("b.partial-1-0"), touch("c.partial-"), touch("d.partial-4194305-0x"), touch("e");
  const std::vector<std::string> others{"h.partial-x-1",          "i.partial-4194305", "j.partial-4194305.3", "k.partial-4194305-x",
                                        "l.partial-0-1",          "m.partial--5-1",    "n.partial-4194305-", "o.partial-99999999999999999999-1",
                                        "p.partial-4194305-99999999999"};
  for (const std::string& name : others) touch(name);
  touch("f.partial-" + std::to_string(::getpid()) + "-7");
  fs::create_directories(folder / "g.partial-4194305-3" / "inner");
  EXPECT_EQ(remove_leftovers(folder.string()), 3);
  for (const char* kept : {"b.partial-1-0", "c.partial-", "d.partial-4194305-0x", "e"})
    EXPECT_TRUE(fs::exists(folder / kept)) << kept;
  for (const std::string& kept : others) EXPECT_TRUE(fs::exists(folder / kept)) << kept;
  fs::remove_all(folder);
}

}  // namespace
}  // namespace costate
