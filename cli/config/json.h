// Strict JSON (RFC 8259): one value, no comments, no duplicate keys, no trailing text.
#pragma once
#include <nlohmann/json.hpp>
#include <string_view>

namespace costate::cli {

using Json = nlohmann::ordered_json;

// Throws Fault::argument with one sentence that begins with `what` and says where the text is wrong.
Json parse_json(std::string_view text, std::string_view what);

// "an integer", "text", "an object": for sentences. The value itself is added when it is short.
std::string description(const Json& value);

}  // namespace costate::cli
