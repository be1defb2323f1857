#!/usr/bin/env python3
"""Started by run-snippets: runs the marked programs of a page. Arguments: page, binary, folder, languages (or all)."""

import hashlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

page, binary, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
MARK = r"^<!-- run by scripts/run-snippets -->\n```(\w+)\n(.*?)^```$"
PATIENCE = 120
KEY = secrets.token_hex(32)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


public, internal, simulator = (f"http://127.0.0.1:{port}" for port in free_ports(3))
# Nothing of this machine's environment but what finds programs; and no proxy before loopback.
BASE = {name: os.environ[name] for name in ("PATH", "HOME", "CHECKBACK_POSTGRES_BIN") if name in os.environ}


def ask(url, body=None, key=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers), timeout=70) as answer:
        return json.load(answer)


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"never: {what}")


def service():
    environment = BASE | {
        "CHECKBACK_DATABASE__DATA_DIR": str(folder / "data"),
        "CHECKBACK_SERVER__PUBLIC_LISTEN": public.removeprefix("http://"),
        "CHECKBACK_SERVER__INTERNAL_LISTEN": internal.removeprefix("http://"),
        "CHECKBACK_SERVER__PUBLIC_URL": public,
        "CHECKBACK_AUTH__KEYS__0__NAME": "snippets",
        "CHECKBACK_AUTH__KEYS__0__SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
        "CHECKBACK_AUTH__KEYS__0__SCOPES": "register,read",
        "CHECKBACK_ACCOUNTS__ALIBABA_SG__KIND": "alibaba",
        "CHECKBACK_ACCOUNTS__ALIBABA_SG__ENDPOINT": simulator,
        "CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_ID": "sim-key-id",
        "CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_SECRET": "sim-key-secret",
    }
    listen = simulator.removeprefix("http://")
    log = open(folder / "log", "w")
    start = lambda *command: subprocess.Popen(  # noqa: E731
        [binary, *command], env=environment, cwd=folder, stdout=log, stderr=log
    )
    return [start("simulate", "--listen", listen), start("serve")]


def program(language, blocks):
    """Writes the program; returns the command that runs it, having compiled it where that is its way."""
    place = folder / language
    place.mkdir()
    text = "\n".join(blocks)

    def prepare(*command):
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    if language == "sh":
        return place, ["bash", "-euo", "pipefail", "-c", text]
    if language == "python":
        (place / "snippet.py").write_text(text)
        return place, [sys.executable, "snippet.py"]
    if language == "ts":
        (place / "package.json").write_text('{"type": "module", "private": true}')
        (place / "snippet.ts").write_text(text)
        prepare("npm", "install", "--silent", "--no-audit", "--no-fund", "typescript@5.9.3", "@types/node@20.19.0")
        prepare(
            "node_modules/.bin/tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node",
            "snippet.ts",
        )  # fmt: skip
        return place, ["node", "snippet.js"]
    if language == "java":
        (place / "Checkback.java").write_text(text)
        jars = ":".join(f"/usr/share/java/jackson-{part}.jar" for part in ("core", "annotations", "databind"))
        prepare("javac", "-Xlint:all,-serial", "-Werror", "-cp", jars, "Checkback.java")
        return place, ["java", "-cp", f"{jars}:.", "Checkback"]
    raise SystemExit(f"{page}: nobody knows how to run {language}")


def run(place, command, environment):
    return subprocess.run(
        command, cwd=place, env=BASE | environment, capture_output=True, text=True, timeout=PATIENCE
    )


def show(language, blocks):
    place, command = program(language, blocks)
    transaction, token = f"tx-{language}", secrets.token_hex(16)
    created = {
        "transaction_id": transaction,
        "callback_url": f"{public}/callbacks/alibaba-sg",
        "callback_token": token,
    }
    ask(f"{simulator}/_sim/transactions", created)

    def person():
        found = until("registered", lambda: ask(f"{internal}/verifications?transaction_id={transaction}", key=KEY)["items"])
        assert found[0]["status"] == "waiting", found
        ask(f"{simulator}/_sim/transactions/{transaction}/complete", {})

    finishing = threading.Thread(target=person, daemon=True)
    finishing.start()
    environment = {
        "CHECKBACK_URL": internal,
        "CHECKBACK_KEY": KEY,
        "TRANSACTION_ID": transaction,
        "CALLBACK_TOKEN": token,
        "META_INFO": "{}",
    }
    said = run(place, command, environment)
    finishing.join(PATIENCE)
    shown = f"{said.stdout}{said.stderr}"
    assert said.returncode == 0, f"{language}: {shown}"
    assert "passed 200" in said.stdout, f"{language}: {shown}"
    assert re.search(r"^for the SDK: \w{20,}$", said.stdout, re.M), f"{language}: {shown}"
    items = ask(f"{internal}/verifications?transaction_id={transaction}", key=KEY)["items"]
    assert [item["metadata"] for item in items] == [{"order": "A-17"}], f"{language}: {items}"

    # A wrong key: the program must say so and end, and must not show the key.
    wrong = run(place, command, environment | {"CHECKBACK_KEY": "wrong-key"})
    shown = f"{wrong.stdout}{wrong.stderr}"
    told = "unauthorized" in shown or "401" in shown
    assert wrong.returncode != 0 and told and "wrong-key" not in shown, f"{language}, wrong key: {shown}"
    print(f"{language}: {said.stdout.splitlines()[0]}; a wrong key is told")
    return re.search(r"^for the SDK: (\w+)$", said.stdout, re.M).group(1)


def main():
    found = {}
    for language, text in re.findall(MARK, page.read_text(), re.M | re.S):
        found.setdefault(language, []).append(text)
    wanted = sys.argv[4:] or list(found)
    missing = set(wanted) - set(found)
    if missing or set(found) != {"sh", "python", "ts", "java"}:
        raise SystemExit(f"{page} has programs in {sorted(found)}; wanted {wanted}")
    processes = service()
    try:
        until("ready", lambda: ask(f"{internal}/readyz")["status"] == "ready")
        started = {show(language, found[language]) for language in wanted}
        # All of them sent the same Idempotency-Key for the same order: one transaction was made.
        assert len(started) == 1, started
    except BaseException:
        print((folder / "log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


main()
