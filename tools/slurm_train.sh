#!/usr/bin/env bash
# Train on a Slurm cluster; with REQUEUE=1 as a batch job that continues by itself after its time limit or pre-emption.
# Usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG GPUS [options of tools/train.py]
# GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS, and with REQUEUE=1 SBATCH_ARGS and GRACE (120 s) adjust it.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
settings=''
for name in GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS PYTHON REQUEUE SBATCH_ARGS GRACE; do
  [ -z "${!name:-}" ] || settings+=$(printf '%q ' "$name=${!name}")
done
# how to continue, for the line that training prints when it is stopped
export CONVNEXT_DENSE_COMMAND="${settings:+env $settings}$(printf '%q ' "$0" "$@")"
partition=$1 job=$2 config=$3 gpus=$4
per_node=${GPUS_PER_NODE:-8}
[ "$gpus" -ge "$per_node" ] || per_node=$gpus
resources=(--gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}")
start=(-p "$partition" --job-name="$job" "${resources[@]}")
if [ -n "${REQUEUE:-}" ] && [ -z "${SLURM_JOB_ID:-}" ]; then
  # Slurm signals the ranks GRACE seconds before the limit: they save a checkpoint and end with status 143
  # shellcheck disable=SC2086  # SBATCH_ARGS is a list of words
  exec sbatch "${start[@]}" --requeue --open-mode=append --signal="USR1@${GRACE:-120}" ${SBATCH_ARGS:-} \
    --wrap="$(printf '%q ' "$(realpath "$0")" "$@")"
fi
shift 4
resume=()
if [ -n "${REQUEUE:-}" ]; then
  start=("${resources[@]}")
  [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || resume=(--resume)
  trap : TERM USR1  # for the ranks; this script goes on when they have ended
fi
status=0
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
srun "${start[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@" "${resume[@]}" || status=$?
if [ -n "${REQUEUE:-}" ] && [ "$status" = 143 ]; then
  echo "job $SLURM_JOB_ID goes back into the queue"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
