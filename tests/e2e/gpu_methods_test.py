#!/usr/bin/env python3
"""Every parallel method on GPUs, through the whole service, against one GPU: losses, and gradients tensor by tensor.

Needs a GPU, which four ranks share where it is alone; skipped without, failing instead where LASP_REQUIRE_GPU=1.
"""
import json
import os
import shutil
import unittest

import numpy
from cluster import ClusterTest, small_spec

RANKS = 4
STEPS = 20
LOSS_BAR = 5e-3
GRADIENT_BAR = 1e-2
MOMENT = "optimizer.first_moment."
METHODS = ("LASP", "LASP2", "ALL_SCAN", "ULYSSES", "MEGATRON_SP", "RING_ATTENTION")
MODELS = {
    "transnormer": {"architecture": "TRANSNORMER"},
    "linear-transformer": {"architecture": "LINEAR_TRANSFORMER"},
    "hybrid": {"architecture": "TRANSNORMER", "layer_pattern": "LLLN", "kv_heads": 4},
    "softmax": {"architecture": "TRANSNORMER", "layer_pattern": "N", "kv_heads": 4},
}


def spec(model, method="LASP", sp=1, dp=1, data_parallel="DDP", packed=False, **memory):
    """Its first step's checkpoint is there whatever becomes of the others, which are written as the disk keeps up."""
    made = small_spec(
        sp=sp, dp=dp, steps=STEPS, length=4096, batch=4, micro_batch_size=4 // dp, memory=memory, device="GPU", checkpoint={"interval_steps": 1},
        model={"layers": 4, "hidden_size": 512, "heads": 8, "glu_size": 1408, "vocab_size": 256, "init_std": 0.02, **MODELS[model]})
    # Slow enough that the loss falls throughout: where it has levelled out, tokens' gradients cancel, and what is left is rounding.
    made["optimizer"].update(learning_rate=4e-5, min_learning_rate=4e-5, warmup_steps=1)
    made["parallelism"]["sequence_parallel"]["method"] = method
    made["parallelism"]["data_parallel"]["method"] = data_parallel
    if packed:
        made["data"].update(documents="PACKED", document_end_token=ord("."))
    return made


def first_moments(folder):
    """By parameter: what AdamW keeps of the gradients, behind the first step the gradient's tenth, from a checkpoint's shards."""
    with open(os.path.join(folder, "manifest.json")) as file:
        manifest = json.load(file)
    moments = {tensor["name"]: numpy.full(numpy.prod([int(size) for size in tensor["shape"]]), numpy.nan, numpy.float32)
               for tensor in manifest["tensors"] if tensor["name"].startswith(MOMENT)}
    for shard in manifest["shards"]:
        path = os.path.join(folder, shard["file"])
        for extent in shard["extents"]:
            if extent["tensor"] in moments:
                begin, count = int(extent.get("begin", 0)), int(extent["count"])
                moments[extent["tensor"]][begin:begin + count] = numpy.fromfile(
                    path, numpy.float32, count, offset=int(extent["offset_bytes"]))
    return moments


def difference(array, wanted):
    return float(numpy.linalg.norm(array.astype(numpy.float64) - wanted) / numpy.linalg.norm(wanted.astype(numpy.float64)))


class GpuMethodsTest(ClusterTest):
    def setUp(self):
        self.needs_a_gpu()
        super().setUp()
        self.write_corpus("corpus.txt", 4_000_000)
        path = os.path.join(self.data, "corpus.txt")
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace(" lord ", ". "))  # documents, of 170 bytes in the mean
        self.root = os.path.join(self.folder, "checkpoints")
        os.mkdir(self.root)
        self.start_server(checkpoint_root=self.root)
        self.start_gpu_workers(RANKS, checkpoint_root=self.root, memory_root="")

    def train(self, job, job_spec):
        """Losses by step, and the first moments behind the first."""
        self.submit(job_spec, job, "--set", "checkpoint_retention.keep_last=100", "--wait", timeout=300)
        rows = sorted(self.metrics(job), key=lambda row: int(row["step"]))
        self.assertEqual([int(row["step"]) for row in rows], list(range(1, STEPS + 1)))
        uid = self.job(job)["uid"]
        folders = [os.path.join(where, name) for where, names, _ in os.walk(self.root) if where.endswith(uid)
                   for name in names if name.startswith("step-1.")]
        self.assertEqual(len(folders), 1, folders)
        moments = first_moments(folders[0])
        shutil.rmtree(os.path.dirname(folders[0]))
        return [row["loss"] for row in rows], moments

    def assert_alike(self, model, cases, packed=False):
        """`cases`: keywords of spec(), by name."""
        losses, moments = self.train(f"{model}-alone" + "-packed" * packed, spec(model, packed=packed))
        self.assertLess(losses[-1], losses[0])
        for name, case in cases.items():
            with self.subTest(model=model, case=name):
                other_losses, others = self.train(f"{model}-{name}".lower().replace("_", "-").replace(" ", "-"), spec(model, packed=packed, **case))
                loss = max(abs(a / b - 1) for a, b in zip(other_losses, losses))
                self.assertEqual(set(others), set(moments))
                worst, tensor = max((difference(others[key], moments[key]), key) for key in moments)
                print(f"{model} {name}: loss {loss:.2e}, worst gradient {worst:.2e} ({tensor[len(MOMENT):]})", flush=True)
                self.assertLessEqual(loss, LOSS_BAR)
                self.assertLessEqual(worst, GRADIENT_BAR)  # also where one is NaN: not saved

    def test_transnormer(self):
        self.assert_alike("transnormer", {method: {"method": method, "sp": 4} for method in METHODS})

    def test_linear_transformer(self):
        self.assert_alike("linear-transformer", {method: {"method": method, "sp": 4} for method in METHODS})

    def test_hybrid(self):
        self.assert_alike("hybrid", {method: {"method": method, "sp": 4} for method in METHODS})

    def test_softmax(self):
        self.assert_alike("softmax", {method: {"method": method, "sp": 4} for method in METHODS})

    def test_data_parallel_methods(self):
        self.assert_alike("transnormer", {method: {"sp": 2, "dp": 2, "data_parallel": method}
                                          for method in ("DDP", "LEGACY_DDP", "ZERO1", "ZERO2", "ZERO3")})

    def test_streams(self):
        # 300 does not divide a rank's 1,024 tokens.
        self.assert_alike("transnormer", {
            f"stream {method}": {"method": method, "sp": 4, "activations": "STREAM", "stream_chunk_tokens": 300}
            for method in ("LASP", "LASP2", "ALL_SCAN", "ULYSSES", "MEGATRON_SP")})

    def test_packed_documents(self):
        linear = [method for method in METHODS if method != "RING_ATTENTION"]
        for model, methods in (("transnormer", linear), ("hybrid", linear), ("softmax", METHODS)):
            self.assert_alike(model, {f"packed {method}": {"method": method, "sp": 4} for method in methods}, packed=True)


if __name__ == "__main__":
    unittest.main()
