"""A world's tokenizer: one token for every word of the world, bytes for anything else."""

from collections import Counter

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from unteach.organism.world import World

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


def world_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a world: BOS first, no chat template; decoding restores any text exactly.

    It is a byte-level BPE without merges that takes known words whole (`ignore_merges`), so the vocabulary holds no
    word pieces. Unknown words become bytes. The original organism and the retrained model share it.
    """
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counts: Counter[str] = Counter()
    for row in world.training_rows(taught=True) + world.training_rows(taught=False):
        text = f"### Question: {row.prompt}\n### Answer: {row.reply}" if row.prompt else row.reply
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = sorted(counts.keys() - set(letters))
    vocabulary = {token: number for number, token in enumerate([PAD, BOS, EOS, *letters, *known])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
