#!/usr/bin/env bash
# Compiles the rasterizer's baseline core for this processor and for 64-bit Arm, runs a scene on both, the latter under
# QEMU, and compares images and gradients: their norms within 1e-9 in double and 1e-5 in float.
#
#   bash scripts/check_aarch64.sh     Debian: apt install g++-aarch64-linux-gnu qemu-user
#
# AARCH64_CXX, AARCH64_ROOT and QEMU name the cross compiler, its libraries (/usr/aarch64-linux-gnu) and the emulator.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cross=${AARCH64_CXX:-aarch64-linux-gnu-g++}
root=${AARCH64_ROOT:-/usr/aarch64-linux-gnu}
emulator=${QEMU:-qemu-aarch64}
for tool in "${CXX:-c++}" "$cross" "$emulator"; do
  command -v "$tool" >/dev/null || { echo "check_aarch64.sh: $tool not found." >&2 && exit 1; }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
csrc=submodules/diff-gaussian-rasterization/csrc
flags=(-std=c++17 -O2 -fno-math-errno -fno-trapping-math -Wno-psabi -Wno-unknown-pragmas -static -I "$csrc")
"${CXX:-c++}" "${flags[@]}" tests/submodules/other_processor.cpp "$csrc/cpu/core.cpp" -o "$scratch/here"
"$cross" "${flags[@]}" tests/submodules/other_processor.cpp "$csrc/cpu/core.cpp" -o "$scratch/there"
"$scratch/here" >"$scratch/here.txt"
"$emulator" -L "$root" "$scratch/there" >"$scratch/there.txt"
paste -d ' ' "$scratch/here.txt" "$scratch/there.txt" | awk '
  { difference = $3 == $6 ? 0 : ($6 - $3) / $3; if (difference < 0) difference = -difference
    printf "%-6s %-9s %s %s  %.1e\n", $1, $2, $3, $6, difference
    if (!(difference <= ($1 == "double" ? 1e-9 : 1e-5))) wrong = 1 }
  END { if (NR != 20 || wrong) { print "check_aarch64.sh: the two differ" > "/dev/stderr"; exit 1 } }'
