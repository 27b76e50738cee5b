"""One SP group over two agents in network namespaces, joined by a virtual cable."""
import os
import subprocess
import unittest

import cluster
from cluster import small_spec
from credentials import Credentials


def run(*arguments):
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class TwoHostsTest(cluster.ClusterTest):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("network namespaces need root")
        self.hosts = [f"lasp-{os.getpid()}-{side}" for side in "ab"]
        self.addCleanup(self.remove_hosts)
        try:
            for host in self.hosts:
                run("ip", "netns", "add", host)
            run(*self.on(0), "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.hosts[1])
            for index in (0, 1):
                run(*self.on(index), "ip", "link", "set", "lo", "up")
                run(*self.on(index), "ip", "address", "add", f"10.213.7.{index + 1}/24", "dev", "cable")
                run(*self.on(index), "ip", "link", "set", "cable", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            message = f"no network namespaces here: {getattr(error, 'stderr', None) or error}"
            if os.environ.get("CI") == "true":
                self.fail(message)
            self.skipTest(message)
        super().setUp()

    def remove_hosts(self):
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host], stderr=subprocess.DEVNULL)

    def on(self, host):
        # Not `ip netns exec`, which remounts what in a chroot is no mount.
        return ("nsenter", f"--net=/run/netns/{self.hosts[host]}")

    def lasp(self, *arguments, **options):
        # The command line runs beside the coordinator: its network is nobody else's.
        return super().lasp(*arguments, prefix=self.on(0), **options)

    def test_one_sp_group_over_two_hosts(self):
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1", "10.213.7.1")
        self.token = self.credentials.token("editor", "default")
        self.start_server(prefix=self.on(0), worker_address="10.213.7.1:0")
        for index in (0, 1):
            self.start_worker(f"host{index}", slots=2, prefix=self.on(index), rank_address=f"10.213.7.{index + 1}")
        spec = small_spec(sp=4, dp=1, length=1536, steps=20, batch=4)
        self.submit(spec, "spread", "--wait", timeout=300)
        spread = self.job("spread")
        self.assertEqual({place["worker"] for place in spread["placements"]}, {"workers/host0", "workers/host1"})
        spec = small_spec(sp=1, dp=1, length=1536, steps=20, batch=4)
        self.submit(spec, "alone", "--wait", timeout=300)
        rows = [self.metrics(job) for job in ("spread", "alone")]
        for of_job in rows:
            self.assertEqual([int(row["step"]) for row in of_job], list(range(1, 21)))
        for far, near in zip(*rows):
            self.assertLessEqual(abs(far["loss"] - near["loss"]), 1e-5 * near["loss"], far["step"])
            self.assertLessEqual(abs(far["gradient_norm"] - near["gradient_norm"]), 1e-4 * near["gradient_norm"], far["step"])


if __name__ == "__main__":
    unittest.main()
