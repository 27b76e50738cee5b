"""Every gradient tensor of a real job's first step against a TransNormer in PyTorch."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from cluster import ClusterTest, small_spec  # noqa: E402
from transnormer_torch import TOLERANCE, compare  # noqa: E402


class OutsideWitnessTest(ClusterTest):
    def check(self, name, spec):
        """Trains one step with a dump and holds it against the witness."""
        folder = os.path.join(self.folder, f"dump-{name}")
        ranks = spec["parallelism"]["sequence_parallel"]["size"] * spec["parallelism"]["data_parallel"]["size"]
        worker = self.start_worker(name, slots=ranks, dump_directory=folder)
        self.submit(spec, name, "--wait", timeout=120)
        worker.terminate()
        errors = compare(folder, spec["model"])
        for tensor, error in sorted(errors.items(), key=lambda item: -item[1])[:3]:
            print(f"{name}: {error:.2e} {tensor}", flush=True)
        self.assertGreater(len(errors), 6)
        for tensor, error in errors.items():
            self.assertLessEqual(error, TOLERANCE, f"{name}: {tensor}")

    def spec(self, sp, dp, length, batch, micro_batch=1, **model):
        spec = small_spec(sp=sp, dp=dp, steps=1, length=length, batch=batch, micro_batch_size=micro_batch)
        spec["model"].update(model)
        return spec

    def test_one_rank(self):
        self.start_server()
        self.check("one", self.spec(1, 1, 200, 2, layers=3, hidden_size=48, heads=3, tie_embeddings=True))

    def test_one_layer(self):
        self.start_server()
        self.check("layer", self.spec(2, 1, 130, 1, layers=1, hidden_size=32, heads=4))

    def test_learned_frequencies_over_sp_and_dp_with_accumulation(self):
        self.start_server()
        self.check("grid", self.spec(3, 2, 3 * 77, 8, micro_batch=2, layers=4, hidden_size=60, heads=6,
                                     glu_size=80, lrpe_theta="LEARNED"))

    def test_one_token_a_rank(self):
        self.start_server()
        self.check("token", self.spec(4, 1, 4, 3, layers=2, hidden_size=32, heads=2, lrpe_theta="LEARNED"))


if __name__ == "__main__":
    unittest.main()
