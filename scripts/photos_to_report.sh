#!/usr/bin/env bash
# From photographs alone (or a video) to a trained scene and a page of results: camera poses, id masks by the offline
# segmenter, data check with contact sheet, training on a compressed schedule, renders, report.
#
#   bash scripts/photos_to_report.sh PHOTOS SCENE RUN [flags of train.py]
#   bash scripts/photos_to_report.sh ~/garden.mp4 data/garden output/garden -r 2 --schedule_scale 0.2
#
# A command that was stopped goes on: poses and masks that are done are not made again, training starts from its latest
# checkpoint. In the environment: PYTHON, and CONVERT, MASKS and CHECK (flags of those commands).
# shellcheck disable=SC2086 # flags are several words
set -euo pipefail

if (($# < 3)); then
  echo "usage: bash scripts/photos_to_report.sh PHOTOS SCENE RUN [flags of train.py]" >&2
  exit 2
fi
photos=$(realpath "$1") scene=$(realpath -m "$2") run=$(realpath -m "$3")
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
flags=${*:-"--schedule_scale 0.13 --densify_grad_threshold 6e-4 --max_gaussians 50000"}

quiet=
[[ -t 2 ]] || quiet=--quiet # progress bars are for terminals

step() { echo "== $1 (after $((SECONDS / 60)) min $((SECONDS % 60)) s)"; }

step poses
$python convert.py -s "$scene" --photos "$photos" --json "$run/convert.json" ${CONVERT:-}
step masks
[[ -d $scene/object_mask ]] ||
  $python prepare_masks.py -s "$scene" --backend associate3d --segmenter hed ${MASKS:-} $quiet
step check
classes=$($python check_scene.py -s "$scene" --eval --num_classes 65536 --json "$run/check.json" \
  --sheet "$run/ids.html" ${CHECK:-} >&2 &&
  $python -c 'import json, sys; print(max(256, 1 + max(map(int, json.load(open(sys.argv[1]))["ids"]), default=0)))' \
    "$run/check.json")
step "training and pictures"
$python -m experiments scene "$scene" "$run" gradiseg --eval --num_classes "$classes" $flags
$python scripts/make_report.py --gradiseg "$run" --out "$run"
step done
