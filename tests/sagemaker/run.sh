#!/usr/bin/env bash
# Checks deployments against parts that we did not write: Docker, docker-compose, skopeo, docker-registry, cfn-lint, checkov, moto,
# kubernetes-validate, shellcheck, the AWS command line and SageMaker's Python SDK. Needs root on Debian, Rust and Python;
# installs the rest. Usage: tests/sagemaker/run.sh [containers] [templates] [sdk_local]; all of them when left out. It can be
# run again at any time, and ends with a summary of what was checked and measured.
# PROFILE=dev builds faster, larger programs, whose times and sizes say little; TACIT names a `tacit` that is built already, for
# all but the image of training jobs.
set -euo pipefail
cd "$(dirname "$0")/../.."
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(containers templates sdk_local)
target=${CARGO_TARGET_DIR:-$PWD/target}
export TACIT_WORK=$target/sagemaker
mkdir -p "$TACIT_WORK"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
stage="reading the arguments"
dockerd=
finish() {
    code=$?
    if [ -n "$dockerd" ]; then
        kill "$dockerd" 2> /dev/null && wait "$dockerd" 2> /dev/null || true
    fi
    [ $code = 0 ] || echo "tests/sagemaker/run.sh FAILED while $stage (exit code $code)" >&2
}
trap finish EXIT
for part in "${parts[@]}"; do
    [ -f "tests/sagemaker/$part.py" ] || { echo "there is no part $part: containers, templates, sdk_local" >&2; exit 2; }
done

stage="installing Debian packages"
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
need faketime faketime
if [ ${#packages[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" > "$TACIT_WORK/apt.log"
fi

stage="installing Python packages"
venv() {
    [ -e "$1/done" ] && cmp -s "$2" "$1/done" && return
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --requirement "$2"
    cp "$2" "$1/done"
}
venv "$TACIT_WORK/venv" tests/sagemaker/requirements.txt
venv "$TACIT_WORK/checkov" tests/sagemaker/checkov.txt
export CHECKOV=$TACIT_WORK/checkov/bin/checkov

stage="starting dockerd (its log: $TACIT_WORK/dockerd.log)"
if ! docker info > /dev/null 2>&1; then
    dockerd > "$TACIT_WORK/dockerd.log" 2>&1 &
    dockerd=$!
    for _ in $(seq 120); do
        docker info > /dev/null 2>&1 && break
        kill -0 "$dockerd" 2> /dev/null || break
        sleep 0.5
    done
    docker info > /dev/null || { tail -n 30 "$TACIT_WORK/dockerd.log" >&2; exit 1; }
fi

stage="building"
profile=${PROFILE:-release}
folder=$profile
[ "$profile" != dev ] || folder=debug
triple=$(rustc -vV | sed -n 's/^host: //p')
programs=(tacit-server)
case " ${parts[*]} " in *" sdk_local "*) training=yes ;; *) training= ;; esac
if [ -n "$training" ] || [ -z "${TACIT:-}" ]; then
    # One build for both roles: the image of training jobs, and the command.
    programs+=(tacit)
fi
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --quiet --profile "$profile" --target "$triple" "${programs[@]/#/--package=}"
for program in "${programs[@]}"; do
    strip --strip-all -o "$TACIT_WORK/$program" "$target/$triple/$folder/$program"
done
export TACIT=${TACIT:-$TACIT_WORK/tacit} TACIT_SERVER=$TACIT_WORK/tacit-server TACIT_STATIC=$TACIT_WORK/tacit

rm -f "$TACIT_WORK/report.txt"
for part in "${parts[@]}"; do
    stage="checking $part"
    echo "== $part"
    started=$SECONDS
    "$TACIT_WORK/venv/bin/python" "tests/sagemaker/$part.py"
    echo "time $part: $((SECONDS - started)) s" >> "$TACIT_WORK/report.txt"
done
echo "== summary: a build with profile $profile, $(nproc) cores"
for part in "${parts[@]}"; do
    echo "$part: $(grep -c "^ok $part:" "$TACIT_WORK/report.txt") checks passed in $(sed -n "s/^time $part: //p" "$TACIT_WORK/report.txt")"
done
sed -n 's/^figure [a-z_]*: /  /p' "$TACIT_WORK/report.txt"
