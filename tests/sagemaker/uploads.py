"""Uploads that are cut off in the middle of a part, against moto's S3 and s3s-fs; and what S3 refuses.

python tests/sagemaker/uploads.py FOLDER, with the binaries in TACIT, TACIT_GATEWAY and S3S_FS; `gateway.sh` builds them. The
client reaches S3 through a proxy that counts what travels and closes connections to order; boto3 sees the store as it is.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

from gateway import GATEWAY, TACIT, TINY, check, free_port, process, tacit, wait_for

S3S_FS = os.environ["S3S_FS"]
ROWS = 44
PART = 8 << 20
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Proxy(http.server.ThreadingHTTPServer):
    """Hands requests on as they are. `rules` are (text of the request line, bytes of its body after which both sides are hung up
    on) or (text, XML of a refusal); each serves once. `seen` has the request lines with the bytes of their bodies."""

    daemon_threads = True

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.rules, self.seen = upstream, [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def rule(self, line):
        for at, (text, _) in enumerate(self.rules):
            if all(word in line for word in text.split("*")):
                return self.rules.pop(at)[1]
        return None

    def handle_error(self, request, client_address):
        """Clients that are hung up on are no errors."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing to say."""

    def hand_on(self):
        line = f"{self.command} {self.path}"
        length = int(self.headers.get("Content-Length") or 0)
        rule = self.server.rule(line)
        body = self.rfile.read(min(length, rule) if isinstance(rule, int) else length)
        self.server.seen.append((line, len(body)))
        if isinstance(rule, str):
            self.send_response(403)
            self.send_header("Content-Length", str(len(rule)))
            self.end_headers()
            self.wfile.write(rule.encode())
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=120)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                upstream.putheader(name, value)
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        upstream.send(body)
        if isinstance(rule, int):
            upstream.close()
            self.close_connection = True
            self.connection.close()
            return
        reply = upstream.getresponse()
        content = reply.read()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or reply.status == 204
        if reply.status != 204:
            self.send_header("Content-Length", reply.getheader("Content-Length", "0") if bodiless else str(len(content)))
        self.end_headers()
        if not bodiless:
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = hand_on


@contextlib.contextmanager
def moto(port, _):
    command = [pathlib.Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", port]
    with process(*command, **QUIET):
        wait_for(f"http://127.0.0.1:{port}/moto-api/")
        yield


@contextlib.contextmanager
def s3s_fs(port, folder):
    folder.mkdir()
    command = [S3S_FS, "--host", "127.0.0.1", "--port", port, "--access-key", "test", "--secret-key", "test", folder]
    with process(*command, **QUIET):
        wait_for_port(port)
        yield


def wait_for_port(port):
    import socket
    import time

    for _ in range(600):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    sys.exit(f"FAILED: nothing listens on {port}")


def trial(work, name, start):
    """All of it with one S3."""
    import boto3

    port, container = free_port(), free_port()
    s3_url = f"http://127.0.0.1:{port}"
    gateway_command = [GATEWAY, "--container", f"http://127.0.0.1:{container}", "--s3-endpoint", s3_url]
    with (
        start(port, work / name),
        process(TACIT, "serve", work / "m.tacit", "--port", container, **QUIET),
        process(*gateway_command, stdout=subprocess.PIPE, text=True) as gateway,
    ):
        url = gateway.stdout.readline().strip()
        wait_for(f"http://127.0.0.1:{container}/ping")
        s3 = boto3.client("s3", endpoint_url=s3_url)
        s3.create_bucket(Bucket="bucket")
        proxy = Proxy(port)
        key = (work / "keys/evaluation.key").stat().st_size + 88
        section = (work / "query").stat().st_size + 104
        expected = (work / "result").read_bytes()

        def invoke(*rules, bucket="bucket", wrap=(), **more):
            proxy.rules[:], proxy.seen[:] = rules, []
            command = [*wrap, TACIT, "invoke", "c.tacit", "--query", "query", "--evaluation-key", "keys/evaluation.key", "-o", "y",
                       "--endpoint", "scores", "--bucket", bucket, "--client-id", "alice", "--s3-endpoint", proxy.url,
                       "--sagemaker-endpoint", url, "--deadline", "300", "--retries", "0", "--json"]
            done = subprocess.run(command, cwd=work, text=True, capture_output=True, env={**os.environ, **more})
            return done.returncode, " ".join(done.stderr.split())

        def sent(folder, number):
            return [count for line, count in proxy.seen if f"/{folder}/" in line and f"partNumber={number}&" in line]

        def uploads():
            return json.loads((work / "y.job/job.json").read_text())["uploads"]

        def parts(location, upload):
            found = s3.list_parts(Bucket="bucket", Key=location.removeprefix("s3://bucket/"), UploadId=upload).get("Parts", [])
            # s3s-fs lists parts without the ETags that are needed to end an upload: they have to be sent again, under the same id.
            tagged.append(all("ETag" in part for part in found))
            return [(part["PartNumber"], part["Size"]) for part in found]

        tagged = []
        again = [PART] if name == "s3s-fs" else []

        # The key is cut off in its second part; then the query in its last but one.
        cut = 3_000_000
        status, why = invoke(("/keys/*partNumber=2&", cut))
        check(status == 1 and "E0710" in why and "same command again" in why, f"{name}: a connection that breaks in a part: {why}")
        check(sent("keys", 1) == [PART] and sent("keys", 2) == [cut], f"{name}: it broke after {cut} bytes of the second part")
        [(location, upload)] = uploads().items()
        check(parts(location, upload) == [(1, PART)], f"{name}: boto3 lists the first part under the job file's upload id")
        status, why = invoke(("/requests/*partNumber=3&", cut))
        check(status == 1 and "E0710" in why, f"{name}: the next run breaks in the query: {why}")
        check(sent("keys", 1) == again and sent("keys", 2) == [key - PART],
              f"{name}: of the key {'all parts' if again else 'only the part that was missing'} travelled")
        [(location, upload)] = uploads().items()
        found = parts(location, upload)
        check(sorted(found) == [(1, key), (2, PART)], f"{name}: boto3 lists the copied key and the query's first part: {found}")
        status, why = invoke()
        check(status == 0 and (work / "y").read_bytes() == expected, f"{name}: the third run ends with tacit run's bytes {why}")
        travelled = sum(count for _, count in proxy.seen)
        check(tagged == [not again] * 2, f"{name}: parts are listed {'without' if again else 'with'} their ETags")
        least = section - PART + sum(again)
        check(sent("requests", 2) == again and least <= travelled < least + 10_000,
              f"{name}: {travelled} bytes travelled, of {key + section} that the request has")
        check(not (work / "y.job").exists(), f"{name}: the job's folder is gone")
        left = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]
        check(len(left) == 1 and left[0].startswith("keys/alice/"), f"{name}: the key alone stays: {left}")
        check(s3.head_object(Bucket="bucket", Key=left[0])["ContentLength"] == key, f"{name}: it is whole")
        status, why = invoke()
        check(status == 0 and (work / "y").read_bytes() == expected, f"{name}: the same again, composed inside S3 {why}")
        check(sum(count for _, count in proxy.seen) < section + 10_000, f"{name}: the key did not travel")

        # What cannot go on is given up.
        denied = "<Error><Code>AccessDenied</Code><Message>no longer</Message></Error>"
        status, why = invoke(("/requests/*partNumber=3&", denied))
        check(status == 1 and "E0712" in why and "s3:PutObject" in why, f"{name}: denied in the middle: {why}")
        given_up = [line for line, _ in proxy.seen if line.startswith("DELETE") and "uploadId=" in line]
        check(len(given_up) == 1 and not (work / "y.job").exists(), f"{name}: the upload is given up, the job with it")
        upload = given_up[0].split("uploadId=")[1]
        request = given_up[0].split("?")[0].removeprefix("DELETE /bucket/")
        try:
            # s3s-fs lists nothing where S3 says that there is no such upload.
            forgotten = "Parts" not in s3.list_parts(Bucket="bucket", Key=request, UploadId=upload)
        except s3.exceptions.ClientError as error:
            forgotten = error.response["Error"]["Code"] == "NoSuchUpload"
        check(forgotten, f"{name}: S3 has forgotten the upload")

        # Names and credentials.
        if name == "moto":
            # s3s-fs makes buckets as they are named; moto's checks of signatures and permissions are tried in gateway.py.
            status, why = invoke(bucket="another")
            check(status == 1 and "E0711" in why and "NoSuchBucket" in why and "--bucket" in why, f"{name}: no such bucket: {why}")
        else:
            for environment, code in [({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
                                      ({"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, "")]:
                status, why = invoke(**environment)
                check(status == 1 and "E0712" in why and code in why and "credentials" in why, f"{name}: {environment}: {why}")
            if shutil.which("faketime"):
                status, why = invoke(wrap=["faketime", "-f", "-2h"])
                check(status == 1 and "E0712" in why and "clock" in why, f"{name}: a clock two hours behind: {why}")
            else:
                print("skipped: a clock that is wrong needs the program faketime", flush=True)
        check(not (work / "y.job").exists(), f"{name}: refusals leave nothing behind")
        proxy.shutdown()


def main(work):
    work = pathlib.Path(work)
    (work / "x.csv").write_text("0.5,-0.25,0.75,0.1\n" * ROWS)
    tacit(work, "compile", TINY / "network.toml", "--calibration", TINY / "calibration.csv", "-o", "m.tacit")
    tacit(work, "client-artifact", "m.tacit", "-o", "c.tacit")
    tacit(work, "keygen", "c.tacit", "-o", "keys", "--force")
    tacit(work, "encrypt", "c.tacit", "--key", "keys/client.key", "--input", "x.csv", "-o", "query")
    tacit(work, "run", "m.tacit", "--query", "query", "--evaluation-key", "keys/evaluation.key", "-o", "result")
    for name, start in {"s3s-fs": s3s_fs, "moto": moto}.items():
        trial(work, name, start)


if __name__ == "__main__":
    main(sys.argv[1])
