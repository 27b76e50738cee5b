"""`lasp sample` and `lasp evaluate`: what a trained checkpoint writes, and its loss on data."""
import json
import math
import os
import signal
import subprocess
import time
import unittest

from cluster import BIN, ClusterTest, is_alive, children_of, small_spec, wait_until

LENGTH = 96  # more than a block of 64
SENTENCE = "the lazy dog sleeps.\n"


class ModelTest(ClusterTest):
    def setUp(self):
        super().setUp()
        root = os.path.join(self.folder, "checkpoints")
        self.temporary = os.path.join(self.folder, "tmp")
        for folder in (root, self.temporary):
            os.mkdir(folder)
        with open(os.path.join(self.data, "corpus.txt"), "w") as file:
            file.write(SENTENCE * 3000)
        self.write_corpus("held_out.txt", 20 * LENGTH + 40)
        self.start_server(checkpoint_root=root)
        self.start_worker("w1", slots=1, checkpoint_root=root)
        os.environ["TMPDIR"] = self.temporary  # of the commands that follow
        self.addCleanup(os.environ.pop, "TMPDIR")

    def held_out(self):
        return os.path.join(self.data, "held_out.txt")

    def train(self, job="job", steps=400, **changes):
        spec = small_spec(steps=steps, length=LENGTH, batch=4, eval_interval_steps=steps, eval_batches=2,
                          optimizer={"learning_rate": 1e-2, "warmup_steps": min(5, steps)},
                          data={"train_paths": ["corpus.txt"], "eval_paths": ["held_out.txt"], "format": "BYTES",
                                "sequence_length": LENGTH}, **changes)
        self.submit(spec, job)
        self.wait_for_state(job, "SUCCEEDED", 120)
        wait_until(lambda: [c for c in self.lasp_json("checkpoints", "list", job) if c["state"] == "COMMITTED"], 20,
                   "its last checkpoint")
        return job

    def sample(self, *arguments, **options):
        return self.lasp("sample", *arguments, "--device", "CPU", **options)

    def tokens(self, *arguments, **options):
        """Of each sample; as numbers, since what is drawn need not be text."""
        made = json.loads(self.sample(*arguments, "-o", "json", **options).stdout)
        return [sample["tokens"] for sample in made["samples"]]

    def evaluate(self, *arguments):
        return self.lasp_json("evaluate", *arguments, "--device", "CPU")

    def fails(self, code, words, *arguments):
        said = self.lasp(*arguments, check=False)
        self.assertEqual((said.returncode, said.stdout), (code, ""), said.stderr)
        self.assertIn(words, said.stderr)

    def test_a_checkpoint_goes_on_with_what_it_has_learned(self):
        self.train()
        greedy = self.sample("job", "--prompt", "the lazy dog sle", "-n", 50, "--temperature", 0).stdout
        self.assertEqual(greedy, (SENTENCE * 4)[16:66])
        # A prompt of several chunks, from a file and from a pipe; and a folder that stays.
        path = os.path.join(self.folder, "prompt")
        with open(path, "w") as file:
            file.write(SENTENCE * 60)
        kept = os.path.join(self.folder, "kept")
        drawn = self.tokens("job/400", "--prompt_file", path, "-n", 30, "--temperature", 0, "--keep", kept)
        piped = self.tokens("--model", kept, "--prompt_file", "-", "-n", 30, "--temperature", 0, input=SENTENCE * 60)
        self.assertEqual(drawn, piped)
        # The same seed, the same text, from the folder as from the service.
        drawn = [self.tokens(*model, "--prompt", "the", "-n", 40, "--temperature", 2, "--seed", seed)[0]
                 for model, seed in ((["job"], 7), (["--model", kept], 7), (["job", "400"], 8))]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])
        made = json.loads(self.sample("--model", kept, "--prompt_tokens", "116,104,101", "-n", 40, "--temperature", 2,
                                      "--seed", 7, "--samples", 2, "-o", "json").stdout)
        self.assertEqual((made["prompt_tokens"], made["seed"], made["device"]), ([116, 104, 101], 7, "CPU"))
        self.assertEqual([len(sample["tokens"]) for sample in made["samples"]], [40, 40])
        self.assertEqual(made["samples"][0]["tokens"], drawn[0])
        self.assertNotEqual(made["samples"][0], made["samples"][1])
        # Nothing but what was asked for stays.
        self.assertEqual(os.listdir(self.temporary), [])

    def test_its_loss_is_the_jobs(self):
        self.train(steps=20)
        trainers = self.metrics("job")[-1]["eval_loss"]
        # As many as the job takes: 2 batches of 4 sequences.
        found = self.evaluate("job", "--data", self.held_out(), "-n", 8 * LENGTH)
        self.assertLess(abs(found["loss"] / trainers - 1), 1e-6)
        self.assertEqual((found["tokens"], found["sequences"], found["sequence_length"]), (8 * LENGTH, 8, LENGTH))
        self.assertAlmostEqual(found["perplexity"], math.exp(found["loss"]), 6)
        self.assertAlmostEqual(found["bits_per_byte"], found["loss"] / math.log(2), 9)
        whole = self.lasp("evaluate", "job/20", "--data", self.held_out()).stdout
        self.assertIn(f"{20 * LENGTH} in 20 sequences of {LENGTH}", whole)
        # One sequence longer than what is computed at a time.
        path = os.path.join(self.data, "long.txt")
        self.write_corpus("long.txt", 9001)
        long = self.evaluate("job", "--data", path, "--sequence_length", 9000)
        self.assertEqual((long["tokens"], long["sequences"]), (9000, 1))
        # Parts of a corpus are one stream.
        with open(path) as file:
            text = file.read()
        parts = []
        for name, part in (("a", text[:5000]), ("b", text[5000:])):
            parts += ["--data", os.path.join(self.data, name)]
            with open(parts[-1], "w") as file:
                file.write(part)
        joined = self.evaluate("job", *parts, "-l", 9000)
        self.assertEqual(joined["loss"], long["loss"])
        self.assertEqual(os.listdir(self.temporary), [])

    def test_tokens_that_are_no_bytes(self):
        spec = small_spec(steps=2, length=64, model={"architecture": "TRANSNORMER", "layers": 1, "hidden_size": 16,
                                                     "heads": 2, "glu_size": 16, "vocab_size": 1000},
                          data={"train_paths": ["tokens.bin"], "format": "UINT16", "sequence_length": 64})
        path = os.path.join(self.data, "tokens.bin")
        with open(path, "wb") as file:
            file.write(b"".join((i * 37 % 1000).to_bytes(2, "little") for i in range(2000)))
        self.submit(spec, "numbers")
        self.wait_for_state("numbers", "SUCCEEDED")
        wait_until(lambda: self.lasp_json("checkpoints", "list", "numbers")[0]["state"] == "COMMITTED", 20, "its end")
        made = self.sample("numbers", "--prompt_tokens", "999,0", "-n", 5, "--seed", 1).stdout
        tokens = [int(token) for token in made.split(" ")]
        self.assertEqual(len(tokens), 5)
        self.assertTrue(all(0 <= token < 1000 for token in tokens))
        self.fails(2, "a vocabulary of 1000 tokens", "sample", "numbers", "--prompt", "text")
        self.fails(2, "token 1000 at 1 of the prompt is outside the model's vocabulary of 1000", "sample", "numbers",
                   "--prompt_tokens", "5,1000", "--device", "CPU")
        found = self.evaluate("numbers", "--data", path)
        self.assertNotIn("bits_per_byte", found)
        self.assertEqual(found["format"], "UINT16")

    def test_it_says_what_is_wrong(self):
        self.train(steps=2)
        folder = os.path.join(self.folder, "model")
        self.lasp("checkpoints", "export", "job", "--to", folder)
        prompt = ("--prompt", "x", "--device", "CPU")
        self.fails(3, "there is no job 'nothing'", "sample", "nothing", *prompt)
        self.fails(3, "no checkpoint of step 77", "sample", "job/77", *prompt)
        self.fails(2, "which model?", "sample", *prompt)
        self.fails(2, "which model?", "sample", "job", "--model", folder, *prompt)
        self.fails(2, "expected one of --prompt", "sample", "job")
        self.fails(2, "the prompt is empty", "sample", "job", "--prompt", "")
        self.fails(2, "No such file", "sample", "job", "--prompt_file", os.path.join(self.folder, "none"))
        self.fails(2, "--temperature -1: expected", "sample", "job", *prompt, "--temperature=-1")
        self.fails(2, "--top_p 0: expected", "sample", "job", *prompt, "--top_p", 0)
        self.fails(2, "config.json", "sample", "--model", os.path.join(self.folder, "none"), *prompt)
        self.fails(5, "not empty", "sample", "job", "--keep", folder, *prompt)
        # A path of this machine is nothing that the coordinator has or has not.
        inside = os.path.join(self.folder, "none", "model")
        self.fails(2, inside, "checkpoints", "export", "job", "--to", inside)
        os.environ["TMPDIR"] = os.path.dirname(inside)
        self.fails(2, "making a temporary folder in " + os.path.dirname(inside), "sample", "job", *prompt)
        os.environ["TMPDIR"] = self.temporary
        self.fails(2, "on which data?", "evaluate", "job")
        self.fails(2, "does not exist", "evaluate", "job", "--data", os.path.join(self.folder, "none"))
        self.fails(2, "give --sequence_length", "evaluate", "--model", folder, "--data", self.held_out())
        self.fails(2, "fewer than sequence length + 1", "evaluate", "job", "--data", self.held_out(), "-l", 1000000)
        self.fails(5, "lasp-none", "sample", "job", *prompt, "--model_program", os.path.join(self.folder, "lasp-none"))
        # No program for GPUs, or no GPU: where one is asked for, that is an error.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.addCleanup(os.environ.pop, "CUDA_VISIBLE_DEVICES")
        self.fails(5, "cuda", "sample", "job", "--prompt", "x", "--device", "GPU")
        # Damage is found before a byte of text.
        weights = os.path.join(folder, "model.safetensors")
        os.truncate(weights, os.path.getsize(weights) - 4)
        self.fails(2, "model.safetensors", "sample", "--model", folder, *prompt)
        self.assertEqual(os.listdir(self.temporary), [])

    def start_sample(self, *arguments):
        command = [os.path.join(BIN, "lasp"), "sample", "job", "-n", "1000000000", "--device", "CPU", *arguments]
        process = subprocess.Popen(command, env=dict(os.environ, LASP_SERVER=self.server.api_address),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.others.append(process)
        return process

    def test_ctrl_c_ends_it_and_leaves_nothing(self):
        self.train(steps=2)
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start_sample("--prompt", "x")
            self.assertTrue(process.stdout.read(1))
            child, = children_of(process.pid)
            process.send_signal(number)
            began = time.monotonic()
            process.communicate(timeout=20)
            self.assertEqual(process.returncode, 128 + number)
            self.assertLess(time.monotonic() - began, 10)
            self.assertFalse(is_alive(child))
            self.assertEqual(os.listdir(self.temporary), [])

    def test_who_still_types_the_prompt_holds_no_folder(self):
        self.train(steps=2)
        process = self.start_sample("--prompt_file", "-")
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        self.assertEqual(os.listdir(self.temporary), [])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(os.listdir(self.temporary), [])


if __name__ == "__main__":
    unittest.main()
