// NPZ, NumPy's archive of arrays: a ZIP file (PKWARE's APPNOTE 6.3) whose members are NPY files by the names of the
// arrays, stored or deflated, in ZIP64's form where extents ask for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace costate::cli {

// A member of an archive, as the central directory has it.
struct NpzMember {
  std::string name;  // of the array, without ".npy"
  std::uint64_t size = 0, packed_size = 0, header = 0;  // bytes unpacked and packed; where its local header begins
  std::uint32_t checksum = 0;                           // CRC-32 of what is unpacked
  bool deflated = false;
};

// Whether the bytes begin like a ZIP archive.
bool is_npz(std::span<const std::byte> bytes);

// The arrays of an archive in the order of its directory. Throws Fault::data, naming `what`, for anything that is no such
// archive: members that are encrypted, packed in other ways, twice there, not called *.npy, or named by a path; more than
// 65535 of them; extents that lie outside the file or that nothing of the packed size can unpack to.
std::vector<NpzMember> npz_members(std::span<const std::byte> bytes, std::string_view what);

// The NPY file of a member of npz_members(bytes). Throws Fault::data, naming `what` and the array, where it is damaged or
// has more than max_bytes.
std::vector<std::byte> npz_array(std::span<const std::byte> bytes, const NpzMember& member, std::uint64_t max_bytes,
                                 std::string_view what);

// An array and its NPY file (data/npy.h).
struct NpzArray {
  std::string name;
  std::vector<std::byte> npy;
};

// An archive of them, stored, that numpy.load reads; the same arrays give the same bytes. Names must not be twice there,
// empty or paths; the whole must stay below 4 GiB and 65535 arrays.
std::vector<std::byte> npz_bytes(std::span<const NpzArray> arrays);

}  // namespace costate::cli
