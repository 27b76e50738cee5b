"""Plays kubectl and the kubelet for the README's commands: pods are processes of this machine, volumes are folders of
$PLAYED_CLUSTER. Knows what those commands need, and that alone."""
import base64
import os
import re
import subprocess
import sys
import time

import grpc
import yaml

FOLDER = os.environ["PLAYED_CLUSTER"]
PROGRAMS = os.environ["PLAYED_PROGRAMS"]
FS_GROUP = 65532


def objects():
    found = []
    for name in sorted(os.listdir(FOLDER)):
        if name.endswith(".yaml"):
            with open(os.path.join(FOLDER, name)) as file:
                found += [m for m in yaml.safe_load_all(file) if m]
    return found


def named(kind, name):
    matching = [m for m in objects() if m["kind"] == kind and m["metadata"]["name"] == name]
    if not matching:
        raise SystemExit(f"there is no {kind} {name}")
    assert matching[0]["metadata"].get("namespace") == "lasp", matching[0]["metadata"]
    return matching[0]


def keep(name, text):
    with open(os.path.join(FOLDER, name + ".yaml"), "w") as file:
        file.write(text)


def project(path, files, mode):
    """As the kubelet does it: links to files in a folder that is swapped as a whole."""
    os.makedirs(os.path.join(path, "..first"))
    os.symlink("..first", os.path.join(path, "..data"))
    for name, content in files.items():
        inner = os.path.join(path, "..first", name)
        with open(inner, "wb") as file:
            file.write(content)
        # It adds the right to read for the pod's group.
        os.chown(inner, 0, FS_GROUP)
        os.chmod(inner, mode | 0o040)
        os.symlink(f"..data/{name}", os.path.join(path, name))


def volume(pod, spec):
    """The folder of a pod's volume, made where it is missing."""
    path = os.path.join(FOLDER, "volumes", spec["persistentVolumeClaim"]["claimName"]
                        if "persistentVolumeClaim" in spec else f"{pod}.{spec['name']}")
    if os.path.isdir(path):
        return path
    os.makedirs(path)
    if "secret" in spec:
        data = named("Secret", spec["secret"]["secretName"])["data"]
        project(path, {k: base64.b64decode(v) for k, v in data.items()}, spec["secret"]["defaultMode"])
    elif "configMap" in spec:
        project(path, {k: v.encode() for k, v in named("ConfigMap", spec["configMap"]["name"])["data"].items()}, 0o644)
    else:
        os.chown(path, 0, FS_GROUP)
        os.chmod(path, 0o2775)
    return path


def start(pod):
    """Starts the pod's container as its user, with its volumes' folders for what it mounts."""
    workload = named("StatefulSet", pod.rpartition("-")[0])
    template = workload["spec"]["template"]["spec"]
    container, = template["containers"]
    volumes = {v["name"]: v for v in template["volumes"]}
    volumes.update({t["metadata"]["name"]: {"name": t["metadata"]["name"]}
                    for t in workload["spec"].get("volumeClaimTemplates", [])})
    mounts = {m["mountPath"]: volume(pod, volumes[m["name"]]) for m in container["volumeMounts"]}
    fields = {"metadata.name": pod, "status.podIP": "127.0.0.1"}
    environment = {e["name"]: e.get("value") or fields[e["valueFrom"]["fieldRef"]["fieldPath"]]
                   for e in container.get("env", [])}
    arguments = []
    for argument in container["args"]:
        argument = re.sub(r"\$\((\w+)\)", lambda found: environment[found.group(1)], argument)
        flag, _, value = argument.partition("=")
        for mount in sorted(mounts, key=len, reverse=True):
            if value == mount or value.startswith(mount + "/"):
                value = mounts[mount] + value[len(mount):]
                break
        arguments.append(f"{flag}={value}")
    context = template["securityContext"]
    with open(os.path.join(FOLDER, f"{pod}.log"), "w") as log:
        subprocess.Popen([os.path.join(PROGRAMS, container["name"]), *arguments], stdin=subprocess.DEVNULL, stdout=log,
                         stderr=log, user=context["runAsUser"], group=context["runAsGroup"],
                         extra_groups=[context["fsGroup"]], umask=0o077, start_new_session=True,
                         env={"PATH": "/usr/bin:/bin", **environment})
    return container["readinessProbe"]["grpc"]


def is_ready(probe):
    with grpc.insecure_channel(f"127.0.0.1:{probe['port']}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        service = probe["service"].encode()
        try:
            return check(b"\x0a" + bytes([len(service)]) + service, timeout=5) == b"\x08\x01"
        except grpc.RpcError:
            return False


def wait(pods, seconds):
    probes = {pod: start(pod) for pod in pods}
    deadline = time.monotonic() + seconds
    for pod, probe in probes.items():
        while not is_ready(probe):
            if time.monotonic() > deadline:
                with open(os.path.join(FOLDER, f"{pod}.log")) as log:
                    raise SystemExit(f"{pod} is not ready:\n{log.read()[-3000:]}")
            time.sleep(0.1)


def main():
    arguments = sys.argv[1:]
    if arguments[:2] == ["-n", "lasp"]:
        arguments = arguments[2:]
    if arguments[:2] == ["apply", "-k"]:
        keep("overlay", subprocess.run([os.environ["PLAYED_KUBECTL"], "kustomize", arguments[2]], check=True,
                                       stdout=subprocess.PIPE, text=True).stdout)
    elif arguments == ["apply", "-f", "-"]:
        keep("applied", sys.stdin.read())
    elif arguments[:2] == ["create", "configmap"]:
        key, path = arguments[3].removeprefix("--from-file=").split("=")
        with open(path) as file:
            keep("config-map", yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "data": {key: file.read()},
                                               "metadata": {"name": arguments[2], "namespace": "lasp"}}))
    elif arguments[0] == "wait":
        wait([a.removeprefix("pod/") for a in arguments if a.startswith("pod/")], 60)
    elif arguments[0] == "port-forward":
        # The pods' ports are on this machine's loopback already.
        service = named("Service", arguments[1].removeprefix("service/"))
        assert int(arguments[2]) in [port["port"] for port in service["spec"]["ports"]], arguments
    else:
        raise SystemExit(f"played kubectl: {arguments}: not known here")


if __name__ == "__main__":
    main()
