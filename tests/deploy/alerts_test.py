"""The alerts: well-formed, each with a section of the runbook and a test of promtool; and a real Prometheus
that sees a real cluster in trouble."""
import glob
import json
import os
import re
import signal
import unittest

from monitored_cluster import DEPLOY, RULES, MonitoredClusterTest, promtool, read  # first: it finds cluster
from cluster import LONG, ROOT, small_spec, wait_until

RULE_FILES = sorted(glob.glob(os.path.join(RULES, "*.yml")))
UNIT_TESTS = sorted(glob.glob(os.path.join(ROOT, "tests", "deploy", "rules", "*_test.yml")))


def text_of(path):
    with open(path) as file:
        return file.read()


def alerts():
    """{name: its text}, of all rule files."""
    found = {}
    for path in RULE_FILES:
        for block in re.split(r"\n *- (?=alert: |record: )", text_of(path))[1:]:
            name = re.match(r"alert: (\w+)\n", block)
            if name:
                found[name.group(1)] = block
    return found


def anchors(path):
    """Those that GitHub gives to a Markdown file's headings."""
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE)]


class AlertFilesTest(unittest.TestCase):
    def test_rules_are_valid(self):
        code, output = promtool("check", "rules", *RULE_FILES)
        self.assertEqual(code, 0, output)

    def test_rules_do_what_their_tests_say(self):
        code, output = promtool("test", "rules", *UNIT_TESTS)
        self.assertEqual(code, 0, output)

    def test_every_alert_is_tested_to_fire(self):
        tested = set()
        for path in UNIT_TESTS:
            tested |= set(re.findall(r'labels: ALERTS\{alertname="(\w+)", alertstate="firing"', text_of(path)))
            tested |= set(re.findall(r'count\(ALERTS\{alertname="(\w+)", alertstate="firing"\}\).*value: [1-9]', text_of(path)))
        self.assertEqual(sorted(set(alerts()) - tested), [])

    def test_every_alert_says_what_it_is_and_what_to_do(self):
        self.assertGreater(len(alerts()), 20)
        for name, block in alerts().items():
            self.assertRegex(name, r"^Lasp[A-Z]\w+$")
            self.assertRegex(block, r"\n +severity: (page|ticket)\n", name)
            self.assertRegex(block, r"\n +for: \d+m\n", name)
            for annotation in ("summary", "description"):
                self.assertRegex(block, rf"\n +{annotation}: \S", name)
            path, anchor = re.search(r"runbook_url: ([^#\s]+)#(\S+)", block).groups()
            self.assertEqual(anchors(os.path.join(ROOT, path)).count(anchor), 1, f"{name}: {path}#{anchor}")
            self.assertEqual(anchor, name.lower())

    def test_the_runbook_agrees_on_who_is_woken(self):
        sections = re.findall(r"^## (\w+)\n\n\*(page|ticket)\.\*", text_of(os.path.join(DEPLOY, "prometheus", "RUNBOOK.md")),
                              re.MULTILINE)
        self.assertEqual(dict(sections), {name: re.search(r"severity: (\w+)", block).group(1)
                                          for name, block in alerts().items()})


# The rules as they are, with their times shortened: nothing else of them is changed.
SHORTENED = (
    (r"for: [1-9]\d*m", "for: 1s"),  # how long it must be so
    (r"\[15m\]", "[2m]"),            # how far an increase looks back; beyond the test's end
    (r"\[(5m|1h)\]", "[10s]"),       # what a rate is over
    (r"> 300$", "> 5"),              # LaspJobStalled: seconds without a step
    (r"> 30$", "> 9"),               # LaspAgentLost: seconds without a heartbeat, beyond a lease
)


def shorten(text):
    for pattern, replacement in SHORTENED:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


class TroubleTest(MonitoredClusterTest):
    def firing(self):
        """{(alert, its job or worker)} that fire now."""
        found = json.loads(read(self.prometheus + "/api/v1/alerts"))["data"]["alerts"]
        return {(alert["labels"]["alertname"], (alert["labels"].get("training_job") or alert["labels"].get("worker", "")).split("/")[-1])
                for alert in found if alert["state"] == "firing"}

    def await_alerts(self, firing=(), silent=(), timeout=60):
        wait_until(lambda: self.firing() >= set(firing) and not self.firing() & set(silent), timeout,
                   lambda: f"{firing} to fire and {silent} not to; firing: {sorted(self.firing())}")

    def fail_again_and_again(self, job_id, workers, times):
        for failures in range(times):
            def running():
                job = self.job(job_id)
                return job["state"] == "RUNNING" and job["restart_count"] == failures and job
            job = wait_until(running, 60, lambda: f"{job_id} to run after {failures} failures: {self.job(job_id)}")
            for pid in self.ranks_of(workers[job["placements"][0]["worker"].split("/")[-1]]):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.job(job_id)["restart_count"] == times, 30, f"{times} failures of {job_id}")

    def test_trouble_is_seen_and_its_end_too(self):
        for pattern, _ in SHORTENED:
            self.assertTrue(any(re.search(pattern, text_of(path), re.MULTILINE) for path in RULE_FILES), pattern)
        metrics = self.metrics_addresses(workers=3)
        self.start_prometheus(metrics, shorten)
        self.start_server(metrics_address=metrics["server"])
        # Of so many slots that each job has an agent of its own, and one agent has none.
        # The first shows no series of a rank.
        workers = {"w1": self.start_worker("w1", slots=2, metrics_address=metrics["worker1"], max_rank_series=1)}
        self.submit(small_spec(dp=2, steps=LONG), "stalls")
        self.wait_for_step("stalls", 5)
        workers["w2"] = self.start_worker("w2", slots=1, metrics_address=metrics["worker2"])
        self.submit(small_spec(steps=LONG, recovery={"max_restarts": 20}), "loops")
        self.wait_for_state("loops", "RUNNING")
        workers["w3"] = self.start_worker("w3", slots=1, metrics_address=metrics["worker3"])
        wait_until(lambda: len(self.query("up == 1")) == 4, 60, "Prometheus scrapes all four")
        trouble = {("LaspJobStalled", "stalls"), ("LaspAgentLost", "w3"), ("LaspJobCrashLooping", "loops")}
        self.await_alerts(silent=trouble | {("LaspCoordinatorDown", "")})
        ranks_of = "count by (training_job) (lasp_worker_running{%s})"
        self.assertEqual({row["metric"]["training_job"].split("/")[-1] for row in self.query(ranks_of % 'rank=~".+"')}, {"loops"})
        self.assertEqual({row["metric"]["training_job"].split("/")[-1]: row["value"][1] for row in self.query("lasp_worker_running")},
                         {"stalls": "2", "loops": "1"})

        self.fail_again_and_again("loops", workers, times=4)
        stopped = self.ranks_of(workers["w1"])[0]
        try:
            os.kill(stopped, signal.SIGSTOP)
            workers["w3"].kill()
            self.await_alerts(firing=trouble)
        finally:
            os.kill(stopped, signal.SIGCONT)
        self.start_worker("w3", slots=1, metrics_address=metrics["worker3"])
        self.lasp("cancel", "loops")
        self.await_alerts(silent=trouble)

        self.server.kill()
        self.await_alerts(firing={("LaspCoordinatorDown", "")})
        self.restart_server(self.server)
        self.await_alerts(silent=trouble | {("LaspCoordinatorDown", "")})
        self.lasp("cancel", "stalls")
        self.wait_for_state("stalls", "CANCELLED")


if __name__ == "__main__":
    unittest.main()
