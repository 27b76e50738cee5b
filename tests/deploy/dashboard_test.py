"""Every panel of the dashboards, evaluated by a real Prometheus on real processes."""
import glob
import json
import os
import re
import time
import unittest

from monitored_cluster import DEPLOY, MonitoredClusterTest, promtool, read  # first: it finds cluster
from cluster import LONG, small_spec

DASHBOARDS = sorted(glob.glob(os.path.join(DEPLOY, "grafana", "dashboards", "*.json")))
JOB = "projects/default/trainingJobs/job"
# Panels whose query may give nothing here: title -> why.
MAY_BE_EMPTY = {"Share of the GPUs' peak": "there are no GPUs here"}


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


class DashboardFileTest(unittest.TestCase):
    def test_files_are_provisionable(self):
        uids = []
        for path in DASHBOARDS:
            with open(path) as file:
                dashboard = json.load(file)
            self.assertIsNone(dashboard["id"], path)
            self.assertTrue(dashboard["uid"], path)
            self.assertTrue(dashboard["schemaVersion"], path)
            variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
            self.assertEqual(variables["datasource"]["type"], "datasource")
            uids.append(dashboard["uid"])
            for variable in variables.values():
                if variable["type"] == "query":
                    self.assertEqual(variable["datasource"]["uid"], "${datasource}", variable["name"])
            identifiers = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(identifiers), len(set(identifiers)), path)
            for panel in panels_of(dashboard):
                self.assertTrue(panel["targets"], panel["title"])
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])
                for target in panel.get("targets", []):
                    self.assertEqual(target.get("datasource", panel.get("datasource"))["uid"], "${datasource}", panel["title"])
                for variable in re.findall(r"\$(\w+)", json.dumps(panel.get("targets", []))):
                    self.assertIn(variable, set(variables) | {"__rate_interval", "__range"}, panel["title"])
        self.assertEqual(sorted(uids), ["lasp-coordinator", "lasp-fleet", "lasp-training-job"])

    def test_scrape_configuration(self):
        code, output = promtool("check", "config", os.path.join(DEPLOY, "prometheus", "prometheus.yml"))
        self.assertEqual(code, 0, output)


class LiveDashboardTest(MonitoredClusterTest):
    def exposed_families(self, metrics):
        """The names of the series on the metrics pages, which promtool finds well-formed."""
        exposed = set()
        for name, address in metrics.items():
            text = read(f"http://{address}/metrics")
            code, output = promtool("check", "metrics", input=text)
            self.assertEqual(code, 0, f"{name}: {output}")
            for family in re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE):
                exposed.add(family[0])
                if family[1] == "histogram":
                    exposed.update(family[0] + suffix for suffix in ("_bucket", "_count", "_sum"))
        return exposed

    def panel_failures(self, panel, exposed):
        for target in panel.get("targets", []):
            expression = target["expr"]
            without_labels = re.sub(r"\b(by|on|without) *\([^)]*\)|\{[^}]*\}", "", expression)
            # What a rule records has colons in its name.
            for name in set(re.findall(r"(?<![\w:])(?:lasp|grpc|process)_\w+(?![\w:])", without_labels)) - exposed:
                yield f"{panel['title']}: no metric {name}"
            for variable, value in (("$training_job", JOB), ("$rank", ".*"),
                                    ("$__rate_interval", "5s"), ("$__range", "5m")):
                expression = expression.replace(variable, value)
            if not self.query(expression) and panel["title"] not in MAY_BE_EMPTY:
                yield f"{panel['title']}: no data for {expression}"

    def failures(self, metrics):
        """What the dashboards do not show now."""
        exposed = self.exposed_families(metrics)
        failures = []
        for path in DASHBOARDS:
            with open(path) as file:
                dashboard = json.load(file)
            for panel in panels_of(dashboard):
                failures += self.panel_failures(panel, exposed)
            for variable in dashboard["templating"]["list"]:
                if variable["type"] == "query":
                    metric, label = re.match(r"label_values\((.+), *(\w+)\)", variable["query"]["query"]).groups()
                    metric = metric.replace("$training_job", JOB)
                    if not any(label in row["metric"] for row in self.query(metric)):
                        failures.append(f"variable {variable['name']}: no values")
        return failures

    def test_every_panel_shows_something(self):
        metrics = self.metrics_addresses()
        self.start_prometheus(metrics)
        self.start_server(metrics_address=metrics["server"])
        self.start_worker(slots=4, metrics_address=metrics["worker"])
        self.write_corpus("held_out.txt", 50_000)
        # One that ends, for what counts ends.
        self.submit(small_spec(steps=2), "short")
        self.wait_for_state("short", "SUCCEEDED")
        spec = small_spec(sp=2, dp=2, steps=LONG, eval_interval_steps=20)
        spec["data"]["eval_paths"] = ["held_out.txt"]
        self.submit(spec)
        self.wait_for_step("job", 40)
        # Rates want several scrapes; how long those take depends on the machine.
        deadline = time.monotonic() + 60
        failures = self.failures(metrics)
        while failures and time.monotonic() < deadline:
            time.sleep(0.5)
            failures = self.failures(metrics)
        self.assertEqual(failures, [])
        up = {row["metric"]["job"]: row["value"][1] for row in self.query("up")}
        self.assertEqual(up, {"lasp-server": "1", "lasp-worker": "1"})
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")


if __name__ == "__main__":
    unittest.main()
