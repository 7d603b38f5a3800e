"""What the checks share: the tacit command, requests, containers, moto's server."""

import contextlib
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TACIT = os.environ["TACIT"]
SERVER = os.environ["TACIT_SERVER"]
STATIC_TACIT = os.environ.get("TACIT_STATIC", "")
WORK = pathlib.Path(os.environ["TACIT_WORK"])
REGION = "us-east-1"
for name, value in {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}.items():
    os.environ[name] = value


def report(kind, what):
    """A line for the summary that `run.sh` ends with."""
    with (WORK / "report.txt").open("a", encoding="utf-8") as file:
        file.write(f"{kind} {pathlib.Path(sys.argv[0]).stem}: {what}\n")


def check(condition, what):
    """Fails loudly; assert would not under -O."""
    if not condition:
        sys.exit(f"FAILED: {what}")
    report("ok", what)
    print(f"ok    {what}", flush=True)


def figure(what, value):
    """A measurement, for people."""
    report("figure", f"{what}: {value}")
    print(f"      {what}: {value}", flush=True)


def run(*command, **options):
    """A command that must succeed; its output."""
    command = [str(word) for word in command]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def tacit(*args):
    """The tacit command."""
    return run(TACIT, *args)


class Circuit:
    """A compiled example with its keys, one encrypted query, and the result that `tacit run` gives."""

    def __init__(self, example, rows=3):
        import numpy

        self.example = ROOT / "examples" / example
        self.folder = WORK / example
        self.folder.mkdir(parents=True, exist_ok=True)
        self.artifact = self.folder / f"{example}.tacit"
        calibration = self.example / "calibration.npy"
        options = ["--calibration", calibration] if calibration.exists() else []
        tacit("compile", self.example / "model.onnx", "-o", self.artifact, *options)
        self.summary = json.loads(tacit("inspect", self.artifact, "--json"))
        self.digest = bytes.fromhex(self.summary["circuit"])
        tacit("keygen", self.artifact, "-o", self.folder / "keys", "--force")
        numpy.save(self.folder / "x.npy", numpy.load(self.example / "x_test.npy")[:rows])
        self.query = self.encrypt(self.folder / "x.npy", rows, "query")
        key = self.folder / "keys" / "evaluation.key"
        self.key = key.read_bytes() if key.exists() else None
        self.result = self.run("query")

    def encrypt(self, rows_file, rows, name):
        """The query section of a request (`spec/wire.md`), around what `tacit encrypt` writes."""
        path = self.folder / name
        tacit("encrypt", self.artifact, "--key", self.folder / "keys/client.key", "--input", rows_file, "-o", path)
        file = path.read_bytes()
        key_file = self.folder / "keys" / "evaluation.key"
        sha = hashlib.sha256(key_file.read_bytes()).digest() if key_file.exists() else bytes(32)
        head = b"TACITQRY" + struct.pack("<HHIQ", 1, 0, rows, len(file)) + os.urandom(16) + sha + self.digest
        return head + file

    def key_section(self):
        """The key section of a request; empty where the circuit needs no key."""
        if self.key is None:
            return b""
        head = b"TACITKEY" + struct.pack("<H6xQ", 1, len(self.key)) + hashlib.sha256(self.key).digest() + self.digest
        return head + self.key

    def run(self, name):
        """What `tacit run` makes of a query file."""
        key = ["--evaluation-key", self.folder / "keys/evaluation.key"] if self.key else []
        tacit("run", self.artifact, "--query", self.folder / name, *key, "-o", self.folder / "result")
        return (self.folder / "result").read_bytes()

    def decrypt(self, result):
        """The outputs of a result, by name."""
        import numpy

        (self.folder / "received").write_bytes(result)
        tacit("decrypt", self.artifact, "--key", self.folder / "keys/client.key", "--result", self.folder / "received",
              "-o", self.folder / "y.npz")
        return dict(numpy.load(self.folder / "y.npz", allow_pickle=False))

    def expected(self, rows):
        """onnxruntime's outputs of the first rows."""
        import numpy

        return {name: value[:rows] for name, value in numpy.load(self.example / "expected.npz").items()}

    def bundle(self, target, *options, name=None):
        """A fresh bundle."""
        folder = self.folder / (name or target)
        tacit("bundle", self.artifact, "--target", target, "-o", folder, "--server-binary", SERVER, "--force", *options)
        return folder


def wait_for_ping(url, seconds=20.0):
    """Seconds until a server answers 200."""
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if urllib.request.urlopen(f"{url}/ping", timeout=2).status == 200:
                return time.monotonic() - start
        time.sleep(0.005)
    sys.exit(f"FAILED: {url}/ping did not answer 200 within {seconds} s")


def refusal(url, body):
    """A request that must be refused; the status and the code."""
    try:
        invoke(url, body)
    except urllib.error.HTTPError as why:
        return why.code, json.load(why)["code"]
    return 200, None


def invoke(url, body):
    """A request; its answer and headers."""
    request = urllib.request.Request(f"{url}/invocations", data=body, headers={"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return reply.read(), reply.headers


@contextlib.contextmanager
def moto(port, **environment):
    """moto's server in a process of its own: its address."""
    process = subprocess.Popen(
        [pathlib.Path(sys.executable).parent / "moto_server", "-H", "0.0.0.0", "-p", str(port)],
        env={**os.environ, **environment}, stdout=(WORK / "moto.log").open("w"), stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(url + "/moto-api/data.json", timeout=5)
                break
            time.sleep(0.2)
        else:
            sys.exit("FAILED: moto did not start")
        yield url
    finally:
        process.terminate()
        process.wait()
