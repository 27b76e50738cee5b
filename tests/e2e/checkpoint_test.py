"""Checkpoints through the whole service: what was trained is not lost, and goes on to the bit as it would have."""
import glob
import hashlib
import json
import os
import signal
import unittest

from cluster import ClusterTest, small_spec, wait_until

STEPS = 120


def spec(sp=2, dp=1, **changes):
    return small_spec(sp=sp, dp=dp, steps=STEPS, length=768, batch=2, checkpoint={"interval_steps": 10}, **changes)


class CheckpointTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.folder, "checkpoints")
        os.mkdir(self.root)

    def start(self, workers=1, **flags):
        self.start_server(checkpoint_root=self.root, **flags)
        return [self.start_worker(f"w{i + 1}", slots=4, checkpoint_root=self.root) for i in range(workers)]

    def checkpoints(self, job, state="COMMITTED"):
        return [c for c in self.lasp_json("checkpoints", "list", job) if state is None or c["state"] == state]

    def wait_for_checkpoint(self, job, step):
        return wait_until(lambda: int(self.job(job)["checkpoint_step"]) >= step and int(self.job(job)["checkpoint_step"]),
                          60, f"a checkpoint of step {step} of {job}")

    def losses(self, job):
        """What was trained, a row a step, each once."""
        rows = {int(row["step"]): (row["loss"], row["gradient_norm"], row["learning_rate"]) for row in self.metrics(job)}
        self.assertEqual(sorted(rows), list(range(1, STEPS + 1)))
        return rows

    def undisturbed(self, **shape):
        self.submit(spec(**shape), "undisturbed")
        self.wait_for_state("undisturbed", "SUCCEEDED", 120)
        return self.losses("undisturbed")

    def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint_alone(self):
        worker, = self.start()
        expected = self.undisturbed()
        job = self.submit(spec())
        saved = self.wait_for_checkpoint(job, 20)
        os.kill(self.ranks_of(worker)[-1], signal.SIGKILL)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(done["generation"], 2)
        self.assertGreaterEqual(int(done["restored_step"]), saved)
        self.assertEqual(int(done["checkpoint_step"]), STEPS)
        self.assertEqual(self.losses(job), expected)
        # Three are kept, and each is there whole.
        wait_until(lambda: len(self.checkpoints(job)) == 3, 20, "the older ones to be removed")
        self.assertEqual([int(c["step"]) for c in self.checkpoints(job)], [STEPS, STEPS - 10, STEPS - 20])
        self.assertIn("is whole", self.lasp("checkpoints", "verify", job).stdout)
        folder = os.path.join(self.root, self.checkpoints(job)[0]["folder"])
        with open(os.path.join(folder, "manifest.json"), "rb") as file:
            manifest = file.read()
        self.assertEqual(hashlib.sha256(manifest).hexdigest(), self.checkpoints(job)[0]["manifest_digest"])
        self.assertEqual(len(json.loads(manifest)["shards"]), 2)
        self.lasp("delete", job)
        wait_until(lambda: not os.path.exists(folder), 20, "the folders of a job that is deleted are gone")

    def test_another_shape_goes_on_from_a_checkpoint(self):
        self.start()
        expected = self.undisturbed()
        shorter = {job: self.submit(spec(sp=sp, dp=dp), job, "--from", "undisturbed/110")
                   for job, sp, dp in (("one", 1, 1), ("three", 3, 1), ("replicas", 1, 2))}
        for job in shorter:
            done = self.wait_for_state(job, "SUCCEEDED", 120)
            self.assertEqual((int(done["restored_step"]), done["generation"]), (110, 1))
            rows = {int(row["step"]): row["loss"] for row in self.metrics(job)}
            self.assertEqual(sorted(rows), list(range(111, STEPS + 1)))
            for step, loss in rows.items():
                self.assertLess(abs(loss / expected[step][0] - 1), 1e-5, (job, step))
        self.assertIn("start_from", self.lasp("submit", "-f", os.path.join(self.folder, "one.json"), "--from", "undisturbed/3",
                                              check=False).stderr)

    def test_what_ranks_own_apart_is_saved_whole(self):
        worker, = self.start()

        def sharded():
            made = spec(sp=2, dp=2)
            made["parallelism"]["data_parallel"]["method"] = "ZERO3"
            return made

        self.submit(sharded(), "undisturbed")
        self.wait_for_state("undisturbed", "SUCCEEDED", 120)
        expected = self.losses("undisturbed")
        job = self.submit(sharded(), "sharded")
        saved = self.wait_for_checkpoint(job, 20)
        os.kill(self.ranks_of(worker)[-1], signal.SIGKILL)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertGreaterEqual(int(done["restored_step"]), saved)
        self.assertEqual(self.losses(job), expected)
        # Another method, on another shape.
        self.submit(spec(sp=3), "whole", "--from", "undisturbed/110")
        self.wait_for_state("whole", "SUCCEEDED", 120)
        rows = self.metrics("whole")
        self.assertEqual([int(row["step"]) for row in rows], list(range(111, STEPS + 1)))
        for row in rows:
            self.assertLess(abs(row["loss"] / expected[int(row["step"])][0] - 1), 1e-5, row["step"])

    def test_a_suspended_job_goes_on_where_it_was(self):
        self.start()
        expected = self.undisturbed()
        job = self.submit(spec())
        self.wait_for_step(job, 15)
        self.assertNotIn("step 1", self.lasp("suspend", job).stderr)
        stopped = self.wait_for_state(job, "SUSPENDED")
        wait_until(lambda: int(self.job(job)["checkpoint_step"]) > 0, 20, "its checkpoint")
        step = int(self.job(job)["checkpoint_step"])
        # Of the very step that it stopped after.
        self.assertEqual(step, int(stopped["progress"]["step"]))
        self.lasp("resume", job)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(int(done["restored_step"]), step)
        self.assertEqual(done["restart_count"], 0)
        self.assertEqual(self.losses(job), expected)

    def test_a_drained_host_loses_no_step(self):
        self.start(workers=2)
        expected = self.undisturbed()
        job = self.submit(spec())
        self.wait_for_step(job, 15)
        host = self.job(job)["placements"][0]["worker"].split("/")[1]
        self.lasp("drain", host)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(self.losses(job), expected)
        self.assertGreaterEqual(int(done["restored_step"]), 15)
        # Each step once: the rows of the first generation end where the second's begin.
        rows = self.metrics(job)
        generations = [int(row["generation"]) for row in sorted(rows, key=lambda row: int(row["step"]))]
        self.assertEqual(generations.index(2), int(done["restored_step"]))

    def test_the_coordinator_may_die_while_checkpoints_are_written(self):
        self.start()
        expected = self.undisturbed()
        job = self.submit(spec())
        for step in (10, 40):
            self.wait_for_checkpoint(job, step)
            old = self.server
            old.kill()
            self.server = self.restart_server(old, checkpoint_root=self.root)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(done["generation"], 1)
        self.assertEqual(self.losses(job), expected)
        self.assertEqual(self.checkpoints(job, None)[0]["state"], "COMMITTED")
        self.assertEqual(int(self.job(job)["checkpoint_step"]), STEPS)

    def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_used(self):
        self.start()
        expected = self.undisturbed()
        job = self.submit(spec())
        self.wait_for_step(job, 25)
        self.lasp("suspend", job)
        self.wait_for_state(job, "SUSPENDED")
        wait_until(lambda: len([c for c in self.checkpoints(job) if c["verify_time"]]) >= 2, 20, "two that are verified")
        newest, before = self.checkpoints(job)[:2]
        shard = sorted(glob.glob(os.path.join(self.root, newest["folder"], "rank-*.safetensors")))[-1]
        with open(shard, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 16]))
        self.lasp("resume", job)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(done["restored_step"], before["step"])
        self.assertIn("CHECKPOINT_CORRUPT", self.lasp("events", job).stdout)
        self.assertEqual(self.losses(job), expected)

    def test_verify_finds_a_flipped_bit_and_a_torn_manifest(self):
        self.start()
        job = self.submit(spec())
        self.wait_for_state(job, "SUCCEEDED", 120)
        wait_until(lambda: len(self.checkpoints(job)) == 3, 20, "three of them")
        last, second, _ = self.checkpoints(job)
        shard = os.path.join(self.root, last["folder"], "rank-1.safetensors")
        with open(shard, "r+b") as file:
            file.seek(5000)
            byte = file.read(1)[0]
            file.seek(5000)
            file.write(bytes([byte ^ 1]))
        said = self.lasp("checkpoints", "verify", job, check=False)
        self.assertEqual(said.returncode, 1)
        self.assertIn("rank-1.safetensors is damaged in block 0", said.stdout)
        os.truncate(os.path.join(self.root, second["folder"], "manifest.json"), 100)
        said = self.lasp("checkpoints", "verify", job, second["step"], check=False)
        self.assertEqual(said.returncode, 1)
        self.assertIn("is not the manifest that was committed", said.stdout)

    def test_without_a_place_there_are_none_and_it_is_said(self):
        self.start_server()
        self.start_worker()
        job = self.submit(small_spec(sp=2, steps=5))
        self.wait_for_state(job, "SUCCEEDED")
        said = self.lasp("checkpoints", "list", job, check=False)
        self.assertNotEqual(said.returncode, 0)
        self.assertIn("--checkpoint_root", said.stderr)

    def test_an_agent_without_the_place_ends_the_job_with_the_flag_to_set(self):
        self.start_server(checkpoint_root=self.root)
        self.start_worker()
        job = self.submit(spec())
        done = self.wait_for_state(job, "FAILED")
        self.assertIn("--checkpoint_root", done["error"]["message"])


if __name__ == "__main__":
    unittest.main()
