#!/usr/bin/env bash
# The client and the gateway against software we did not write: moto and s3s-fs as S3, boto3 and the SageMaker SDK as other clients.
# Needs Rust and Python; installs Python packages into a temporary environment, or uses the one in TACIT_VENV, and builds s3s-fs
# once, below the target folder. With the program `faketime` it also tries a clock that is wrong.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build -p tacit -p tacit-gateway --features tacit/aws,tacit-gateway/aws
# Unoptimised: what it takes to build is longer than what it takes to run.
cargo install --quiet s3s-fs --version 0.14.1 --features binary --debug --root "$target/tools"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${TACIT_VENV:-$work/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r tests/sagemaker/gateway-requirements.txt
fi
export TACIT=$target/debug/tacit TACIT_GATEWAY=$target/debug/tacit-gateway S3S_FS=$target/tools/bin/s3s-fs
for part in gateway uploads; do
    mkdir "$work/$part"
    "$venv/bin/python" "tests/sagemaker/$part.py" "$work/$part"
done
