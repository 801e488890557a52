#!/usr/bin/env bash
# Fuzzes the parsers of text from outside, one after the other.
#
#   run.sh SECONDS [TARGET...]   so long each; all of them, or those named
#   FUZZ_OPTIONS                 more for `cargo fuzz`, such as --dev
#
# It goes on from where the last run ended (fuzz/corpus). What breaks a target is put into fuzz/artifacts: copied to
# fuzz/seeds/<target>, it is tried by every `make unit` from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=$1
shift
if ! cargo fuzz --version >/dev/null 2>&1 || ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzzing needs a nightly compiler and cargo-fuzz: rustup toolchain install nightly, cargo install --locked cargo-fuzz" >&2
  exit 1
fi
# The dependencies that Berth itself is built with.
cp Cargo.lock fuzz/Cargo.lock
if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir fuzz); fi
read -ra options <<<"--fuzz-dir fuzz ${FUZZ_OPTIONS:-}"
[ -z "${CARGO_TARGET_DIR:-}" ] || options+=(--target-dir "$CARGO_TARGET_DIR")

echo "building the targets: minutes the first time"
broken=()
for target in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  log=fuzz/artifacts/$target/log.txt
  cargo +nightly fuzz build "${options[@]}" "$target" 2>"$log" || { cat "$log" >&2; exit 1; }
  if cargo +nightly fuzz run "${options[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=10 >"$log" 2>&1; then
    printf '%-16s %s\n' "$target" "$(grep -a '^Done ' "$log" || tail -n 1 "$log")"
  else
    printf '%-16s broken, see %s\n' "$target" "$log"
    grep -aE "panicked|^thread|Test unit written|ERROR|SUMMARY" "$log" | sed 's/^/    /' || true
    broken+=("$target")
  fi
done
[ ${#broken[@]} -eq 0 ]
