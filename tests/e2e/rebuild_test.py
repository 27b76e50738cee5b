"""A lost replica is rebuilt from the others: without a checkpoint, and without losing a step."""
import glob
import os
import signal
import unittest

from cluster import ClusterTest, small_spec, wait_until

STEPS = 150


class RebuildTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.start_server()

    def spec(self, **changes):
        return small_spec(sp=2, dp=2, steps=STEPS, length=768, batch=2, **changes)

    def losses(self, job):
        """What was trained, a row a step, each once."""
        rows = {int(row["step"]): (row["loss"], row["gradient_norm"], row["learning_rate"]) for row in self.metrics(job)}
        self.assertEqual(sorted(rows), list(range(1, STEPS + 1)))
        return rows

    def undisturbed(self):
        self.submit(self.spec(), "undisturbed")
        self.wait_for_state("undisturbed", "SUCCEEDED", 120)
        return self.losses("undisturbed")

    def assert_rebuilt(self, job, expected, generation=2):
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(self.losses(job), expected)
        self.assertEqual(done["generation"], generation)
        told = next(t for t in done["transitions"] if t["reason"] == "REBUILT_FROM_SURVIVORS")
        self.assertIn("surviving ranks", told["message"])
        self.assertTrue(done["rebuilt"])
        # Every step was trained once: the second generation begins where the first ended.
        rows = sorted(self.metrics(job), key=lambda row: int(row["step"]))
        second = [int(row["step"]) for row in rows if int(row["generation"]) == generation]
        self.assertEqual(second[0], int(done["restored_step"]) + 1)
        return done

    def left(self, worker):
        """Files in the memory of the host."""
        return glob.glob(os.path.join(worker.memory_root, "*", "*"))

    def test_a_killed_rank_costs_no_step(self):
        workers = {name: self.start_worker(name, slots=2) for name in ("w1", "w2")}
        expected = self.undisturbed()
        for rank in (0, 3):
            job = self.submit(self.spec(), f"without-{rank}")
            self.wait_for_step(job, 20)
            placement = next(p for p in self.job(job)["placements"] if int(p["rank"]) == rank)
            host = workers[placement["worker"].split("/")[1]]
            os.kill(self.rank_process(host, job, rank), signal.SIGKILL)
            done = self.assert_rebuilt(job, expected)
            self.assertGreaterEqual(int(done["restored_step"]), 20)
            self.assertEqual(int(done["restored_generation"]), 1)
        wait_until(lambda: not any(self.left(worker) for worker in workers.values()), 20, "what was left to be removed")

    def test_a_lost_host_costs_no_step(self):
        workers = {name: self.start_worker(name, slots=2) for name in ("w1", "w2", "w3")}
        expected = self.undisturbed()
        job = self.submit(self.spec())
        self.wait_for_step(job, 20)
        # That of rank 0, which alone reports.
        placement = next(p for p in self.job(job)["placements"] if int(p["rank"]) == 0)
        workers[placement["worker"].split("/")[1]].kill()
        self.assert_rebuilt(job, expected)

    def test_two_deaths_in_a_row(self):
        worker = self.start_worker("w1", slots=4)
        expected = self.undisturbed()
        job = self.submit(self.spec())
        for generation, step in ((1, 20), (2, 60)):
            self.wait_for_step(job, step)
            os.kill(self.rank_process(worker, job, generation), signal.SIGKILL)
            wait_until(lambda after=generation: self.job(job)["generation"] > after, 20, "the next generation")
        self.assert_rebuilt(job, expected, generation=3)

    def test_a_death_during_the_rebuilding(self):
        worker = self.start_worker("w1", slots=4)
        expected = self.undisturbed()
        for attempt in range(3):
            job = self.submit(self.spec(), f"attempt-{attempt}")
            self.wait_for_step(job, 20)
            os.kill(self.rank_process(worker, job, 1), signal.SIGKILL)
            # As soon as the process is there, long before it has read anything, if this machine is not too busy.
            os.kill(self.rank_process(worker, job, 2, generation=2), signal.SIGKILL)
            done = self.assert_rebuilt(job, expected, generation=3)
            if int(done["restored_generation"]) == 1:
                return
        self.fail("the second death always came too late")

    def test_without_memory_it_begins_anew(self):
        worker = self.start_worker("w1", slots=4, memory_root="")
        expected = self.undisturbed()
        job = self.submit(self.spec())
        self.wait_for_step(job, 20)
        os.kill(self.ranks_of(worker)[-1], signal.SIGKILL)
        done = self.wait_for_state(job, "SUCCEEDED", 120)
        self.assertEqual(self.losses(job), expected)
        self.assertFalse(done["rebuilt"])
        self.assertIn("RESTARTED_FROM_START", [t["reason"] for t in done["transitions"]])


if __name__ == "__main__":
    unittest.main()
