"""Kubernetes' schemas, from pinned npm packages: values by their validators, unknown fields by tsc."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "support"))
import npm_packages  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
# Kinds of other projects, which the packages do not describe: manifest_checks.py looks at them.
OTHERS = {"Issuer", "Certificate", "ResourceFlavor", "ClusterQueue", "LocalQueue"}


def install():
    """The folder with node_modules as the lock file says."""
    return npm_packages.install(HERE, "kubernetes-schemas")


def value_faults(packages, manifests):
    """{id: [fault]} of {id: manifest}: missing fields, wrong types, values that are not allowed."""
    # Modules are looked up from where the script lies.
    script = os.path.join(packages, "validate.mjs")
    shutil.copy(os.path.join(HERE, "validate.mjs"), script + f".{os.getpid()}")
    os.replace(script + f".{os.getpid()}", script)
    done = subprocess.run(["node", script], text=True, stdout=subprocess.PIPE, check=True, timeout=300,
                          input=json.dumps([{"id": i, "manifest": m} for i, m in manifests.items()]))
    faults = json.loads(done.stdout)
    return {name: [f"no schema for {manifests[name]['kind']}"] if found is None else found
            for name, found in faults.items() if found is not None or manifests[name]["kind"] not in OTHERS}


def field_faults(packages, manifests):
    """{id: [fault]}: fields that the kind does not have, and types, as TypeScript's compiler sees them."""
    described = {name: m for name, m in manifests.items() if m["kind"] not in OTHERS}
    names = list(described)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.join(packages, "node_modules"), os.path.join(folder, "node_modules"))
        files = []
        for index, name in enumerate(names):
            manifest = described[name]
            package = ("@kubernetes-models/prometheus-operator"
                       if manifest["apiVersion"].startswith("monitoring.coreos.com/") else "kubernetes-models")
            kind = manifest["kind"]
            path = os.path.join(folder, f"manifest{index}.mts")
            with open(path, "w") as file:
                file.write(f'import type {{ I{kind} }} from "{package}/{manifest["apiVersion"]}/{kind}";\n'
                           f"export const manifest: I{kind} = {json.dumps(manifest)};\n")
            files.append(path)
        with open(os.path.join(folder, "tsconfig.json"), "w") as file:
            json.dump({"files": files, "compilerOptions": {
                "noEmit": True, "strict": True, "skipLibCheck": True, "module": "nodenext", "types": []}}, file)
        done = subprocess.run(
            ["node", os.path.join(packages, "node_modules", "typescript", "bin", "tsc"), "--pretty", "false"],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    faults = {name: [] for name in names}
    for line in done.stdout.splitlines():
        found = re.match(r"manifest(\d+)\.mts\(\d+,\d+\): error (.*)", line)
        if found:
            faults[names[int(found.group(1))]].append(found.group(2))
        elif re.match(r"\S.*error TS", line):
            raise RuntimeError(f"tsc: {line}")
    if done.returncode != 0 and not any(faults.values()):
        raise RuntimeError(f"tsc failed: {done.stdout[-2000:]}")
    return faults
