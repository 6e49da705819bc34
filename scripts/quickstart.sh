#!/usr/bin/env bash
# From a fresh clone to a page of results: makes the environment, trains GradiSeg and the baseline on the demo scene
# with the compressed schedule, renders, scores, removes an object and writes output/demo/report.html and .json.
#
#   bash scripts/quickstart.sh            minutes on two CPU cores
#   bash scripts/quickstart.sh --smoke    the same commands on a schedule too short to learn much, into output/smoke
# shellcheck disable=SC2086 # flags are several words
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TRAIN_FLAGS="--train_split --schedule_scale 0.13 --densify_grad_threshold 6e-4 --max_gaussians 50000"
SMOKE_FLAGS="--train_split --schedule_scale 0.02 --densify_grad_threshold 6e-4 --max_gaussians 50000"

scene=data/demo
out=output/demo
flags=$TRAIN_FLAGS
case "${1:-}" in
  "") ;;
  --smoke) out=output/smoke flags=$SMOKE_FLAGS ;;
  *)
    echo "usage: bash scripts/quickstart.sh [--smoke]" >&2
    exit 2
    ;;
esac

bash scripts/setup_env.sh
python=.venv/bin/python

train_and_score() { # train_and_score NAME CONFIG
  echo "== $1"
  $python -m experiments scene $scene "$out/$1" "$2" $flags --anew --render=
}

train_and_score baseline baseline
train_and_score gradiseg gradiseg
$python edit_object_removal.py -m "$out/gradiseg" --config_file config/object_removal/demo.json --quiet
for recipe in remove fill recolour swap; do
  $python edit.py -m "$out/gradiseg" --recipe config/edit/$recipe.json --overwrite --quiet
  $python render.py -m "$out/gradiseg/edits/$recipe" --skip_train --quiet
done
$python scripts/make_report.py --gradiseg "$out/gradiseg" --baseline "$out/baseline" --out "$out"
echo "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s."
