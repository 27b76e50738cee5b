"""Whether sequence parallelism changes what is learned: final losses with and without it, under every DP method, through the
whole service."""
import collections
import contextlib
import fcntl
import hashlib
import json
import math
import os
import subprocess
import tempfile

from comparison import grid

SEQUENCE = 16 * grid.K
BATCH = 8
STEPS = 800
# The mean of the last ones is the final loss.
LAST_STEPS = 40
MODELS = ("TRANSNORMER", "LINEAR_TRANSFORMER")
# What a pair may differ by.
BAR = 0.005
# Of the README of LASP's repository (github.com/OpenNLPLab/LASP): 0.4B parameters, 8 A100, 16K sequences, 50K updates. By
# method, without and with LASP: TransNormerLLM, Linear Transformer.
PUBLISHED = {"DDP": (3.719, 3.715, 5.419, 5.408), "Legacy DDP": (3.709, 3.705, 5.425, 5.413), "FSDP": (3.717, 3.714, 5.428, 5.441),
             "ZeRO-1": (3.653, 3.653, 5.114, 5.118), "ZeRO-2": (3.655, 3.649, 5.105, 5.120), "ZeRO-3": (3.656, 3.649, 5.110, 5.123)}


def spec(model, data_parallel, sp, ranks, device, steps, sequence):
    """About 92M parameters, on bytes; the batches of a step are the same however it is laid out."""
    dp = ranks // sp
    return {
        "model": {"architecture": model, "layers": 12, "hidden_size": 768, "heads": 12, "glu_size": 2048, "vocab_size": 256},
        "data": {"train_paths": ["corpus.txt"], "format": "BYTES", "sequence_length": sequence},
        # To next to nothing: while it is large, runs that differ by roundings end up to 0.5 % apart.
        "optimizer": {"learning_rate": 4e-4, "min_learning_rate": 4e-6, "warmup_steps": max(1, steps // 10), "schedule": "COSINE",
                      "weight_decay": 0.1},
        "parallelism": {"sequence_parallel": {"method": "LASP", "size": sp},
                        "data_parallel": {"method": data_parallel, "size": dp}},
        "global_batch_size": BATCH, "micro_batch_size": BATCH // ranks, "max_steps": steps, "seed": 1, "device": device,
    }


def key(model, data_parallel, sp):
    return f"{model} {data_parallel} SP {sp}"


def runs(ranks):
    return [(model, method, sp) for model in MODELS for method in grid.DP_METHODS for sp in (1, ranks)]


def write_corpus(path, size):
    """The C sources of Debian's Linux, in the order of their names, so many bytes of them."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "linux-source-6.1"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        package = next(name for name in os.listdir(folder) if name.endswith(".deb"))
        subprocess.run(["dpkg-deb", "-x", package, "."], cwd=folder, check=True)
        archive = os.path.join(folder, "usr", "src", "linux-source-6.1.tar.xz")
        subprocess.run(["tar", "-xJf", archive, "--wildcards", "*.c"], cwd=folder, check=True)
        sources = sorted(os.path.join(root, name) for root, _, names in os.walk(os.path.join(folder, "linux-source-6.1")) for name in names)
        # Drivers are most of it: every place of the tree has its part.
        written = 0
        with open(path, "wb") as corpus:
            for source in sources[::7] + sources[1::7] + sources[2::7]:
                if written >= size or os.path.islink(source):
                    continue
                with open(source, "rb") as file:
                    written += corpus.write(file.read()[:size - written])
    return written


def train(case, name, job_spec, timeout):
    """A job's losses by step."""
    case.submit(job_spec, name)
    case.wait_for_state(name, "SUCCEEDED", timeout)
    return [row["loss"] for row in sorted(case.metrics(name), key=lambda row: int(row["step"]))]


def results_of(path):
    if not os.path.exists(path):
        return {"runs": {}}
    with open(path) as file:
        return json.load(file)


@contextlib.contextmanager
def changing(path):
    """What the file holds, to be changed; others that change it at the same time wait."""
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = results_of(path)
        yield content
        with open(path + ".new", "w") as file:
            json.dump(content, file, indent=1)
        os.replace(path + ".new", path)


def order_1_entropy(text):
    """Nats a byte of the best model that knows the byte before alone."""
    pairs = collections.Counter(zip(text, text[1:]))
    before = collections.Counter(text[:-1])
    return -sum(count * math.log(count / before[pair[0]]) for pair, count in pairs.items()) / (len(text) - 1)


def claim_corpus(path, corpus):
    """All runs of the file at `path` are on one corpus: notes which. ValueError where its runs so far had another."""
    with open(corpus, "rb") as file:
        text = file.read()
    digest = hashlib.sha256(text).hexdigest()
    with changing(path) as content:
        if "corpus" not in content:
            content["corpus"] = {"sha256": digest, "bytes": len(text), "order_1_entropy": order_1_entropy(text)}
        if content["corpus"]["sha256"] != digest:
            raise ValueError(f"{corpus} is not the corpus of the runs in {path}: sha256 {digest}, not {content['corpus']['sha256']}")


def keep(path, run, said, gpus):
    """Adds a run's result to the file."""
    with changing(path) as content:
        content.update(gpu=gpus[0] if gpus else "CPU", gpus=len(gpus))
        content["runs"][key(*run)] = said


def run_one(case, run, ranks, device, steps, sequence, timeout=900):
    model, method, sp = run
    losses = train(case, f"{model.lower().replace('_', '-')}-{method.lower().replace('_', '-')}-{sp}",
                   spec(model, method, sp, ranks, device, steps, sequence), timeout)
    last = losses[-min(LAST_STEPS, steps):]
    return {"model": model, "data_parallel": method, "sp": sp, "ranks": ranks, "steps": steps,
            "tokens": steps * BATCH * sequence, "first_loss": losses[0], "final_loss": sum(last) / len(last)}


def row_of(method, pairs, digits):
    """Of Markdown: each pair, which may not be whole yet, and what it differs by."""
    cells = [method]
    for pair in pairs:
        cells += [f"{loss:.{digits}f}" for loss in pair] + [""] * (2 - len(pair))
        cells.append(f"{100 * (pair[1] / pair[0] - 1):+.3f} %" if len(pair) == 2 else "")
    return f"| {' | '.join(cells)} |"


def head_of(models):
    yield "| method | " + " | ".join(f"{model} | with LASP | difference" for model in models) + " |"
    yield "|---" * (1 + 3 * len(models)) + "|"


def table(results):
    """Rows of Markdown."""
    models = [model for model in MODELS if any(cell["model"] == model for cell in results.values())]
    yield from head_of(models)
    for method in grid.DP_METHODS:
        cells = [sorted((cell for cell in results.values() if (cell["model"], cell["data_parallel"]) == (model, method)),
                        key=lambda cell: cell["sp"]) for model in models]
        yield row_of(method, [[cell["final_loss"] for cell in pair] for pair in cells], 4)
    yield ""


def published_table():
    yield from head_of(("TransNormerLLM", "Linear Transformer"))
    for method, losses in PUBLISHED.items():
        yield row_of(method, [losses[:2], losses[2:]], 3)
    yield ""
