#!/usr/bin/env bash
# Checks deployments against parts that we did not write: Docker, docker-compose, skopeo, docker-registry, cfn-lint, checkov, moto,
# kubernetes-validate, shellcheck, the AWS command line and SageMaker's Python SDK. Needs root on Debian, Rust and Python;
# installs the rest. Usage: tests/sagemaker/run.sh [containers] [templates] [sdk_local]; all of them when left out.
# PROFILE=dev builds faster, larger programs.
set -euo pipefail
cd "$(dirname "$0")/../.."
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(containers templates sdk_local)
target=${CARGO_TARGET_DIR:-target}
export TACIT_WORK=$PWD/$target/sagemaker
mkdir -p "$TACIT_WORK"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

packages=()
need() { command -v "$1" > /dev/null || packages+=("$2"); }
need dockerd docker.io
need docker docker.io
need docker-compose docker-compose
need docker-registry docker-registry
need skopeo skopeo
need shellcheck shellcheck
need curl curl
need nsenter util-linux
need iptables iptables
if [ ${#packages[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" > "$TACIT_WORK/apt.log"
fi

venv() {
    [ -e "$1/done" ] && cmp -s "$2" "$1/done" && return
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --requirement "$2"
    cp "$2" "$1/done"
}
venv "$TACIT_WORK/venv" tests/sagemaker/requirements.txt
venv "$TACIT_WORK/checkov" tests/sagemaker/checkov.txt
export CHECKOV=$TACIT_WORK/checkov/bin/checkov

if ! docker info > /dev/null 2>&1; then
    dockerd > "$TACIT_WORK/dockerd.log" 2>&1 &
    dockerd=$!
    trap 'kill $dockerd; wait $dockerd || true' EXIT
    for _ in $(seq 60); do docker info > /dev/null 2>&1 && break; sleep 0.5; done
    docker info > /dev/null || { tail "$TACIT_WORK/dockerd.log" >&2; exit 1; }
fi

profile=${PROFILE:-release}
folder=$profile
[ "$profile" != dev ] || folder=debug
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --quiet --profile "$profile" -p tacit
RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --profile "$profile" --target "$triple" -p tacit-server -p tacit
for program in tacit-server tacit; do
    strip --strip-all -o "$TACIT_WORK/$program" "$target/$triple/$folder/$program"
done
export TACIT=$PWD/$target/$folder/tacit TACIT_SERVER=$TACIT_WORK/tacit-server TACIT_STATIC=$TACIT_WORK/tacit
for part in "${parts[@]}"; do
    echo "== $part"
    "$TACIT_WORK/venv/bin/python" "tests/sagemaker/$part.py"
done
