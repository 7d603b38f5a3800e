"""tacit invoke against moto's S3, and boto3 and the SDK's AsyncPredictor through the gateway.

python tests/sagemaker/gateway.py FOLDER, with the binaries in TACIT and TACIT_GATEWAY. `gateway.sh` builds and installs what it needs."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TACIT = os.environ["TACIT"]
GATEWAY = os.environ["TACIT_GATEWAY"]
TINY = ROOT / "tests/tests/invoke"
REGION = "us-east-1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
}
os.environ.update(ENVIRONMENT)


def check(condition, what):
    """Fails loudly; assert would not under -O."""
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok    {what}", flush=True)


def tacit(folder, *args):
    done = subprocess.run([TACIT, *map(str, args)], cwd=folder, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: tacit {' '.join(map(str, args))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(url, seconds=120):
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return urllib.request.urlopen(url, timeout=5).read()
        if time.monotonic() > end:
            sys.exit(f"FAILED: nothing answers at {url}")
        time.sleep(0.1)


@contextlib.contextmanager
def process(*command, **options):
    running = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def envelope(circuit, key, query, rows):
    """A request as spec/wire.md has it, written anew."""
    name = hashlib.sha256(key).digest() if key else bytes(32)
    head = b"TACITKEY" + struct.pack("<H6xQ", 1, len(key)) + name + circuit + key if key else b""
    return head + b"TACITQRY" + struct.pack("<H2xIQ", 1, rows, len(query)) + secrets.token_bytes(16) + name + circuit + query


def main(work):
    import boto3

    work = pathlib.Path(work)
    tacit(work, "compile", TINY / "network.toml", "--calibration", TINY / "calibration.csv", "-o", "m.tacit")
    tacit(work, "client-artifact", "m.tacit", "-o", "c.tacit")
    tacit(work, "keygen", "c.tacit", "-o", "keys")
    tacit(work, "encrypt", "c.tacit", "--key", "keys/client.key", "--input", TINY / "x.csv", "-o", "query")
    tacit(work, "run", "m.tacit", "--query", "query", "--evaluation-key", "keys/evaluation.key", "-o", "result")
    circuit = bytes.fromhex(json.loads(tacit(work, "inspect", "m.tacit", "--json"))["circuit"])
    key = (work / "keys/evaluation.key").read_bytes()
    query = (work / "query").read_bytes()
    result = (work / "result").read_bytes()
    body = envelope(circuit, key, query, 6)

    moto, container = free_port(), free_port()
    s3_url = f"http://127.0.0.1:{moto}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    moto_server = pathlib.Path(sys.executable).with_name("moto_server")
    gateway_command = [GATEWAY, "--container", f"http://127.0.0.1:{container}", "--s3-endpoint", s3_url,
                       "--output", "s3://bucket/results", "--failure", "s3://bucket/failures"]
    with (
        process(moto_server, "-H", "127.0.0.1", "-p", moto, **quiet),
        process(TACIT, "serve", work / "m.tacit", "--port", container, **quiet),
        process(*gateway_command, stdout=subprocess.PIPE, text=True) as gateway,
    ):
        url = gateway.stdout.readline().strip()
        wait_for(f"{s3_url}/moto-api/")
        wait_for(f"http://127.0.0.1:{container}/ping")
        s3 = boto3.client("s3", endpoint_url=s3_url)
        s3.create_bucket(Bucket="bucket")
        runtime = boto3.client("sagemaker-runtime", endpoint_url=url)

        def stored(prefix):
            return [item["Key"] for item in s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])]

        def fetched(location, seconds=120):
            name = location.removeprefix("s3://bucket/")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with contextlib.suppress(s3.exceptions.NoSuchKey):
                    return s3.get_object(Bucket="bucket", Key=name)["Body"].read()
                time.sleep(0.1)
            sys.exit(f"FAILED: nothing at {location}")

        # Our client, moto's S3.
        invoke = ["invoke", "c.tacit", "--query", "query", "--evaluation-key", "keys/evaluation.key", "-o", "y",
                  "--endpoint", "scores", "--bucket", "bucket", "--client-id", "alice", "--prefix", "models/",
                  "--s3-endpoint", s3_url, "--sagemaker-endpoint", url, "--json"]
        first, second = (json.loads(tacit(work, *invoke)) for _ in range(2))
        check((work / "y").read_bytes() == result, "tacit invoke through moto: the result is byte for byte that of tacit run")
        check(first["key_bytes"] == len(key) + 88 and second["key_bytes"] == 0, "the evaluation key travels once")
        name = hashlib.sha256(key).hexdigest()
        check(stored("models/keys/") == [f"models/keys/alice/{name}"], "it lies under its hash")
        section = s3.get_object(Bucket="bucket", Key=f"models/keys/alice/{name}")["Body"].read()
        check(section == body[: len(section)] and section.endswith(key), "what lies there is the key section")
        check(not stored("models/requests/") and not stored("results/"), "requests and results are removed when read")
        real = [*invoke[:8], "--endpoint", "scores", "--realtime", "--region", REGION, "--sagemaker-endpoint", url, "--json"]
        tacit(work, *real)
        check((work / "y").read_bytes() == result, "tacit invoke --realtime: the same bytes")

        # boto3, unmodified.
        s3.put_object(Bucket="bucket", Key="requests/bob/1", Body=body)
        octets = "application/octet-stream"
        answer = runtime.invoke_endpoint_async(
            EndpointName="scores", InputLocation="s3://bucket/requests/bob/1", ContentType=octets, InferenceId="one",
            InvocationTimeoutSeconds=60, RequestTTLSeconds=600)
        check(answer["ResponseMetadata"]["HTTPStatusCode"] == 202 and answer["InferenceId"] == "one", "invoke_endpoint_async: 202 and the id")
        check(fetched(answer["OutputLocation"]) == result, "its result is byte for byte that of tacit run")
        small = envelope(circuit, b"", b"no query", 1)
        answer = runtime.invoke_endpoint_async(EndpointName="scores", Body=small, ContentType=octets)
        failure = fetched(answer["FailureLocation"]).decode()
        check("Received client error (4" in failure and "E0" in failure, f"an inline body that is refused: {failure}")
        with contextlib.suppress(runtime.exceptions.ClientError):
            runtime.invoke_endpoint_async(EndpointName="scores", Body=bytes(128_001), ContentType=octets)
            check(False, "an inline body that is too long is refused")
        answer = runtime.invoke_endpoint(EndpointName="scores", Body=body, ContentType=octets)
        check(answer["Body"].read() == result, "invoke_endpoint: byte for byte the same")
        try:
            runtime.invoke_endpoint(EndpointName="scores", Body=b"nonsense", ContentType=octets)
            check(False, "nonsense is refused")
        except runtime.exceptions.ModelError as why:
            status = why.response["OriginalStatusCode"]
            message = why.response["OriginalMessage"]
            check(status == 400 and "E0608" in message, f"nonsense is a ModelError: {status} {message}")

        # The SDK's asynchronous predictor.
        import sagemaker
        from sagemaker.deserializers import BytesDeserializer
        from sagemaker.predictor import Predictor
        from sagemaker.predictor_async import AsyncPredictor
        from sagemaker.serializers import IdentitySerializer

        session = sagemaker.Session(
            boto_session=boto3.Session(region_name=REGION), sagemaker_runtime_client=runtime, default_bucket="bucket",
            sagemaker_client=boto3.client("sagemaker", endpoint_url=s3_url))
        session.s3_client, session.s3_resource = s3, boto3.resource("s3", endpoint_url=s3_url)
        predictor = Predictor("scores", sagemaker_session=session, serializer=IdentitySerializer(octets), deserializer=BytesDeserializer())
        predictor = AsyncPredictor(predictor)
        predictor.s3_client = s3
        response = predictor.predict_async(input_path="s3://bucket/requests/bob/1")
        from sagemaker.async_inference.waiter_config import WaiterConfig
        # The SDK's thread that waits for a failure goes on when the result is there, and ends with moto.
        threading.excepthook = lambda _: None
        found = response.get_result(WaiterConfig(max_attempts=60, delay=1))
        check(found == result, "AsyncPredictor.predict_async: byte for byte the same")

    permissions(work, result)


def permissions(work, result):
    """Against an S3 that checks signatures and permissions: the role of spec/client.md suffices, and wrong credentials are told."""
    import boto3

    moto, container = free_port(), free_port()
    s3_url = f"http://127.0.0.1:{moto}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    moto_server = pathlib.Path(sys.executable).with_name("moto_server")
    bucket = "arn:aws:s3:::bucket"
    admin = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
    upload = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    client = [
        {"Effect": "Allow", "Action": [*upload, "s3:GetObject"], "Resource": f"{bucket}/keys/alice/*"},
        {"Effect": "Allow", "Action": upload, "Resource": f"{bucket}/requests/alice/*"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": [f"{bucket}/results/alice/*", f"{bucket}/failures/alice/*"]},
    ]
    # The bucket, and three calls for each of two users, before moto begins to check.
    with process(moto_server, "-H", "127.0.0.1", "-p", moto, env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "7"}, **quiet):
        wait_for(f"{s3_url}/moto-api/")
        boto3.client("s3", endpoint_url=s3_url).create_bucket(Bucket="bucket")
        iam = boto3.client("iam", endpoint_url=s3_url)
        keys = {}
        for user, statements in {"admin": admin, "alice": client}.items():
            iam.create_user(UserName=user)
            policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
            iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=policy)
            key = iam.create_access_key(UserName=user)["AccessKey"]
            keys[user] = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        gateway_command = [GATEWAY, "--container", f"http://127.0.0.1:{container}", "--s3-endpoint", s3_url]
        with (
            process(TACIT, "serve", work / "m.tacit", "--port", container, **quiet),
            process(*gateway_command, stdout=subprocess.PIPE, text=True, env={**os.environ, **keys["admin"]}) as gateway,
        ):
            url = gateway.stdout.readline().strip()
            wait_for(f"http://127.0.0.1:{container}/ping")

            def invoke(client, **more):
                command = [TACIT, "invoke", "c.tacit", "--query", "query", "--evaluation-key", "keys/evaluation.key", "-o", "z",
                           "--endpoint", "scores", "--bucket", "bucket", "--client-id", client, "--s3-endpoint", s3_url,
                           "--sagemaker-endpoint", url, "--deadline", "120", "--retries", "1"]
                done = subprocess.run(command, cwd=work, text=True, capture_output=True, env={**os.environ, **keys["alice"], **more})
                return done.returncode, " ".join(done.stderr.split())

            status, why = invoke("alice")
            check(status == 0 and (work / "z").read_bytes() == result, f"the permissions of spec/client.md suffice {why}")
            status, why = invoke("bob")
            check(status == 1 and "E0712" in why and "s3:PutObject" in why, f"another client's folder is denied: {why}")
            status, why = invoke("alice", AWS_SECRET_ACCESS_KEY="wrong")
            check(status == 1 and "E0712" in why and "SignatureDoesNotMatch" in why, f"a wrong secret: {why}")
            status, why = invoke("alice", AWS_ACCESS_KEY_ID="AKIAUNKNOWN")
            check(status == 1 and "E0712" in why and "InvalidAccessKeyId" in why, f"an unknown key: {why}")


if __name__ == "__main__":
    main(sys.argv[1])
