#!/usr/bin/env bash
# Tables 1, 2 and 4 and figure 6 of the paper: trains, renders and scores the scenes of LERF-Mask in all configurations,
# into OUT/<config>/<scene>/, and writes OUT/tables.md. Started again, it goes on where it was.
#
#   bash scripts/lerf_mask.sh DATA OUT [--jobs N] [--threads N] [--address RAY] [flags of train.py]
#
# DATA holds a folder for each scene, as Gaussian Grouping publishes them. In the environment, with their defaults:
#   SCENES="figurines ramen teatime"
#   CONFIGS="baseline no_igd no_la_knn gradiseg"     igd_from_N adds a point of figure 6
#   TEXT="--box_threshold 0.3"                       flags of the choice by words (--detector, --segmenter); "" = none
#   TEXT_MASKS=""                                    folder of <scene>/<words>.png in the place of both models
#   METRICS=""                                       flags of metrics.py
# shellcheck disable=SC2086 # lists of words
set -euo pipefail

if (($# < 2)); then
  echo "usage: bash scripts/lerf_mask.sh DATA OUT [flags]" >&2
  exit 2
fi
data=$(realpath "$1") out=$(realpath -m "$2")
shift 2
masks=${TEXT_MASKS:+--text_masks=$(realpath "$TEXT_MASKS")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec ${PYTHON:-.venv/bin/python} -m experiments lerf_mask "$data" "$out" ${SCENES:+--scenes $SCENES} \
  ${CONFIGS:+--configs $CONFIGS} --text="${TEXT---box_threshold 0.3}" --metrics="${METRICS:-}" ${masks:+"$masks"} "$@"
