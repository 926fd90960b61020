#!/usr/bin/env bash
# Train on several GPUs of one machine (or, without GPUs, on several CPU processes).
# Usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# More than one machine: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
settings=''
for name in NNODES NODE_RANK MASTER_ADDR PORT PYTHON; do
  [ -z "${!name:-}" ] || settings+=$(printf '%q ' "$name=${!name}")
done
# how to continue, for the line that training prints when it is stopped
export CONVNEXT_DENSE_COMMAND="${settings:+env $settings}$(printf '%q ' "$0" "$@")"
config=$1 gpus=$2
shift 2
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" --nproc_per_node="$gpus" \
  "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
