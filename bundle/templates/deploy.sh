#!/bin/sh
# Deploys to SageMaker, or brings a deployment up to date: the foundation, the image, the model{% if endpoint %}, the endpoint{% endif %}.
# Usage: ./deploy.sh [all|foundation|image|model|endpoint], with AWS credentials in the environment; `all` when left out.
# STACK names the foundation's stack, REPOSITORY another repository than the foundation's.
set -eu
cd "$(dirname "$0")"
stack=${STACK:-{{ name }}}
what=${1:-all}

# A stack from a template and the parameter file beside it; a list of Key=Value words follows.
deploy() {
    parameters=$(sed -n 's/.*"ParameterKey": "\(.*\)",*$/\1/p; s/.*"ParameterValue": "\(.*\)",*$/\1/p' "$2.parameters.json" |
        paste -d = - - | grep -v '=$' || true)
    # shellcheck disable=SC2086
    aws cloudformation deploy --stack-name "$1" --template-file "$2.json" --capabilities CAPABILITY_IAM \
        --no-fail-on-empty-changeset --parameter-overrides $parameters ${3:-}
}
output() {
    value=$(aws cloudformation describe-stacks --stack-name "$stack" --output text \
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue")
    case $value in '' | None)
        echo "the stack $stack has no output $1" >&2
        exit 1
        ;;
    esac
    echo "$value"
}
is() { [ "$what" = all ] || [ "$what" = "$1" ]; }

case $what in all | foundation | image | model | endpoint) ;; *)
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
    ;;
esac
if is foundation; then deploy "$stack" foundation; fi
if is image; then
    repository=${REPOSITORY:-$(output RepositoryUri)}
    ./push.sh "$repository"
fi
if is model; then
    bucket=$(output ModelBucket)
    aws s3 cp --only-show-errors model.tar.gz "s3://$bucket/{{ model_key }}"
    bucket=$(output DataBucket)
    aws s3 cp --only-show-errors client.tacit "s3://$bucket/{{ client_key }}"
fi
if is endpoint; then deploy "$stack-endpoint" endpoint "Foundation=$stack"; fi
echo "done: $what of $stack"
