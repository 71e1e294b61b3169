#!/usr/bin/env bash
# Writes the lock files of this folder from pyproject.toml; `make lock` runs it. What is locked
# already stays as it is unless UPGRADE=1. The files name no index: pip's own settings decide.
set -euo pipefail
cd "$(dirname "$0")"
uv=${UV:-uv}

lock() {
  local target=$1 source=$2
  shift 2
  "$uv" pip compile "$source" "$@" --output-file "$target" --quiet --no-config \
    --universal --python-version 3.11 --generate-hashes ${UPGRADE:+--upgrade} \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links
  { echo "# Made by \`make lock\` (uv pip compile) from $(basename "$source"); do not edit."; cat "$target"; } >"$target.new"
  mv "$target.new" "$target"
}

lock dev.txt ../pyproject.toml --all-extras # first: the others may not differ from it
lock local.txt ../pyproject.toml --extra local --constraints dev.txt
lock runtime.txt ../pyproject.toml --constraints dev.txt
lock build.txt build.in --constraints dev.txt
lock fuzz.txt fuzz.in ../pyproject.toml --constraints dev.txt
lock sbom.txt sbom.in # on its own: it never meets the others in one environment
lock peers.txt peers.in # likewise
lock audit.txt audit.in # likewise

if grep -nE '://|^-|/(opt|home|tmp|root|work)/' ./*.txt; then
  echo "a lock file names a host, an option or a folder of this machine" >&2
  exit 1
fi
