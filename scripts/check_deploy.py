#!/usr/bin/env python3
"""Started by check-deploy: checks deploy/ and docker-compose.yml. Arguments: the repository, the binary, a folder."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

root, binary, scratch = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3])
# The sleep of preStop came with 1.30.
VERSIONS = ["1.30", "1.37"]
GRACE = 10  # seconds that a soft stop takes at most: src/lifecycle.rs
failures = []


def check(holds, what):
    if not holds:
        failures.append(what)


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def kustomizations():
    return sorted(path.parent for path in (root / "deploy/kubernetes").rglob("kustomization.yaml"))


def files_of(folder):
    """The manifests that a kustomization names, with those of its bases; each must exist."""
    stated = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in stated.get("resources", []) + stated.get("components", []):
        path = (folder / name).resolve()
        if path.is_dir():
            yield from files_of(path)
        elif path.is_file():
            yield path
        else:
            failures.append(f"{folder}: {name} does not exist")
    for generator in stated.get("configMapGenerator", []):
        for name in generator.get("files", []):
            check((folder / name).is_file(), f"{folder}: {name} does not exist")
    listed = set(stated.get("resources", []))
    for path in folder.glob("*.yaml"):
        check(path.name == "kustomization.yaml" or path.name in listed, f"{path} is in no kustomization")


def render(folder):
    files = list(files_of(folder))
    for tool in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(tool[0]):
            said = run(*tool, str(folder))
            check(said.returncode == 0, f"{folder}: {said.stderr}")
            return [item for item in yaml.safe_load_all(said.stdout) if item], tool[0]
    return [item for path in files for item in yaml.safe_load_all(path.read_text()) if item], None


def named(objects, kind, name=None):
    found = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    check(len(found) == 1, f"{len(found)} of kind {kind} {name or ''}")
    return found[0]


def cross_check(where, objects):
    """What the schemas cannot say: that the parts fit each other."""
    deployment = named(objects, "Deployment")
    template = deployment["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    check(ports == {"public": 8080, "internal": 8081}, f"{where}: ports {ports}")
    environment = {item["name"]: item["value"] for item in container["env"]}
    for name, port in ports.items():
        listens = environment[f"CHECKBACK_SERVER__{name.upper()}_LISTEN"]
        check(listens == f"0.0.0.0:{port}", f"{where}: {name} listens on {listens}")

    check(deployment["spec"]["replicas"] >= 2, f"{where}: one replica")
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    check(rolling["maxUnavailable"] == 0, f"{where}: a rollout takes a replica away before the next is ready")
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    check(pod["terminationGracePeriodSeconds"] >= sleep + GRACE + 5, f"{where}: the grace is too short")
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    expected = [("/healthz", "public"), ("/healthz", "public"), ("/readyz", "internal")]
    check([(probe["path"], probe["port"]) for probe in probes] == expected, f"{where}: probes {probes}")

    for item in objects:
        spec = item.get("spec", {})
        inner = spec if item["kind"] == "Pod" else spec.get("template", {}).get("spec")
        if item["kind"] in ("Deployment", "Job"):
            security = inner["securityContext"]
            check(security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault", f"{where}: root")
            for one in inner["containers"]:
                own = one["securityContext"]
                hardened = own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
                check(hardened and own["capabilities"]["drop"] == ["ALL"], f"{where}: {one['name']} is not hardened")
                check("memory" in one["resources"]["limits"], f"{where}: {one['name']} has no limit of memory")
                mounts = {mount["name"] for mount in one["volumeMounts"]}
                volumes = {volume["name"] for volume in inner["volumes"]}
                check(mounts == volumes, f"{where}: volumes {volumes}, mounted {mounts}")
                for mount in one["volumeMounts"]:
                    check("subPath" not in mount, f"{where}: a subPath does not follow changes")
            check(not inner["automountServiceAccountToken"], f"{where}: a token of the cluster is mounted")

    # Who is selected by what: the pods of the Deployment and no others.
    selectors = {
        "Deployment": deployment["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": named(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "public": named(objects, "Service", "checkback-public")["spec"]["selector"],
        "internal": named(objects, "Service", "checkback-internal")["spec"]["selector"],
    }
    for constraint in pod["topologySpreadConstraints"]:
        selectors[constraint["topologyKey"]] = constraint["labelSelector"]["matchLabels"]
    others = [item["spec"]["template"]["metadata"]["labels"] for item in objects if item["kind"] == "Job"]
    for what, selector in selectors.items():
        check(selector and selector.items() <= labels.items(), f"{where}: {what} selects {selector}")
        for other in others:
            check(not selector.items() <= other.items(), f"{where}: {what} selects the Job too")
    for name in ("public", "internal"):
        service = named(objects, "Service", f"checkback-{name}")
        check([port["targetPort"] for port in service["spec"]["ports"]] == [name], f"{where}: ports of {name}")
        check(service["spec"].get("type", "ClusterIP") == "ClusterIP", f"{where}: {name} is reached from outside")

    # From other namespaces the ingress reaches the public port alone.
    for rule in named(objects, "NetworkPolicy")["spec"]["ingress"]:
        opened = [port["port"] for port in rule["ports"]]
        check(rule["from"], f"{where}: everybody may come in")
        for peer in rule["from"]:
            space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
            allowed = ["internal"] if space in (None, "monitoring") else ["public"]
            check(opened == allowed, f"{where}: {peer} reaches {opened}")
    for ingress in (item for item in objects if item["kind"] == "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                check(path["backend"]["service"]["name"] == "checkback-public", f"{where}: ingress to {path['backend']}")
                check(path["path"] in ("/callbacks/", "/returns/"), f"{where}: ingress path {path['path']}")
    return environment


def configuration_is_taken(where, arguments, environment):
    said = run(binary, *arguments, env={"PATH": os.environ["PATH"], **environment}, cwd=scratch)
    check(said.returncode == 0, f"{where}: {said.stderr or said.stdout}")


def kubernetes():
    for folder in kustomizations():
        where = folder.relative_to(root / "deploy/kubernetes")
        if folder.parent.name == "components":
            list(files_of(folder))
            continue
        objects, tool = render(folder)
        kinds = sorted(item["kind"] for item in objects)
        for item in objects:
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(item, version, strict=True)
                except Exception as error:  # each kind of refusal is one of its own
                    failures.append(f"{where}: {item['kind']} {item['metadata']['name']}, {version}: {str(error).splitlines()[0]}")
        # What the schemas refuse may lack what is looked at here.
        if tool and not failures:
            environment = cross_check(where, objects)
            # The configuration as the pod reads it, with stand-ins for the mounted secrets.
            maps = [item for item in objects if item["kind"] == "ConfigMap"]
            text = maps[0]["data"]["checkback.toml"]
            secrets = scratch / "secrets"
            secrets.mkdir(exist_ok=True)
            mounted = "/run/secrets/checkback"
            values = re.findall(mounted + r"/([a-z-]+)", text + str(environment))
            for name in values:
                secret = "postgres://db/checkback" if name == "database-url" else "stand-in-for-a-secret"
                (secrets / name).write_text(secret + "\n")
            path = scratch / "checkback.toml"
            path.write_text(text.replace(mounted, str(secrets)))
            environment = {name: value.replace(mounted, str(secrets)) for name, value in environment.items()}
            configuration_is_taken(where, ["config", "--config", str(path)], environment)
            tomllib.loads(text)
        how = f"rendered by {tool}" if tool else "NOT RENDERED (neither kustomize nor kubectl), file by file"
        print(f"kubernetes/{where}: {len(objects)} objects ({', '.join(kinds)}), {how}; schemas {', '.join(VERSIONS)}")


def systemd():
    unit = root / "deploy/systemd/checkback.service"
    text = unit.read_text()
    names = set(re.findall(r"^LoadCredential=([a-z-]+):", text, re.M))
    used = set(re.findall(r"^Environment=.*%d/([a-z-]+)$", text, re.M))
    check(names == used, f"credentials {names}, used {used}")
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.M).group(1))
    check(stop >= GRACE + 5, f"TimeoutStopSec={stop} cuts a soft stop off")
    if not shutil.which("systemd-analyze"):
        failures.append("there is no systemd-analyze: install systemd")
        return
    # The same unit with a binary that is there.
    path = scratch / "checkback.service"
    path.write_text(text.replace("/usr/local/bin/checkback", binary))
    said = run("systemd-analyze", "verify", str(path))
    check(said.returncode == 0 and not said.stderr.strip(), f"systemd-analyze verify: {said.stderr}")
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=15", str(path))
    check(said.returncode == 0, f"systemd-analyze security: {said.stdout}")
    print(f"systemd: verified; {said.stdout.strip().splitlines()[-1].strip()}")


def compose():
    services = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]
    service, dockerfile = services["checkback"], (root / "Dockerfile").read_text()
    runtime = dockerfile.split("AS runtime", 1)[1]
    exposed = set(re.search(r"^EXPOSE (.*)$", runtime, re.M).group(1).split())
    published = {port.split(":")[-1] for port in service["ports"]}
    check(published == exposed, f"compose publishes {published}, the image exposes {exposed}")
    check("HEALTHCHECK" in runtime, "the image has no health check")
    check(all(port.startswith("127.0.0.1:") for one in services.values() for port in one.get("ports", [])), "open ports")
    environment = {name: str(value) for name, value in service["environment"].items()}
    configuration_is_taken("compose", ["config"], environment)
    secret = environment["CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_SECRET"]
    check(f"--access-key-secret={secret}" in services["simulator"]["command"], "simulator and service differ in keys")
    print(f"compose: {', '.join(services)}; the configuration is taken")


kubernetes()
systemd()
compose()
if failures:
    print("\n".join(failures), file=sys.stderr)
    sys.exit(1)
