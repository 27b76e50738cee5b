"""A cluster that a real Prometheus watches, with the configuration and the rules of deploy/prometheus."""
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from cluster import ROOT, ClusterTest, die_with_parent, own_loopback, wait_until  # noqa: E402

DEPLOY = os.path.join(ROOT, "deploy")
RULES = os.path.join(DEPLOY, "prometheus", "rules")


def prometheus_folder():
    return subprocess.run([os.path.join(DEPLOY, "prometheus", "locate")], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def promtool(*arguments, **options):
    """(exit code, output)."""
    done = subprocess.run([os.path.join(prometheus_folder(), "promtool"), *arguments], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    return done.returncode, done.stdout


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class MonitoredClusterTest(ClusterTest):
    def start_prometheus(self, targets, change_rules=lambda text: text):
        """Scrapes and evaluates every second. `targets`: {"server" or "worker…": address}. Prometheus
        takes five seconds to its first scrape, so start it before what it watches, on fixed ports of
        own_loopback(). `change_rules` maps the text of a rule file."""
        folder = os.path.join(self.folder, "prometheus")
        shutil.copytree(os.path.join(DEPLOY, "prometheus"), folder)
        self._rewrite(os.path.join(folder, "prometheus.yml"), lambda text: re.sub(
            r"(scrape_interval|evaluation_interval|scrape_timeout): .*", r"\1: 1s", text))
        for name in os.listdir(os.path.join(folder, "rules")):
            self._rewrite(os.path.join(folder, "rules", name), change_rules)
        for name in os.listdir(os.path.join(folder, "targets")):
            os.remove(os.path.join(folder, "targets", name))
        for name, address in targets.items():
            with open(os.path.join(folder, "targets", name + ".json"), "w") as file:
                json.dump([{"targets": [address]}], file)
        log_path = os.path.join(folder, "log")
        with open(log_path, "w") as log:
            process = subprocess.Popen(
                [os.path.join(prometheus_folder(), "prometheus"),
                 f"--config.file={os.path.join(folder, 'prometheus.yml')}",
                 f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=die_with_parent)
        self.others.append(process)

        def address():
            with open(log_path) as file:
                return re.search(r'msg="Listening on" address=(\S+)', file.read())
        self.prometheus = "http://" + wait_until(address, 30, "Prometheus listens").group(1)

    @staticmethod
    def _rewrite(path, change):
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(change(text))

    @staticmethod
    def metrics_addresses(workers=1):
        """Of the server and of so many workers, for start_prometheus and --metrics_address."""
        host = own_loopback()
        names = ["worker"] if workers == 1 else [f"worker{i}" for i in range(1, workers + 1)]
        return {"server": f"{host}:9464", **{name: f"{host}:{9465 + i}" for i, name in enumerate(names)}}

    def query(self, expression):
        answer = json.loads(read(self.prometheus + "/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        self.assertEqual(answer["status"], "success", expression)
        return answer["data"]["result"]
