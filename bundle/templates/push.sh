#!/bin/sh
# Pushes image.tar as Docker's image manifest, version 2, schema 2: SageMaker takes no other.
# Usage: ./push.sh REPOSITORY, such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com/{{ name }}
set -eu
cd "$(dirname "$0")"
repository=${1:?usage: ./push.sh REPOSITORY}
registry=${repository%%/*}
case $registry in
*.dkr.ecr.*)
    region=$(echo "$registry" | cut -d . -f 4)
    password() { aws ecr get-login-password --region "$region"; }
    # Tags are immutable: what is there already is this image.
    if aws ecr describe-images --region "$region" --repository-name "${repository#*/}" --image-ids "imageTag={{ tag }}" \
        > /dev/null 2>&1; then
        echo "$repository:{{ tag }} is there already"
        exit 0
    fi
    ;;
*) password() { false; } ;;
esac
if command -v skopeo > /dev/null; then
    case $registry in *.dkr.ecr.*) password | skopeo login --username AWS --password-stdin "$registry" ;; esac
    # SKOPEO_FLAGS: such as --dest-tls-verify=false for a registry on this machine.
    # shellcheck disable=SC2086
    skopeo copy --format v2s2 ${SKOPEO_FLAGS:-} docker-archive:image.tar "docker://$repository:{{ tag }}"
elif command -v docker > /dev/null; then
    case $registry in *.dkr.ecr.*) password | docker login --username AWS --password-stdin "$registry" ;; esac
    docker load --input image.tar
    docker tag "{{ reference }}" "$repository:{{ tag }}"
    docker push "$repository:{{ tag }}"
else
    echo "push.sh needs skopeo or docker" >&2
    exit 1
fi
