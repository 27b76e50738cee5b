"""Every panel of the dashboards, evaluated by a real Prometheus on real processes."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time
import unittest
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from cluster import ROOT, ClusterTest, die_with_parent, small_spec, wait_until  # noqa: E402

DEPLOY = os.path.join(ROOT, "deploy")
DASHBOARDS = sorted(glob.glob(os.path.join(DEPLOY, "grafana", "dashboards", "*.json")))
JOB = "projects/default/trainingJobs/job"
# Panels whose query may give nothing here: title -> why.
MAY_BE_EMPTY = {}


def prometheus_folder():
    return subprocess.run([os.path.join(DEPLOY, "prometheus", "locate")], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class DashboardFileTest(unittest.TestCase):
    def test_files_are_provisionable(self):
        self.assertTrue(DASHBOARDS)
        for path in DASHBOARDS:
            with open(path) as file:
                dashboard = json.load(file)
            self.assertIsNone(dashboard["id"], path)
            self.assertTrue(dashboard["uid"], path)
            self.assertTrue(dashboard["schemaVersion"], path)
            variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
            self.assertEqual(variables["datasource"]["type"], "datasource")
            for panel in panels_of(dashboard):
                for target in panel.get("targets", []):
                    self.assertEqual(target.get("datasource", panel.get("datasource"))["uid"], "${datasource}", panel["title"])
                for variable in re.findall(r"\$(\w+)", json.dumps(panel.get("targets", []))):
                    self.assertIn(variable, set(variables) | {"__rate_interval", "__range"}, panel["title"])

    def test_scrape_configuration(self):
        promtool = os.path.join(prometheus_folder(), "promtool")
        subprocess.run([promtool, "check", "config", os.path.join(DEPLOY, "prometheus", "prometheus.yml")],
                       check=True, stdout=subprocess.DEVNULL)


class LiveDashboardTest(ClusterTest):
    def start_prometheus(self, targets):
        folder = os.path.join(self.folder, "prometheus")
        shutil.copytree(os.path.join(DEPLOY, "prometheus"), folder)
        path = os.path.join(folder, "prometheus.yml")
        with open(path) as file:
            config = file.read()
        with open(path, "w") as file:
            file.write(re.sub(r"(scrape_interval|evaluation_interval|scrape_timeout): .*", r"\1: 1s", config))
        for name, address in targets.items():
            with open(os.path.join(folder, "targets", name + ".json"), "w") as file:
                json.dump([{"targets": [address]}], file)
        log_path = os.path.join(folder, "log")
        with open(log_path, "w") as log:
            process = subprocess.Popen(
                [os.path.join(prometheus_folder(), "prometheus"), f"--config.file={path}",
                 f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=die_with_parent)
        self.others.append(process)

        def address():
            with open(log_path) as file:
                return re.search(r'msg="Listening on" address=(\S+)', file.read())
        return "http://" + wait_until(address, 30, "Prometheus listens").group(1)

    def query(self, prometheus, expression):
        answer = json.loads(read(prometheus + "/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        self.assertEqual(answer["status"], "success", expression)
        return answer["data"]["result"]

    def exposed_families(self, metrics):
        """The names of the series on the metrics pages, which promtool finds well-formed."""
        promtool = os.path.join(prometheus_folder(), "promtool")
        exposed = set()
        for name, address in metrics.items():
            text = read(f"http://{address}/metrics")
            checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT)
            self.assertEqual(checked.returncode, 0, f"{name}: {checked.stdout}")
            for family in re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE):
                exposed.add(family[0])
                if family[1] == "histogram":
                    exposed.update(family[0] + suffix for suffix in ("_bucket", "_count", "_sum"))
        return exposed

    def panel_failures(self, prometheus, panel, exposed):
        for target in panel.get("targets", []):
            expression = target["expr"]
            without_labels = re.sub(r"\b(by|on|without) *\([^)]*\)|\{[^}]*\}", "", expression)
            for name in set(re.findall(r"\b(?:lasp|grpc|process)_\w+", without_labels)) - exposed:
                yield f"{panel['title']}: no metric {name}"
            for variable, value in (("$training_job", JOB), ("$rank", ".*"),
                                    ("$__rate_interval", "5s"), ("$__range", "5m")):
                expression = expression.replace(variable, value)
            if not self.query(prometheus, expression) and panel["title"] not in MAY_BE_EMPTY:
                yield f"{panel['title']}: no data for {expression}"

    def failures(self, prometheus, metrics):
        """What the dashboards do not show now."""
        exposed = self.exposed_families(metrics)
        failures = []
        for path in DASHBOARDS:
            with open(path) as file:
                dashboard = json.load(file)
            for panel in panels_of(dashboard):
                failures += self.panel_failures(prometheus, panel, exposed)
            for variable in dashboard["templating"]["list"]:
                if variable["type"] == "query":
                    metric, label = re.match(r"label_values\((.+), *(\w+)\)", variable["query"]["query"]).groups()
                    metric = metric.replace("$training_job", JOB)
                    if not any(label in row["metric"] for row in self.query(prometheus, metric)):
                        failures.append(f"variable {variable['name']}: no values")
        return failures

    def test_every_panel_shows_something(self):
        self.start_server()
        worker = self.start_worker(slots=4)
        metrics = {"server": self.server.metrics_address, "worker": worker.metrics_address}
        prometheus = self.start_prometheus(metrics)
        self.write_corpus("held_out.txt", 50_000)
        spec = small_spec(sp=2, dp=2, steps=1_000_000, eval_interval_steps=20)
        spec["data"]["eval_paths"] = ["held_out.txt"]
        self.submit(spec)
        self.wait_for_step("job", 40)
        # Rates want several scrapes; how long those take depends on the machine.
        deadline = time.monotonic() + 60
        failures = self.failures(prometheus, metrics)
        while failures and time.monotonic() < deadline:
            time.sleep(0.5)
            failures = self.failures(prometheus, metrics)
        self.assertEqual(failures, [])
        up = {row["metric"]["job"]: row["value"][1] for row in self.query(prometheus, "up")}
        self.assertEqual(up, {"lasp-server": "1", "lasp-worker": "1"})
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")


if __name__ == "__main__":
    unittest.main()
