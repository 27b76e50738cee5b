"""Jobs whose documents are packed: the same on every shape, through the whole service."""
import os
import unittest

from cluster import ClusterTest, small_spec

END = ord("\n")


class PackedDocumentsTest(ClusterTest):
    def rows(self, job_id, spec):
        self.submit(spec, job_id, "--wait", timeout=300)
        rows = self.metrics(job_id)
        self.assertEqual([row["step"] for row in rows], list(range(1, 9)))
        return rows

    def end_documents(self, name):
        path = os.path.join(self.data, name)
        with open(path, "rb") as file:
            text = file.read()
        self.assertIn(b" lord ", text)
        with open(path, "wb") as file:
            file.write(text.replace(b" lord ", b"\nlord "))

    def test_documents_are_apart_on_every_shape(self):
        self.start_server()
        self.start_worker(slots=4)
        self.write_corpus("held_out.txt", 50_000)
        for name in ("corpus.txt", "held_out.txt"):
            self.end_documents(name)

        def spec(sp=1, dp=1, method="LASP", architecture="TRANSNORMER", packed=True, **memory):
            made = small_spec(sp=sp, dp=dp, length=1536, steps=8, batch=4, memory=memory,
                              eval_interval_steps=8, eval_batches=2)
            made["model"]["architecture"] = architecture
            made["data"]["eval_paths"] = ["held_out.txt"]
            if packed:
                made["data"].update(documents="PACKED", document_end_token=END)
            made["parallelism"]["sequence_parallel"]["method"] = method
            return made

        joined = self.rows("joined", spec(packed=False))
        for architecture, jobs in (
            ("TRANSNORMER", (
                ("ring", dict(sp=2, dp=2)),
                ("gathered", dict(sp=4, method="LASP2")),
                ("by-head", dict(sp=2, method="ULYSSES", activations="RECOMPUTE")),
                ("streamed", dict(sp=2, activations="STREAM", stream_chunk_tokens=100)),
            )),
            ("LINEAR_TRANSFORMER", (
                ("sums-scanned", dict(sp=2, dp=2, method="ALL_SCAN")),
                ("sums-streamed", dict(sp=2, activations="STREAM", stream_chunk_tokens=100)),
            )),
        ):
            alone = self.rows("alone-" + architecture[:6].lower(), spec(architecture=architecture))
            if architecture == "TRANSNORMER":
                # Other labels count, and less is seen.
                self.assertNotAlmostEqual(alone[0]["loss"] / joined[0]["loss"], 1, delta=1e-6)
            for job_id, shape in jobs:
                rows = self.rows(job_id, spec(architecture=architecture, **shape))
                worst = max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(rows, alone))
                held_out = abs(rows[-1]["eval_loss"] / alone[-1]["eval_loss"] - 1)
                print(f"{job_id}: losses within {worst:.1e}, held-out within {held_out:.1e}", flush=True)
                self.assertLessEqual(max(worst, held_out), 1e-5, job_id)


if __name__ == "__main__":
    unittest.main()
