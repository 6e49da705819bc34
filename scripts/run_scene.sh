#!/usr/bin/env bash
# Trains, renders and scores one scene. Steps that are done are not done again, and a training that was cut off goes on
# from its checkpoint.
#
#   bash scripts/run_scene.sh SCENE RUN CONFIG [flags of train.py]
#
# CONFIG is the name of a file in config/gradiseg/, `gradiseg` (its train.json) or `igd_from_N`: the same with IGD in
# iterations N to N + 3,000, as in figure 6 of the paper. In the environment: PYTHON, METRICS (flags of metrics.py) and
# TEXT (flags of eval_lerf_mask.py that choose ids by words; with none the masks are scored with the best ids alone).
set -euo pipefail

if (($# < 3)); then
  echo "usage: bash scripts/run_scene.sh SCENE RUN CONFIG [flags of train.py]" >&2
  exit 2
fi
scene=$(realpath -m "$1") run=$(realpath -m "$2")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec ${PYTHON:-.venv/bin/python} -m experiments scene "$scene" "$run" "$@" \
  --metrics="${METRICS:-}" --text="${TEXT:-}"
