#!/usr/bin/env python3
"""Jobs on GPUs through the whole service: how soon they run, and what a death costs.

Needs a GPU; skipped without, failing instead where LASP_REQUIRE_GPU=1. Four ranks share it where it is alone, which says
nothing of speed; large jobs then are skipped. Prints what it measures as lines `figure: NAME VALUE`, which tests/gpu keeps.
"""
import os
import re
import signal
import statistics
import time
import unittest

import cluster
from cluster import LONG, ClusterTest, gpu_count, small_spec, wait_until
from stopped_thread import listens, stop_thread, waits_for_another_thread


def figure(name, value):
    print(f"figure: {name} {value:.6g}", flush=True)


def one_billion(ranks, steps):
    """TransNormerLLM-1B's shape, 32,768 tokens a GPU."""
    return small_spec(
        sp=ranks, steps=steps, length=32768 * ranks,
        model={"architecture": "TRANSNORMER", "layers": 16, "hidden_size": 2048, "heads": 16, "glu_size": 5632,
               "vocab_size": 64000},
        device="GPU")


def small(sp, dp=1, steps=LONG):
    return small_spec(sp=sp, dp=dp, steps=steps, length=4096 * sp,
                      model={"architecture": "TRANSNORMER", "layers": 4, "hidden_size": 512, "heads": 8,
                             "glu_size": 1408, "vocab_size": 256},
                      device="GPU")


class GpuClusterTest(ClusterTest):
    # From submission to the first step, and from a death to the next generation's first step.
    START_SECONDS = 20
    RECOVERY_SECONDS = 30

    def setUp(self):
        self.needs_a_gpu()
        devices = gpu_count()
        super().setUp()
        self.write_corpus("corpus.txt", 4_000_000)
        flags = self.flags()
        self.start_server(**flags)
        # One a GPU, up to four.
        self.ranks = 2 if devices in (2, 3) else 4
        self.shared = devices < self.ranks
        self.agents = self.start_gpu_workers(self.ranks, **flags, **self.worker_flags())
        figure("ranks", self.ranks)
        figure("gpus", devices)

    def needs_a_gpu_a_rank(self):
        if self.shared:
            self.skipTest(f"there are {gpu_count()} GPUs for {self.ranks} ranks")

    def flags(self):
        """Of the coordinator and of the agent."""
        return {}

    def worker_flags(self):
        """Of the agent alone. Without memory for state: jobs go on from checkpoints."""
        return {"memory_root": ""}

    def step(self):
        return int(self.job("job")["progress"]["step"])

    def wait_for_next_generation(self):
        """Until the second one has trained a step."""
        def runs_again():
            job = self.job("job")
            return job["generation"] == 2 and job["state"] == "RUNNING" and int(job["progress"]["step"]) >= 1
        wait_until(runs_again, 120, "the job runs again")

    def rank_pids(self):
        return [pid for agent in self.agents for pid in self.ranks_of(agent)]


class GpuServiceTest(GpuClusterTest):
    def test_every_gpu_is_a_slot(self):
        gpus = [slot["gpu"] for slot in self.workers()[0]["slots"] if slot.get("gpu")]
        self.assertEqual(len({gpu["uuid"] for gpu in gpus}), gpu_count())
        self.assertTrue(all(int(gpu["memory_bytes"]) > 0 and gpu["name"] for gpu in gpus), gpus)

    def test_a_large_job_starts_soon(self):
        self.needs_a_gpu_a_rank()
        begin = time.monotonic()
        self.submit(one_billion(self.ranks, steps=25))
        self.wait_for_step("job", 1, timeout=120)
        took = time.monotonic() - begin
        figure("submit_to_first_step_seconds", took)
        self.assertEqual(set(cluster.children_of(self.agents[0].pid).values()), {"lasp-rank-cuda"})
        self.wait_for_state("job", "SUCCEEDED", timeout=300)
        steps = self.metrics("job")
        self.assertEqual([row["step"] for row in steps], list(range(1, 26)))
        for name in ("tokens_per_second", "forward_seconds", "backward_seconds", "optimizer_seconds",
                     "sp_wait_seconds", "gradient_sync_wait_seconds"):
            figure(name, statistics.median(row[name] for row in steps[5:]))
        self.assertLess(steps[-1]["loss"], steps[0]["loss"])
        self.assertLessEqual(took, self.START_SECONDS)

    def test_one_gpu_and_all_gpus_train_alike(self):
        losses = {}
        for job, sp, dp in (("one", 1, 1), ("sequence", self.ranks, 1), ("both", self.ranks // 2, 2)):
            spec = small(sp, dp, steps=20)
            spec["data"] = dict(spec["data"], sequence_length=8192)
            spec["global_batch_size"] = 2
            self.submit(spec, job, "--wait", timeout=300)
            losses[job] = [row["loss"] for row in self.metrics(job)]
            self.assertEqual(len(losses[job]), 20, job)
        for job in ("sequence", "both"):
            worst = max(abs(a / b - 1) for a, b in zip(losses[job], losses["one"]))
            figure(f"{job}_loss_difference", worst)
            self.assertLessEqual(worst, 5e-3, job)

    def test_a_rank_dies(self):
        self.submit(small(self.ranks))
        self.wait_for_step("job", 20, timeout=120)
        ranks = self.rank_pids()
        self.assertEqual(len(ranks), self.ranks)
        first = [row["loss"] for row in self.metrics("job")[:20]]
        begin = time.monotonic()
        os.kill(ranks[-1], signal.SIGKILL)
        self.wait_for_next_generation()
        took = time.monotonic() - begin
        figure("rank_death_to_next_step_seconds", took)
        self.assertLessEqual(took, self.RECOVERY_SECONDS)
        # Later generations compute their matrix products as the first did.
        self.wait_for_step("job", 20)
        self.assertEqual([row["loss"] for row in self.metrics("job")[:20]], first)
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")

    def test_a_rank_is_stopped(self):
        self.submit(small(self.ranks))
        self.wait_for_step("job", 20, timeout=120)
        stopped = sorted(self.rank_pids())[-1]
        begin = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        failed = wait_until(
            lambda: next((t for t in self.job("job")["transitions"] if t["reason"] == "RANK_STALLED"), None), 120, "the hang to be noticed")
        figure("stopped_rank_noticed_seconds", time.monotonic() - begin)
        print(failed["message"], flush=True)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertRegex(failed["message"], r"rank \d+ on workers/\S+ has not spoken")
        other = (int(re.search(r"rank (\d+)", failed["message"])[1]) + 1) % self.ranks
        wait_until(lambda: re.search(r'"stack":"[^"]*lasp::worker::', self.lasp("logs", "job", "--rank", other, "--generation", 1).stdout), 20, "a waiting rank's dump")
        self.assertIn("last operations", self.lasp("logs", "job", "--rank", other, "--generation", 1).stdout)
        self.wait_for_next_generation()
        figure("stopped_rank_to_next_step_seconds", time.monotonic() - begin)
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")

    @unittest.skipUnless(os.geteuid() == 0, "stops a thread of another process")
    def test_a_rank_hangs_before_it_connects(self):
        self.submit(small(self.ranks))
        # Held back until another one waits for its address alone.
        late = wait_until(self.rank_pids, 60, "a rank")[0]
        os.kill(late, signal.SIGSTOP)
        wait_until(lambda: len(self.rank_pids()) == self.ranks, 60, "all ranks")
        hung = next(pid for pid in self.rank_pids() if pid != late)
        host = next(f"workers/w{i + 1}" for i, agent in enumerate(self.agents) if hung in self.ranks_of(agent))
        wait_until(lambda: listens(hung) and waits_for_another_thread(hung), 14, "a rank waits for the others' addresses")
        before = [(str(place["rank"]), place["worker"]) for place in self.job("job")["placements"]]
        stop_thread(hung)
        os.kill(late, signal.SIGCONT)
        begin = time.monotonic()
        failed = wait_until(lambda: next((t for t in self.job("job")["transitions"] if t["reason"] == "RANK_FAILED"), None), 60,
                            "the hang to be noticed")
        figure("rank_that_does_not_connect_noticed_seconds", time.monotonic() - begin)
        print(failed["message"], flush=True)
        named, = re.findall(r"no connection with rank (\d+) within", failed["message"])
        self.assertIn((named, host), before)
        self.wait_for_next_generation()
        self.lasp("cancel", "job")
        self.wait_for_state("job", "CANCELLED")

    def test_the_coordinator_dies(self):
        steps = 300 if self.shared else 3000
        self.submit(small(self.ranks, steps=steps))
        self.wait_for_step("job", 20, timeout=120)
        before = self.step()
        begin = time.monotonic()
        self.server.kill()
        self.restart_server(self.server)
        self.wait_for_step("job", before + 1, timeout=60)
        figure("coordinator_restart_to_next_step_seconds", time.monotonic() - begin)
        job = self.wait_for_state("job", "SUCCEEDED", timeout=300)
        self.assertEqual(job["generation"], 1, "the running ranks were not adopted")
        self.assertEqual([row["step"] for row in self.metrics("job")], list(range(1, steps + 1)))


class GpuRebuildTest(GpuClusterTest):
    """What the other ranks left in memory."""

    def worker_flags(self):
        # Without room there it is the disk's cache.
        memory = os.statvfs("/dev/shm")
        return {"memory_root": "auto"} if memory.f_bavail * memory.f_frsize > 40 << 30 else {}

    def assert_rebuilt(self, job, killed, before):
        def steps_again():
            now = self.job(job)
            return now["generation"] == 2 and now["state"] == "RUNNING" and int(now["progress"]["step"]) > int(now["restored_step"])
        wait_until(steps_again, 120, "the job runs again")
        took = time.monotonic() - killed
        now = self.job(job)
        if not now["rebuilt"]:
            for rank in range(self.ranks):
                print(self.lasp("logs", job, "--rank", rank, "--generation", 1, "--tail", 12, check=False).stdout, flush=True)
        self.assertTrue(now["rebuilt"], now["transitions"])
        self.assertNotIn("states that differ", self.server.log_tail(400))
        self.assertGreaterEqual(int(now["restored_step"]), before)
        return took, int(now["restored_step"])

    def test_a_killed_rank_costs_no_step(self):
        # By both ways of sharing the work; the state is that of the last step, to the bit: so are the losses that follow.
        steps = 400 if self.shared else 4000
        for job, sp, dp in (("sequence", self.ranks, 1), ("replicas", 1, self.ranks)):
            spec = small(sp, dp, steps=steps)
            self.submit(spec, job)
            self.wait_for_step(job, 50, timeout=120)
            before = int(self.job(job)["progress"]["step"])
            begin = time.monotonic()
            os.kill(self.rank_pids()[-1], signal.SIGKILL)
            took, _ = self.assert_rebuilt(job, begin, before)
            figure(f"rank_death_to_next_step_rebuilt_{job}_seconds", took)
            done = self.wait_for_state(job, "SUCCEEDED", timeout=300)
            rows = sorted(self.metrics(job), key=lambda row: int(row["step"]))
            self.assertEqual([int(row["step"]) for row in rows], list(range(1, steps + 1)))
            restored = int(done["restored_step"])
            self.assertEqual([int(row["generation"]) for row in rows], [1] * restored + [2] * (steps - restored))
            around = [row["loss"] for row in rows[restored - 5:restored + 5]]
            self.assertLess(max(around) - min(around), 0.5, "the losses jump where it was rebuilt")

    def test_a_large_job_costs_no_step(self):
        self.needs_a_gpu_a_rank()
        self.submit(one_billion(self.ranks, steps=40))
        self.wait_for_step("job", 12, timeout=120)
        before = int(self.job("job")["progress"]["step"])
        begin = time.monotonic()
        os.kill(self.rank_pids()[-1], signal.SIGKILL)
        took, _ = self.assert_rebuilt("job", begin, before)
        figure("rank_death_to_next_step_rebuilt_1b_seconds", took)
        done = self.wait_for_state("job", "SUCCEEDED", timeout=300)
        rows = {int(row["step"]): row["loss"] for row in self.metrics("job")}
        self.assertEqual(sorted(rows), list(range(1, 41)))
        self.assertLess(rows[int(done["restored_step"]) + 1], rows[1])
        log = self.lasp("logs", "job", "--rank", 0, "--generation", 1).stdout
        figure("left_bytes", int(re.search(r'state is left.*?"bytes":"?(\d+)', log)[1]))
        self.assertLessEqual(took, self.RECOVERY_SECONDS)


class GpuCheckpointTest(GpuClusterTest):
    EVERY = 15

    def flags(self):
        root = os.path.join(self.folder, "checkpoints")
        os.mkdir(root)
        return {"checkpoint_root": root}

    def test_a_large_job_goes_on_from_its_checkpoint(self):
        self.needs_a_gpu_a_rank()
        steps = 4 * self.EVERY
        spec = one_billion(self.ranks, steps=steps)
        spec["checkpoint"] = {"interval_steps": self.EVERY}
        self.submit(spec)
        self.wait_for_step("job", self.EVERY, timeout=120)
        begin = time.monotonic()
        wait_until(lambda: int(self.job("job")["checkpoint_step"]) >= self.EVERY, 120, "a checkpoint")
        figure("checkpoint_step_to_commit_seconds", time.monotonic() - begin)
        checkpoint = self.lasp_json("checkpoints", "list", "job")[-1]
        figure("checkpoint_bytes", int(checkpoint["size_bytes"]))
        # Two more steps at least, which are trained a second time.
        self.wait_for_step("job", int(checkpoint["step"]) + 2, timeout=60)
        first = {int(row["step"]): (row["loss"], row["gradient_norm"]) for row in self.metrics("job")}
        begin = time.monotonic()
        os.kill(self.rank_pids()[-1], signal.SIGKILL)

        def runs_again():
            job = self.job("job")
            return (job["generation"] == 2 and job["state"] == "RUNNING" and
                    int(job["progress"]["step"]) > int(job["restored_step"]))
        wait_until(runs_again, 120, "the job runs again")
        took = time.monotonic() - begin
        figure("rank_death_to_next_step_after_checkpoint_seconds", took)
        done = self.wait_for_state("job", "SUCCEEDED", timeout=300)
        restored = int(done["restored_step"])
        figure("steps_lost", max(first) - restored)
        rows = {int(row["step"]): row for row in self.metrics("job")}
        again = [step for step in first if step > restored]
        self.assertTrue(again)
        for step in again:
            self.assertEqual((rows[step]["loss"], rows[step]["gradient_norm"]), first[step], f"step {step}")
        self.assertEqual(sorted(rows), list(range(1, steps + 1)))
        # The step behind a checkpoint waits for the copy, and all of them share the disk with it.
        saved = set(range(self.EVERY, steps, self.EVERY))
        behind = [rows[step + 1]["step_seconds"] for step in saved if step + 1 in rows and step + 1 > restored + 5]
        others = [row["step_seconds"] for step, row in rows.items()
                  if step - 1 not in saved and step > restored + 5]
        figure("step_seconds", statistics.median(others))
        figure("step_seconds_behind_a_checkpoint", statistics.median(behind))
        self.assertLessEqual(took, self.RECOVERY_SECONDS)

    def test_other_shapes_go_on_from_a_checkpoint(self):
        def shape(sp, dp):
            spec = small(sp, dp, steps=40)
            spec["data"] = dict(spec["data"], sequence_length=8192)
            spec["global_batch_size"] = 2
            spec["checkpoint"] = {"interval_steps": 20}
            return spec
        self.submit(shape(self.ranks, 1), "job", "--wait", timeout=300)
        rows = {row["step"]: row["loss"] for row in self.metrics("job")}
        for job, sp, dp in (("one", 1, 1), ("both", self.ranks // 2, 2)):
            self.submit(shape(sp, dp), job, "--wait", "--from", "job/20", timeout=300)
            after = {row["step"]: row["loss"] for row in self.metrics(job)}
            self.assertEqual(sorted(after), list(range(21, 41)))
            worst = max(abs(loss / rows[step] - 1) for step, loss in after.items())
            figure(f"resumed_{job}_loss_difference", worst)
            self.assertLessEqual(worst, 5e-3, job)


if __name__ == "__main__":
    unittest.main()
