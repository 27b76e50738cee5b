"""The console in a browser: Debian's Chromium, driven by playwright-core, against a real cluster with a
job that trains. Screenshots of every page lie in LASP_SCREENSHOTS, where that is set.

Needs chromium and npm (deploy/install-dependencies tests) and, once, the npm registry; skipped without
them, but not where CI is true.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(TESTS, "e2e"), os.path.join(TESTS, "support")]
import npm_packages  # noqa: E402
from cluster import LONG, ClusterTest, small_spec, wait_until  # noqa: E402
from credentials import Credentials  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
PLANTED = "<img src=x onerror=alert(1)>"


def missing(reason):
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise unittest.SkipTest(reason)


class BrowserTest(ClusterTest):
    def setUp(self):
        self.chromium = shutil.which("chromium")
        if not self.chromium:
            missing("no chromium: run deploy/install-dependencies tests")
        try:
            self.packages = npm_packages.install(HERE, "console-browser")
        except npm_packages.PackagesMissing as error:
            missing(str(error))
        super().setUp()
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1", "localhost")
        self.token = self.credentials.token("admin", "*", name="root")
        self.start_server()
        # It reads less than the coordinator believes, so that a rank fails with the planted name.
        own = os.path.join(self.folder, "worker-data")
        os.mkdir(own)
        shutil.copy(os.path.join(self.data, "corpus.txt"), own)
        self.worker = self.start_worker(slots=4, path_roots=own)

    def test_in_chromium(self):
        shutil.copy(os.path.join(self.data, "corpus.txt"), os.path.join(self.data, PLANTED))
        planted = small_spec()
        planted["data"]["train_paths"] = [PLANTED]
        path = os.path.join(self.folder, "planted.json")
        with open(path, "w") as file:
            json.dump({"display_name": PLANTED, "labels": {"note": PLANTED}, "spec": planted}, file)
        self.lasp("submit", "-f", path, "--id=planted")
        self.wait_for_state("planted", "FAILED")
        self.submit(small_spec(sp=2, dp=2, steps=LONG, eval_interval_steps=5,
                               data={"train_paths": ["corpus.txt"], "eval_paths": ["corpus.txt"], "format": "BYTES",
                                     "sequence_length": 384}), "steady")
        self.wait_for_step("steady", 20)
        # A past of its own: a generation that failed.
        os.kill(self.ranks_of(self.worker)[0], signal.SIGKILL)
        wait_until(lambda: int(self.job("steady")["generation"]) == 2, 60, "the second generation")
        self.wait_for_step("steady", 20)
        results = self.browse()
        self.assertGreaterEqual(len(results), 40)
        for result in results:
            with self.subTest(result["check"]):
                self.assertIsNone(result["fault"])

    def browse(self):
        screenshots = os.environ.get("LASP_SCREENSHOTS") or os.path.join(self.folder, "screenshots")
        os.makedirs(screenshots, exist_ok=True)
        # Modules are looked up from where the script lies.
        script = os.path.join(self.folder, "browse.mjs")
        shutil.copy(os.path.join(HERE, "browse.mjs"), script)
        os.symlink(os.path.join(self.packages, "node_modules"), os.path.join(self.folder, "node_modules"))
        done = subprocess.run(
            ["node", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=500,
            env=dict(os.environ, HOME=self.folder),
            input=json.dumps({"url": f"https://{self.server.console_address}", "chromium": self.chromium,
                              "screenshots": screenshots, "planted": PLANTED,
                              "axe": os.path.join(self.packages, "node_modules", "axe-core", "axe.min.js"),
                              "tokens": {"viewer": self.credentials.token("viewer", "default", name="vic"),
                                         "stranger": self.credentials.token("viewer", "foreign", name="eve")}}))
        self.assertEqual(done.returncode, 0, done.stderr[-4000:])
        return json.loads(done.stdout)


if __name__ == "__main__":
    unittest.main()
