#!/usr/bin/env bash
# Train on several GPUs of one machine (or, without GPUs, on several CPU processes).
# Usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: the same command on each, with NNODES and MASTER_ADDR (the first machine); PORT is open on it.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
settings=''
for name in NNODES NODE_RANK MASTER_ADDR PORT RUN_ID PYTHON; do
  [ -z "${!name:-}" ] || settings+=$(printf '%q ' "$name=${!name}")
done
# how to continue, for the line that training prints when it is stopped
export CONVNEXT_DENSE_COMMAND="${settings:+env $settings}$(printf '%q ' "$0" "$@")"
config=$1 gpus=$2
shift 2
address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
if [ "${NNODES:-1}" = 1 ]; then
  meeting=(--node_rank=0 --master_addr="$address" --master_port="$port")
elif [ -n "${NODE_RANK:-}" ]; then  # numbered by the user
  meeting=(--node_rank="$NODE_RANK" --master_addr="$address" --master_port="$port")
else  # in the order in which they come
  meeting=(--rdzv_backend=c10d --rdzv_endpoint="$address:$port" --rdzv_id="${RUN_ID:-convnext_dense}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" "${meeting[@]}" --nproc_per_node="$gpus" \
  "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
