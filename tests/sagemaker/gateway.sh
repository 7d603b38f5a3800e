#!/usr/bin/env bash
# The client and the gateway against software we did not write: moto as S3, boto3 and the SageMaker SDK as other clients.
# Needs Rust and Python; installs its Python packages into a temporary environment, or uses the one in TACIT_VENV.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build -p tacit -p tacit-gateway --features tacit/aws,tacit-gateway/aws
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${TACIT_VENV:-$work/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r tests/sagemaker/gateway-requirements.txt
fi
TACIT=$PWD/target/debug/tacit TACIT_GATEWAY=$PWD/target/debug/tacit-gateway \
    "$venv/bin/python" tests/sagemaker/gateway.py "$work"
