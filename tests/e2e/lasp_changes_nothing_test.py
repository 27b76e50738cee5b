"""The same spec on every (SP, DP) shape, and by every sequence-parallel method, gives the same training run, through the whole service."""
import unittest

from cluster import ClusterTest, small_spec

SHAPES = ((1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (1, 4))
# Beside LASP, on this shape.
METHODS = ("LASP2", "ALL_SCAN", "ULYSSES", "RING_ATTENTION", "MEGATRON_SP")
METHOD_SHAPE = (2, 2)


class LaspChangesNothingTest(ClusterTest):
    def run_shape(self, sp, dp, job_id, method="LASP"):
        spec = small_spec(sp=sp, dp=dp, length=1536, steps=20, batch=4)
        spec["parallelism"]["sequence_parallel"]["method"] = method
        self.submit(spec, job_id, "--wait", timeout=300)
        rows = self.metrics(job_id)
        self.assertEqual([row["step"] for row in rows], list(range(1, 21)))
        return [row["loss"] for row in rows], [row["gradient_norm"] for row in rows]

    def assert_close(self, actual, expected, tolerance, what):
        for step, (a, b) in enumerate(zip(actual, expected), 1):
            self.assertLessEqual(abs(a - b), tolerance * abs(b), f"{what} at step {step}: {a} and {b}")

    def test_shapes_agree_and_repeat(self):
        self.start_server()
        self.start_worker(slots=4)
        reference = None
        for sp, dp in SHAPES:
            losses, norms = self.run_shape(sp, dp, f"sp{sp}-dp{dp}")
            if reference is None:
                reference = losses, norms
                self.assertLess(losses[-1], losses[0] - 0.1, "the run does not train")
            worst = max(abs(a - b) / b for a, b in zip(losses, reference[0]))
            worst_norm = max(abs(a - b) / b for a, b in zip(norms, reference[1]))
            print(f"SP {sp} x DP {dp}: losses within {worst:.1e}, gradient norms within {worst_norm:.1e}", flush=True)
            self.assert_close(losses, reference[0], 1e-5, f"loss of SP {sp} x DP {dp}")
            self.assert_close(norms, reference[1], 1e-4, f"gradient norm of SP {sp} x DP {dp}")
            if (sp, dp) in ((4, 1), (2, 2)):
                self.assertEqual((losses, norms), self.run_shape(sp, dp, f"again-sp{sp}-dp{dp}"),
                                 f"two runs of SP {sp} x DP {dp} differ")
        sp, dp = METHOD_SHAPE
        for method in METHODS:
            losses, norms = self.run_shape(sp, dp, method.lower().replace("_", "-"), method)
            worst = max(abs(a - b) / b for a, b in zip(losses, reference[0]))
            print(f"{method}, SP {sp} x DP {dp}: losses within {worst:.1e}", flush=True)
            self.assert_close(losses, reference[0], 1e-5, f"loss of {method}")
            self.assert_close(norms, reference[1], 1e-4, f"gradient norm of {method}")


if __name__ == "__main__":
    unittest.main()
