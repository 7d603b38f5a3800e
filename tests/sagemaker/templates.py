"""The templates of every mode: cfn-lint and checkov find nothing, moto deploys them, the client's role reaches its own alone.

The deploy script runs for real, with Debian's docker-registry in place of ECR: what arrives there is Docker's schema 2.
"""

import ast
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3
import botocore.exceptions
from common import REGION, WORK, Circuit, check, moto, run

PORT, IAM_PORT, REGISTRY_PORT = 5601, 5602, 5603
TEMPLATES = ["foundation", "endpoint", "client"]
BIN = pathlib.Path(sys.executable).parent
SCHEMA_2 = "application/vnd.docker.distribution.manifest.v2+json"


def lint(bundles):
    """cfn-lint and checkov over everything they know; warnings fail, too."""
    files = [bundle / f"{name}.json" for bundle in bundles for name in TEMPLATES]
    run(BIN / "cfn-lint", "--regions", REGION, "eu-west-1", "--", *files)
    check(True, f"cfn-lint finds nothing in {len(files)} templates")
    for bundle in bundles:
        out = run(os.environ["CHECKOV"], "--directory", bundle, "--framework", "cloudformation", "--skip-download", "--compact",
                  "--quiet", "--output", "json", "--soft-fail")
        report = json.loads(out)
        summary = report["summary"] if isinstance(report, dict) else report[0]["summary"]
        failed = [] if summary["failed"] == 0 else [
            f"{one['check_id']} {one['check_name']}: {one['resource']} in {one['file_path']}" for one in report["results"]["failed_checks"]]
        check(not failed and summary["passed"] > 20 and summary["parsing_errors"] == 0,
              f"checkov: {summary['passed']} passed, {summary['skipped']} skipped with reasons, failed: {failed}")


def manifests(kubernetes, docker):
    """The Kubernetes manifests against Kubernetes' own schemas, and checkov over them and the Dockerfile."""
    files = [kubernetes / f"{name}.yaml" for name in ("deployment", "service", "autoscaler", "networkpolicy")]
    run(BIN / "kubernetes-validate", "--strict", *files)
    check(True, "kubernetes-validate finds nothing in the manifests")
    # The namespace is the user's choice; an image's digest is known after it was pushed (kustomization.yaml); root is what
    # SageMaker runs containers as, the manifests and the compose file set another user; a scratch image has no health check.
    skipped = "CKV_K8S_21,CKV_K8S_43,CKV_K8S_15,CKV_DOCKER_2,CKV_DOCKER_3"
    for folder, framework in ((kubernetes, "kubernetes"), (docker / "image", "dockerfile")):
        run(os.environ["CHECKOV"], "--directory", folder, "--framework", framework, "--skip-download", "--compact", "--quiet",
            "--skip-check", skipped)
        check(True, f"checkov finds nothing for {framework}")


def buckets(bundle):
    """What moto's CloudFormation passes over: lifecycles and blocks of public access."""
    resources = json.loads((bundle / "foundation.json").read_text())["Resources"]
    rules = {rule["Id"]: rule for rule in resources["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]}
    days = {name: rules[f"{name}-expires"]["ExpirationInDays"] for name in ("requests", "results", "keys")}
    check(days == {"requests": 1, "results": 7, "keys": 30}, f"objects expire after {days} days")
    for name, one in resources.items():
        if one["Type"] == "AWS::S3::Bucket":
            blocks = one["Properties"]["PublicAccessBlockConfiguration"]
            uploads = [rule for rule in one["Properties"]["LifecycleConfiguration"]["Rules"] if "AbortIncompleteMultipartUpload" in rule]
            check(len(blocks) == 4 and all(blocks.values()) and uploads, f"{name} blocks the public, forgets unfinished uploads")


def client(service, url, **credentials):
    """A client of moto."""
    return boto3.client(service, endpoint_url=url, region_name=REGION, **credentials)


def parameters(bundle, name):
    """The parameters of a template that have a value."""
    pairs = json.loads((bundle / f"{name}.parameters.json").read_text())
    return [pair for pair in pairs if pair["ParameterValue"]]


def create(url, bundle):
    """The three stacks; the outputs of all."""
    stacks, outputs = client("cloudformation", url), {}
    foundation = json.loads((bundle / "foundation.json").read_text())["Parameters"]["Name"]["Default"]
    for name in TEMPLATES:
        stack = foundation if name == "foundation" else f"{foundation}-{name}"
        stacks.create_stack(StackName=stack, TemplateBody=(bundle / f"{name}.json").read_text(),
                            Parameters=parameters(bundle, name), Capabilities=["CAPABILITY_IAM"])
        found = stacks.describe_stacks(StackName=stack)["Stacks"][0]
        check(found["StackStatus"] == "CREATE_COMPLETE", f"{bundle.name}: moto creates the stack {stack}")
        outputs |= {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
    return outputs


def deployed(url, mode, outputs):
    """What moto made of the templates, asked by its APIs."""
    data = outputs["DataBucket"]
    sagemaker = client("sagemaker", url)
    model = sagemaker.describe_model(ModelName=outputs["ModelName"])["PrimaryContainer"]
    check(model["Image"].startswith("123456789012.dkr.ecr.us-east-1.amazonaws.com/") and
          model["ModelDataUrl"].startswith(f"s3://{outputs['ModelBucket']}/models/"), "the model has its image and data")
    if mode == "batch":
        return
    endpoint = sagemaker.describe_endpoint(EndpointName=outputs["EndpointName"])
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    check(config["KmsKeyId"] == outputs["KeyArn"], "the endpoint's volumes have the key")
    if mode == "async":
        output = config["AsyncInferenceConfig"]["OutputConfig"]
        check(output["S3OutputPath"] == f"s3://{data}/results/" and output["S3FailurePath"] == f"s3://{data}/failures/" and
              output["KmsKeyId"] == outputs["KeyArn"], "results and failures have their places and the key")


def scaling(url, bundle, mode, outputs):
    """Scaling and alarms, which moto's CloudFormation passes over, through the services' APIs: boto3 checks every shape."""
    policy_arns = {}
    template = json.loads((bundle / "endpoint.json").read_text())

    def resolved(value):
        match value:
            case {"Ref": name} if name in template["Parameters"]:
                return template["Parameters"][name]["Default"]
            case {"Fn::GetAtt": ["Endpoint", "EndpointName"]}:
                return outputs["EndpointName"]
            case {"Ref": name} if name in policy_arns:
                return policy_arns[name]
            case {"Fn::ImportValue": {"Fn::Sub": name}}:
                return outputs[name.removeprefix("${Foundation}-")]
            case {"Fn::Sub": [text, names]}:
                for name, one in names.items():
                    text = text.replace("${" + name + "}", resolved(one))
                return text
            case dict():
                return {name: resolved(one) for name, one in value.items()}
            case list():
                return [resolved(one) for one in value]
        return value

    service = client("application-autoscaling", url)
    target = resolved(template["Resources"]["ScalableTarget"]["Properties"])
    service.register_scalable_target(**target)
    at = {name: target[name] for name in ("ServiceNamespace", "ScalableDimension", "ResourceId")}
    for name, one in template["Resources"].items():
        if one["Type"].endswith("ScalingPolicy"):
            rest = {key: resolved(value) for key, value in one["Properties"].items() if key not in ("PolicyName", "ScalingTargetId")}
            policy_arns[name] = service.put_scaling_policy(**at, PolicyName=name, **rest)["PolicyARN"]
    cloudwatch = client("cloudwatch", url)
    for name, one in template["Resources"].items():
        if one["Type"] == "AWS::CloudWatch::Alarm":
            cloudwatch.put_metric_alarm(AlarmName=name, **resolved(one["Properties"]))
    actions = {one["AlarmName"]: one["AlarmActions"] for one in cloudwatch.describe_alarms()["MetricAlarms"]}
    check(len(actions) >= 3 and all(actions.values()), f"alarms with actions: {', '.join(actions)}")
    if mode == "async":
        check(actions["BacklogWithoutCapacityAlarm"] == [policy_arns["FromZeroPolicy"]], "an alarm starts the first instance")
    found = service.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"][0]
    least = 0 if mode == "async" else 1
    check(found["MinCapacity"] == least and len(policy_arns) == 2 - least, f"scaling reaches {least} by {len(policy_arns)} policies")


def statements(url, role_arn):
    """The statements of a role's policies, as deployed."""
    iam, role = client("iam", url), role_arn.split("/")[-1]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
                 for name in iam.list_role_policies(RoleName=role)["PolicyNames"]]
    # moto gives documents from templates as Python writes them.
    documents = [ast.literal_eval(one) if isinstance(one, str) else one for one in documents]
    return [statement for one in documents for statement in one["Statement"]]


def permissions(url, outputs):
    """The client's deployed policy under moto's IAM enforcement, in a server that denies whatever is not allowed."""
    policy = {"Version": "2012-10-17", "Statement": statements(url, outputs["ClientRoleArn"])}
    bucket = outputs["DataBucket"]
    # These calls are free, all later ones are checked.
    setup = ["create_user", "put_user_policy", "create_access_key", "create_bucket", "put 1", "put 2", "put 3", "put 4"]
    with moto(IAM_PORT, INITIAL_NO_AUTH_ACTION_COUNT=str(len(setup))) as iam_url:
        iam, s3 = client("iam", iam_url), client("s3", iam_url)
        iam.create_user(UserName="client")
        iam.put_user_policy(UserName="client", PolicyName="client", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="client")["AccessKey"]
        s3.create_bucket(Bucket=bucket)
        other = ["keys/client-2/k", "results/client-2/r", "models/m/model.tar.gz"]
        for name in [*other, "results/client-1/r"]:
            s3.put_object(Bucket=bucket, Key=name, Body=b"x")
        who = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        s3, sagemaker = client("s3", iam_url, **who), client("sagemaker", iam_url, **who)

        s3.put_object(Bucket=bucket, Key="keys/client-1/k", Body=b"k" * (5 << 20))
        upload = s3.create_multipart_upload(Bucket=bucket, Key="requests/client-1/q")["UploadId"]
        at = {"Bucket": bucket, "Key": "requests/client-1/q", "UploadId": upload}
        part = s3.upload_part_copy(**at, PartNumber=1, CopySource=f"{bucket}/keys/client-1/k")["CopyPartResult"]
        last = s3.upload_part(**at, PartNumber=2, Body=b"query")
        s3.complete_multipart_upload(**at, MultipartUpload={"Parts": [
            {"PartNumber": 1, "ETag": part["ETag"]}, {"PartNumber": 2, "ETag": last["ETag"]}]})
        check(s3.get_object(Bucket=bucket, Key="results/client-1/r")["Body"].read() == b"x",
              "the client's role puts keys, composes requests, reads results under its own prefix")
        s3.delete_object(Bucket=bucket, Key="requests/client-1/q")

        def denied(what, call, **arguments):
            try:
                call(**arguments)
            except botocore.exceptions.ClientError as why:
                code = why.response["Error"]["Code"]
                check(code in ("AccessDenied", "AccessDeniedException", "403"), f"denied: {what} ({code})")
            else:
                sys.exit(f"FAILED: the client's role may {what}")

        for name in other:
            denied(f"read {name}", s3.get_object, Bucket=bucket, Key=name)
        denied("write another's request", s3.put_object, Bucket=bucket, Key="requests/client-2/q", Body=b"x")
        denied("write results", s3.put_object, Bucket=bucket, Key="results/client-1/r", Body=b"x")
        # S3 also asks for the right to read what is copied; moto does not, so that cannot be tried here.
        denied("list the bucket", s3.list_objects_v2, Bucket=bucket)
        denied("create models", sagemaker.create_model, ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
               PrimaryContainer={"Image": "i"})
        denied("delete endpoints", sagemaker.delete_endpoint, EndpointName=outputs["EndpointName"])
        denied("create users", client("iam", iam_url, **who).create_user, UserName="other")


def wildcards(url, outputs):
    """No role has a statement for all actions or, but where AWS knows no resources, for everything."""
    without_resources = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "cloudformation:ListExports",
                         "application-autoscaling:DescribeScalableTargets", "application-autoscaling:DescribeScalingPolicies"}
    for role in ("ExecutionRoleArn", "DeployerRoleArn", "ClientRoleArn"):
        for one in statements(url, outputs[role]):
            actions = set(one["Action"] if isinstance(one["Action"], list) else [one["Action"]])
            if any("*" in action for action in actions):
                sys.exit(f"FAILED: {role} has {actions}")
            if one["Resource"] == "*" and not actions <= without_resources:
                sys.exit(f"FAILED: {role} has {actions} on everything")
    check(True, "no role may do everything to anything")


@contextlib.contextmanager
def registry():
    """Debian's docker-registry on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "config.yml"
        config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\nhttp:\n"
                          f"  addr: 127.0.0.1:{REGISTRY_PORT}\n")
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{REGISTRY_PORT}/v2/", timeout=2)
                    break
                time.sleep(0.1)
            yield f"localhost:{REGISTRY_PORT}"
        finally:
            process.terminate()
            process.wait()


def pushed(host, repository, tag):
    """The media types of what a registry has under a tag, asked for anything it might have."""
    anything = ", ".join([SCHEMA_2, "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
                          "application/vnd.docker.distribution.manifest.list.v2+json"])
    request = urllib.request.Request(f"http://{host}/v2/{repository}/manifests/{tag}", headers={"Accept": anything})
    with urllib.request.urlopen(request, timeout=10) as reply:
        manifest = json.load(reply)
        return reply.headers["Content-Type"], manifest["config"]["mediaType"], {layer["mediaType"] for layer in manifest["layers"]}


def deploy(url, bundle):
    """deploy.sh up to the endpoint, and again; skopeo's push, and docker's."""
    tag = next(pair["ParameterValue"] for pair in parameters(bundle, "endpoint") if pair["ParameterKey"] == "ImageTag")
    name = json.loads((bundle / "foundation.json").read_text())["Parameters"]["Name"]["Default"]
    path = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "AWS_ENDPOINT_URL": url, "AWS_PAGER": ""}
    with registry() as host:
        environment = {**path, "REPOSITORY": f"{host}/{name}", "SKOPEO_FLAGS": "--dest-tls-verify=false"}
        stacks = client("cloudformation", url)
        run("sh", bundle / "deploy.sh", "foundation", env=environment)
        status = stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        check(status == "CREATE_COMPLETE", f"deploy.sh foundation: {name} is {status}")
        # moto forgets the outputs of stacks that change sets make, so the rest has a foundation made without one; nor do its
        # change sets know other stacks' exports, so the endpoint's and the client's stacks are tried above, without the scripts.
        stacks.delete_stack(StackName=name)
        stacks.create_stack(StackName=name, TemplateBody=(bundle / "foundation.json").read_text(),
                            Parameters=parameters(bundle, "foundation"), Capabilities=["CAPABILITY_IAM"])
        for part in ("image", "image", "model", "model"):
            run("sh", bundle / "deploy.sh", part, env=environment)
        outputs = {one["OutputKey"]: one["OutputValue"] for one in stacks.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]}
        key = next(pair["ParameterValue"] for pair in parameters(bundle, "endpoint") if pair["ParameterKey"] == "ModelKey")
        stored = client("s3", url).get_object(Bucket=outputs["ModelBucket"], Key=key)["Body"].read()
        check(stored == (bundle / "model.tar.gz").read_bytes(), "the model lies where the template looks for it")
        types = pushed(host, name, tag)
        check(types[0] == SCHEMA_2 and "docker" in types[1] and all("docker" in one for one in types[2]),
              f"skopeo pushed Docker's schema 2: {types}")
        # The script takes docker where there is no skopeo.
        with tempfile.TemporaryDirectory() as folder:
            for program in ("docker", "sh", "dirname", "cut"):
                (pathlib.Path(folder) / program).symlink_to(run("which", program))
            run("sh", bundle / "push.sh", f"{host}/by-docker", env={**environment, "PATH": folder})
        types = pushed(host, "by-docker", tag)
        check(types[0] == SCHEMA_2, f"docker pushed Docker's schema 2: {types}")
        layers = run("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{host}/{name}:{tag}")
        check(json.loads(layers)["schemaVersion"] == 2, "skopeo reads it back")
        run("skopeo", "inspect", f"oci-archive:{bundle}/image.tar")
        check(True, "skopeo reads the archive as an OCI layout, too")


def main():
    """All of it."""
    circuit = Circuit("breast_cancer_xgboost")
    bundles = {mode: circuit.bundle("sagemaker", "--mode", mode, name=f"sagemaker-{mode}") for mode in ("async", "realtime", "batch")}
    lint(list(bundles.values()))
    buckets(bundles["async"])
    manifests(circuit.bundle("kubernetes"), circuit.bundle("docker"))
    for bundle in bundles.values():
        run("shellcheck", *sorted(bundle.glob("*.sh")))
    check(True, "shellcheck finds nothing in the scripts")
    for mode, bundle in bundles.items():
        with moto(PORT) as url:
            outputs = create(url, bundle)
            deployed(url, mode, outputs)
            wildcards(url, outputs)
            if mode != "batch":
                scaling(url, bundle, mode, outputs)
            if mode == "async":
                permissions(url, outputs)
    with moto(PORT) as url:
        deploy(url, bundles["async"])
    print(f"templates: all good ({WORK})")


if __name__ == "__main__":
    main()
