"""Jobs that hang, and ranks that hold the others up, through the whole service."""
import os
import re
import signal
import subprocess
import time
import unittest

from cluster import BIN, ClusterTest, small_spec, wait_until

STEPS = 200


class StallTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.folder, "checkpoints")
        os.mkdir(self.root)
        self.start_server(checkpoint_root=self.root, quarantine_failures=1)

    def losses(self, job):
        rows = {int(row["step"]): (row["loss"], row["gradient_norm"]) for row in self.metrics(job)}
        self.assertEqual(sorted(rows), list(range(1, STEPS + 1)))
        return rows

    def dump_of(self, job, rank):
        """Its log, once the stacks are in it."""
        log = self.lasp("logs", job, "--rank", rank, "--generation", 1).stdout
        return log if re.search(r'"stack":"[^"]*lasp::worker::Trainer::', log) else None

    def test_stacks_have_names_where_the_program_is_stripped(self):
        stripped = os.path.join(self.folder, "lasp-rank")
        subprocess.run(["strip", "-o", stripped, os.path.join(BIN, "lasp-rank")], check=True)
        names = subprocess.run(["nm", "-D", "-C", "--defined-only", stripped], check=True, text=True, stdout=subprocess.PIPE).stdout
        self.assertIn("lasp::worker::Trainer::Step", names)

    def test_a_stopped_rank_is_named_and_its_job_goes_on(self):
        workers = {name: self.start_worker(name, slots=2, checkpoint_root=self.root) for name in ("w1", "w2")}
        spec = small_spec(sp=2, dp=2, steps=STEPS, length=768, batch=2, checkpoint={"interval_steps": 10})
        self.submit(spec, "undisturbed")
        self.wait_for_state("undisturbed", "SUCCEEDED", 120)
        expected = self.losses("undisturbed")
        job = self.submit(spec)
        self.wait_for_step(job, 25)
        placement = next(p for p in self.job(job)["placements"] if int(p["rank"]) == 2)
        host = placement["worker"].split("/")[1]
        stopped = self.rank_process(workers[host], job, 2)
        began = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        failed = wait_until(
            lambda: next((t for t in self.job(job)["transitions"] if t["reason"] == "RANK_STALLED"), None), 60, "the hang to be noticed")
        noticed = time.monotonic() - began
        print(f"noticed after {noticed:.1f} s: {failed['message']}")
        self.assertLess(noticed, 20)
        self.assertIn(f"rank 2 on workers/{host} has not spoken", failed["message"])
        self.assertNotRegex(failed["message"], r"rank [013] ")
        # The others wrote down where they were: for whom they waited, and the stacks.
        log = wait_until(lambda: self.dump_of(job, 0), 20, "the dump of a rank that waits")
        self.assertIn("the job hangs", log)
        self.assertTrue(re.search(r'"under_way":"(all-reduce|receive)","waits_for_rank":"[123]"', log), log[-3000:])
        # It does not answer, and so is killed three seconds later.
        wait_until(lambda: not os.path.exists(f"/proc/{stopped}"), 10, "the stopped rank to be killed")
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(done["generation"], 2)
        self.assertGreaterEqual(int(done["restored_step"]), 10)
        self.assertEqual(self.losses(job), expected)
        # Its host comes last from now on, until somebody forgives it.
        worker = next(w for w in self.lasp_json("workers") if w["name"] == f"workers/{host}")
        self.assertEqual(worker["recent_failure_count"], 1)
        self.assertIn("QUARANTINED", self.lasp("workers").stdout)
        small = self.submit(small_spec(sp=1, dp=1, steps=2), "small")
        self.wait_for_state(small, "SUCCEEDED", 60)
        self.assertNotEqual(self.job(small)["placements"][0]["worker"], f"workers/{host}")
        self.lasp("drain", host, "--undo")
        self.assertNotIn("QUARANTINED", self.lasp("workers").stdout)


if __name__ == "__main__":
    unittest.main()
