"""The whole story in the SageMaker Python SDK's local mode: train, compile in a training job, deploy, predict, transform.

S3 is moto's; the containers are real. Every result is compared, byte for byte, with that of `tacit run`.
"""

import importlib.util
import json
import os
import shutil
import tarfile
import time
import warnings

from common import REGION, ROOT, STATIC_TACIT, WORK, Circuit, check, moto, run, tacit

PORT = 5604
HOME = WORK / "sdk"


def prepare():
    """The SDK's settings, before it is imported: no telemetry, folders of this run."""
    HOME.mkdir(parents=True, exist_ok=True)
    config = HOME / "config.yaml"
    config.write_text("SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n")
    os.environ |= {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(config), "SAGEMAKER_SUPPRESS_V2_WARNING": "1", "HOME": str(HOME)}
    warnings.filterwarnings("ignore")


def image(bundle):
    """Loads a bundle's image."""
    return run("docker", "load", "--input", bundle / "image.tar").split("Loaded image: ")[1]


def stopped(train_image):
    """A job that is stopped, as StopTrainingJob does it: the compiler is the container's first process."""
    job = HOME / "stopped"
    shutil.rmtree(job, ignore_errors=True)
    example = ROOT / "examples" / "digits_cnn"
    for channel, file in {"model": "model.onnx", "calibration": "calibration.npy"}.items():
        (job / "input/data" / channel).mkdir(parents=True)
        shutil.copy(example / file, job / "input/data" / channel)
    container = run("docker", "run", "--detach", "--volume", f"{job}:/opt/ml", train_image, "train")
    try:
        time.sleep(2)
        start = time.monotonic()
        run("docker", "stop", "--time", "30", container)
        seconds = time.monotonic() - start
        code = run("docker", "inspect", "--format", "{{.State.ExitCode}}", container)
        failure = job / "output/failure"
        reason = failure.read_text() if failure.exists() else ""
        left = sorted(str(path.relative_to(job)) for path in job.rglob("*") if path.is_file() and "input" not in path.parts)
        check(code == "1" and "E0715" in reason and left == ["output/failure"],
              f"a training job that is stopped ends in {seconds:.2f} s with exit code {code}, leaves {left}: {reason}")
    finally:
        run("docker", "rm", "--force", container)


def main():
    """All of it."""
    prepare()
    import boto3
    from sagemaker.estimator import Estimator
    from sagemaker.local import LocalSession
    from sagemaker.model import Model
    from sagemaker.predictor import Predictor

    circuit = Circuit("breast_cancer_xgboost")
    train = WORK / "training"
    tacit("bundle", "--target", "training", "-o", train, "--server-binary", STATIC_TACIT, "--force")
    train_image, server_image = image(train), image(circuit.bundle("sagemaker", "--mode", "realtime", name="sdk"))
    stopped(train_image)
    with moto(PORT) as url:
        # Containers do not see S3: the SDK moves everything.
        session = LocalSession(boto_session=boto3.Session(region_name=REGION), s3_endpoint_url=url)
        session.config = {"local": {"local_code": True, "container_root": str(HOME), "serving_port": 8080}}
        s3 = boto3.client("s3", endpoint_url=url, region_name=REGION)
        s3.create_bucket(Bucket="tacit")
        s3.upload_file(str(circuit.example / "model.onnx"), "tacit", "onnx/model.onnx")
        role = "arn:aws:iam::123456789012:role/local"

        job = Estimator(train_image, role, instance_count=1, instance_type="local", sagemaker_session=session,
                        output_path="s3://tacit/compiled", hyperparameters={"failure-bits": 40, "encoding": "thresholds"})
        job.fit({"model": "s3://tacit/onnx/"})
        model = HOME / "model.tar.gz"
        s3.download_file("tacit", job.model_data.removeprefix("s3://tacit/"), str(model))
        names = tarfile.open(model).getnames()
        check([name for name in names if name.endswith(".tacit")] in (["server.tacit"], ["./server.tacit"]),
              f"Estimator.fit compiled the model: {names}")
        compiled = HOME / "compiled"
        tarfile.open(model).extractall(compiled, filter="data")
        direct = circuit.folder / "server.tacit"
        tacit("server-artifact", circuit.artifact, "-o", direct)
        check((compiled / "server.tacit").read_bytes() == direct.read_bytes(), "the job's server artifact is tacit's, byte for byte")
        outputs = [one["Key"] for one in s3.list_objects_v2(Bucket="tacit", Prefix="compiled")["Contents"]]
        output = next(key for key in outputs if key.endswith("output.tar.gz"))
        s3.download_file("tacit", output, str(HOME / "output.tar.gz"))
        tarfile.open(HOME / "output.tar.gz").extractall(HOME / "output", filter="data")
        parts = {path.name: path for path in (HOME / "output").rglob("*") if path.is_file()}
        check({"client.tacit", "summary.json", "report.html"} <= set(parts), f"the client's part lies apart: {sorted(parts)}")
        check(json.loads(parts["summary.json"].read_text())["circuit"] == circuit.summary["circuit"], "of the same circuit")

        failing = Estimator(train_image, role, instance_count=1, instance_type="local", sagemaker_session=session,
                            output_path="s3://tacit/failed", hyperparameters={"no-such-option": 1})
        try:
            failing.fit({"model": "s3://tacit/onnx/"})
        except Exception as why:  # the SDK raises RuntimeError, its tools others
            check("RuntimeError" in repr(why) or "exit code" in str(why), f"a wrong hyperparameter fails the job: {str(why)[:80]}")
        else:
            check(False, "a wrong hyperparameter fails the job")

        served = Model(server_image, model_data=job.model_data, role=role, sagemaker_session=session, predictor_cls=Predictor)
        predictor = served.deploy(initial_instance_count=1, instance_type="local", endpoint_name="tacit")
        try:
            result = predictor.predict(circuit.key_section() + circuit.query,
                                       initial_args={"ContentType": "application/octet-stream"})
            check(result == circuit.result, "Model.deploy and predict: byte for byte tacit run's result")
        finally:
            predictor.delete_endpoint()

        rows = 2
        import numpy

        numpy.save(circuit.folder / "x2.npy", numpy.load(circuit.example / "x_test.npy")[3:3 + rows])
        queries = {"a.bin": (circuit.query, circuit.result)}
        queries["b.bin"] = (circuit.encrypt(circuit.folder / "x2.npy", rows, "query2"), circuit.run("query2"))
        for name, (query, _) in queries.items():
            s3.put_object(Bucket="tacit", Key=f"requests/client-1/{name}", Body=circuit.key_section() + query)
        transformer = served.transformer(instance_count=1, instance_type="local", output_path="s3://tacit/results/client-1",
                                         strategy="SingleRecord", max_payload=100)
        # The job is done when the call returns; waiting would ask CloudWatch, which is not there.
        transformer.transform("s3://tacit/requests/client-1/", content_type="application/octet-stream", split_type=None,
                              wait=False, logs=False)
        # Local mode adds a folder of the job's name.
        stored = [one["Key"] for one in s3.list_objects_v2(Bucket="tacit", Prefix="results/client-1/")["Contents"]]
        for name, (_, expected) in queries.items():
            key = next(key for key in stored if key.endswith(f"/{name}.out"))
            got = s3.get_object(Bucket="tacit", Key=key)["Body"].read()
            check(got == expected, f"batch transform: {name}.out is byte for byte tacit run's result")

        script = ROOT / "examples" / "sagemaker" / "train_and_compile.py"
        spec = importlib.util.spec_from_file_location("train_and_compile", script)
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        recipe.story(session, s3, bucket="tacit", role=role, instance_type="local", train_image=train_image,
                     server_image=server_image, tacit=lambda *args: tacit(*args), folder=HOME / "story")
        check(True, "the recipe: trained, compiled, deployed, queried, decrypted")
    print(f"sdk: all good ({WORK})")


if __name__ == "__main__":
    main()
