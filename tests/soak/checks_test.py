"""What judges a soak finds what is planted: a leak, a lost event, events out of order."""
import unittest

import flatness
import history
from flatness import Allowed
from history import Moment


class FlatnessTest(unittest.TestCase):
    @staticmethod
    def series(value):
        return [(10.0 * i, value(i)) for i in range(720)]

    def rises(self, value, bound, **more):
        return flatness.judge({"it": self.series(value), **more}, {"it": bound})[1]

    def test_what_wavers_and_warms_up_is_flat(self):
        self.assertEqual(self.rises(lambda i: 20e6 * min(1, (i + 20) / 100) + 1e5 * (i % 7), Allowed(1e6)), [])

    def test_a_leak_is_found(self):
        # A hundred bytes a second in the noise of a megabyte.
        leak = self.rises(lambda i: 30e6 + 1000 * i + 1e6 * (i * 7919 % 13) / 13, Allowed(5e5))
        self.assertEqual(len(leak), 1)
        self.assertIn("it rose by", leak[0])

    def test_one_descriptor_in_twenty_minutes_is_found(self):
        self.assertTrue(self.rises(lambda i: 40 + i // 120, Allowed(3)))

    def test_what_is_kept_by_intent_may_grow_and_no_more(self):
        counted = self.series(lambda i: i / 2)
        self.assertEqual(self.rises(lambda i: 1e6 + 400 * i, Allowed(1e3, each=1000, counted="n"), n=counted), [])
        self.assertTrue(self.rises(lambda i: 1e6 + 600 * i, Allowed(1e3, each=1000, counted="n"), n=counted))


class HistoryTest(unittest.TestCase):
    HISTORY = [Moment(100, "QUEUED", 0), Moment(100.1, "STARTING", 1), Moment(110, "RUNNING", 1), Moment(120, "RECOVERING", 1),
               Moment(130, "STARTING", 2), Moment(140, "RUNNING", 2), Moment(150, "SUCCEEDED", 2)]

    def problems(self, seen, intervals=((0, 1000),)):
        return history.judge("w", self.HISTORY, seen, intervals).problems

    def later(self, *without):
        return [moment._replace(time=moment.time + 0.01) for i, moment in enumerate(self.HISTORY) if i not in without]

    def test_all_seen(self):
        verdict = history.judge("w", self.HISTORY, self.later(), [(0, 1000)])
        self.assertEqual((verdict.problems, verdict.seen, verdict.passed_by), ([], 7, 0))
        self.assertAlmostEqual(max(verdict.delays), 0.01)

    def test_a_short_state_may_pass_by(self):
        self.assertEqual(self.problems(self.later(0)), [])

    def test_each_lost_state_is_found(self):
        for i in range(1, 7):
            found = self.problems(self.later(i))
            self.assertEqual(len(found), 1, i)
            self.assertIn(f"did not see {self.HISTORY[i].state}", found[0])

    def test_while_it_was_away_states_pass_by_but_the_last(self):
        self.assertEqual(self.problems(self.later(2, 3), [(0, 105), (135, 1000)]), [])
        self.assertEqual(len(self.problems(self.later(5, 6), [(0, 135)])), 1)

    def test_wrong_order_and_inventions_are_found(self):
        seen = self.later()
        seen[2], seen[3] = seen[3], seen[2]
        self.assertIn("was not, or not then", self.problems(seen)[0])
        self.assertTrue(self.problems(self.later() + [Moment(151, "FAILED", 2)]))
        self.assertTrue(self.problems([Moment(141, "RUNNING", 3)]))


if __name__ == "__main__":
    unittest.main()
