#!/bin/sh
# Makes the role of a client. Usage: ./client.sh CLIENT-ID [PRINCIPAL-ARN], who may take the role; this account when left out.
set -eu
cd "$(dirname "$0")"
stack=${STACK:-{{ name }}}
client=${1:?usage: ./client.sh CLIENT-ID [PRINCIPAL-ARN]}
aws cloudformation deploy --stack-name "$stack-client-$client" --template-file client.json --capabilities CAPABILITY_IAM \
    --no-fail-on-empty-changeset --parameter-overrides "Foundation=$stack" {% if !realtime %}"ClientId=$client" {% endif %}${2:+"ClientPrincipalArn=$2"}
aws cloudformation describe-stacks --stack-name "$stack-client-$client" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='ClientRoleArn'].OutputValue"
