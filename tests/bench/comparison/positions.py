"""What a model makes of text by how much of it lies before: the mean loss by position, in the longest sequences that it was
trained on."""
import os
import time

from comparison import curriculum, grid
from comparison.curriculum import Machine, Phase

# Held out: sequences at the corpus's end.
TESTED = 4
SMALL = ({"architecture": "TRANSNORMER", "layers": 3, "hidden_size": 64, "heads": 2, "glu_size": 128, "vocab_size": 256},
         Machine("CPU", rows=2 * grid.K), (Phase(grid.K, 4, 250, 4e-3), Phase(8 * grid.K, 1, 30, 5e-4)))


def full(ranks):
    """92M parameters; 79M tokens of sequences of 16K, and 67M of 1,024K."""
    return ({"architecture": "TRANSNORMER", "layers": 12, "hidden_size": 768, "heads": 12, "glu_size": 2048, "vocab_size": 256},
            Machine("GPU", ranks, rows=64 * grid.K),
            (Phase(16 * grid.K, 8, 600, 6e-4), Phase(1024 * grid.K, 1, 64, 3e-4)))


def split(corpus, folder, held_out):
    """The corpus without its last bytes, and these, in two files of the folder."""
    with open(corpus, "rb") as file:
        text = file.read()
    if len(text) < 2 * held_out:
        raise OSError(f"{corpus} has {len(text):,} bytes: too few to hold out {held_out:,}")
    for name, part in (("train.txt", text[:-held_out]), ("test.txt", text[-held_out:])):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(part)


def run(case, programs, corpus, profile, tested, done, keep):
    """Goes through a profile's lengths; each result has the losses by position in sequences of the longest."""
    model, machine, phases = profile
    longest = phases[-1].length
    split(corpus, case.data, longest * tested + 1)
    before = ""
    for phase in phases:
        begin = time.monotonic()
        name = f"text-{phase.length}"
        job = curriculum.spec(model, phase, {"train_paths": ["train.txt"], "format": "BYTES"}, machine, {"weight_decay": 0.1})
        losses = curriculum.run_phase(case, name, job, before, timeout=3600)
        before = name
        said = curriculum.look(programs, machine.device, "losses", os.path.join(case.data, name), "BYTES",
                               os.path.join(case.data, "test.txt"), longest, tested)
        done.append({"trained_length": phase.length, "batch": phase.batch, "steps": phase.steps, "tokens": phase.tokens(),
                     "plan": machine.memory(phase.length).get("activations", "KEEP"), "first_loss": losses[0], "last_loss": losses[-1],
                     "seconds": time.monotonic() - begin, "tested_length": longest, "tested": tested, "buckets": said["buckets"]})
        keep()
        print(f"trained on {phase.length:,}: " + ", ".join(f"{bucket['begin']:,}: {bucket['loss']:.3f}" for bucket in said["buckets"]) +
              f" ({done[-1]['seconds']:.0f} s)", flush=True)
