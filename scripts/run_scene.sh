#!/usr/bin/env bash
# Trains, renders and scores one scene; lerf_mask.sh and mipnerf360.sh call it. Steps that are done are not done again,
# and a training that was stopped goes on from its checkpoint.
#
#   bash scripts/run_scene.sh SCENE RUN CONFIG [flags of train.py]
#
# CONFIG is the name of a file in config/gradiseg/, `gradiseg` (its train.json) or `igd_from_N`: the same with IGD in
# iterations N to N + 3,000, as in figure 6 of the paper. In the environment: PYTHON, METRICS (flags of metrics.py) and
# TEXT (flags of eval_lerf_mask.py that choose ids by words; with none the masks are scored with the best ids alone).
# shellcheck disable=SC2086 # flags are several words
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# < 3)); then
  echo "usage: bash scripts/run_scene.sh SCENE RUN CONFIG [flags of train.py]" >&2
  exit 2
fi
scene=$1 run=$2 config=$3
shift 3
python=${PYTHON:-.venv/bin/python}

file=$config
phases=
case $config in
  gradiseg) file=train ;;
  igd_from_*)
    file=train start=${config#igd_from_} end=$((${config#igd_from_} + 3000))
    phases="--densify_until_iter $start --igd_from_iter $start --igd_until_iter $end"
    ((end > 15000)) && phases+=" --la_knn_from_iter $end"
    ;;
esac

echo "== $run"
if [[ ! -f $run/training_summary.json ]]; then
  resume=--overwrite
  compgen -G "$run/chkpnt*.pth" >/dev/null && resume=--resume
  $python train.py -s "$scene" -m "$run" --config_file "config/gradiseg/$file.json" $phases "$@" $resume --quiet
fi
if [[ ! -f $run/results.json ]]; then
  $python render.py -m "$run" --skip_train --quiet
  $python metrics.py -m "$run" ${METRICS:-}
fi
[[ -d $scene/test_mask ]] || exit 0
if [[ ! -f $run/eval_lerf_mask.json ]]; then
  $python scripts/eval_lerf_mask.py -m "$run" --quiet
fi
if [[ -n ${TEXT:-} && ! -f $run/eval_text.json ]]; then
  $python scripts/eval_lerf_mask.py -m "$run" --json "$run/eval_text.json" --text $TEXT --quiet ||
    echo "run_scene.sh: $run has no scores by words; the tables will leave their cells open." >&2
fi
