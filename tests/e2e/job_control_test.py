"""Suspend, resume, cancel, drain: what a user and an operator do to a running job."""
import unittest

from cluster import LONG, ClusterTest, small_spec, wait_until


class JobControlTest(ClusterTest):
    def test_suspend_and_resume(self):
        self.start_server()
        worker = self.start_worker(slots=2)
        self.submit(small_spec(sp=2, steps=LONG))
        self.wait_for_step("job", 3)
        # While it trains, and changes all the time.
        self.lasp("update", "job", "--set", "labels.team=nlp", "--set", "checkpoint_retention.keep_last=7")
        self.assertEqual((self.job("job")["labels"], self.job("job")["checkpoint_retention"]["keep_last"]), ({"team": "nlp"}, 7))
        said = self.lasp("suspend", "job", "--yes").stderr
        self.assertIn("start again from step 1", said)  # this coordinator keeps no checkpoints
        self.wait_for_state("job", "SUSPENDED")
        self.assertEqual(self.ranks_of(worker), [])
        # Its slots are free for another job.
        self.submit(small_spec(sp=2, steps=3), "other", "--wait")
        self.lasp("resume", "job")
        job = self.wait_for_state("job", "RUNNING")
        self.assertEqual(job["generation"], 2)
        self.assertEqual(job.get("restart_count", 0), 0)
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")
        self.assertEqual(self.ranks_of(worker), [])
        self.assertEqual(self.lasp("resume", "job", check=False).returncode, 5)

    def test_drain_moves_the_job(self):
        self.start_server()
        workers = {name: self.start_worker(name, slots=2) for name in ("w1", "w2")}
        self.submit(small_spec(sp=2, steps=LONG))
        job = self.wait_for_state("job", "RUNNING")
        first = job["placements"][0]["worker"].split("/")[1]
        second = "w2" if first == "w1" else "w1"
        self.lasp("drain", first)
        wait_until(lambda: self.worker_state(first) == "DRAINED", 30, f"{first} is drained")
        self.assertEqual(self.ranks_of(workers[first]), [])
        job = wait_until(lambda: self.job("job")["state"] == "RUNNING" and self.job("job"), 30, "the job runs elsewhere")
        self.assertEqual({place["worker"] for place in job["placements"]}, {f"workers/{second}"})
        self.assertEqual(job["generation"], 2)
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")

    def test_sigterm_drains_an_agent(self):
        self.start_server()
        worker = self.start_worker("w1", slots=1)
        self.submit(small_spec(steps=LONG))
        self.wait_for_step("job", 3)
        self.assertEqual(worker.terminate(), 0)
        job = wait_until(lambda: self.job("job")["state"] in ("QUEUED", "RECOVERING") and self.job("job"), 15, "the job waits for slots")
        self.start_worker("w2", slots=1)
        job = self.wait_for_state("job", "RUNNING")
        self.assertEqual(job["generation"], 2)

    def test_limits_of_time(self):
        self.start_server()
        worker = self.start_worker(slots=1)
        self.submit(small_spec(steps=LONG, max_run_duration="5s"), "runs")
        self.wait_for_step("runs", 1)
        self.submit(small_spec(max_queue_duration="1s"), "waits")
        waits = self.wait_for_state("waits", "FAILED")
        self.assertEqual((waits["reason"], waits["generation"]), ("QUEUE_TIMEOUT", 0))
        runs = self.wait_for_state("runs", "FAILED")
        self.assertEqual((runs["reason"], runs["generation"]), ("RUN_TIMEOUT", 1))
        self.assertIn("Runs at most:  5s", self.lasp("describe", "job", "runs").stdout)
        wait_until(lambda: self.ranks_of(worker) == [], 10, "its rank is gone")

    def test_a_queued_job_is_cancelled_at_once(self):
        self.start_server()
        self.submit(small_spec(sp=2))
        job = self.job("job")
        self.assertEqual((job["state"], job["generation"]), ("QUEUED", 0))
        self.assertTrue(job["reason"])
        self.lasp("cancel", "job")
        self.assertEqual(self.job("job")["state"], "CANCELLED")
        self.lasp("cancel", "job")  # idempotent


if __name__ == "__main__":
    unittest.main()
