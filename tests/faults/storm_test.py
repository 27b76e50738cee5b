"""That the judge of the storm's jobs can say no."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from storm_cluster import judge, trained  # noqa: E402


class JudgeTest(unittest.TestCase):
    """Of a job that went on after step 2 in generation 2, having trained step 3 before."""

    def setUp(self):
        self.undisturbed = {str(step): [float(step), 1.0, 0.1] for step in range(1, 5)}
        self.rows = [{"step": step, "generation": 1 if step < 3 else 2, "loss": float(step), "gradient_norm": 1.0, "learning_rate": 0.1}
                     for step in range(1, 5)]
        # Of two ranks, of which one was killed before it wrote that it had trained step 2.
        steps = [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4)]
        self.ledger = [(rank, *step) for rank in (0, 1) for step in steps if (rank, *step) != (0, 1, 2)]
        self.committed = [(2, 2, 2)]

    def problems(self):
        return judge(self.rows, trained(self.ledger), self.undisturbed, self.committed)

    def test_good(self):
        self.assertEqual(self.problems(), [])

    def test_another_loss(self):
        self.rows[2]["loss"] += 1e-12
        self.assertIn("from step 3 on", self.problems()[0])

    def test_a_step_that_is_missing(self):
        del self.rows[1]
        self.assertIn("not each step once", self.problems()[0])

    def test_a_step_that_nobody_trained(self):
        self.ledger.remove((0, 2, 4))
        self.ledger.remove((1, 2, 4))
        self.assertIn("step 4 was trained 0 times", self.problems()[0])

    def test_a_step_that_was_trained_twice(self):
        self.ledger.append((1, 2, 3))
        self.assertIn("step 3 was trained 2 times", self.problems()[0])

    def test_an_old_generation_behind_a_new_one(self):
        self.rows[3]["generation"] = 1
        self.ledger.append((0, 1, 4))
        self.assertIn("older generation", self.problems()[0])

    def test_a_checkpoint_that_is_lost(self):
        self.committed = [(2, 3, 2)]
        self.assertIn("step 3 was committed", self.problems()[0])


if __name__ == "__main__":
    unittest.main()
