// A header: `this` is what it is, Nobody et al. (arXiv 2409.08861),
//   x < y
//     z & w
// and \n.
#pragma once

namespace costate {

// Floating: of nothing.

// ---------------------------------------------------------------------------------------------- a rule
// Of f.
inline int f(int x) {
  // In the body.
  return x;  // here too
}

// Of S, template <class T>.
template <class T>
struct S {
  enum class E { a, b };
  T value{};   // behind
               // and below
  int g(int first,   // of a parameter
        int second);
  const char* text = "http://x  // y";
  // The last.
};

}  // namespace costate
