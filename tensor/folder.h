// Folders of files that are there whole or not at all: checkpoints of several files, of which one alone is worth nothing.
//
//   write_folder_atomically("step_12", {{"state", [&](const WriteBytes& write) { write(bytes); }}});
//   check_folder("step_12");
//
// The files go to a folder beside it, each flushed to the disk, the last one a manifest with the size and the checksum of the
// others; that folder is flushed, takes its name, and the folder around it is flushed. A process or a machine that stops at
// any time leaves the folder as described or nothing of its name, and what else it leaves is named *.partial-PID-N.
//
//   costate folder 1
//   3f6c0bd1 1024 state          CRC-32C, bytes, name; one line a file
//   9d0e7a44 manifest            CRC-32C of the lines above
#pragma once
#include <costate/tensor/file.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace costate {

inline constexpr std::string_view manifest_name = "manifest";

struct FolderPart {
  std::string name;  // of a file: letters, digits, '.', '_', '-', not beginning with '.'
  std::function<void(const WriteBytes&)> write;
};
// Throws Fault::io, naming the path and the system's reason, also when there is something of that name already; nothing is
// left behind then, but that a failure to flush the folder around it leaves the new one.
void write_folder_atomically(const std::string& path, const std::vector<FolderPart>& parts);

struct FolderFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::uint32_t checksum = 0;
  friend bool operator==(const FolderFile&, const FolderFile&) = default;
};
std::string format_manifest(const std::vector<FolderFile>& files);
// Throws Fault::data, naming `what`, for anything that format_manifest does not write.
std::vector<FolderFile> parse_manifest(std::string_view text, std::string_view what);

// Reads every file of the folder and compares it with the manifest. Throws Fault::data naming the file that is missing, of
// another length or of another checksum; Fault::io when the system refuses.
std::vector<FolderFile> check_folder(const std::string& path);

// Makes a folder and those around it, as far as they are not there, and flushes the names of new ones to the disk: what is
// flushed in a folder whose own name is not on the disk is lost with the power. Throws Fault::io.
void make_folders(const std::string& path);

// A folder of files, which first loses its name: it is never found with a part of them. Nothing happens when there is none.
void remove_folder(const std::string& path);

// Removes from a folder what atomic writing has left there when a process was killed: files and folders *.partial-PID-N of
// processes that are no more, and those of this process's number, which another one had before: no other thread may be
// writing there. Returns how many.
int remove_leftovers(const std::string& folder);

}  // namespace costate
