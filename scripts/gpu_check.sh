#!/usr/bin/env bash
# Everything that only a GPU can show: builds for it, runs the device tests, compares with the CPU core, times kernels,
# steps and peers, looks for memory errors and races, trains the demo and a scene. Needs nothing from the network.
#
#   bash scripts/gpu_check.sh --out DIR [--scene PATH] [--wheels DIR] [--original DIR] [--parts "build tests ..."]
#
#   --out       where JSON, logs and pictures go; summary.json says what passed
#   --scene     a scene to train with the full schedule, too
#   --wheels    a folder of wheels for the packages that this Python lacks
#   --original  a folder that holds the original diff_gaussian_rasterization, to be timed beside ours
#   --parts     some of: build report tests bench sanitize demo scene (default: all)
#   --device    cpu runs the same commands without a GPU
#   --quick     smallest sizes and schedules, to try out this script
#
# PYTHON names an interpreter with a CUDA build of PyTorch (python3). The packages go to --out/site, nothing else changes.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  sed -n '5,16s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

out='' scene='' wheels='' original='' device=cuda quick='' parts="build report tests bench sanitize demo scene"
while (($#)); do
  case "$1" in
    --quick) quick=1 && shift && continue ;;
    --out | --scene | --wheels | --original | --device | --parts) (($# > 1)) || usage ;;
    *) usage ;;
  esac
  printf -v "${1#--}" '%s' "$2"
  shift 2
done
[[ -n $out ]] || usage
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
python=${PYTHON:-python3}
wanted() { [[ " $parts " == *" $1 "* ]]; }
if wanted build || [[ -d $out/site ]]; then export PYTHONPATH=$out/site${PYTHONPATH:+:$PYTHONPATH}; fi
export PYTHONUNBUFFERED=1

failed=0
results=()
part() { # part NAME COMMAND...: runs it into NAME.log and notes status and seconds
  local name=$1 start=$SECONDS status=0
  shift
  echo "== $name"
  ("$@") >"$out/$name.log" 2>&1 || status=$?
  results+=("\"$name\": {\"status\": $status, \"seconds\": $((SECONDS - start))}")
  ((status == 0)) || failed=1
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

build() { # compiles the three packages for the GPU that is there, side by side
  local missing capability package pids=()
  missing=$(needs plyfile scipy tqdm tensorboard pytest hypothesis nanobind scikit-build-core)
  if [[ -n $missing ]]; then
    [[ -n $wheels ]] || { echo "missing packages: $missing. Name a folder that has their wheels: --wheels DIR" && return 1; }
    # shellcheck disable=SC2086 # names are several words
    "$python" -m pip install -q --no-index --find-links "$wheels" --target "$out/site" $missing || return
  fi
  if [[ $device == cuda ]]; then
    capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || return
    export GRADISEG_CUDA=on GRADISEG_CUDA_ARCHITECTURES=$capability
  fi
  for package in simple-knn fused-losses diff-gaussian-rasterization; do
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation --upgrade --target "$out/site" \
      "./submodules/$package" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || return; done
}

report() { # the machine, the compiler, and what our packages say
  nvidia-smi || [[ $device == cpu ]] || return
  nvcc --version || true
  "$python" -m diff_gaussian_rasterization
}

device_tests=(-q -p no:cacheprovider tests/submodules -k "cuda and not shim")

sanitize() { # one tool of compute-sanitizer over the kernels' tests
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer not found: skipped" && return 0; }
  compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all "$python" -m pytest "${device_tests[@]}"
}

train() { # train NAME SCENE FLAGS...: trains, renders, scores and keeps some pictures
  local run=$out/$1/run source=$2 picture
  shift 2
  "$python" -m experiments scene "$source" "$run" gradiseg --device "$device" --anew "$@" || return
  cp "$run/"{training_summary,results,run}.json "$run/.." || return
  [[ ! -d $source/test_mask ]] || cp "$run/eval_lerf_mask.json" "$run/.." || return
  for picture in $(find "$run/test" -path '*/concat/*' | sort | head -n 3); do cp "$picture" "$run/.."; done
}

bench_flags=() demo_flags=(--schedule_scale 0.13) scene_flags=()
if [[ -n $quick ]]; then
  bench_flags=(--num_gaussians 500 --size 48x32 --repeats 1)
  demo_flags=(--schedule_scale 0.002 -r 4) scene_flags=(--schedule_scale 0.002 -r 8)
fi
[[ -n $original ]] && bench_flags+=(--original "$original")

wanted build && part build build
wanted report && part report report
wanted tests && part tests "$python" -m pytest "${device_tests[@]}"
wanted bench && part bench "$python" benchmarks/bench_cuda.py --device "$device" --json "$out/bench.json" "${bench_flags[@]}"
if wanted sanitize; then
  for tool in memcheck racecheck synccheck; do part "sanitize_$tool" sanitize "$tool"; done
fi
wanted demo && part demo train demo data/demo --train_split --densify_grad_threshold 6e-4 "${demo_flags[@]}"
if wanted scene && [[ -n $scene ]]; then
  [[ -d $scene/images_train ]] && scene_flags+=(--train_split) || scene_flags+=(--eval)
  part scene train scene "$scene" "${scene_flags[@]}"
fi

(IFS=,; echo "{${results[*]}}") >"$out/summary.json"
echo "$out/summary.json: $(<"$out/summary.json")"
exit "$failed"
