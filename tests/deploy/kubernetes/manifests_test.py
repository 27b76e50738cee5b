"""deploy/kubernetes, rendered by kustomize: schemas, unknown fields, and that its parts fit each other.

Needs kubectl and npm (deploy/install-dependencies tests) and, once, the npm registry; skipped without them,
but not where CI is true.
"""
import copy
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

import manifest_checks
import schemas
from broken_manifests import BROKEN, container, of

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
KUBERNETES = os.path.join(ROOT, "deploy", "kubernetes")
# Everything at once, beside what people apply.
EVERYTHING = """
resources: [../overlays/gpu]
components: [../components/cert-manager, ../components/rdma, ../components/kueue]
"""


def flags_of(path):
    with open(os.path.join(ROOT, path)) as file:
        return set(re.findall(r"ABSL_FLAG\(\s*[^,]+(?:<[^>]*>)?,\s*(\w+)", file.read()))


# What the manifests are written for and may be built without.
FLAGS = {"lasp-server": flags_of("server/flags.cc"),
         "lasp-worker": flags_of("worker/agent/flags.cc")}


def missing(reason):
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise unittest.SkipTest(reason)


def render(kubectl, folder):
    done = subprocess.run([kubectl, "kustomize", folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"kubectl kustomize {folder}: {done.stderr[-2000:]}")
    return [m for m in yaml.safe_load_all(done.stdout) if m]


class ManifestsTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        located = subprocess.run([os.path.join(KUBERNETES, "locate-kubectl")], text=True, stdout=subprocess.PIPE)
        if located.returncode != 0:
            missing("no kubectl 1.21 or newer: run deploy/install-dependencies tests")
        cls.kubectl = located.stdout.strip()
        try:
            packages = schemas.install()
        except schemas.npm_packages.PackagesMissing as error:
            missing(str(error))
        with tempfile.TemporaryDirectory() as folder:
            for name in ("kubernetes", "grafana", "prometheus"):
                shutil.copytree(os.path.join(ROOT, "deploy", name), os.path.join(folder, name))
            kubernetes = os.path.join(folder, "kubernetes")
            os.mkdir(os.path.join(kubernetes, "everything"))
            with open(os.path.join(kubernetes, "everything", "kustomization.yaml"), "w") as file:
                file.write(EVERYTHING)
            cls.clusters = {name: render(cls.kubectl, os.path.join(kubernetes, path)) for name, path in (
                ("dev", "overlays/dev"), ("gpu", "overlays/gpu"), ("everything", "everything"))}
        for name in ("data-loader", "restore"):
            with open(os.path.join(KUBERNETES, f"{name}.yaml")) as file:
                cls.clusters[name] = list(yaml.safe_load_all(file))
        cls.broken = {}
        for case, (spoil, _) in BROKEN.items():
            cls.broken[case] = copy.deepcopy(cls.clusters["everything"])
            spoil(cls.broken[case])
        # One run of each tool for all: they take seconds to start.
        manifests = {f"{cluster}/{m['kind']}/{m['metadata']['name']}": m
                     for cluster, all_ in cls.clusters.items() for m in all_}
        for case, all_ in cls.broken.items():
            for m in all_:
                if m not in cls.clusters["everything"]:
                    manifests[f"{case}/{m['kind']}/{m['metadata']['name']}"] = m
        values, fields = schemas.value_faults(packages, manifests), schemas.field_faults(
            packages, {name: m for name, m in manifests.items() if "PodDisruptionBuget" not in name})
        cls.schema_faults = {}
        for found in (values, fields):
            for name, texts in found.items():
                cls.schema_faults.setdefault(name.split("/")[0], []).extend(f"{name}: {text}" for text in texts)

    def test_schemas_are_kept(self):
        for cluster in self.clusters:
            self.assertEqual(self.schema_faults.get(cluster, []), [], cluster)

    def test_parts_fit(self):
        for cluster in ("dev", "gpu", "everything"):
            self.assertEqual(manifest_checks.faults(self.clusters[cluster], FLAGS), [], cluster)

    def test_broken_manifests_are_refused(self):
        for case, (_, text) in BROKEN.items():
            with self.subTest(case):
                # The checks rely on what the schemas say.
                found = self.schema_faults.get(case) or manifest_checks.faults(self.broken[case], FLAGS)
                self.assertIn(text, "\n".join(found))

    def test_dev_needs_no_gpu(self):
        text = yaml.safe_dump(self.clusters["dev"])
        self.assertNotIn("nvidia", text)
        self.assertIn("--cpu_slots=4", container(self.clusters["dev"], "lasp-agent")["args"])

    def test_gpu_offers_whole_nodes(self):
        self.assertEqual(container(self.clusters["gpu"], "lasp-agent")["resources"]["limits"]["nvidia.com/gpu"], "8")
        pod = of(self.clusters["gpu"], "StatefulSet", "lasp-agent")["spec"]["template"]["spec"]
        self.assertEqual(pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
                         ["topologyKey"], "kubernetes.io/hostname")

    def test_monitoring_is_what_its_sources_make(self):
        done = subprocess.run([os.path.join(KUBERNETES, "components", "monitoring", "generate"), "--check"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout)
        dashboards = os.listdir(os.path.join(ROOT, "deploy", "grafana", "dashboards"))
        shipped = [name for m in self.clusters["gpu"] if m["kind"] == "ConfigMap" for name in m["data"]]
        self.assertEqual(sorted(shipped), sorted(name for name in dashboards if name.endswith(".json")))


if __name__ == "__main__":
    unittest.main()
