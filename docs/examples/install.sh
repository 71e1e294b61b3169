#!/bin/sh
# Installs what client.mjs needs, as locked; `make examples` and `make test` run it. Without node,
# npm or a registry that answers it says so, and the test of client.mjs is skipped.
set -eu
cd "$(dirname "$0")"

not_tested() {
    printf '\n!!! NOT TESTED: docs/examples/client.mjs: %s\n\n' "$1" >&2
    exit 0
}

for program in node npm; do
    command -v "$program" >/dev/null || not_tested "there is no $program"
done
[ -z "$(find node_modules/.package-lock.json -newer package-lock.json 2>/dev/null)" ] || exit 0
said=$(npm ci --no-audit --no-fund --ignore-scripts --fetch-retries 1 2>&1) && exit 0
case $said in
*ENOTFOUND* | *EAI_AGAIN* | *ECONNREFUSED* | *ECONNRESET* | *ETIMEDOUT* | *ENETUNREACH*)
    not_tested "npm's registry cannot be reached" ;;
esac
printf '%s\n' "$said" >&2
exit 1
