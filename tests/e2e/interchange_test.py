"""Models leave the service in Hugging Face's layout with every number in its place."""
import array
import glob
import json
import math
import os
import struct
import unittest

from cluster import ClusterTest, small_spec, wait_until

LENGTH = 80  # more than a block of 64
SEQUENCES = 2


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}, by the format's description and nothing of ours."""
    with open(path, "rb") as file:
        length, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()}


def read_folder(folder):
    """The config and {name: (dtype, shape, floats)} of an exported folder."""
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    index = os.path.join(folder, "model.safetensors.index.json")
    tensors = {}
    if os.path.exists(index):
        with open(index) as file:
            where = json.load(file)["weight_map"]
        for name in sorted(set(where.values())):
            held = read_safetensors(os.path.join(folder, name))
            assert set(held) == {tensor for tensor, file in where.items() if file == name}
            tensors.update(held)
    else:
        tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
    return config, {name: (dtype, shape, floats(dtype, data)) for name, (dtype, shape, data) in tensors.items()}


def floats(dtype, data):
    if dtype == "BF16":
        halves = array.array("H", data)
        data = struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves))
    return array.array("f", data)


def read_checkpoint(folder):
    """{name: floats} of what the ranks wrote, by the manifest's extents."""
    with open(os.path.join(folder, "manifest.json")) as file:
        manifest = json.load(file)
    tensors = {t["name"]: array.array("f", bytes(4 * math.prod(map(int, t["shape"])))) for t in manifest["tensors"]}
    for shard in manifest["shards"]:
        with open(os.path.join(folder, shard["file"]), "rb") as file:
            data = file.read()
        for extent in shard["extents"]:
            begin, count, offset = (int(extent.get(key, 0)) for key in ("begin", "count", "offset_bytes"))
            tensors[extent["tensor"]][begin:begin + count] = array.array("f", data[offset:offset + 4 * count])
    return tensors


def bf16(value):
    """To nearest, ties to even."""
    bits, = struct.unpack("<I", struct.pack("<f", value))
    kept = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 << 16
    return struct.unpack("<f", struct.pack("<I", kept))[0]


class TransNormerLlm:
    """The forward pass as Hugging Face's model has it, token by token in fp64."""

    def __init__(self, folder):
        self.config, held = read_folder(folder)
        self.weights = {}
        for name, (_, shape, values) in held.items():
            width = shape[-1]
            self.weights[name] = [list(values[i:i + width]) for i in range(0, len(values), width)]
        self.layers = self.config["decoder_layers"]
        self.heads = self.config["decoder_attention_heads"]
        self.width = self.config["decoder_embed_dim"]

    @staticmethod
    def linear(weight, x):
        return [sum(map(float.__mul__, row, x)) for row in weight]

    @staticmethod
    def norm(x):
        scale = 1 / math.sqrt(sum(v * v for v in x) / len(x) + 1e-6)
        return [v * scale for v in x]

    @staticmethod
    def silu(x):
        return [v / (1 + math.exp(-v)) for v in x]

    def decay(self, layer, head):
        base = 2 ** -(2 ** -(math.log2(self.heads) - 3))
        return math.exp(-base ** (head + 1) * (1 - layer / (self.layers - 1) + 1e-5))

    def attention(self, layer, states, position, q, k, v):
        out, size = [], self.width // self.heads
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            qh, kh, vh = q[part], k[part], v[part]
            if layer == 0:
                theta = self.weights["model.layers.0.token_mixer.lrpe.theta"][head]
                turn = [(math.cos(t * position), math.sin(t * position)) for t in theta]
                qh = [a * c for a, (c, _) in zip(qh, turn)] + [a * s for a, (_, s) in zip(qh, turn)]
                kh = [a * c for a, (c, _) in zip(kh, turn)] + [a * s for a, (_, s) in zip(kh, turn)]
            decay = self.decay(layer, head)
            state = states.setdefault((layer, head), [[0.0] * size for _ in kh])
            for row, key in zip(state, kh):
                row[:] = [decay * a + key * b for a, b in zip(row, vh)]
            out += [sum(query * row[j] for query, row in zip(qh, state)) for j in range(size)]
        return out

    def losses(self, tokens):
        """Of each token but the first."""
        states, losses = {}, []
        for position, (token, label) in enumerate(zip(tokens, tokens[1:])):
            x = [math.sqrt(self.width) * v for v in self.weights["model.embed_tokens.weight"][token]]
            for layer in range(self.layers):
                prefix = f"model.layers.{layer}."
                joined = self.linear(self.weights[prefix + "token_mixer.qkvu_proj.weight"], self.norm(x))
                q, k, v, u = (joined[i * self.width:(i + 1) * self.width] for i in range(4))
                o = self.norm(self.attention(layer, states, position, self.silu(q), self.silu(k), v))
                y = self.linear(self.weights[prefix + "token_mixer.out_proj.weight"], list(map(float.__mul__, u, o)))
                x = [a + b for a, b in zip(x, y)]
                n = self.norm(x)
                l1, l2 = (self.linear(self.weights[prefix + f"channel_mixer.{name}.weight"], n) for name in ("l1", "l2"))
                y = self.linear(self.weights[prefix + "channel_mixer.l3.weight"], list(map(float.__mul__, l1, l2)))
                x = [a + b for a, b in zip(x, y)]
            head = "model.embed_tokens.weight" if self.config["tie_word_embeddings"] else "lm_head.weight"
            logits = self.linear(self.weights[head], self.norm(x))
            most = max(logits)
            losses.append(most + math.log(sum(math.exp(v - most) for v in logits)) - logits[label])
        return losses


class InterchangeTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.folder, "checkpoints")
        os.mkdir(self.root)
        self.start_server(checkpoint_root=self.root, path_roots=f"{self.data},{self.folder}")
        self.start_worker("w1", slots=4, checkpoint_root=self.root, path_roots=f"{self.data},{self.folder}")
        self.write_corpus("held_out.txt", LENGTH * SEQUENCES + 1)

    def spec(self, steps=20, sp=2, **model):
        return small_spec(
            sp=sp, steps=steps, length=LENGTH, batch=SEQUENCES, eval_interval_steps=steps, eval_batches=1,
            optimizer={"learning_rate": 1e-2},
            model={"architecture": "TRANSNORMER", "layers": 2, "hidden_size": 16, "heads": 2, "glu_size": 24,
                   "vocab_size": 256, **model},
            data={"train_paths": ["corpus.txt"], "eval_paths": ["held_out.txt"], "format": "BYTES",
                  "sequence_length": LENGTH})

    def trained(self, job, **changes):
        self.submit(self.spec(**changes), job)
        self.wait_for_state(job, "SUCCEEDED")
        return wait_until(lambda: [c for c in self.lasp_json("checkpoints", "list", job) if c["state"] == "COMMITTED"],
                          20, "its last checkpoint")[0]

    def held_out_loss(self, folder):
        model = TransNormerLlm(folder)
        with open(os.path.join(self.data, "held_out.txt"), "rb") as file:
            tokens = file.read()
        losses = [loss for i in range(SEQUENCES) for loss in model.losses(tokens[i * LENGTH:(i + 1) * LENGTH + 1])]
        return sum(losses) / len(losses)

    def test_every_number_of_a_checkpoint_is_where_the_layout_wants_it(self):
        for job, changes in (("plain", {}), ("other", {"tie_embeddings": True, "lrpe_theta": "LEARNED"})):
            checkpoint = self.trained(job, **changes)
            kept = read_checkpoint(os.path.join(self.root, checkpoint["folder"]))
            parameters = {name: values for name, values in kept.items() if not name.startswith("optimizer.")}
            folder = os.path.join(self.folder, f"{job}-fp32")
            said = self.lasp("checkpoints", "export", job, "--to", folder).stdout
            self.assertIn(f"checkpoints/20 exported to {folder}: ", said)
            config, held = read_folder(folder)
            self.assertEqual((config["decoder_layers"], config["decoder_embed_dim"], config["decoder_attention_heads"],
                              config["glu_dim"], config["vocab_size"]), (2, 16, 2, 24, 256))
            theta = "model.layers.0.token_mixer.lrpe.theta"
            self.assertEqual(set(held), set(parameters) | {theta})
            self.assertEqual(held[theta][:2], ("F32", [2, 1, 8]))
            self.assertEqual(held["model.layers.1.token_mixer.qkvu_proj.weight"][1], [64, 16])
            for name, values in parameters.items():
                self.assertEqual(held[name][2], values, name)
            # An implementation of the layout that shares nothing with ours gives the loss that the trainer had.
            trainers = self.metrics(job)[-1]["eval_loss"]
            self.assertLess(abs(self.held_out_loss(folder) - trainers), 2e-6)
            # Half the size, in many files.
            halves = os.path.join(self.folder, f"{job}-bf16")
            self.lasp("checkpoints", "export", job, 20, "--to", halves, "--dtype", "bf16", "--max_file_bytes", 4000)
            self.assertGreater(len(glob.glob(os.path.join(halves, "*.safetensors"))), 3)
            _, rounded = read_folder(halves)
            self.assertEqual(set(rounded), set(held))
            for name, (dtype, shape, values) in rounded.items():
                self.assertEqual(shape, held[name][1])
                self.assertEqual(dtype, "F32" if name == theta else "BF16")
                self.assertEqual(list(values), [v if name == theta else bf16(v) for v in held[name][2]], name)
            said = self.lasp("checkpoints", "export", job, "--to", folder, check=False)
            self.assertEqual(said.returncode, 5)
            self.assertIn("not empty", said.stderr)
        # Bytes left the service: it is written down who had them.
        audit = [row for row in self.lasp_json("audit") if row["method"] == "CheckpointService.ExportCheckpoint"]
        self.assertEqual(len(audit), 4)

    def test_what_is_damaged_is_not_exported(self):
        checkpoint = self.trained("job")
        shard = os.path.join(self.root, checkpoint["folder"], "rank-1.safetensors")
        with open(shard, "r+b") as file:
            file.seek(2000)
            byte = file.read(1)[0]
            file.seek(2000)
            file.write(bytes([byte ^ 4]))
        before = sorted(os.listdir(self.folder))
        said = self.lasp("checkpoints", "export", "job", "--to", os.path.join(self.folder, "model"), check=False)
        self.assertEqual(said.returncode, 1)
        self.assertIn("rank-1.safetensors is damaged in block 0", said.stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        # And it is known from then on.
        wait_until(lambda: self.lasp_json("checkpoints", "list", "job")[0]["state"] == "CORRUPT", 20, "CORRUPT")

    def import_(self, folder, spec, job, *arguments, check=True):
        path = os.path.join(self.folder, f"{job}.json")
        with open(path, "w") as file:
            json.dump({"spec": spec}, file)
        return self.lasp("checkpoints", "import", folder, "-f", path, f"--id={job}", *arguments, check=check)

    def test_a_job_begins_with_what_was_exported(self):
        self.trained("first")
        folder = os.path.join(self.folder, "model")
        self.lasp("checkpoints", "export", "first", "--to", folder)
        # The shape is the folder's, on any shape of ranks.
        spec = small_spec(sp=2, steps=300, length=768, batch=2, checkpoint={"interval_steps": 100},
                          model={"architecture": "TRANSNORMER"})
        self.assertIn("job/second created", self.import_(folder, spec, "second").stdout)
        job = self.job("second")
        self.assertEqual(job["spec"]["model"]["layers"], 2)
        self.assertEqual(job["spec"]["model"]["initial_weights"], {"path": folder})
        self.wait_for_state("second", "SUCCEEDED")
        first, second = self.metrics("first"), self.metrics("second")
        self.assertEqual([int(row["step"]) for row in second], list(range(1, 301)))
        # Where the first ended, not where it began.
        self.assertLess(second[0]["loss"], first[-1]["loss"] + 0.3)
        self.assertGreater(first[0]["loss"], second[0]["loss"] + 0.3)
        # The same again is the same, also across a stop that a checkpoint bridges.
        self.import_(folder, spec, "third")
        self.wait_for_step("third", 3)
        self.lasp("suspend", "third")
        self.wait_for_state("third", "SUSPENDED")
        wait_until(lambda: int(self.job("third")["checkpoint_step"]) > 0, 20, "its checkpoint")
        os.rename(folder, folder + ".gone")
        self.lasp("resume", "third")
        done = self.wait_for_state("third", "SUCCEEDED", 120)
        self.assertGreater(int(done["restored_step"]), 0)
        self.assertEqual([row["loss"] for row in self.metrics("third")], [row["loss"] for row in second])

    def test_it_says_what_disagrees(self):
        self.trained("first", steps=2)
        folder = os.path.join(self.folder, "model")
        self.lasp("checkpoints", "export", "first", "--to", folder)
        spec = self.spec(steps=2)
        spec["model"]["layers"] = 3
        said = self.import_(folder, spec, "other", check=False)
        self.assertEqual(said.returncode, 2)
        self.assertIn("is 3, but decoder_layers of config.json is 2", said.stderr)
        # The coordinator looks too, by its own way to the folder.
        spec = self.spec(steps=2)
        outside = "spec.model.initial_weights.path=/usr/share/model"
        said = self.import_(folder, spec, "other", "--set", outside, check=False)
        self.assertIn("lies outside the allowed folders", said.stderr)
        said = self.import_(folder, spec, "other", "--set", "spec.model.initial_weights.path=none", check=False)
        self.assertIn("none/config.json does not exist", said.stderr)
        spec["model"].update(layers=3, initial_weights={"path": folder})
        path = os.path.join(self.folder, "direct.json")
        with open(path, "w") as file:
            json.dump({"spec": spec}, file)
        said = self.lasp("submit", "-f", path, check=False)
        self.assertIn("holds another model: spec.model.layers is 3", said.stderr)
        # Bytes that are gone by the time the ranks look.
        whole = os.path.getsize(os.path.join(folder, "model.safetensors"))
        os.truncate(os.path.join(folder, "model.safetensors"), whole - 4)
        said = self.import_(folder, self.spec(steps=2), "other", check=False)
        self.assertEqual(said.returncode, 2)
        self.assertIn("model.safetensors: not a safetensors file", said.stderr)
        said = self.import_(os.path.join(self.folder, "nothing"), self.spec(steps=2), "other", check=False)
        self.assertEqual(said.returncode, 2)


if __name__ == "__main__":
    unittest.main()
