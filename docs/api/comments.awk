# Shows Doxygen our headers, whose comments are plain ones, with the marks that it wants; line numbers stay. For its INPUT_FILTER.
#   the comment that opens a file        becomes the file's
#   a comment above a declaration        becomes the declaration's
#   a comment behind one, after its end  likewise, with the lines below it that begin in the same column
# Lines that are indented by more than a space are equations, tables and code, and stay as they are. Comments within bodies,
# those with an empty line below them, and rules of dashes are not shown.

function prose(text,    out, word, part, n, i) {
  n = split(text, part, "\\")
  text = part[1]
  for (i = 2; i <= n; ++i) text = text "\\\\" part[i]
  gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
  gsub(/@/, "\\@", text); gsub(/#/, "\\#", text); gsub(/%/, "\\%", text)
  gsub(/ (al|eqs?|cf|resp)\. /, "&\\ ", text); gsub(/\. \\ /, ".\\ ", text)  # no end of a sentence
  while (match(text, /`[^`]*`/))
    text = substr(text, 1, RSTART - 1) "<tt>" substr(text, RSTART + 1, RLENGTH - 2) "</tt>" substr(text, RSTART + RLENGTH)
  while (match(text, /arXiv [0-9][0-9][0-9][0-9]\.[0-9][0-9][0-9][0-9][0-9]/)) {
    word = substr(text, RSTART, RLENGTH)
    out = out substr(text, 1, RSTART - 1) "<a href=\"https://arxiv.org/abs/" substr(word, 7) "\">" word "</a>"
    text = substr(text, RSTART + RLENGTH)
  }
  return out text
}

# Lines first..last are comments; the marks that Doxygen wants go in front of their text.
function mark(first, last, sign,    i, text, indent, inside, below) {
  below = sign == "///" && line[first] ~ indented
  for (i = first; i <= last; ++i) {
    match(line[i], /^ */); indent = substr(line[i], 1, RLENGTH)
    text = prose(substr(line[i], RLENGTH + 3))
    if (below && !inside) text = " <pre>" substr(text, 2)
    inside = below
    below = sign == "///" && i < last && line[i + 1] ~ indented
    if (below && !inside) sub(/,$/, ":", text)
    line[i] = indent sign text (inside && !below ? "</pre>" : "")
  }
}

# Follows the code of a line: `depth` scopes are open, `body[depth]` says that the innermost one is of statements or
# initialisers, `round` parentheses are open.
function follow(code,    i, c) {
  gsub(/"([^"\\]|\\.)*"/, "", code); gsub(/'([^'\\]|\\.)'/, "", code)
  for (i = 1; i <= length(code); ++i) {
    c = substr(code, i, 1)
    if (c == "(") ++round
    if (c == ")") --round
    if (c == "{") {
      gsub(/template *<[^()]*>/, "", head)
      body[++depth] = body[depth - 1] || head !~ /(^| )(namespace|struct|class|union|enum|extern)( |$)/ || head ~ /[(=]/
    }
    if (c == "}") --depth
    head = c ~ /[;{}]/ ? "" : head c
  }
  head = head " "
}

BEGIN { indented = "^ *//   *[^ ]" }

{ line[NR] = $0 }

END {
  i = 1
  if (line[1] ~ /^\/\//) {
    while (line[i] ~ /^\/\//) ++i
    opening = i - 1
  }
  for (; i <= NR; ++i) {
    if (line[i] ~ /^ *\/\/ ---/) {
      continue  # a rule of dashes
    } else if (line[i] ~ /^ *\/\//) {
      for (last = i; line[last + 1] ~ /^ *\/\//; ++last) {}
      if (!body[depth] && round == 0 && line[last + 1] !~ /^ *([}#]|$)/) mark(i, last, "///")
      i = last
    } else if (line[i] ~ /^#include .*\.def>/) {
      line[i] = ""  # a list of macros
    } else if (line[i] ~ /^#/) {
      while (line[i] ~ /\\$/) ++i
    } else if (match(line[i], /  +\/\/ /)) {
      code = substr(line[i], 1, RSTART - 1)
      column = RSTART + RLENGTH
      follow(code)
      if (!body[depth] && round == 0 && code ~ /[;,}a-z0-9]$/ && code !~ /^}/ && gsub(/"/, "\"", code) % 2 == 0) {
        line[i] = code "  ///< " prose(substr(line[i], column))
        while (match(line[i + 1], /^ *\/\//) && RLENGTH == column - 2) mark(++i, i, "///<")
      }
    } else {
      follow(line[i])
    }
  }
  if (opening) {
    mark(1, opening, "///")
    for (i = opening; line[i] !~ /^#pragma once/ && i < NR; ++i) {}
    if (line[i] ~ /^#pragma once/) line[i] = "/// \\file"
  }
  for (i = 1; i <= NR; ++i) print line[i]
}
