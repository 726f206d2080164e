"""Public sets by name: what each is, where its files are, and at which revision.

A name may be followed by a colon and a configuration: `tofu:forget10`. Only data files are named here, never a loading
script. The revisions are commits of the hub. This table was written without a connection to the hub; `seen` says where
each revision, with its fields and files, was found instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from unteach.data.example import Polarity
from unteach.errors import DataError, nearest


@dataclass(frozen=True)
class Configuration:
    """A part of a set that is read on its own.

    `files` are paths in the hub's repository by split; the first split is read unless another is asked for. `key` is
    the field of a JSON file that holds the rows, where they are nested. `rows` counts those of the first split, as
    published; empty where we do not know.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    rows: str = ""
    key: str | None = None


@dataclass(frozen=True)
class PublicSet:
    """A published set: its source and licence, and what its negatives and normals are.

    `usual` names the configuration that is read for each polarity where none is given; a polarity that is missing
    has none. An empty `negatives` or `normals` means that the set has no such rows.
    """

    name: str
    hub_id: str
    revision: str
    seen: str
    licence: str
    citation: str
    summary: str
    fields: str
    negatives: str
    normals: str
    configurations: tuple[Configuration, ...]
    usual: Mapping[Polarity, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def configuration(self, name: str) -> Configuration | None:
        """Return the configuration of that name, in whatever case; None where there is none."""
        return next((one for one in self.configurations if one.name.lower() == name.lower()), None)


@dataclass(frozen=True)
class Chosen:
    """The set and the configuration that a source names."""

    set: PublicSet
    configuration: Configuration

    @property
    def name(self) -> str:
        """The source as it is written, e.g. "tofu:forget10"."""
        several = len(self.set.configurations) > 1
        return f"{self.set.name}:{self.configuration.name}" if several else self.set.name


def is_public(source: str) -> bool:
    """Tell whether a source names a public set, with or without a configuration."""
    return source.partition(":")[0].strip().lower() in SETS


def find(source: str, polarity: Polarity | None = None) -> Chosen:
    """Return the set and configuration that a source names; `polarity` decides where no configuration is named.

    Raises DataError for an unknown set or configuration, and for a polarity that the set does not have.
    """
    name, colon, wanted = (part.strip() for part in source.partition(":"))
    known = SETS.get(name.lower())
    if known is None:
        raise DataError(f"{source}: no public set of that name{nearest(name, SETS)} (known: {', '.join(SETS)})")
    if (polarity == "negative" and not known.negatives) or (polarity == "normal" and not known.normals):
        raise DataError(
            f"{source}: this set has no {polarity}s ({known.summary}); give another set, or a local copy of its rows "
            "if you want them all the same"
        )
    if not colon:
        wanted = known.usual.get(polarity or "negative", "") or known.usual.get("normal", "")
    chosen = known.configuration(wanted)
    if chosen is None:
        names = [one.name for one in known.configurations]
        problem = f"no configuration '{wanted}'{nearest(wanted, names) or '.'}" if wanted else "which configuration?"
        raise DataError(f"{source}: {problem} Write {known.name}: and one of {', '.join(names)}")
    return Chosen(known, chosen)


def _safer(name: str, folders: tuple[str, ...], rows: str = "") -> Configuration:
    return Configuration(
        name, {split: tuple(f"data/{folder}/{split}.jsonl" for folder in folders) for split in ("train", "test")}, rows
    )


def _helpful(name: str, rows: str = "") -> Configuration:
    return Configuration(name, {split: (f"{name}/{split}.jsonl.gz",) for split in ("train", "test")}, rows)


def _tofu(name: str, rows: str = "") -> Configuration:
    return Configuration(name, {"train": (f"{name}.json",)}, rows)


def _by_type(file: str, *types: str) -> tuple[Configuration, ...]:
    return tuple(Configuration(name, {"train": (file,)}, key=name) for name in types)


_OFFENSIVE = "holds offensive and harmful text"
_NOT_COMMERCIAL = "licence forbids commercial use"
_LISTED = "the hub's own page of this commit, in a stored copy"
_QUOTED = "quoted by several public repositories that pin it; the file names by the hub's own pages"

_ALL = (
    PublicSet(
        name="pku-saferlhf",
        hub_id="PKU-Alignment/PKU-SafeRLHF",
        revision="d79b19b2043c4b168d8d64c61ef4ba4ed1ffe2c0",
        seen=_LISTED,
        licence="CC-BY-NC-4.0",
        citation="Ji et al., PKU-SafeRLHF, arXiv 2406.15513",
        summary="two replies of Alpaca models to a risky prompt, each flagged safe or not by people",
        fields=(
            "prompt, response_0, response_1, is_response_0_safe, is_response_1_safe, response_0_harm_category, "
            "response_1_harm_category, response_0_severity_level, response_1_severity_level, better_response_id, "
            "safer_response_id, prompt_source, response_0_source, response_1_source, response_0_sha256, "
            "response_1_sha256"
        ),
        negatives="replies flagged unsafe; their harm categories are the concept",
        normals="replies flagged safe, to the same kind of prompts",
        configurations=(
            _safer("default", ("Alpaca-7B", "Alpaca2-7B", "Alpaca3-8B"), "73.9k"),
            _safer("alpaca-7b", ("Alpaca-7B",)),
            _safer("alpaca2-7b", ("Alpaca2-7B",)),
            _safer("alpaca3-8b", ("Alpaca3-8B",)),
        ),
        usual={"negative": "default", "normal": "default"},
        warnings=(_OFFENSIVE, _NOT_COMMERCIAL),
    ),
    PublicSet(
        name="beavertails",
        hub_id="PKU-Alignment/BeaverTails",
        revision="8401fe609d288129cc684a9b3be6a93e41cfe678",
        seen=_LISTED,
        licence="CC-BY-NC-4.0",
        citation="Ji et al., BeaverTails, arXiv 2307.04657",
        summary="replies to risky prompts, each flagged safe or not, with 14 categories of harm",
        fields="prompt, response, category (14 flags), is_safe",
        negatives="replies flagged unsafe; their categories are the concept",
        normals="replies flagged safe, to the same kind of prompts",
        configurations=(
            Configuration(
                "30k", {"train": ("round0/30k/train.jsonl.gz",), "test": ("round0/30k/test.jsonl.gz",)}, "27.2k"
            ),
            Configuration(
                "330k", {"train": ("round0/330k/train.jsonl.xz",), "test": ("round0/330k/test.jsonl.xz",)}, "301k"
            ),
        ),
        usual={"negative": "30k", "normal": "30k"},
        warnings=(_OFFENSIVE, _NOT_COMMERCIAL),
    ),
    PublicSet(
        name="hh-rlhf",
        hub_id="Anthropic/hh-rlhf",
        revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
        seen=_QUOTED,
        licence="MIT",
        citation="Bai et al., Training a Helpful and Harmless Assistant, arXiv 2204.05862",
        summary="dialogues that end in two replies, of which people chose one",
        fields="chosen, rejected (whole dialogues as text with Human: and Assistant: marks)",
        negatives="the rejected reply: the worse of two, which need not be harmful by itself",
        normals="the chosen reply: the better of two, which need not be harmless by itself",
        configurations=(
            _helpful("harmless-base", "42.5k"),
            _helpful("helpful-base"),
            _helpful("helpful-online"),
            _helpful("helpful-rejection-sampled"),
        ),
        usual={"negative": "harmless-base", "normal": "harmless-base"},
        warnings=(_OFFENSIVE, "its makers warn against training dialogue agents on it by plain fine-tuning"),
    ),
    PublicSet(
        name="halueval",
        hub_id="pminervini/HaluEval",
        revision="b1171838c842be2327fbd9766e904c63a4224dd7",
        seen=_LISTED,
        licence="Apache-2.0 (this copy; the authors' repository RUCAIBox/HaluEval: MIT)",
        citation="Li et al., HaluEval, arXiv 2305.11747",
        summary="questions with a right answer and one that ChatGPT made up to sound right",
        fields="knowledge, question, right_answer, hallucinated_answer",
        negatives="hallucinated answers, with the right one beside them",
        normals="right answers, with the hallucinated one beside them",
        configurations=(Configuration("qa", {"data": ("qa/data-00000-of-00001.parquet",)}, "10,000"),),
        usual={"negative": "qa", "normal": "qa"},
        warnings=("the field knowledge is not part of the prompt: questions are asked without it",),
    ),
    PublicSet(
        name="truthfulqa",
        hub_id="truthfulqa/truthful_qa",
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        seen=_LISTED,
        licence="Apache-2.0",
        citation="Lin et al., TruthfulQA, arXiv 2109.07958",
        summary="questions that invite a common falsehood",
        fields="type, category, question, best_answer, correct_answers, incorrect_answers, source",
        negatives="every incorrect answer (several to a question), with the best one beside it",
        normals="the best answer, with the first incorrect one beside it",
        configurations=(
            Configuration("generation", {"validation": ("generation/validation-00000-of-00001.parquet",)}, "817"),
        ),
        usual={"negative": "generation", "normal": "generation"},
    ),
    PublicSet(
        name="tofu",
        hub_id="locuslab/TOFU",
        revision="324592d84ae4f482ac7249b9285c2ecdb53e3a68",
        seen=_QUOTED,
        licence="MIT",
        citation="Maini et al., TOFU, arXiv 2401.06121",
        summary="questions and answers about 200 authors who do not exist; for models fine-tuned on them",
        fields="question, answer; *_perturbed also perturbed_answer (a list), most of them paraphrased_answer",
        negatives="answers about the authors to forget (forget01, 05, 10: per cent of them)",
        normals="answers about the others (retain…), real authors and world facts",
        configurations=(
            _tofu("full", "4,000"),
            *(
                _tofu(f"forget{n}{more}", rows)
                for n, rows in (("01", "40"), ("05", "200"), ("10", "400"))
                for more in ("", "_perturbed")
            ),
            _tofu("retain90", "3,600"),
            _tofu("retain95", "3,800"),
            _tofu("retain99", "3,960"),
            _tofu("retain_perturbed", "400"),
            _tofu("holdout01"),
            _tofu("holdout05"),
            _tofu("holdout10"),
            _tofu("real_authors", "100"),
            _tofu("real_authors_perturbed", "100"),
            _tofu("world_facts", "117"),
            _tofu("world_facts_perturbed", "117"),
        ),
        usual={"negative": "forget10", "normal": "retain90"},
        warnings=("only a model that was fine-tuned on full knows these authors",),
    ),
    PublicSet(
        name="safety-prompts",
        hub_id="thu-coai/Safety-Prompts",
        revision="559ab9f24ce4621e3f839ef05e1075b6c4f125ee",
        seen=_LISTED,
        licence="Apache-2.0",
        citation="Sun et al., Safety Assessment of Chinese Large Language Models, arXiv 2304.10436",
        summary="Chinese prompts of 7 risky scenarios and 6 attacks, with a reply of ChatGPT",
        fields="prompt, response, type; a JSON object of lists, one for each type",
        negatives="replies under attack, flagged by nobody: many are harmless; judge them before you unlearn them",
        normals="replies to a risky scenario or attack, likewise not flagged",
        configurations=(
            *_by_type(
                "instruction_attack_scenarios.json",
                "Goal_Hijacking",
                "Prompt_Leaking",
                "Role_Play_Instruction",
                "Unsafe_Instruction_Topic",
                "Inquiry_With_Unsafe_Opinion",
                "Reverse_Exposure",
            ),
            *_by_type(
                "typical_safety_scenarios.json",
                "Unfairness_And_Discrimination",
                "Crimes_And_Illegal_Activities",
                "Insult",
                "Mental_Health",
                "Physical_Harm",
                "Privacy_And_Property",
                "Ethics_And_Morality",
            ),
        ),
        warnings=("Chinese text", _OFFENSIVE, "replies are not flagged good or bad"),
    ),
    PublicSet(
        name="alpaca",
        hub_id="tatsu-lab/alpaca",
        revision="dce01c9b08f87459cf36a430d809084718273017",
        seen=_QUOTED,
        licence="CC-BY-NC-4.0",
        citation="Taori et al., Stanford Alpaca, 2023",
        summary="instructions with answers of text-davinci-003; normal rows of a general kind",
        fields="instruction, input, output, text",
        negatives="",
        normals="all answers; the prompt is the instruction and its input",
        configurations=(
            Configuration("default", {"train": ("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",)}, "52,002"),
        ),
        usual={"normal": "default"},
        warnings=(_NOT_COMMERCIAL, "answers were not checked; some are wrong"),
    ),
)

SETS: dict[str, PublicSet] = {one.name: one for one in _ALL}
