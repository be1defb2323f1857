"""Runs the receivers of docs/webhooks.md against a service, and then against what nobody may believe."""

import base64
import hashlib
import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook

BINARY, FOLDER, DOCUMENT = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
PATIENCE = 60
KEY = "interop-" + secrets.token_hex(16)


def secret():
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


SECRET, OTHER = secret(), secret()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def receiver(name):
    """A receiver of the document, written to a file."""
    text = re.search(rf"<!-- run: {re.escape(name)} -->\n```\w+\n(.*?)\n```", DOCUMENT.read_text(), re.S).group(1)
    path = FOLDER / name
    path.write_text(text)
    return path


def request(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def api(port, method, path, body=None):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    status, text = request(port, method, path, None if body is None else json.dumps(body), headers)
    assert status < 300, f"{method} {path}: {status} {text}"
    return json.loads(text)


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            found = condition()
        except (OSError, AssertionError):
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"never: {what}")


class Recorder(BaseHTTPRequestHandler):
    """Keeps what a service really sent."""

    requests = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def variants(headers, body):
    """What is sent to the receivers by hand: a name, headers, body, and whether it is to be believed."""
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), timezone.utc)
    event = headers["webhook-id"]

    def signed(by, when, text=body, name=event):
        signatures = " ".join(Webhook(one).sign(name, when, text) for one in by)
        return {"webhook-id": name, "webhook-timestamp": str(int(when.timestamp())), "webhook-signature": signatures}

    now = datetime.now(timezone.utc).replace(microsecond=0)
    genuine = {name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    return [
        ("as it was sent", genuine, body, True),
        ("with the old and the new secret", signed([OTHER, SECRET], now), body, True),
        ("with another status", genuine, body.replace('"passed"', '"failed"'), False),
        ("with a blank more", genuine, body + " ", False),
        ("with another id", {**genuine, "webhook-id": "another"}, body, False),
        ("with another time", {**genuine, "webhook-timestamp": str(int(at.timestamp()) + 1)}, body, False),
        ("signed six minutes ago", signed([SECRET], now - timedelta(minutes=6)), body, False),
        ("signed in six minutes", signed([SECRET], now + timedelta(minutes=6)), body, False),
        ("signed with another secret", signed([OTHER], now), body, False),
        ("without a signature", {**genuine, "webhook-signature": ""}, body, False),
        ("with half a signature", {**genuine, "webhook-signature": genuine["webhook-signature"][:20]}, body, False),
    ]


def main():
    processes, logs = [], {}

    def start(name, command, **environment):
        logs[name] = FOLDER / f"{name}.log"
        with logs[name].open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=FOLDER, env={**os.environ, **environment}
            )
        processes.append(process)

    recorder = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    ports = {name: free_port() for name in ("python", "node", "simulator", "public", "internal")}
    receivers = {
        "python": [sys.executable, str(receiver("receiver.py"))],
        "node": ["node", str(receiver("receiver.mjs"))],
    }
    hooks = {**{name: ports[name] for name in receivers}, "recorder": recorder.server_port}
    sections = "".join(
        f'[[webhooks]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/"\nsecrets = ["{SECRET}", "{OTHER}"]\n'
        for name, port in hooks.items()
    )
    (FOLDER / "checkback.toml").write_text(
        f"""
[server]
public_listen = "127.0.0.1:{ports['public']}"
internal_listen = "127.0.0.1:{ports['internal']}"
[database]
data_dir = "{FOLDER}/data"
[[auth.keys]]
name = "interop"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
scopes = ["register", "read", "operate"]
[accounts.alibaba-sg]
kind = "alibaba"
endpoint = "http://127.0.0.1:{ports['simulator']}"
access_key_id = "sim-key-id"
access_key_secret = "sim-key-secret"
return_images = false
[evidence]
url = "file:{FOLDER}/evidence"
{sections}"""
    )
    try:
        for name, command in receivers.items():
            start(name, command, PORT=str(ports[name]), WEBHOOK_SECRET=SECRET)
            until(f"{name} listens", lambda: request(ports[name], "POST", "/", "", {"content-length": "0"})[0] == 400)
        simulate = ["simulate", "--listen", f"127.0.0.1:{ports['simulator']}"]
        start("simulator", [BINARY, *simulate, "--access-key-id", "sim-key-id", "--access-key-secret", "sim-key-secret"])
        start("service", [BINARY, "serve", "--config", "checkback.toml"])
        internal, simulator = ports["internal"], ports["simulator"]
        until("the service is ready", lambda: request(internal, "GET", "/readyz")[0] == 200)

        for outcome in ({}, {"passed": "N", "sub_code": "204"}):
            status, text = request(simulator, "POST", "/_sim/transactions", "{}", {"Content-Type": "application/json"})
            assert status < 300, text
            transaction = json.loads(text)["transaction_id"]
            registration = {"account": "alibaba-sg", "transaction_id": transaction}
            identifier = api(internal, "POST", "/verifications", registration)["id"]
            complete = f"/_sim/transactions/{transaction}/complete"
            request(simulator, "POST", complete, json.dumps(outcome), {"Content-Type": "application/json"})
            api(internal, "POST", f"/verifications/{identifier}/collect", {})
            assert api(internal, "GET", f"/verifications/{identifier}?wait=30")["final"]

        count = 2 * len(hooks)
        delivered = "/webhooks/deliveries?status=delivered"
        until("all are delivered", lambda: len(api(internal, "GET", delivered)["items"]) == count)
        items = api(internal, "GET", delivered)["items"]
        assert all(item["attempts"] == 1 for item in items), items
        for name in receivers:
            believed = [line.split()[0] for line in logs[name].read_text().splitlines() if line.startswith("verification.")]
            assert sorted(believed) == ["verification.failed", "verification.passed"], believed
            print(f"{name}: both events were believed, as the first attempt")

        genuine = next((h, b) for h, b in Recorder.requests if json.loads(b)["type"] == "verification.passed")
        wrong = 0
        for what, headers, body, is_believed in variants(*genuine):
            for name in receivers:
                status, _ = request(ports[name], "POST", "/", body, {**headers, "content-type": "application/json"})
                verdict = {204: "believed", 400: "refused"}.get(status, str(status))
                expected = "believed" if is_believed else "refused"
                wrong += verdict != expected
                print(f"{name}: {what}: {verdict}" + ("" if verdict == expected else f", expected {expected}"))
        if wrong:
            raise SystemExit(f"{wrong} are not as expected")
        print("all as expected")
    except BaseException:
        for name, log in logs.items():
            print(f"--- what {name} said\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


main()
