#!/usr/bin/env bash
# Starts Ray on the nodes of a SLURM job and carries out an experiment on it (docs/cluster.md):
#
#   sbatch --nodes 4 --gpus-per-node 4 --cpus-per-task 32 scripts/slurm_ray.sh \
#     .venv/bin/python scripts/run_ablation.py --scenes SCENES --seeds 0 1 2 --out OUT
#
# The command gets --address of the cluster. Call it from the repository's root, on a disk that all nodes share. The same
# call again goes on where the last one was cut off; a job that SLURM takes away from its nodes does so by itself.
# In the environment: RAY (.venv/bin/ray), PORT (by the job's number).
#SBATCH --job-name=gradiseg
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

if (($# < 1)); then
  echo "usage: sbatch [flags of sbatch] scripts/slurm_ray.sh COMMAND..." >&2
  exit 2
fi
if [[ -z ${SLURM_JOB_NODELIST:-} ]]; then
  echo "slurm_ray.sh: not in a SLURM job. Call it through sbatch; without SLURM give the command --address local." >&2
  exit 2
fi
ray=${RAY:-.venv/bin/ray}
port=${PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 10000))} # jobs that share a node must not share a port
export RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # this script runs there
address=$(getent ahostsv4 "$head" | awk 'NR == 1 { print $1 }')
address=${address:-$head}:$port
resources=(--num-cpus "${SLURM_CPUS_PER_TASK:-$(nproc)}" --num-gpus "${SLURM_GPUS_ON_NODE:-0}")

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
srun --nodes 1 --ntasks 1 --nodelist "$head" \
  "$ray" start --head --node-ip-address "${address%:*}" --port "$port" "${resources[@]}" --include-dashboard false --block &
for ((second = 0; second < 120; second++)); do
  (: >"/dev/tcp/${address%:*}/$port") 2>/dev/null && break
  sleep 1
done
if ((${#nodes[@]} > 1)); then
  srun --nodes $((${#nodes[@]} - 1)) --ntasks $((${#nodes[@]} - 1)) --exclude "$head" \
    "$ray" start --address "$address" "${resources[@]}" --block &
fi
"$@" --address "$address"
