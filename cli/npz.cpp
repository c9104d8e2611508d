#include "npz.h"

#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "inflate.h"

namespace costate::cli {
namespace {

constexpr std::uint32_t local_signature = 0x04034b50, member_signature = 0x02014b50, end_signature = 0x06054b50,
                        wide_end_signature = 0x06064b50, locator_signature = 0x07064b50;
constexpr std::size_t local_size = 30, member_size = 46, end_size = 22, wide_end_size = 56, locator_size = 20;
constexpr std::uint16_t encrypted = 1, stored = 0, deflated = 8, wide_extra = 1, saturated16 = 0xffff;
constexpr std::uint32_t saturated32 = 0xffffffff;
// A deflate stream of n bytes unpacks to less than 1032 n: 258 bytes take two bits at least.
constexpr std::uint64_t deflate_ratio = 1032;

// Little-endian numbers at places that have been checked to lie within the bytes.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  std::uint64_t size() const { return bytes_.size(); }
  template <class T>
  T at(std::uint64_t place) const {
    T v = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
      v = static_cast<T>(v | static_cast<T>(std::to_integer<T>(bytes_[place + i]) << 8 * i));
    return v;
  }
  std::span<const std::byte> piece(std::uint64_t place, std::uint64_t count, std::string_view of) const {
    if (place > size() || count > size() - place)
      fail(Fault::data,
           {what_, ": ", of, " has ", count, " bytes from byte ", place, " on, but the archive has only ", size()});
    return bytes_.subspan(place, count);
  }
  std::string_view text(std::uint64_t place, std::uint64_t count, std::string_view of) const {
    const auto held = piece(place, count, of);
    return {reinterpret_cast<const char*>(held.data()), held.size()};
  }
  std::string_view what() const { return what_; }

 private:
  std::span<const std::byte> bytes_;
  std::string_view what_;
};

struct Directory {
  std::uint64_t begin = 0, size = 0, members = 0, end = 0;  // end: where the records that close the archive begin
};

// The last record that ends with the file, as its comment tells.
std::uint64_t end_record(const Reader& in) {
  if (in.size() >= end_size)
    for (std::uint64_t back = 0; back <= std::min<std::uint64_t>(in.size() - end_size, saturated16); ++back) {
      const std::uint64_t at = in.size() - end_size - back;
      if (in.at<std::uint32_t>(at) == end_signature && in.at<std::uint16_t>(at + 20) == back) return at;
    }
  fail(Fault::data, {in.what(), " is no whole NPZ archive: it does not end with the end of a ZIP directory"});
}

Directory directory(const Reader& in) {
  const std::uint64_t at = end_record(in);
  Directory out{in.at<std::uint32_t>(at + 16), in.at<std::uint32_t>(at + 12), in.at<std::uint16_t>(at + 10), at};
  std::uint64_t here = in.at<std::uint16_t>(at + 8), disks = in.at<std::uint16_t>(at + 4) | in.at<std::uint16_t>(at + 6);
  if (at >= locator_size && in.at<std::uint32_t>(at - locator_size) == locator_signature) {
    const std::uint64_t wide = in.at<std::uint64_t>(at - locator_size + 8);
    in.piece(wide, wide_end_size, "the end of the directory");
    if (wide > at - locator_size - std::min<std::uint64_t>(at - locator_size, wide_end_size) ||
        in.at<std::uint32_t>(wide) != wide_end_signature)
      fail(Fault::data, {in.what(), ": the end of a ZIP64 directory is not at byte ", wide, ", where it is said to be"});
    disks = in.at<std::uint32_t>(wide + 16) | in.at<std::uint32_t>(wide + 20);
    here = in.at<std::uint64_t>(wide + 24);
    out = {in.at<std::uint64_t>(wide + 48), in.at<std::uint64_t>(wide + 40), in.at<std::uint64_t>(wide + 32), wide};
  }
  if (disks != 0 || here != out.members)
    fail(Fault::data, {in.what(), " is one of several parts of an archive; it must be whole"});
  if (out.members > saturated16)
    fail(Fault::data, {in.what(), " announces ", out.members, " arrays, but at most 65535 are read"});
  if (out.begin > out.end || out.size != out.end - out.begin)
    fail(Fault::data, {in.what(), ": the directory has ", out.size, " bytes from byte ", out.begin,
                       " on, but its end is at byte ", out.end});
  return out;
}

std::string array_name(const Reader& in, std::string_view file) {
  if (utf8::find_invalid(file) != std::string_view::npos)
    fail(Fault::data, {in.what(), " has an array whose name is not UTF-8"});
  const std::string_view name = file.substr(0, file.size() - std::min<std::size_t>(file.size(), 4));
  if (!file.ends_with(".npy") || name.empty())
    fail(Fault::data, {in.what(), " has a member ", utf8::quoted(file), ", but those of NPZ archives are called NAME.npy"});
  // Nothing is unpacked to a path here; a name that would be one elsewhere is somebody's attempt.
  if (name.find_first_of(std::string_view("/\\:\0", 4)) != std::string_view::npos)
    fail(Fault::data,
         {in.what(), " has an array named ", utf8::quoted(name), ", which is a path and not the name of an array"});
  return std::string(name);
}

// Extents of 32 bits that are all ones stand in the field of ZIP64's extents, in this order.
void widen(const Reader& in, std::span<const std::byte> extra, NpzMember& m) {
  const Reader fields(extra, in.what());
  for (std::uint64_t at = 0; at + 4 <= fields.size();) {
    const std::uint64_t count = fields.at<std::uint16_t>(at + 2);
    fields.piece(at + 4, count, "an extra field");
    if (fields.at<std::uint16_t>(at) == wide_extra) {
      std::uint64_t place = at + 4;
      for (std::uint64_t* extent : {&m.size, &m.packed_size, &m.header})
        if (*extent == saturated32) {
          if (place + 8 > at + 4 + count)
            fail(Fault::data, {in.what(), ": the extents of ", utf8::quoted(m.name), " are not there"});
          *extent = fields.at<std::uint64_t>(place);
          place += 8;
        }
      return;
    }
    at += 4 + count;
  }
}

// Where the packed bytes begin, after a local header whose lengths of name and extra fields are its own.
std::uint64_t contents(const Reader& in, const NpzMember& m) {
  in.piece(m.header, local_size, "the header of " + utf8::quoted(m.name));
  const std::uint64_t name = in.at<std::uint16_t>(m.header + 26), extra = in.at<std::uint16_t>(m.header + 28);
  const std::string of = utf8::quoted(m.name);
  if (in.at<std::uint32_t>(m.header) != local_signature || in.text(m.header + local_size, name, of) != m.name + ".npy")
    fail(Fault::data,
         {in.what(), ": the header of ", utf8::quoted(m.name), " is not at byte ", m.header, ", where it is said to be"});
  const std::uint64_t begin = m.header + local_size + name + extra;
  in.piece(begin, m.packed_size, of);
  return begin;
}

NpzMember member(const Reader& in, std::uint64_t at) {
  NpzMember m;
  m.name = array_name(in, in.text(at + member_size, in.at<std::uint16_t>(at + 28), "the name of an array"));
  const std::uint16_t method = in.at<std::uint16_t>(at + 10);
  if (in.at<std::uint16_t>(at + 8) & encrypted) fail(Fault::data, {in.what(), ": ", utf8::quoted(m.name), " is encrypted"});
  if (method != stored && method != deflated)
    fail(Fault::data, {in.what(), ": ", utf8::quoted(m.name), " is packed by method ", method,
                       ", but only 0 (stored) and 8 (deflated) are read"});
  m.deflated = method == deflated;
  m.checksum = in.at<std::uint32_t>(at + 16);
  m.packed_size = in.at<std::uint32_t>(at + 20);
  m.size = in.at<std::uint32_t>(at + 24);
  m.header = in.at<std::uint32_t>(at + 42);
  const std::uint64_t extra = at + member_size + in.at<std::uint16_t>(at + 28);
  widen(in, in.piece(extra, in.at<std::uint16_t>(at + 30), "the extra fields of " + utf8::quoted(m.name)), m);
  const bool possible = m.deflated ? m.size / deflate_ratio <= m.packed_size : m.size == m.packed_size;
  if (!possible)
    fail(Fault::data, {in.what(), ": ", utf8::quoted(m.name), " announces ", m.size, " bytes in ", m.packed_size,
                       m.deflated ? ", more than can be packed so" : " stored ones"});
  contents(in, m);
  return m;
}

constexpr std::uint64_t at_once = std::numeric_limits<uInt>::max();

// Whether the stream ends with its bytes and fills `out` exactly.
bool inflate_to(std::span<const std::byte> packed, std::span<std::byte> out, std::string_view what) {
  Inflate inflater(Inflate::Wrapper::none, what);
  z_stream& z = inflater.stream;
  std::byte spare{};  // zlib wants a place for no bytes, too
  std::uint64_t from = 0, made = 0;
  while (true) {
    const std::uint64_t given = std::min<std::uint64_t>(packed.size() - from, at_once),
                        room = std::min(out.size() - made, at_once);
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data() + from));
    z.avail_in = static_cast<uInt>(given);
    z.next_out = reinterpret_cast<Bytef*>(room > 0 ? out.data() + made : &spare);
    z.avail_out = static_cast<uInt>(std::max<std::uint64_t>(room, 1));
    const int status = inflate(&z, Z_NO_FLUSH);
    from += given - z.avail_in;
    const std::uint64_t written = std::max<std::uint64_t>(room, 1) - z.avail_out;
    if (written > room) return false;
    made += written;
    if (status == Z_MEM_ERROR) fail(Fault::memory, {what, ": not enough memory to unpack it"});
    if (status == Z_STREAM_END) return from == packed.size() && made == out.size();
    if (status != Z_OK || (z.avail_in == given && written == 0)) return false;
  }
}

std::uint32_t checksum_of(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

class Writer {
 public:
  template <class T>
  void number(T v) {
    for (std::size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<std::byte>(v >> 8 * i & 0xff));
  }
  void text(std::string_view s) { raw(std::as_bytes(std::span(s))); }
  void raw(std::span<const std::byte> b) { bytes.insert(bytes.end(), b.begin(), b.end()); }
  // What the local header and the directory have in common: version 2.0, UTF-8 names, stored, 1980-01-01, checksum, extents.
  void facts(std::uint32_t checksum, std::uint32_t size, std::string_view file) {
    number<std::uint16_t>(20), number<std::uint16_t>(1 << 11), number<std::uint16_t>(stored);
    number<std::uint16_t>(0), number<std::uint16_t>(1 << 5 | 1);
    number(checksum), number(size), number(size);
    number(static_cast<std::uint16_t>(file.size())), number<std::uint16_t>(0);
  }
  std::vector<std::byte> bytes;
};

}  // namespace

bool is_npz(std::span<const std::byte> bytes) {
  return bytes.size() >= 4 && bytes[0] == std::byte{'P'} && bytes[1] == std::byte{'K'} &&
         ((bytes[2] == std::byte{3} && bytes[3] == std::byte{4}) || (bytes[2] == std::byte{5} && bytes[3] == std::byte{6}));
}

std::vector<NpzMember> npz_members(std::span<const std::byte> bytes, std::string_view what) {
  if (!is_npz(bytes)) fail(Fault::data, {what, " does not begin with the bytes 'PK' 03 04 of an NPZ archive"});
  const Reader in(bytes, what);
  const Directory d = directory(in);
  std::vector<NpzMember> out;
  std::set<std::string_view> names;
  std::uint64_t at = d.begin;
  for (std::uint64_t i = 0; i < d.members; ++i) {
    if (d.end - at < member_size || in.at<std::uint32_t>(at) != member_signature)
      fail(Fault::data, {what, " announces ", d.members, " arrays, but its directory has ", i});
    out.push_back(member(in, at));
    at += member_size + in.at<std::uint16_t>(at + 28) + in.at<std::uint16_t>(at + 30) + in.at<std::uint16_t>(at + 32);
    if (at > d.end) fail(Fault::data, {what, ": the entry of ", utf8::quoted(out.back().name), " goes beyond the directory"});
  }
  if (at != d.end) fail(Fault::data, {what, ": ", d.end - at, " bytes that are no entries stand in its directory"});
  for (const NpzMember& m : out)
    if (!names.insert(m.name).second) fail(Fault::data, {what, " has the array ", utf8::quoted(m.name), " twice"});
  return out;
}

std::vector<std::byte> npz_array(std::span<const std::byte> bytes, const NpzMember& m, std::uint64_t max_bytes,
                                 std::string_view what) {
  if (m.size > max_bytes)
    fail(Fault::data,
         {what, ": ", utf8::quoted(m.name), " unpacks to ", m.size, " bytes, but at most ", max_bytes, " are read"});
  const Reader in(bytes, what);
  const auto packed = bytes.subspan(contents(in, m), m.packed_size);
  std::vector<std::byte> out(m.size);
  if (!m.deflated)
    std::copy(packed.begin(), packed.end(), out.begin());
  else if (!inflate_to(packed, out, what))
    fail(Fault::data,
         {what, ": the packed bytes of ", utf8::quoted(m.name), " are damaged or not of the ", m.size, " bytes announced"});
  if (checksum_of(out) != m.checksum)
    fail(Fault::data, {what, ": ", utf8::quoted(m.name), " is damaged: its checksum is another"});
  return out;
}

std::vector<std::byte> npz_bytes(std::span<const NpzArray> arrays) {
  require(arrays.size() <= saturated16 - 1, "npz_bytes: an archive has at most 65534 arrays here, got ", arrays.size());
  Writer out, directory;
  std::set<std::string_view> names;
  for (const NpzArray& a : arrays) {
    require(!a.name.empty() && a.name.size() < 1024 && utf8::find_invalid(a.name) == std::string::npos &&
                a.name.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos,
            "npz_bytes: ", utf8::quoted(a.name), " cannot be the name of an array: it must be a text without / \\ : and NUL");
    require(names.insert(a.name).second, "npz_bytes: the array ", utf8::quoted(a.name), " is given twice");
    const std::string file = a.name + ".npy";
    require(a.npy.size() + out.bytes.size() + directory.bytes.size() < saturated32 - (1 << 20),
            "npz_bytes: the archive would have more than 4 GiB at the array ", utf8::quoted(a.name));
    const auto header = static_cast<std::uint32_t>(out.bytes.size()), size = static_cast<std::uint32_t>(a.npy.size());
    const std::uint32_t checksum = checksum_of(a.npy);
    out.number(local_signature);
    out.facts(checksum, size, file);
    out.text(file);
    out.raw(a.npy);
    directory.number(member_signature);
    directory.number<std::uint16_t>(20);
    directory.facts(checksum, size, file);
    directory.number<std::uint16_t>(0), directory.number<std::uint16_t>(0), directory.number<std::uint16_t>(0);
    directory.number<std::uint32_t>(0), directory.number(header);
    directory.text(file);
  }
  const auto begin = static_cast<std::uint32_t>(out.bytes.size()), size = static_cast<std::uint32_t>(directory.bytes.size());
  const auto count = static_cast<std::uint16_t>(arrays.size());
  out.raw(directory.bytes);
  out.number(end_signature);
  out.number<std::uint16_t>(0), out.number<std::uint16_t>(0), out.number(count), out.number(count);
  out.number(size), out.number(begin), out.number<std::uint16_t>(0);
  return std::move(out.bytes);
}

}  // namespace costate::cli
