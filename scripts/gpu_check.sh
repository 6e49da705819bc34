#!/usr/bin/env bash
# Everything that only a GPU can show: builds for it, runs the device tests, compares with the CPU core, times kernels,
# steps and peers, looks for memory errors and races, trains the demo and a scene. Needs nothing from the network.
#
#   bash scripts/gpu_check.sh --out DIR --call 1     packages, build, report, tests, bench: within 5 minutes
#   bash scripts/gpu_check.sh --out DIR --call 2     packages, build, sanitize, demo: within 5 minutes
#   bash scripts/gpu_check.sh --out DIR [--scene PATH] [--wheels DIR] [--original DIR] [--parts "build tests ..."]
#
#   --out       where JSON, logs and pictures go, a few files; summary.json says what passed, anew after every part
#   --call      1 or 2: half of the parts, for a GPU that is lent for minutes
#   --limit     seconds after which what still runs is stopped and what is left is skipped (with --call: 290)
#   --scene     a scene to train with the full schedule, too
#   --wheels    a folder of wheels, all of which are installed: what this Python lacks, and what those need in turn
#   --original  a folder that holds the original diff_gaussian_rasterization, to be timed beside ours
#   --parts     some of: packages build report tests bench sanitize demo scene (default: all)
#   --device    cpu runs the same commands without a GPU
#   --quick     smallest sizes and schedules, to try out this script
#
# PYTHON names an interpreter with a CUDA build of PyTorch (python3). Packages and runs go to build/gpu_check, where a
# second call finds the packages again; nothing else changes.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  sed -n '5,20s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

out='' scene='' wheels='' original='' device=cuda quick='' call='' limit='' work=build/gpu_check
parts="packages build report tests bench sanitize demo scene"
while (($#)); do
  case "$1" in
    --quick) quick=1 && shift && continue ;;
    --out | --call | --limit | --scene | --wheels | --original | --device | --parts | --work) (($# > 1)) || usage ;;
    *) usage ;;
  esac
  printf -v "${1#--}" '%s' "$2"
  shift 2
done
case "$call" in
  '') ;;
  1) parts="packages build report tests bench" limit=${limit:-290} ;;
  2) parts="packages build sanitize demo" limit=${limit:-290} ;;
  *) usage ;;
esac
[[ -n $out ]] || usage
mkdir -p "$out" "$work/site" && out=$(cd "$out" && pwd) && work=$(cd "$work" && pwd) || exit 2
python=${PYTHON:-python3}
wanted() { [[ " $parts " == *" $1 "* ]]; }
export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

failed=0
results=()
summarise() { (IFS=,; echo "{${results[*]}}") >"$out/summary.json"; }
part() { # part NAME COMMAND...: runs it into NAME.log and notes status and seconds; 124: stopped at the limit
  local name=$1 start=$SECONDS status=0 left=$((${limit:-86400} - SECONDS))
  shift
  echo "== $name"
  if ((left > 0)); then
    export -f "$1" 2>/dev/null || true
    timeout "$left" bash -c '"$@"' "$name" "$@" >"$out/$name.log" 2>&1 || status=$?
  else
    status=124
    echo "not begun: $limit seconds were over" >"$out/$name.log"
  fi
  results+=("\"$name\": {\"status\": $status, \"seconds\": $((SECONDS - start))}")
  ((status == 0)) || failed=1
  summarise
  tail -n 4 "$out/$name.log"
  ((status == 0)) || echo "   failed ($status): $out/$name.log"
}

needs() { # which of the named packages this Python lacks
  "$python" - "$@" <<'PY'
import importlib.util
import sys

print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name.replace("-", "_")) is None))
PY
}

packages() { # what this Python has to have
  local missing
  if [[ -n $wheels ]]; then # without --no-deps, pip would ask for what this Python has already
    "$python" -m pip install -q --no-index --no-deps --upgrade --target "$work/site" "$wheels"/*.whl || return
  fi
  missing=$(needs plyfile scipy tqdm tensorboard pytest hypothesis nanobind scikit-build-core)
  [[ -z $missing ]] || { echo "missing packages: $missing. Name a folder that has their wheels: --wheels DIR" && return 1; }
}

build() { # compiles the three packages for the GPU that is there, side by side
  local capability package pids=()
  if [[ $device == cuda ]]; then
    capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || return
    export GRADISEG_CUDA=on GRADISEG_CUDA_ARCHITECTURES=$capability
  fi
  for package in simple-knn fused-losses diff-gaussian-rasterization; do
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation --upgrade --target "$work/site" \
      -C build-dir="$work/$package" "./submodules/$package" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || return; done
}

report() { # the machine, the compiler, and what our packages say
  nvidia-smi || [[ $device == cpu ]] || return
  nvcc --version || true
  "$python" -m diff_gaussian_rasterization
}

device_tests() { # the tests that run on the GPU, or those of them that -k names
  "$python" -m pytest -q -p no:cacheprovider tests/submodules -m gpu "$@"
}

# One kernel of each kind. What writes shared memory is looked at for races, what indexes, for bounds.
race_tests="a_warp_of_gaussians or crowded_image or (any_number_of_channels and 40) or thousands_in_one_tile"
race_tests+=" or (cross_entropy_of_classes and 100) or second_backward or (directional_nearest and clustered-33)"
bound_tests="$race_tests or (any_image_size and size5) or more_than_65535_tiles or (every_sh_degree and True-3)"
bound_tests+=" or adam_of_visible_rows"

sanitize() { # one tool of compute-sanitizer over a few of them
  local tests=$race_tests
  [[ $1 == memcheck ]] && tests=$bound_tests
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer not found: skipped" && return 0; }
  compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    "$python" -m pytest -q -p no:cacheprovider tests/submodules -m gpu -k "$tests"
}

train() { # train NAME SCENE FLAGS...: trains, renders, scores; keeps scores and a picture
  local name=$1 run=$work/$1 source=$2 picture
  shift 2
  "$python" -m experiments scene "$source" "$run" gradiseg --device "$device" --anew "$@" || return
  cp "$run/training_summary.json" "$out/$name.json" && cp "$run/results.json" "$out/${name}_metrics.json" || return
  [[ ! -d $source/test_mask ]] || cp "$run/eval_lerf_mask.json" "$out/${name}_masks.json" || return
  picture=$(find "$run/test" -path '*/concat/*' | sort | head -n 1)
  cp "$picture" "$out/$name.${picture##*.}"
}

bench_flags=() demo_flags=(--schedule_scale 0.13) scene_flags=()
if [[ -n $quick ]]; then
  bench_flags=(--num_gaussians 500 --size 48x32 --repeats 1)
  demo_flags=(--schedule_scale 0.002 -r 4) scene_flags=(--schedule_scale 0.002 -r 8)
fi
[[ -n $original ]] && bench_flags+=(--original "$original")
export python device work out wheels race_tests bound_tests
export -f needs

wanted packages && part packages packages
wanted build && part build build
wanted report && part report report
wanted tests && part tests device_tests
wanted bench && part bench "$python" benchmarks/bench_cuda.py --device "$device" --json "$out/bench.json" "${bench_flags[@]}"
if wanted sanitize; then
  for tool in memcheck racecheck synccheck; do part "sanitize_$tool" sanitize "$tool"; done
fi
wanted demo && part demo train demo data/demo --train_split --densify_grad_threshold 6e-4 "${demo_flags[@]}"
if wanted scene && [[ -n $scene ]]; then
  [[ -d $scene/images_train ]] && scene_flags+=(--train_split) || scene_flags+=(--eval)
  part scene train scene "$scene" "${scene_flags[@]}"
fi

summarise
echo "$out/summary.json: $(<"$out/summary.json")"
exit "$failed"
