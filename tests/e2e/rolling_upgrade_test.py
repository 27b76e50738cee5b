"""From one release to the next while a job trains, and back: an operator's script.

The release before is built once from its commit (tests/support/previous_release), in the folder
LASP_PREVIOUS_RELEASES (default build/previous_releases)."""
import os
import subprocess
import unittest

from cluster import BIN, LONG, ROOT, ClusterTest, small_spec, wait_until

NEW = BIN


def previous_release():
    cache = os.environ.get("LASP_PREVIOUS_RELEASES", os.path.join(ROOT, "build", "previous_releases"))
    done = subprocess.run([os.path.join(ROOT, "tests", "support", "previous_release"), cache], text=True,
                          stdout=subprocess.PIPE)
    if done.returncode == 77 and os.environ.get("CI") != "true":
        raise unittest.SkipTest("the release before this one is not in this clone")
    done.check_returncode()
    return done.stdout.strip()


class RollingUpgradeTest(ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.old = previous_release()

    def use(self, release):
        """Services are started from there, with the flags that it has."""
        self.bin = release

    def _start(self, name, values, wait, prefix):
        told = subprocess.run([os.path.join(self.bin, name), "--help"], capture_output=True, text=True, check=True).stdout
        return super()._start(name, {flag: value for flag, value in values.items() if f"--{flag} " in told}, wait, prefix)

    def running(self, generation):
        """The job once it trains in this generation, and the host it is on."""
        job = wait_until(lambda: self.job("job")["generation"] == generation and self.job("job")["state"] == "RUNNING"
                         and self.job("job"), 60, f"generation {generation} trains")
        self.go_on()
        host, = {place["worker"].split("/")[1] for place in job["placements"]}
        return host

    def go_on(self):
        """The job takes further steps, of which the coordinator is told."""
        step = int(self.job("job")["progress"]["step"])
        self.wait_for_step("job", step + 3)

    def replace_coordinator(self, server, release):
        """Stops it and starts that release's on its store: ranks train on, no step is lost."""
        before = self.job("job")
        ranks = {name: self.ranks_of(agent) for name, agent in self.agents.items()}
        self.assertEqual(server.terminate(), 0)
        self.use(release)
        server = self.restart_server(server)
        wait_until(lambda: [self.worker_state(name) for name in self.agents] == ["READY"] * len(self.agents), 30,
                   "the agents are back")
        self.go_on()
        job = self.job("job")
        self.assertEqual((job["state"], job["generation"], job["uid"]), ("RUNNING", before["generation"], before["uid"]))
        self.assertEqual({name: self.ranks_of(agent) for name, agent in self.agents.items()}, ranks)
        steps = [int(row["step"]) for row in self.lasp_json("metrics", "job", "--points", 10_000)
                 if int(row["generation"]) == job["generation"]]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))
        self.assertGreater(len(steps), int(before["progress"]["step"]))
        return server

    def replace_agent(self, name, release):
        """Drains the host, ends its agent, starts that release's, and has it take ranks again."""
        self.lasp("drain", name)
        wait_until(lambda: self.worker_state(name) == "DRAINED", 60, f"{name} is drained")
        self.assertEqual(self.ranks_of(self.agents[name]), [])
        self.assertEqual(self.agents[name].terminate(), 0)
        self.use(release)
        self.agents[name] = self.start_worker(name, slots=2)
        self.lasp("drain", name, "--undo")
        wait_until(lambda: self.worker_state(name) == "READY", 30, f"{name} takes ranks")

    def release_of(self, name):
        """Of a host's agent, and of its ranks."""
        pids = [self.agents[name].pid, *self.ranks_of(self.agents[name])]
        folder, = {os.path.dirname(os.path.realpath(f"/proc/{pid}/exe")) for pid in pids}
        return {os.path.realpath(self.old): "old", os.path.realpath(NEW): "new"}[folder]

    def test_up_and_down(self):
        self.use(self.old)
        server = self.start_server()
        self.agents = {name: self.start_worker(name, slots=2) for name in ("host-1", "host-2")}
        self.submit(small_spec(sp=2, steps=LONG), "job")
        first = self.running(generation=1)
        second, = set(self.agents) - {first}

        # 1. The coordinator. It keeps a copy of the store as the release before left it.
        server = self.replace_coordinator(server, NEW)
        backup, = self.lasp_json("backup", "list")
        self.assertIn("before-upgrade", backup["name"])
        self.assertEqual({self.release_of(name) for name in self.agents}, {"old"})

        # 2. Host by host. The job goes on elsewhere, as a new generation.
        self.replace_agent(first, NEW)
        self.assertEqual(self.running(generation=2), second)
        self.assertEqual((self.release_of(first), self.release_of(second)), ("new", "old"))
        # Agents of both releases serve: the job trains on the old one, another runs on the new one.
        self.submit(small_spec(sp=2, steps=10), "beside", "--wait")
        places = {place["worker"] for place in self.job("beside")["placements"]}
        self.assertEqual(places, {f"workers/{first}"})
        self.replace_agent(second, NEW)
        self.assertEqual(self.running(generation=3), first)
        self.assertEqual({self.release_of(name) for name in self.agents}, {"new"})
        self.assertEqual(self.job("job").get("restart_count", 0), 0)
        self.assertEqual([r["resource"] for r in self.lasp_json("audit", "--resource", f"workers/{first}")],
                         [f"workers/{first}"] * 2)

        # And back: the coordinator of the release before serves new agents on the same store.
        server = self.replace_coordinator(server, self.old)
        self.submit(small_spec(sp=2, steps=10), "after", "--wait")
        self.replace_agent(second, self.old)
        server = self.replace_coordinator(server, NEW)
        self.assertEqual(len(self.lasp_json("audit", "--resource", f"workers/{first}")), 2)
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")


if __name__ == "__main__":
    unittest.main()
