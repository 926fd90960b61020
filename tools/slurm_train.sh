#!/usr/bin/env bash
# Train on a Slurm cluster.
# Usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG GPUS [options of tools/train.py]
# GPUS_PER_NODE (default 8), CPUS_PER_TASK (default 5) and SRUN_ARGS adjust the allocation.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
settings=''
for name in GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS PYTHON; do
  [ -z "${!name:-}" ] || settings+=$(printf '%q ' "$name=${!name}")
done
# how to continue, for the line that training prints when it is stopped
export CONVNEXT_DENSE_COMMAND="${settings:+env $settings}$(printf '%q ' "$0" "$@")"
partition=$1 job=$2 config=$3 gpus=$4
shift 4
per_node=${GPUS_PER_NODE:-8}
[ "$gpus" -ge "$per_node" ] || per_node=$gpus
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
