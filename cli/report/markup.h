// Text in XML and HTML.
#pragma once
#include <string>
#include <string_view>

namespace costate::cli::report {

// With & < > " ' as references; bytes that are not UTF-8 and characters that XML 1.0 forbids become U+FFFD.
std::string escaped(std::string_view text);

// About how wide a line of sans-serif text is, in units of its font size.
double text_width(std::string_view text);

}  // namespace costate::cli::report
