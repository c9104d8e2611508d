/// A header: <tt>this</tt> is what it is, Nobody et al.\ (<a href="https://arxiv.org/abs/2409.08861">arXiv 2409.08861</a>):
/// <pre>  x &lt; y
///     z &amp; w</pre>
/// and \\n.
/// \file

namespace costate {

// Floating: of nothing.

// ---------------------------------------------------------------------------------------------- a rule
/// Of f.
inline int f(int x) {
  // In the body.
  return x;  // here too
}

/// Of S, template &lt;class T&gt;.
template <class T>
struct S {
  enum class E { a, b };
  T value{};  ///< behind
               ///< and below
  int g(int first,   // of a parameter
        int second);
  const char* text = "http://x  // y";
  // The last.
};

}  // namespace costate
