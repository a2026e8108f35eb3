#!/bin/sh
# Deploy with Docker Compose while the suite sends steady requests; its exit status says whether anybody would have noticed.
#   TARGET=prod WINDOW=60 deploy/compose/deploy.sh [SERVICE …]
set -eu

suite=${SUITE:-/opt/allodoc-health}
target=${TARGET:-prod}
window=${WINDOW:-60}

(cd "$suite" && exec .venv/bin/python -m pytest checks -m smoke --target "$target" \
    --deploy-window "$window" --wait 120 --junitxml="${JUNIT:-health.xml}") &
health=$!

if ! docker compose up --detach --wait "$@"; then
    kill "$health" 2>/dev/null || true # ends with a report
    wait "$health" || true
    echo "the deployment failed; what the suite saw is in $suite/reports/runs/latest.html" >&2
    exit 1
fi
wait "$health"
