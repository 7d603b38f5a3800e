"""From training to encrypted predictions on SageMaker: scikit-learn trains, a job compiles, an endpoint serves, a client queries.

    python examples/sagemaker/train_and_compile.py --bucket B --role ARN --train-image URI --server-image URI

The images are those of `tacit bundle --target training` and of any `tacit bundle MODEL --target sagemaker`, pushed by their `push.sh`.
With `--instance-type local` all of it runs in Docker on this machine; scikit-learn then trains outside of a container, whose image
would have to be pulled. Needs the packages `sagemaker<3`, `numpy`, and for local training `scikit-learn` and `skl2onnx`.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy

TRAINING = pathlib.Path(__file__).parent / "training"


def train(session, s3, bucket, role, instance_type, folder):
    """Trains; S3 addresses of the model and of the other outputs."""
    if instance_type != "local":
        from sagemaker.sklearn import SKLearn

        job = SKLearn(entry_point="train.py", source_dir=str(TRAINING), framework_version="1.2-1", role=role, instance_count=1,
                      instance_type=instance_type, sagemaker_session=session, output_path=f"s3://{bucket}/trained",
                      hyperparameters={"trees": 20, "depth": 3})
        job.fit()
        return job.model_data, job.model_data.replace("model.tar.gz", "output.tar.gz")
    outputs = []
    folders = {"SM_MODEL_DIR": folder / "model", "SM_OUTPUT_DATA_DIR": folder / "output"}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {name: str(path) for name, path in folders.items()}
    subprocess.run([sys.executable, TRAINING / "train.py", "--trees", "20"], check=True, env=environment)
    for path in folders.values():
        archive = folder / f"{path.name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(path, arcname=".")
        s3.upload_file(str(archive), bucket, f"trained/{archive.name}")
        outputs.append(f"s3://{bucket}/trained/{archive.name}")
    return outputs


def fetch(s3, address, folder):
    """The files of an archive in S3, by name."""
    bucket, key = address.removeprefix("s3://").split("/", 1)
    archive = folder / "fetched.tar.gz"
    s3.download_file(bucket, key, str(archive))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return {path.name: path for path in folder.rglob("*") if path.is_file()}


def story(session, s3, *, bucket, role, instance_type, train_image, server_image, tacit, folder):
    """All of it; `tacit` runs the tacit command. The endpoint is deleted at the end."""
    from sagemaker.estimator import Estimator
    from sagemaker.model import Model

    folder.mkdir(parents=True, exist_ok=True)
    trained, outputs = train(session, s3, bucket, role, instance_type, folder)
    test = numpy.load(fetch(s3, outputs, folder)["test.npz"])

    # The archive of the training job is the input of the compiling one.
    compiler = Estimator(train_image, role, instance_count=1, instance_type=instance_type, sagemaker_session=session,
                         output_path=f"s3://{bucket}/compiled", enable_network_isolation=instance_type != "local")
    compiler.fit({"model": trained})
    client = fetch(s3, compiler.model_data.replace("model.tar.gz", "output.tar.gz"), folder)["client.tacit"]

    # Clients have the client artifact and their own keys, never the model.
    rows = 5
    numpy.save(folder / "x.npy", test["x"][:rows])
    tacit("keygen", client, "-o", folder / "keys", "--force")
    model = Model(server_image, model_data=compiler.model_data, role=role, sagemaker_session=session,
                  enable_network_isolation=instance_type != "local")
    model.deploy(initial_instance_count=1, instance_type=instance_type, endpoint_name="tacit-story")
    try:
        where = ["--url", "http://127.0.0.1:8080"] if instance_type == "local" else ["--endpoint", "tacit-story", "--realtime"]
        tacit("invoke", client, "--key", folder / "keys/client.key", *where, "--input", folder / "x.npy", "-o", folder / "y.npz")
    finally:
        session.sagemaker_client.delete_endpoint(EndpointName="tacit-story")
    labels = numpy.load(folder / "y.npz")["label"].ravel()
    if not (labels == test["label"][:rows]).all():
        sys.exit(f"the decrypted labels are {labels}, scikit-learn's are {test['label'][:rows]}")
    print(f"decrypted labels {labels.tolist()}, the same as scikit-learn's")


def main():
    """Reads arguments and runs the story."""
    import boto3
    import sagemaker
    from sagemaker.local import LocalSession

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bucket", "role", "train-image", "server-image"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--instance-type", default="ml.m5.xlarge")
    parser.add_argument("--tacit", default="tacit", help="the tacit command")
    args = parser.parse_args()
    session = LocalSession() if args.instance_type == "local" else sagemaker.Session()

    def tacit(*words):
        subprocess.run([args.tacit, *map(str, words)], check=True)

    with tempfile.TemporaryDirectory() as folder:
        story(session, boto3.client("s3"), bucket=args.bucket, role=args.role, instance_type=args.instance_type,
              train_image=args.train_image, server_image=args.server_image, tacit=tacit, folder=pathlib.Path(folder))


if __name__ == "__main__":
    main()
