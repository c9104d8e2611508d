# What quickstart.sh and test.sh share. To be sourced, with the working directory at the root of the tree.

build_packages="g++ cmake ninja-build libeigen3-dev libcli11-dev nlohmann-json3-dev libpng-dev libjpeg-dev zlib1g-dev"
test_packages="libgtest-dev libbenchmark-dev libopenmpi-dev openmpi-bin git pkg-config"

say() { printf '== %s\n' "$*"; }
stop() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# need_packages NAME...: installs those of Debian's packages that are missing; without a missing one, nothing is run.
need_packages() {
  local missing=() root=() package
  if ! command -v dpkg-query >/dev/null; then
    say "this is not Debian: what is needed goes there by the names of $*"
    return
  fi
  for package in "$@"; do
    # A compiler of the user's choice stands in for g++.
    [ "$package" = g++ ] && [ -n "${CXX:-}" ] && command -v "${CXX%% *}" >/dev/null && continue
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "Debian packages: all there"
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "missing packages, and neither root nor sudo to install them: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  "${root[@]}" apt-get -qq update </dev/null || stop "apt-get update failed"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/tmp/costate-apt.$$ 2>&1 ||
    { cat /tmp/costate-apt.$$; rm -f /tmp/costate-apt.$$; stop "apt-get install failed"; }
  rm -f /tmp/costate-apt.$$
}

# build DIR CMAKE_OPTION...: configures and builds everything of that configuration.
build() {
  local dir=$1 launcher=()
  shift
  if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  fi
  say "configuring $dir"
  cmake -S . -B "$dir" -G Ninja "${launcher[@]}" "$@" </dev/null || return 1
  say "building with $(nproc) jobs"
  cmake --build "$dir" --parallel "$(nproc)" </dev/null
}
