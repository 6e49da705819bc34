#!/usr/bin/env bash
# Builds the three packages of submodules/ as wheels, each in an isolated environment, and runs their tests on what the
# wheels hold.
#
#   bash scripts/check_wheels.sh                 with the torch of .venv
#   bash scripts/check_wheels.sh 2.14.1          in a fresh environment with that version of it
#   CXX=clang++ bash scripts/check_wheels.sh     of another compiler
#
# WHEELS names a folder that keeps them. They fit one minor version of Python and a glibc as new as the builder's, and are
# not manylinux: repaired with auditwheel, exclude libgomp, which must be the one that torch has loaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=${1:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
wheels=${WHEELS:-$scratch/wheels}
quietly=(-qq --disable-pip-version-check)
export GRADISEG_CUDA=${GRADISEG_CUDA:-off}

python=.venv/bin/python
for package in simple-knn fused-losses diff-gaussian-rasterization; do
  echo "Building the wheel of $package ..."
  $python -m pip wheel "${quietly[@]}" --no-deps --wheel-dir "$wheels" "./submodules/$package"
done

if [[ -n $version ]]; then
  $python -m venv "$scratch/environment"
  python=$scratch/environment/bin/python
  $python -m pip install "${quietly[@]}" "torch==$version" numpy scipy pillow plyfile tqdm tensorboard pytest hypothesis \
    "$wheels"/*.whl
else
  $python -m pip install "${quietly[@]}" --no-deps --target "$scratch/site" "$wheels"/*.whl
  export PYTHONPATH=$scratch/site
fi
$python -m diff_gaussian_rasterization
$python -m pytest -q -p no:cacheprovider tests/submodules/test_{contract,rasterizer,fused_losses,simple_knn}.py
