"""A job from submission to SUCCEEDED, seen through the command line."""
import json
import os
import subprocess
import unittest

import cluster
from cluster import small_spec


class HappyPathTest(cluster.ClusterTest):
    def test_submit_wait_and_look(self):
        self.start_server()
        self.start_worker(slots=4)
        self.submit(small_spec(sp=2, dp=2, steps=12), "first", "--wait")
        job = self.job("first")
        self.assertEqual(job["state"], "SUCCEEDED")
        self.assertEqual(job["generation"], 1)
        self.assertEqual(job["name"], "projects/default/trainingJobs/first")
        self.assertEqual(job, self.lasp_json("get", "job/first"))
        steps = self.metrics("first")
        self.assertEqual([row["step"] for row in steps], list(range(1, 13)))
        for row in steps:
            for field in ("loss", "gradient_norm", "learning_rate", "tokens_per_second"):
                self.assertGreater(row[field], 0, field)
            phases = ("data", "forward", "backward", "sp_wait", "gradient_sync_wait", "optimizer")
            spent = sum(row[phase + "_seconds"] for phase in phases)
            self.assertGreater(spent, 0.5 * row["step_seconds"], row)
            self.assertLess(spent, 1.01 * row["step_seconds"], row)
        self.assertLess(steps[-1]["loss"], steps[0]["loss"])
        self.assertAlmostEqual(steps[0]["loss"], 5.545, delta=0.5)  # ln 256: the model knows nothing yet
        description = self.lasp("describe", "job", "first").stdout
        self.assertIn("SUCCEEDED", description)
        self.assertIn("first", self.lasp("list").stdout)
        self.assertEqual([j["name"] for j in self.lasp_json("list")], [job["name"]])
        self.assertTrue(self.lasp("logs", "first", "--rank=0").stdout.strip())
        self.lasp("delete", "first")
        self.assertEqual(self.lasp("get", "job", "first", check=False).returncode, 3)

    def test_held_out_loss(self):
        self.start_server()
        self.start_worker(slots=1)
        self.write_corpus("held_out.txt", 50_000)
        spec = small_spec(steps=6, eval_interval_steps=3)
        spec["data"]["eval_paths"] = ["held_out.txt"]
        self.submit(spec, "job", "--wait")
        evaluated = {row["step"]: row["eval_loss"] for row in self.metrics("job") if row.get("eval_loss")}
        self.assertEqual(sorted(evaluated), [3, 6])
        self.assertTrue(all(2 < loss < 8 for loss in evaluated.values()), evaluated)

    def test_a_failed_job_exits_1_and_says_why(self):
        self.start_server()
        self.start_worker(slots=1)
        os.truncate(os.path.join(self.data, "corpus.txt"), 100)  # shorter than one sequence
        done = self.lasp("submit", "-f", "-", "--id=short", "--wait", check=False,
                         input=json.dumps({"display_name": "short", "spec": small_spec(steps=2)}))
        if done.returncode == 1:
            self.assertIn("corpus.txt", self.lasp("describe", "job", "short").stdout)
        else:
            self.assertEqual(done.returncode, 2, done.stderr)  # refused at submission
            self.assertIn("corpus.txt", done.stderr)

    def test_programs_run_from_elsewhere(self):
        elsewhere = os.path.join(self.folder, "elsewhere")
        subprocess.run(["cp", "-r", cluster.BIN, elsewhere], check=True)
        before, cluster.BIN = cluster.BIN, elsewhere
        try:
            self.start_server()
            self.start_worker(slots=1)
            self.submit(small_spec(steps=2), "job", "--wait")
        finally:
            cluster.BIN = before


if __name__ == "__main__":
    unittest.main()
