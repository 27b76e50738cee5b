"""A job whose sequences stream is the job it would be otherwise, through the whole service."""
import unittest

from cluster import ClusterTest, small_spec


class StreamTest(ClusterTest):
    def losses(self, job_id, spec):
        self.submit(spec, job_id, "--wait", timeout=300)
        rows = self.metrics(job_id)
        self.assertEqual([row["step"] for row in rows], list(range(1, 11)))
        return [row["loss"] for row in rows]

    def test_streaming_changes_nothing(self):
        self.start_server()
        self.start_worker(slots=4)

        def spec(sp=2, dp=2, method="LASP", **memory):
            made = small_spec(sp=sp, dp=dp, length=1536, steps=10, batch=4, memory=memory)
            made["parallelism"]["sequence_parallel"]["method"] = method
            return made

        kept = self.losses("kept", spec(activations="KEEP"))
        for job_id, wanted in (
            ("streamed", spec(activations="STREAM", stream_chunk_tokens=100)),
            ("chosen", spec(sp=1, activations="STREAM")),
            ("gathered", spec(method="LASP2", activations="STREAM", stream_chunk_tokens=100)),
            ("by-head", spec(method="ULYSSES", activations="STREAM", stream_chunk_tokens=500)),
            ("offloaded", spec(activations="OFFLOAD")),
            ("recomputed", spec(activations="RECOMPUTE", recompute="SELECTIVE")),
        ):
            losses = self.losses(job_id, wanted)
            worst = max(abs(a - b) / b for a, b in zip(losses, kept))
            print(f"{job_id}: losses within {worst:.1e}", flush=True)
            self.assertLessEqual(worst, 1e-5, job_id)


if __name__ == "__main__":
    unittest.main()
