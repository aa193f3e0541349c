# What the scripts need from the machine: a Python, Debian packages, a virtual environment. Sourced, never run.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $1"
  [ -z "${2:-}" ] || say "hint: $2"
  exit 1
}

# quietly COMMAND...: run it; only where it fails, show the end of what it said.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || { status=$? && tail -n 15 "$log" >&2; }
  rm -f "$log"
  return $status
}

# need_packages PACKAGE...: install the Debian packages that are missing; the index is fetched only if one is.
need_packages() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}, and there is no apt-get" "install their like by hand"
  [ "$(id -u)" = 0 ] || die "missing: ${missing[*]}" "run as root, or: apt-get install ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  quietly apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive quietly apt-get -qq -y --no-install-recommends install "${missing[@]}" ||
    die "apt-get could not install ${missing[*]}" "see the lines above"
}

# debian_source SUITE: a line for apt, of this machine's mirror if it has Debian.
debian_source() {
  local mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
  [ -e "$keys" ] || need_packages debian-archive-keyring
  printf 'deb [signed-by=%s] %s %s main\n' "$keys" "${mirror:-http://deb.debian.org/debian}" "$1"
}

# A version manager may put names into PATH that do not run, so each candidate is tried, not only looked for.
working_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
    "$candidate" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)' 2>/dev/null && return
  done
  return 1
}

find_python() {
  working_python && return
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && need_packages python3 && working_python && return
  die "volback needs Python 3.11 or later; none was found" "set PYTHON=/path/to/python3.11, or install one"
}

# make_venv DIRECTORY REQUIREMENT: a virtual environment with REQUIREMENT (editable) installed; nothing is done twice.
make_venv() {
  local directory=$1 requirement=$2 python stamp
  # Settings of tools need no new environment.
  stamp=$(awk '/^\[/ {kept = /^\[(build-system|project|tool\.setuptools)/} kept' pyproject.toml | sha256sum | cut -d ' ' -f 1)
  if [ "$(cat "$directory/installed" 2>/dev/null)" = "$stamp" ] && "$directory/bin/python" -c '' 2>/dev/null; then
    return 0
  fi
  python=$(find_python) || exit 1
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    need_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  fi
  say "making $directory with $("$python" --version)"
  "$python" -m venv --clear "$directory"
  quietly "$directory/bin/python" -m pip install --quiet --disable-pip-version-check -e "$requirement" ||
    die "pip could not install volback into $directory" "is a Python package index reachable?"
  printf '%s\n' "$stamp" >"$directory/installed"
}
