"""kill -9 of a rank, of the agent and of the coordinator while a job trains."""
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from cluster import ClusterTest, is_alive, small_spec, wait_until  # noqa: E402


class DeathsTest(ClusterTest):
    # Long enough to be killed in the middle, short enough to be run twice.
    STEPS = 400

    def start_job(self, slots=4, sp=2, dp=2):
        self.start_server()
        self.worker = self.start_worker(slots=slots)
        self.submit(small_spec(sp=sp, dp=dp, steps=self.STEPS))
        self.wait_for_step("job", 5)
        self.ranks = self.ranks_of(self.worker)
        self.assertEqual(len(self.ranks), sp * dp)

    def left_generation_1(self):
        job = self.job("job")
        return job["generation"] > 1 or job["state"] in ("RECOVERING", "QUEUED")

    def assert_succeeded_by(self, generation):
        job = self.wait_for_state("job", "SUCCEEDED", timeout=120)
        self.assertEqual(job["generation"], generation)
        self.assertEqual([row["step"] for row in self.metrics("job")], list(range(1, self.STEPS + 1)))
        return job

    def test_a_rank_dies(self):
        self.start_job()
        begin = time.monotonic()
        os.kill(self.ranks[-1], signal.SIGKILL)
        wait_until(self.left_generation_1, 5, "the death of a rank was noticed")
        took = time.monotonic() - begin
        print(f"the death of a rank was noticed after {took:.2f} s", flush=True)
        self.assertLessEqual(took, 1.0)
        wait_until(lambda: not any(map(is_alive, self.ranks)), 5, "the ranks of generation 1 are gone")
        self.assert_succeeded_by(2)
        reasons = [t["reason"] for t in self.job("job")["transitions"]]
        self.assertIn("REBUILT_FROM_SURVIVORS", reasons)

    def test_the_agent_dies(self):
        self.start_job()
        begin = time.monotonic()
        self.worker.kill()
        wait_until(lambda: not any(map(is_alive, self.ranks)), 5, "the ranks of a dead agent are gone")
        print(f"the ranks of a dead agent were gone after {time.monotonic() - begin:.2f} s", flush=True)
        wait_until(self.left_generation_1, 15, "the death of the agent was noticed")
        took = time.monotonic() - begin
        print(f"the death of the agent was noticed after {took:.2f} s", flush=True)
        self.assertLessEqual(took, 10.0)
        self.start_worker(slots=4)
        self.assert_succeeded_by(2)

    def test_the_coordinator_dies(self):
        self.start_job()
        before = self.job("job")["progress"]["step"]
        self.server.kill()
        time.sleep(2)  # the ranks must train on without it
        self.assertTrue(all(map(is_alive, self.ranks)), "ranks died with the coordinator")
        self.restart_server(self.server)
        self.wait_for_step("job", before + 1)
        job = self.job("job")
        self.assertEqual(job["generation"], 1, "the running ranks were not adopted")
        self.assertEqual(self.ranks_of(self.worker) or self.ranks, self.ranks)
        job = self.assert_succeeded_by(1)
        self.assertEqual({row["generation"] for row in self.metrics("job")}, {1})

    def test_the_coordinator_is_away_when_the_job_ends(self):
        # One rank is fast: its job must outlast the look at its rank.
        self.STEPS = 3000
        # Two slots share the cores, so that the rank has one thread: several wait for one another where
        # the machine is busy.
        self.start_job(slots=2, sp=1, dp=1)
        self.server.kill()
        wait_until(lambda: not any(map(is_alive, self.ranks)), 90, "the ranks finished alone")
        self.restart_server(self.server)
        self.assert_succeeded_by(1)

    def test_an_unlucky_job_fails_with_the_cause(self):
        self.start_server()
        self.worker = self.start_worker(slots=1)
        self.submit(small_spec(steps=self.STEPS * 1000, recovery={"max_restarts": 1}))
        for generation in (1, 2):
            wait_until(lambda: self.job("job")["generation"] == generation and self.ranks_of(self.worker) and
                       self.job("job")["state"] == "RUNNING", 30, f"generation {generation} runs")
            os.kill(self.ranks_of(self.worker)[0], signal.SIGKILL)
        job = self.wait_for_state("job", "FAILED", timeout=30)
        self.assertIn("9", job["error"]["message"])  # the signal
        self.assertEqual(job["restart_count"], 1)


if __name__ == "__main__":
    unittest.main()
