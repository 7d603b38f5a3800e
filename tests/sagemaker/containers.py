"""The images in real Docker: loaded, built, run without a network and without writing, driven, stopped."""

import json
import os
import socket
import subprocess
import sys
import time

from common import SERVER, WORK, Circuit, check, figure, invoke, refusal, run, wait_for_ping

NETWORK = "tacit-internal"
# Limits of the design: megabytes of an image, seconds to the first answer.
IMAGE_MB = 15
COLD_START_S = 1.0


def address(container):
    """Where a container listens, on its internal network."""
    networks = json.loads(run("docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
    return f"http://{next(iter(networks.values()))['IPAddress']}:8080"


def resident_mb(container):
    """Resident memory of a container's only process."""
    pid = run("docker", "inspect", "--format", "{{.State.Pid}}", container)
    for line in open(f"/proc/{pid}/status", encoding="ascii"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def drive(circuit, image, model, user="0:0"):
    """Runs an image on an internal network, as SageMaker's isolation comes out, and compares its answers."""
    container = run("docker", "create", "--read-only", "--cap-drop", "ALL", "--network", NETWORK, "--user", user,
                    *(["--volume", f"{model}:/opt/ml/model:ro"] if model else []), image, "serve")
    try:
        start = time.monotonic()
        run("docker", "start", container)
        url = address(container)
        wait_for_ping(url)
        cold = time.monotonic() - start
        idle = resident_mb(container)
        if circuit.key:
            check(refusal(url, circuit.query) == (409, "E0704"), "a query whose key the server has not seen is refused: 409 E0704")
        result, headers = invoke(url, circuit.key_section() + circuit.query)
        check(result == circuit.result, f"{image} as {user}: the result is byte for byte that of tacit run")
        times = []
        for _ in range(3):
            start = time.monotonic()
            result, headers = invoke(url, circuit.query)
            times.append(time.monotonic() - start)
            if result != circuit.result:
                check(False, f"{image}: a query that refers to the key gives the same bytes")
        if circuit.key:
            check(True, f"the key of {len(circuit.key)} bytes was sent once; three queries that refer to it give the same bytes")
        check(headers.get("Content-Length") == str(len(result)), "the answer has its length")
        check(sum(len(k) + len(v) + 4 for k, v in headers.items()) <= 4096, "the answer's headers fit 4096 bytes")
        figure(f"{image} as {user}: docker start to the first /ping 200", f"{cold:.2f} s" + ("" if cold <= COLD_START_S else f", over the {COLD_START_S} s of the design"))
        figure("resident memory", f"{idle:.1f} MB idle, {resident_mb(container):.1f} MB after four requests")
        figure("a request of three rows, the key known", f"{min(times) * 1e3:.1f} ms")
        start = time.monotonic()
        run("docker", "stop", "--time", "30", container)
        code = run("docker", "inspect", "--format", "{{.State.ExitCode}}", container)
        check(code == "0", f"stops by itself in {time.monotonic() - start:.2f} s with exit code 0")
    finally:
        run("docker", "rm", "--force", container)


def alone(circuit, model):
    """The server without Docker: what of a cold start is its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    times = []
    for _ in range(5):
        start = time.monotonic()
        server = subprocess.Popen([SERVER, "serve", "--model", model, "--port", str(port)], stdout=subprocess.DEVNULL)
        try:
            wait_for_ping(f"http://127.0.0.1:{port}")
            times.append(time.monotonic() - start)
        finally:
            server.terminate()
            server.wait()
    figure(f"{circuit.example.name}: process start to the first /ping 200, self-test included, median of 5", f"{sorted(times)[2] * 1e3:.0f} ms")


def no_network(circuit, image, model):
    """Runs an image without any network; asks it from inside its namespace."""
    container = run("docker", "run", "--detach", "--read-only", "--network", "none", "--volume", f"{model}:/opt/ml/model:ro",
                    image, "serve")
    try:
        pid = run("docker", "inspect", "--format", "{{.State.Pid}}", container)
        request = circuit.folder / "request"
        request.write_bytes(circuit.key_section() + circuit.query)
        inside = ["nsenter", "--target", pid, "--net", "curl", "--fail", "--silent", "--show-error", "--max-time", "60"]
        run(*inside, "--retry", "20", "--retry-delay", "1", "--retry-connrefused", "--retry-all-errors", "http://127.0.0.1:8080/ping")
        run(*inside, "--data-binary", f"@{request}", "-o", circuit.folder / "answer", "http://127.0.0.1:8080/invocations")
        check((circuit.folder / "answer").read_bytes() == circuit.result, f"{image} answers with --network none")
    finally:
        run("docker", "rm", "--force", container)


def built(circuit, bundle):
    """The image that Docker itself builds from the Dockerfile."""
    name = f"built-{circuit.example.name.replace('_', '-')}"
    run("docker", "build", "--tag", name, bundle / "image", env={**os.environ, "DOCKER_BUILDKIT": "0"})
    container = run("docker", "create", name)
    listing = subprocess.run(f"docker export {container} | tar --list --verbose", shell=True, check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    run("docker", "rm", container)
    modes = {line.split()[-1]: line.split()[0] for line in listing.splitlines()}
    check(modes.get("tmp/") == "drwxrwxrwt", "/tmp of the built image is for everyone, sticky")
    config = [json.loads(run("docker", "inspect", "--format", "{{json .Config}}", image)) for image in (name, reference(bundle))]
    for field in ("Entrypoint", "Cmd", "Labels", "ExposedPorts"):
        check(config[0][field] == config[1][field], f"built and written image have the same {field}")
    return name


def reference(bundle):
    """The image's name and tag, loaded into Docker."""
    return run("docker", "load", "--input", bundle / "image.tar").split("Loaded image: ")[1]


def compose(circuit, bundle):
    """The compose file as Debian's docker-compose runs it."""
    run("docker-compose", "--file", bundle / "compose.yaml", "config")
    run("docker-compose", "--file", bundle / "compose.yaml", "up", "--detach")
    try:
        wait_for_ping("http://127.0.0.1:8080")
        result, _ = invoke("http://127.0.0.1:8080", circuit.key_section() + circuit.query)
        check(result == circuit.result, "the compose file's server gives the same result")
    finally:
        run("docker-compose", "--file", bundle / "compose.yaml", "down")


def main():
    """All of it, for a circuit without an evaluation key and one with."""
    if NETWORK not in run("docker", "network", "ls", "--format", "{{.Name}}").split():
        run("docker", "network", "create", "--internal", NETWORK)
    for example in sys.argv[1:] or ["breast_cancer_xgboost", "digits_mlp_deep"]:
        circuit = Circuit(example)
        bundle = circuit.bundle("docker")
        again = circuit.bundle("docker", name="again")
        check((bundle / "image.tar").read_bytes() == (again / "image.tar").read_bytes(), "the image is the same every time")
        image = reference(bundle)
        size = int(run("docker", "inspect", "--format", "{{.Size}}", image)) / 1e6
        check(size < IMAGE_MB, f"{image} has {size:.2f} MB, {(bundle / 'image.tar').stat().st_size / 1e6:.2f} MB as a file")
        figure(f"image {image}", f"{size:.2f} MB, {(bundle / 'image.tar').stat().st_size / 1e6:.2f} MB as a file")
        alone(circuit, bundle / "model")
        drive(circuit, image, bundle / "model")
        drive(circuit, image, bundle / "model", user="65534:65534")
        no_network(circuit, image, bundle / "model")
        drive(circuit, built(circuit, bundle), bundle / "model")
        compose(circuit, bundle)
        kubernetes = circuit.bundle("kubernetes")
        drive(circuit, reference(kubernetes), None, user="65534:65534")
        labels = circuit.decrypt(circuit.result)
        expected = circuit.expected(3)
        name = next(iter(expected))
        # Networks are approximate: their classes are compared, not their scores.
        classes = [values[name].argmax(axis=1) if values[name].dtype.kind == "f" else values[name].ravel() for values in (labels, expected)]
        check((classes[0] == classes[1]).all(), f"{example}: the classes in {name} are onnxruntime's: {classes[0]}")
    print(f"containers: all good ({WORK})")


if __name__ == "__main__":
    main()
