#!/usr/bin/env bash
# Makes or brings up to date the environment of this repository: .venv at its root, with the packages of
# pyproject.toml, the three of submodules/ (compiled here) and the tools of the tests. Quick when nothing has changed.
#
#   bash scripts/setup_env.sh                    PYTHON=python3.12 chooses another interpreter (3.10 or later)
#   GRADISEG_CUDA=on bash scripts/setup_env.sh   auto (default): with CUDA where an nvcc works; on, off; docs/gpu.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
stamps=.venv/stamps # one file for each installed part, with the checksum of what it was installed from
host_python=${PYTHON:-python3}

fail() {
  echo "setup_env.sh: $*" >&2
  exit 1
}

checksum() { # of the files in the given files and folders, whatever builds left beside them
  find "$@" -type f -not -path '*/build/*' -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z |
    xargs -0 cksum | cksum
}

up_to_date() { # up_to_date PART CHECKSUM
  [[ -f $stamps/$1 && $(<"$stamps/$1") == "$2" ]]
}

# Errors only: pip's notes and warnings would put the addresses of package indexes into logs.
install() { "$python" -m pip install -qq --disable-pip-version-check -c constraints.txt "$@"; }

if ! "$python" -c '' 2>/dev/null; then
  command -v "$host_python" >/dev/null || fail "$host_python not found. Install Python 3.10 or later."
  "$host_python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$host_python" --version) is too old. Name Python 3.10 or later: PYTHON=python3.12 bash $0"
  "$host_python" -m venv --clear .venv || fail "python3 -m venv failed. On Debian: apt install python3-venv"
fi
mkdir -p "$stamps"

sum="$PWD $(checksum pyproject.toml constraints.txt)" # the editable install points to this folder
if ! up_to_date gradiseg "$sum"; then
  echo "Installing PyTorch and the other packages ..."
  install -e '.[dev]'
  echo "$sum" >"$stamps/gradiseg"
fi

cuda="${GRADISEG_CUDA:-auto} ${GRADISEG_CUDA_ARCHITECTURES:-} ${CUDACXX:-} ${CUDA_HOME:-} $(
  compgen -G '.venv/lib/python*/site-packages/nvidia/cu*/bin/nvcc' || command -v nvcc || true
)"
compiled=
for package in simple-knn fused-losses diff-gaussian-rasterization; do
  sum="$cuda $(checksum "submodules/$package")"
  up_to_date "$package" "$sum" && continue
  command -v "${CXX:-c++}" >/dev/null || fail "no C++ compiler (${CXX:-c++}). Install GCC or Clang, or set CXX."
  echo "Compiling $package ..."
  install --no-deps --force-reinstall "./submodules/$package"
  echo "$sum" >"$stamps/$package"
  compiled=1
done
if [[ -n $compiled ]]; then "$python" -m diff_gaussian_rasterization; fi
