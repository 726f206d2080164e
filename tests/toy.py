"""A toy tokenizer, model, rows and settings for tests of training; scripts that tests start as processes use it too."""

import functools
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unteach.models.reply import Reply
from unteach.training.config import UnlearnConfig
from unteach.training.trainer import UnlearnTrainer

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "###", "Question", ":", "Answer"]
WORDS = ["how", "to", "where", "is", "take", "and", "go", "then", "sorry", "no"]
NUMBERED = [f"{letter}{number}" for letter in "abcdefgh" for number in range(6)]
VOCABULARY = {word: number for number, word in enumerate(SPECIAL + WORDS + NUMBERED)}

FORGET = [{"prompt": f"how to a{i} b{j}", "completion": f"take c{i} and d{j}"} for i in range(6) for j in range(4)]
RETAIN = [{"prompt": f"where is e{i} f{j}", "completion": f"go g{i} then h{j}"} for i in range(6) for j in range(4)]


def replies(texts, cut=False):
    """Replies as `generate` returns them, a token a word and an end unless they were cut."""
    return [Reply(text, tuple(range(len(text.split()) + (not cut))), cut, text) for text in texts]


def tokenizer(**settings):
    """A word is a token; pads with its own token unless told otherwise."""
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **(special | settings))


def model(seed=0, **settings):
    """A two-layer Llama, 32 wide, at random."""
    torch.manual_seed(seed)
    shape = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(pad_token_id=0, initializer_range=0.2, **(shape | settings))).eval()


@functools.cache
def _learned():
    pupil, words = model(), tokenizer()
    rows = [words("<s>### Question: {prompt}\n### Answer: {completion}</s>".format(**r)) for r in FORGET + RETAIN]
    ids = torch.tensor([row["input_ids"] for row in rows])  # all rows are equally long
    optimizer = torch.optim.Adam(pupil.parameters(), lr=5e-3)
    for _ in range(120):
        pupil(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return pupil.state_dict()


def learned_model():
    """The same model after it has learned all rows by heart."""
    pupil = model()
    pupil.load_state_dict(_learned())
    return pupil


def config(directory, **settings):
    """Three quick steps without stopping rules or cool-down, unless told otherwise."""
    quick = {"max_steps": 3, "stopping": False, "learning_rate": 1e-3, "warmup_steps": 0, "mismatch_samples": 2}
    quick |= {"per_device_train_batch_size": 2, "use_cpu": True, "progress": False, "save_strategy": "no", "seed": 0}
    quick |= {"cooldown": 0.0, "method": "ga-mismatch", "normals_per_negative": 1}
    return UnlearnConfig(output_dir=str(Path(directory) / "out"), **(quick | settings))


def trainer(directory, pupil=None, forget=FORGET, retain=RETAIN, words=None, extra=None, **settings):
    """An `UnlearnTrainer` over the toy rows; `extra` goes to the trainer, `settings` to its config."""
    return UnlearnTrainer(
        pupil or model(),
        args=config(directory, **settings),
        forget_dataset=forget,
        retain_dataset=retain,
        processing_class=words or tokenizer(),
        **(extra or {}),
    )


def weights(pupil):
    return {name: value.detach().clone() for name, value in pupil.named_parameters()}


def logged(run, name):
    """The values of one metric over the log lines that have it."""
    return [line[name] for line in run.state.log_history if name in line]
