#!/usr/bin/env bash
# Release all services under one version: every tag moves, or none does.
#
#   release.sh VERSION
#
# Safe to run again: what is there is not sent again, and a release that is done does nothing.
set -euo pipefail
version=${1:?"usage: release.sh VERSION"}

asyncpush plan job.yaml --set "version=$version" --atomic

code=0
asyncpush run job.yaml --set "version=$version" --atomic --rollback --report report.json || code=$?
case $code in
  0) echo "released $version" ;;
  4) echo "$version was released before" ;;
  *)
    # The report tells why; these are the images that a retry has to bring up.
    [ ! -f report.json ] || asyncpush report report.json --failed
    exit "$code"
    ;;
esac
