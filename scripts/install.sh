#!/bin/sh
# Installs tsync, or brings it up to date, from a release: POSIX sh, no root needed.
#
#   curl -fsSL https://github.com/@REPOSITORY@/releases/latest/download/install.sh | sh
#   sh install.sh [--version X.Y.Z] [--to FOLDER]
#   sh install.sh --uninstall [--to FOLDER]
#
# Without --to: where tsync already is, else /usr/local/bin for root, else the first of
# ~/.local/bin and ~/bin that is on PATH, else ~/.local/bin.
# A release's installer downloads from the repository that published it. TSYNC_REPOSITORY=OWNER/NAME
# names another repository on GitHub, TSYNC_RELEASES another place that is laid out in the same way.
set -eu
# With it, `cd` may go elsewhere, and says where.
unset CDPATH

repository=${TSYNC_REPOSITORY:-@REPOSITORY@}
releases=${TSYNC_RELEASES:-https://github.com/$repository/releases}
version=
folder=
uninstall=

fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

usage() {
  printf 'install.sh: %s\nusage: install.sh [--version X.Y.Z] [--to FOLDER] [--uninstall]\n' "$*" >&2
  exit 2
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# What a release calls this system and processor.
target() {
  system=$(uname -s)
  processor=$(uname -m)
  case $processor in
    x86_64 | amd64) processor=x86_64 ;;
    aarch64 | arm64) processor=aarch64 ;;
    *) fail "there is no program for a processor of kind $processor: only for x86_64 and arm64" ;;
  esac
  case $system in
    Linux)
      if ldd --version 2>&1 | grep -qi musl; then
        fail 'there is no program for musl (Alpine Linux): it needs glibc'
      fi
      echo "$processor-unknown-linux-gnu"
      ;;
    Darwin)
      # A shell that Rosetta translates says x86_64.
      if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || true)" = 1 ]; then
        processor=aarch64
      fi
      echo "$processor-apple-darwin"
      ;;
    *) fail "there is no program for $system: only for Linux and macOS" ;;
  esac
}

# download URL FILE
download() {
  if has curl; then
    # What begins with TLS does not go on without.
    case $1 in https:*) protocol='=https' ;; *) protocol='=http,https' ;; esac
    curl -fsSL --retry 2 --proto "$protocol" -o "$2" "$1" ||
      fail "cannot download $1: see what curl says above"
  elif has wget; then
    wget -q -O "$2" "$1" || fail "cannot download $1 with wget: is the address right, and reachable?"
  else
    fail 'cannot download: neither curl nor wget is here; install one of them'
  fi
}

sha256() {
  if has sha256sum; then
    sha256sum "$1" | cut -d ' ' -f 1
  elif has shasum; then
    shasum -a 256 "$1" | cut -d ' ' -f 1
  else
    fail 'cannot verify the download: neither sha256sum nor shasum is here; install one of them'
  fi
}

on_path() {
  case :$PATH: in *:"$1":*) return 0 ;; *) return 1 ;; esac
}

# Where tsync is, or is to be.
choose_folder() {
  if present=$(command -v tsync 2>/dev/null) && [ -f "$present" ]; then
    dirname "$present"
  elif [ "$(id -u)" = 0 ]; then
    echo /usr/local/bin
  else
    [ -n "${HOME:-}" ] || fail 'HOME is not set: choose a folder with --to'
    for each in "$HOME/.local/bin" "$HOME/bin"; do
      if on_path "$each"; then
        echo "$each"
        return
      fi
    done
    echo "$HOME/.local/bin"
  fi
}

# Is it a file of Debian's packages or Homebrew's? dpkg knows it by the path without links, such as
# /bin to /usr/bin; Homebrew keeps it in its Cellar, and a link to that on PATH.
is_packaged() {
  [ -f "$program" ] || return 1
  case $(cd "$folder" && pwd -P)/:$(readlink "$program") in */Cellar/*) return 0 ;; esac
  has dpkg-query &&
    dpkg-query --search "$(cd "$folder" && pwd -P)/tsync" >/dev/null 2>&1
}

# What a program says that it is; it must be ours.
version_of() {
  says=$("$1" --version </dev/null 2>&1) || fail "$1 does not run here: $says"
  case $says in
    'tsync '[0-9]*) echo "$says" ;;
    *) fail "$1 is another program (it says: $says): it is left alone; choose a folder with --to" ;;
  esac
}

# All of it is read before any of it runs: a script that was cut short does nothing.
main() {
  while [ $# -gt 0 ]; do
    case $1 in
      --version | --to)
        [ $# -ge 2 ] || usage "$1 needs a value"
        if [ "$1" = --to ]; then folder=$2; else version=${2#v}; fi
        shift
        ;;
      --uninstall) uninstall=yes ;;
      --help | -h)
        echo 'usage: install.sh [--version X.Y.Z] [--to FOLDER] [--uninstall]'
        exit
        ;;
      *) usage "unknown argument $1" ;;
    esac
    shift
  done

  [ -n "$folder" ] || folder=$(choose_folder)
  if [ -d "$folder" ]; then folder=$(cd "$folder" && pwd); fi
  program=$folder/tsync
  if is_packaged; then
    fail "$program is a package's: upgrade or remove that with apt or brew, or choose another folder" \
      'with --to'
  fi
  [ ! -L "$program" ] || fail "$program is a symbolic link: name the folder that it leads to with --to"
  [ ! -d "$program" ] || fail "$program is a folder: choose another one with --to"

  before=
  if [ -n "$uninstall" ]; then
    [ -f "$program" ] || fail "there is no $program: nothing to uninstall"
    version_of "$program" >/dev/null
    rm -f "$program" 2>/dev/null ||
      fail "cannot remove $program: permission denied; try again with sudo"
    echo "removed $program"
    exit 0
  fi
  case $releases in
    https://github.com/@*)
      fail 'it does not know where releases are, since it is not from one: name the repository, as in' \
        "TSYNC_REPOSITORY=OWNER/NAME sh $0"
      ;;
  esac
  # What does not run is left alone too: whose it is cannot be told.
  [ ! -f "$program" ] || before=$(version_of "$program")

  has xz || [ "$(uname -s)" = Darwin ] || fail 'cannot unpack the download: xz is missing (package xz-utils or xz)'
  mkdir -p "$folder" 2>/dev/null || true
  if [ ! -d "$folder" ] || [ ! -w "$folder" ]; then
    fail "cannot write to $folder: choose another folder with --to, or try again with sudo"
  fi
  folder=$(cd "$folder" && pwd)
  program=$folder/tsync

  target=$(target)
  work=$(mktemp -d)
  new=$folder/.tsync.$$
  trap 'rm -rf "$work" "$new"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM

  if [ -n "$version" ]; then
    from=$releases/download/v$version
  else
    from=$releases/latest/download
  fi
  download "$from/SHA256SUMS" "$work/SHA256SUMS"
  line=$(grep -E "^[0-9a-f]{64}  tsync-[0-9A-Za-z.+-]+-$target\\.tar\\.xz\$" "$work/SHA256SUMS") ||
    fail "$from/SHA256SUMS names no program for $target"
  [ "$(printf '%s\n' "$line" | wc -l)" -eq 1 ] ||
    fail "$from/SHA256SUMS names several programs for $target"
  expected=${line%% *}
  archive=${line##* }

  download "$from/$archive" "$work/$archive"
  actual=$(sha256 "$work/$archive")
  if [ "$actual" != "$expected" ]; then
    fail "$archive is not what SHA256SUMS says (sha256 $actual, expected $expected): the download" \
      'was cut short or tampered with; nothing was installed'
  fi

  tar -xJf "$work/$archive" -C "$work" || fail "cannot unpack $archive: see what tar says above"
  unpacked=$work/${archive%.tar.xz}/tsync
  [ -f "$unpacked" ] || fail "$archive has no program in it"

  # Under its new name only when it runs, and at once: whoever runs the old one goes on.
  cp "$unpacked" "$new"
  chmod 755 "$new"
  says=$(version_of "$new")
  mv -f "$new" "$program"

  if [ -z "$before" ]; then
    echo "installed $says as $program"
  elif [ "$before" = "$says" ]; then
    echo "$says was there already: $program is as in the release again"
  else
    echo "replaced $before by $says: $program"
  fi
  if ! on_path "$folder"; then
    # shellcheck disable=SC2016 # The dollar sign is for the reader's shell.
    printf '%s is not on PATH. Add it, in ~/.profile or ~/.zprofile:\n  export PATH="%s:$PATH"\n' "$folder" "$folder"
  fi
}

main "$@"
