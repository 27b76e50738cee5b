"""Gang scheduling over real agents: all ranks of a job or none, SP groups whole where they fit."""
import collections
import threading
import time
import unittest

from cluster import LONG, ClusterTest, small_spec


class GangsTest(ClusterTest):
    def start_three(self):
        self.start_server()
        return {name: self.start_worker(name, slots) for name, slots in (("w3", 3), ("w2", 2), ("w1", 1))}

    def hosts(self, job):
        """{SP group: {worker: ranks}} of a placed job."""
        size = job["spec"]["parallelism"]["sequence_parallel"]["size"]
        groups = collections.defaultdict(collections.Counter)
        for place in job["placements"]:
            groups[place.get("rank", 0) // size][place["worker"]] += 1
        return groups

    def test_contending_jobs_start_whole_or_not_at_all(self):
        workers = self.start_three()
        # Four ranks each on six slots: only one can run.
        ids = ("left", "right")
        threads = [threading.Thread(target=self.submit, args=(small_spec(sp=2, dp=2, steps=LONG), job)) for job in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = []
        deadline = time.monotonic() + 60
        while not seen or "RUNNING" not in seen[-1].values():
            self.assertLess(time.monotonic(), deadline, f"neither runs: {seen[-5:]}")
            seen.append({job: self.job(job)["state"] for job in ids})
            held = [slot["training_job"] for w in self.workers() for slot in w["slots"] if slot.get("training_job")]
            for job in ids:
                ranks = sum(name.endswith("/" + job) for name in held)
                self.assertIn(ranks, (0, 4), f"{job} holds {ranks} of its 4 slots")
        running, waiting = sorted(ids, key=lambda job: seen[-1][job] != "RUNNING")
        self.assertEqual(self.job(waiting)["state"], "QUEUED", seen)
        self.assertEqual(sum(len(self.ranks_of(w)) for w in workers.values()), 4)
        for group, hosts in self.hosts(self.job(running)).items():
            self.assertEqual(len(hosts), 1, f"SP group {group} is spread over {dict(hosts)}")
        reason = self.job(waiting)
        self.assertTrue(reason["reason"] and reason["message"], reason)
        # A smaller job behind it does not overtake in FIFO order, or fits beside: either way whole.
        self.lasp("cancel", running)
        self.wait_for_state(running, "CANCELLED")
        self.wait_for_state(waiting, "RUNNING")
        self.assertEqual(len(self.job(waiting)["placements"]), 4)
        self.lasp("cancel", waiting)
        self.wait_for_state(waiting, "CANCELLED")

    def test_sp_groups_stay_whole(self):
        self.start_three()
        # 3 + 2 + 1 slots: a group of three fits on w3 only, groups of two on w3 and w2.
        self.submit(small_spec(sp=3, steps=LONG, length=384), "three")
        job = self.wait_for_state("three", "RUNNING")
        self.assertEqual({place["worker"] for place in job["placements"]}, {"workers/w3"})
        self.submit(small_spec(sp=2, steps=3), "two", "--wait")
        job = self.job("two")
        self.assertEqual(job["state"], "SUCCEEDED")
        self.lasp("cancel", "three")
        self.wait_for_state("three", "CANCELLED")


if __name__ == "__main__":
    unittest.main()
