#!/bin/sh
# Evaluates every request of a client in one job. Usage: ./transform.sh CLIENT-ID [INSTANCE-TYPE]
# Requests are objects below requests/CLIENT-ID/ of the data bucket; results appear below results/CLIENT-ID/, `.out` added.
set -eu
cd "$(dirname "$0")"
stack=${STACK:-{{ name }}}
client=${1:?usage: ./transform.sh CLIENT-ID [INSTANCE-TYPE]}
output() {
    aws cloudformation describe-stacks --stack-name "$1" --output text --query "Stacks[0].Outputs[?OutputKey=='$2'].OutputValue"
}
bucket=$(output "$stack" DataBucket)
key=$(output "$stack" KeyArn)
job=$stack-$client-$(date -u +%Y%m%d-%H%M%S)
aws sagemaker create-transform-job --transform-job-name "$job" --model-name "$(output "$stack-endpoint" ModelName)" \
    --max-concurrent-transforms 1 --max-payload-in-mb 100 --batch-strategy SingleRecord \
    --model-client-config InvocationsTimeoutInSeconds=3600,InvocationsMaxRetries=1 \
    --transform-input "ContentType=application/octet-stream,SplitType=None,CompressionType=None,DataSource={S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$bucket/requests/$client/}}" \
    --transform-output "S3OutputPath=s3://$bucket/results/$client/,KmsKeyId=$key,AssembleWith=None" \
    --transform-resources "InstanceType=${2:-{{ instance_type }}},InstanceCount=1,VolumeKmsKeyId=$key"
echo "$job"
