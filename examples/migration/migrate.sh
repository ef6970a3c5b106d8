#!/usr/bin/env bash
# Migrate a dump of images into several accounts and Regions, this machine's share of it.
#
#   migrate.sh [K/N]     the K-th of N shards; all of it without
#
# Killed, it goes on where it was when it is run again.
set -euo pipefail
shard=${1:-1/1}

code=0
asyncpush run job.yaml --create-repositories --shard "$shard" \
  --report "report-${shard%/*}.json" || code=$?
[ "$code" = 0 ] || [ "$code" = 4 ] || {
  asyncpush report "report-${shard%/*}.json" --failed > "failed-${shard%/*}.txt"
  echo "not all of it is there: see failed-${shard%/*}.txt" >&2
  exit "$code"
}
