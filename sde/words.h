// One word out of a list: how the kinds of this folder are chosen by name.
#pragma once
#include <costate/tensor/error.h>

#include <array>
#include <string>
#include <string_view>

namespace costate::sde {

// The place of `word` in `words`. Any other word is an Error(argument): it is not `what` ("a path family"), what there
// is, and which of these it resembles.
template <class Words>
std::size_t word_index(std::string_view word, const Words& words, const char* what) {
  std::string list;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == word) return i;
    list += (i ? ", " : "") + std::string(words[i]);
  }
  const std::string near = nearest_of(word, words);
  fail(Fault::argument, {"\"", word, "\" is not ", what, "; there are ", list,
                         near.empty() ? std::string() : "; did you mean \"" + near + "\"?"});
}

}  // namespace costate::sde
