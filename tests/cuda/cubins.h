// What the compiler gave kernels, read from the device code in a plugin: its cubins are ELF files of machine 190, whose section
// .nv.info holds the registers and the stack frame of each kernel by the number of its symbol, and whose sections
// .nv.shared.NAME are as large as the shared arrays. Compressed cubins are not seen.
#pragma once
#include <cxxabi.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace costate {

struct Resources {
  int architecture = 0;  // 80, 90, ...
  std::string file;      // "adamw.cu"
  std::string kernel;    // "update<float>"
  std::uint32_t registers = 0, stack = 0;
  std::uint64_t shared = 0;  // bytes of static arrays
};

namespace detail {

template <class T>
T read_at(std::string_view bytes, std::uint64_t at) {
  T v{};
  if (at <= bytes.size() && bytes.size() - at >= sizeof v) std::memcpy(&v, bytes.data() + at, sizeof v);
  return v;
}
inline std::string_view text_at(std::string_view bytes, std::uint64_t at) {
  if (at >= bytes.size()) return {};
  const std::string_view rest = bytes.substr(at);
  return rest.substr(0, rest.find('\0'));
}
inline void erase_all(std::string& s, std::string_view what) {
  for (std::size_t at; (at = s.find(what)) != std::string::npos;) s.erase(at, what.size());
}

// "_ZN7costate4cuda40_GLOBAL__N__4cf35f56_8_adamw_cu_016updateIfEE..." -> file adamw.cu, kernel update<float>.
inline void name_kernel(const std::string& symbol, Resources& r) {
  // The compiler's name for what a file has to itself: _GLOBAL__N__HASH_LENGTH_FILE_HASH.
  constexpr std::string_view own = "_GLOBAL__N__";
  if (const std::size_t at = symbol.find(own); at != std::string::npos) {
    const std::size_t hash = symbol.find('_', at + own.size()), length = symbol.find('_', hash + 1),
                      end = symbol.find("_cu_", length);
    if (end != std::string::npos) r.file = symbol.substr(length + 1, end - length - 1) + ".cu";
  }
  int status = 0;
  char* const text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string s = text ? text : symbol;
  std::free(text);
  for (const std::string_view part : {"(anonymous namespace)::", "costate::cuda::", "costate::", "void "}) erase_all(s, part);
  for (std::size_t at; (at = s.find("> >")) != std::string::npos;) s.erase(at + 1, 1);
  // The parameters are behind the template's arguments, which may hold parentheses themselves.
  int depth = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '<') ++depth;
    if (s[i] == '>') --depth;
    if (s[i] == '(' && depth == 0) {
      s.resize(i);
      break;
    }
  }
  r.kernel = s;
}

inline void read_cubin(std::string_view elf, std::vector<Resources>& out) {
  constexpr std::uint64_t header = 64, symbol = 24;
  struct Section {
    std::string_view name;
    std::uint64_t offset, size;
    std::uint32_t link;
  };
  const auto table = read_at<std::uint64_t>(elf, 0x28);
  const int count = read_at<std::uint16_t>(elf, 0x3c);
  const auto section_at = [&](int i) { return table + static_cast<std::uint64_t>(i) * header; };
  const auto names = read_at<std::uint64_t>(elf, section_at(read_at<std::uint16_t>(elf, 0x3e)) + 0x18);
  std::vector<Section> sections;
  for (int i = 0; i < count; ++i)
    sections.push_back({text_at(elf, names + read_at<std::uint32_t>(elf, section_at(i))),
                        read_at<std::uint64_t>(elf, section_at(i) + 0x18), read_at<std::uint64_t>(elf, section_at(i) + 0x20),
                        read_at<std::uint32_t>(elf, section_at(i) + 0x28)});
  const Section *symbols = nullptr, *info = nullptr;
  for (const Section& s : sections) {
    if (s.name == ".symtab") symbols = &s;
    if (s.name == ".nv.info") info = &s;
  }
  if (!symbols || !info || symbols->link >= sections.size()) return;
  // The architecture is in another byte of the flags since version 8 of the format.
  const auto flags = read_at<std::uint32_t>(elf, 0x30);
  const int architecture = static_cast<int>(read_at<std::uint8_t>(elf, 8) >= 8 ? (flags >> 8) & 0xff : flags & 0xff);
  std::map<std::uint32_t, Resources> kernels;
  for (std::uint64_t at = info->offset; at < info->offset + info->size;) {
    const auto format = read_at<std::uint8_t>(elf, at), attribute = read_at<std::uint8_t>(elf, at + 1);
    const auto size = read_at<std::uint16_t>(elf, at + 2);
    at += 4;
    if (format != 4) continue;  // 4: `size` bytes follow
    const auto number = read_at<std::uint32_t>(elf, at), value = read_at<std::uint32_t>(elf, at + 4);
    if (attribute == 0x2f) kernels[number].registers = value;
    if (attribute == 0x11) kernels[number].stack = value;
    at += size;
  }
  for (auto& [number, r] : kernels) {
    if (r.registers == 0) continue;  // a function that kernels call
    const auto name = read_at<std::uint32_t>(elf, symbols->offset + number * symbol);
    const std::string mangled(text_at(elf, sections[symbols->link].offset + name));
    r.architecture = architecture;
    for (const Section& s : sections)
      if (s.name == ".nv.shared." + mangled) r.shared = s.size;
    name_kernel(mangled, r);
    out.push_back(r);
  }
}

}  // namespace detail

inline std::vector<Resources> resources_in(std::string_view plugin) {
  std::vector<Resources> all;
  constexpr std::string_view magic("\x7f" "ELF", 4);
  for (std::size_t at = plugin.find(magic); at != std::string_view::npos; at = plugin.find(magic, at + 4))
    if (detail::read_at<std::uint16_t>(plugin, at + 18) == 190) detail::read_cubin(plugin.substr(at), all);
  return all;
}

}  // namespace costate
