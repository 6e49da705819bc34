#!/usr/bin/env bash
# Table 3 of the paper: trains, renders and scores the scenes of Mip-NeRF 360, into OUT/<factor>/<config>/<scene>/, and
# writes OUT/tables.md. Started again, it goes on where it was.
#
#   bash scripts/mipnerf360.sh DATA OUT [--jobs N] [--threads N] [--address RAY] [flags of train.py]
#
# DATA holds a folder for each scene with images_2, images_4, images_8, sparse/0 and, from prepare_masks.py,
# object_mask/. In the environment, with their defaults:
#   SCENES="bicycle flowers garden stump treehill room counter kitchen bonsai"
#   CONFIGS="baseline gradiseg"
#   FACTORS="8 published"      8 is the paper's; published is 3DGS's: images_4 outdoors, images_2 indoors
#
# LPIPS gets pictures in [0, 1], as in all published tables of this kind.
# shellcheck disable=SC2086 # lists of words
set -euo pipefail

if (($# < 2)); then
  echo "usage: bash scripts/mipnerf360.sh DATA OUT [flags]" >&2
  exit 2
fi
data=$(realpath "$1") out=$(realpath -m "$2")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec ${PYTHON:-.venv/bin/python} -m experiments mipnerf360 "$data" "$out" ${SCENES:+--scenes $SCENES} \
  ${CONFIGS:+--configs $CONFIGS} ${FACTORS:+--factors $FACTORS} "$@"
