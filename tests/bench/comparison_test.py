"""The comparison's program: what it runs, keeps and writes."""
import json
import math
import os
import random
import stat
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from comparison import (convergence, cost_model, curriculum, exchange_tables, grid, length_tables, recall, runner,  # noqa: E402
                        tables)  # found beside this file

# Fits 48K tokens a GPU when all is kept and 192K otherwise; says what it was asked.
PROGRAM = """#!/usr/bin/python3 -SE
import json, sys
tokens, layers = int(sys.argv[1]), int(sys.argv[2])
if tokens > (48 << 10 if "--activations=KEEP" in sys.argv else 192 << 10):
    sys.exit("train_step_cuda: RESOURCE_EXHAUSTED: 200 GiB are wanted")
if "ULYSSES" in sys.argv:
    sys.exit("train_step_cuda: INTERNAL: it broke")
print(json.dumps({"tokens_per_gpu": tokens, "layers": layers, "step_ms": 10.0, "used_gib": 50.0,
                  "tokens_per_second_per_gpu": 80000 if "LASP" in sys.argv else 40000}))
"""


class ComparisonTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.program = os.path.join(self.folder, "program")
        with open(self.program, "w") as file:
            file.write(PROGRAM)
        os.chmod(self.program, stat.S_IRWXU)
        os.mkdir(os.path.join(self.folder, "comparison"))

    def run_tables(self, names, commit="abc", minutes=1):
        results = runner.Results(os.path.join(self.folder, "comparison", "gpu-x4.json"), commit)
        results.content["gpu"] = "GPU"
        left = runner.run([self.program], results, 4, names, minutes)
        return left, list(results.content["cells"].values())

    def test_each_cell_has_a_name_of_its_own(self):
        for gpus in (1, 2, 4):
            keys = [cell.key() for make in grid.TABLES.values() for cell in make(gpus)]
            self.assertEqual(len(keys), len(set(keys)))

    def test_what_does_not_fit_is_recomputed(self):
        left, cells = self.run_tables(["speed"])
        self.assertEqual(left, 0)
        at = {(cell["tokens"] // grid.K, cell["sp_method"]): cell for cell in cells if cell["data_parallel"] == "DDP"}
        self.assertEqual(at[128, "LASP"]["plan"], "KEEP")
        self.assertEqual(at[256, "LASP"]["plan"], "RECOMPUTE")
        self.assertTrue(at[1024, "LASP"]["out_of_memory"])
        self.assertIn("it broke", at[128, "ULYSSES"]["error"])
        text = tables.documents(self.folder)[os.path.join(self.folder, "comparison.md")]
        row = next(line for line in text.splitlines() if line.startswith("| 128K |"))
        self.assertIn("320,000 (50 GiB)", row)
        self.assertIn("failed", row)
        self.assertTrue(row.endswith("| 2.00 |"), row)
        self.assertIn(os.path.join(self.folder, "comparison-speed-x4.svg"), tables.documents(self.folder))

    def test_what_is_left_out_has_rows_of_its_own(self):
        left, cells = self.run_tables(["ablation"])
        self.assertEqual((left, len(cells)), (0, 8))
        self.assertEqual({cell.get("without", "") for cell in cells}, {"", "fusion", "caching", "fusion,caching"})
        text = tables.documents(self.folder)[os.path.join(self.folder, "comparison.md")]
        self.assertIn("| 8K | no | no | 80,000 | 50.0 | +0.0 % |", text)

    def test_a_run_goes_on_where_one_ended(self):
        self.assertEqual(self.run_tables(["plans"], minutes=0)[0], 8)
        self.assertEqual(self.run_tables(["plans"])[0], 0)
        os.remove(self.program)
        self.assertEqual(len(self.run_tables(["plans"])[1]), 8)
        with self.assertRaises(FileNotFoundError):
            self.run_tables(["plans"], commit="a newer one")

    def test_without_results_there_is_nothing_to_say(self):
        self.assertEqual(tables.documents(self.folder), {})


class CostModelTest(unittest.TestCase):
    SHAPES = [(ranks, size, blocks) for ranks in (2, 3, 7) for size in (1000, 50000) for blocks in (1, 4)]

    def test_a_step_without_computation_is_its_exchanges(self):
        link = cost_model.Link(latency_ms=3, bytes_per_ms=2000, software_ms=0.2)
        for method in cost_model.METHODS:
            for shape in self.SHAPES:
                one = cost_model.exchange_ms(method, *shape, link)
                said = max(cost_model.pass_ms(method, *shape, link, 1, 0, [0.0] * shape[0]))
                self.assertAlmostEqual(said, one, 9, (method, shape))
                # On the way back whoever is first has long been expected, but by all of a gather.
                step = cost_model.step_ms(method, *shape, link, 1, 0)
                self.assertLessEqual(step, 2 * one + 1e-9, (method, shape))
                if method != "ALL_SCAN":
                    self.assertAlmostEqual(step, 2 * one - (3 if method == "LASP" else 0), 9, (method, shape))

    def test_what_is_computed_hides_a_hop_but_not_the_way_along_the_ring(self):
        link = cost_model.Link(latency_ms=5, bytes_per_ms=1e9)
        ring = cost_model.step_ms("LASP", 9, 1000, 1, link, 20, 100)
        # 20 layers of 100 ms, and behind the last computation nothing but what eight hops do not hide.
        self.assertAlmostEqual(ring, 2 * 20 * 100, 3)
        ring = cost_model.step_ms("LASP", 101, 1000, 1, link, 20, 100)
        self.assertAlmostEqual(ring, 2 * (19 * 100 + 101 * 5) - 5, 3)

    def test_the_fit_finds_what_made_the_times(self):
        runs = [{"ranks": ranks, "latency_ms": latency, "megabytes_per_second": speed, "state_bytes": size, "scan_blocks": 4}
                for ranks in (2, 3, 4, 6) for latency, speed in ((2, 20), (5, 10), (5, 40)) for size in (32768, 131072)]
        true = cost_model.Fit(1.1, 1.2, 0.3, ())
        for method in cost_model.METHODS:
            def time(run, method=method):
                return cost_model.exchange_ms(method, run["ranks"], run["state_bytes"], 4, true.link(run))
            found = cost_model.fit(method, runs, time)
            self.assertAlmostEqual(found.latency, 1.1, 6, method)
            self.assertAlmostEqual(found.size, 1.2, 6, method)
            self.assertAlmostEqual(found.software_ms, 0.3, 5, method)
            self.assertLess(found.error(cost_model.features(method, runs[0], 1024), 1.0), 1e-6)

    def test_without_results_there_is_nothing_to_say(self):
        self.assertEqual(exchange_tables.documents("/nonexistent"), {})


class RecallTest(unittest.TestCase):
    def test_a_sequence_asks_for_what_it_told_so_far_back(self):
        draw = random.Random(1)
        for distance in (0, 1, 100):
            for asks in (recall.KEYS, recall.TRAINED_ASKS):
                made = recall.sequence(distance, asks, draw)
                self.assertEqual(len(made), recall.length_of(distance, asks))
                self.assertLess(max(made), recall.VOCABULARY)
                told = {token // recall.VALUES: token % recall.VALUES for token in made if token < recall.ASK}
                last_told = max(place for place, token in enumerate(made) if token < recall.ASK)
                questions = made[len(made) - 2 * asks::2]
                self.assertEqual({token - recall.ASK for token in questions[:recall.KEYS]}, set(range(recall.KEYS)))
                for place in range(len(made) - 2 * asks, len(made), 2):
                    self.assertGreater(place - last_told, distance)
                    self.assertEqual(made[place + 1] - recall.ANSWER, told[made[place] - recall.ASK])

    def test_a_corpus_has_the_last_sequences_label(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "corpus")
            recall.write_corpus(path, 10, recall.KEYS, 3, seed=1)
            self.assertEqual(os.path.getsize(path), 2 * (3 * recall.length_of(10) + 1))

    def test_what_does_not_fit_a_rank_at_once_is_streamed(self):
        machine = curriculum.Machine("CPU", ranks=2, rows=1000)
        self.assertEqual(machine.memory(2000), {})
        self.assertEqual(machine.memory(2001)["activations"], "STREAM")
        self.assertEqual([machine.micro_batch(curriculum.Phase(length, 12, 1, 1e-3)) for length in (100, 500, 2000, 9000)],
                         [12, 4, 1, 1])

    def test_without_results_there_is_nothing_to_say(self):
        self.assertEqual(length_tables.documents("/nonexistent"), {})


class ConvergenceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "convergence.json")

    def corpus(self, text):
        path = self.path + ".corpus"
        with open(path, "wb") as file:
            file.write(text)
        return path

    def test_runs_on_different_corpora_do_not_mix(self):
        convergence.claim_corpus(self.path, self.corpus(b"one and the same"))
        convergence.keep(self.path, ("TRANSNORMER", "DDP", 1), {"final_loss": 1.0}, [])
        convergence.claim_corpus(self.path, self.corpus(b"one and the same"))
        with self.assertRaisesRegex(ValueError, "is not the corpus of the runs"):
            convergence.claim_corpus(self.path, self.corpus(b"another"))
        self.assertEqual(convergence.results_of(self.path)["runs"], {"TRANSNORMER DDP SP 1": {"final_loss": 1.0}})

    def test_what_the_byte_before_tells(self):
        self.assertAlmostEqual(convergence.order_1_entropy(b"abababab"), 0)
        # Behind an a there is an a or a b as often, behind a b an a.
        self.assertAlmostEqual(convergence.order_1_entropy(b"aabaabaaba"), 6 / 9 * math.log(2))


if __name__ == "__main__":
    unittest.main()
