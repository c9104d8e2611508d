// Names of tests that run on every table of the cpu: by the table's name, as an address would change from run to run.
#pragma once
#include <costate/tensor/tensor.h>
#include <gtest/gtest.h>

#include <cctype>
#include <ostream>
#include <string>

namespace costate {

inline void PrintTo(const Kernels* table, std::ostream* out) { *out << table->name; }

// "cpu (avx2)" -> "cpuavx2": names of tests are letters and digits.
inline std::string table_name(const Kernels& table) {
  std::string s(table.name);
  std::erase_if(s, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return s;
}
// Of tests whose parameter is the table itself, resp. its place in cpu_tables(), which a lesser processor may lack.
inline std::string name_of_table(const testing::TestParamInfo<const Kernels*>& info) { return table_name(*info.param); }
inline std::string name_of_place(const testing::TestParamInfo<int>& info) {
  return info.param < static_cast<int>(cpu_tables().size()) ? table_name(*cpu_tables()[static_cast<std::size_t>(info.param)])
                                                            : "absent" + std::to_string(info.param);
}

}  // namespace costate
