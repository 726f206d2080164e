"""unteach export: the model of a run in the form that it is served in, and whether that is the same model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from unteach import signals
from unteach.data.prompt_format import PromptFormat, TemplateSettings, prompt_format
from unteach.disk.files import whole_directory
from unteach.errors import ConfigError, Interrupted, ModelError, nearest
from unteach.evaluation.agreement import bad_rate
from unteach.evaluation.same_model import Answers, Texts, answers_of, fault_of, likeness, no_update, with_own_replies
from unteach.models.directory import base_of, is_adapter
from unteach.models.loading import DTYPES, device_of, load_model, load_tokenizer
from unteach.models.reply import named_end
from unteach.pipeline.artefacts import (
    Subject,
    attached,
    bytes_of,
    check_forms,
    check_subject,
    load_form,
    read_forms,
    write_form,
)
from unteach.pipeline.config import RunConfig
from unteach.pipeline.directory import check_inputs
from unteach.pipeline.export_place import CONTRACT, clear, export_directory
from unteach.pipeline.export_rows import texts_of
from unteach.pipeline.finished import FinishedRun, finished_run
from unteach.progress import track
from unteach.results.export import Artefact, Export
from unteach.results.report import environment
from unteach.results.verdict import Verdict
from unteach.stats import paired_difference

PROMPTS = 40
"""Prompts of each split that an artefact is compared on, unless another number is asked for."""


def export(
    run: str | Path,
    to: str,
    *,
    forms: Sequence[str] = ("merged",),
    dtype: str = "auto",
    prompts: int = PROMPTS,
    device: str | None = None,
    overwrite: bool = False,
) -> Export:
    """Write the model of a run in every form, each compared with the run's model; return what export.json holds.

    `dtype` is the precision of a GGUF file, "auto" that of the original. A form takes its place in `to` only once it is
    found to be the trained model. Raises ModelError for one that is not, which is removed, while the forms before it
    stay; and UnteachError for what cannot be exported, before anything is written.
    """
    names = read_forms(forms)
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"--dtype {dtype}: unknown{nearest(dtype, DTYPES)} (known: auto, {', '.join(DTYPES)})")
    found = finished_run(run)
    config = found.config(**({"device": device} if device else {}))
    check_forms(names, found, config)
    with signals.handled(), export_directory(to, overwrite=overwrite) as place:
        check_inputs(place, [str(found.directory), config.model], overwrite=overwrite, contract=CONTRACT, flag="--to")
        try:
            return _export(found, config, place, names, dtype, prompts)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; what is whole in {place} has been compared; run it again") from None


def _export(run: FinishedRun, config: RunConfig, place: Path, forms: list[str], dtype: str, prompts: int) -> Export:
    notes: list[str] = []
    subject = _subject_of(run, config)
    check_subject(forms, subject)
    texts = texts_of(run, config, subject.form, subject.model, prompts, notes)
    device = device_of(config.device)
    with _on(subject, device):
        texts, replies = with_own_replies(texts, subject.model, subject.form)
        trained = answers_of(subject.model, subject.form, texts, "the run's model", replies)
    original = _original_answers(subject, texts, device)
    if nothing := no_update(likeness(trained, original)):
        raise ModelError(f"{run.model}: is no trained model: {nothing}; nothing was written, so look at the run first")
    made = Export(
        run=str(run.directory.resolve()),
        model=config.model,
        method=run.report.method if run.report else "",
        prompts={split: len(rows) for split, rows in texts.splits.items()},
        max_new_tokens=texts.max_new_tokens,
        judge=texts.judge.name if texts.judge else "",
        notes=[*notes, *_notes_on(subject)],
        environment=environment(),
    )
    clear(place)
    for form in forms:
        folder = "gguf" if form == "ollama" else form
        with whole_directory(place / folder) as partial:
            precision = write_form(form, subject, partial, dtype)
            artefact = _compare(form, partial, subject, texts, trained, original, precision, device)
        made.artefacts.append(artefact.model_copy(update={"place": folder}))
        made.write(place)
    return made


def _subject_of(run: FinishedRun, config: RunConfig) -> Subject:
    """Load the trained model: merged, or its adapter on weights of 4 bits."""
    tokenizer = load_tokenizer(run.model, trust_remote_code=config.trust_remote_code)
    if config.load_in_4bit and is_adapter(run.model):
        model = attached(config, run.model, config.device)
    else:
        model = load_model(run.model, device="cpu", trust_remote_code=config.trust_remote_code)
    form = prompt_format(tokenizer, config.prompt_format, named_end(model), TemplateSettings.of(config))
    return Subject(run, config, model, tokenizer, form)


@contextmanager
def _on(subject: Subject, device: Any) -> Iterator[None]:
    """Hold the trained model on a device within the block; else it lies where it was merged, so that one fits."""
    if subject.config.load_in_4bit:
        yield
        return
    subject.model.to(device)
    yield
    subject.model.to("cpu")


def _original_answers(subject: Subject, texts: Texts, device: Any) -> Answers:
    """Return what the model says that the run started from, asked as the trained one."""
    config = subject.config
    name = base_of(subject.run.model) if subject.adapter else config.model
    revision = config.revision if name == config.model else None
    four = config.load_in_4bit
    model = load_model(
        name,
        dtype=config.dtype if four else "float32",
        device=device,
        revision=revision,
        load_in_4bit=four,
        trust_remote_code=config.trust_remote_code,
    )
    return answers_of(model, subject.form, texts, "the original")


def _compare(
    form: str,
    place: Path,
    subject: Subject,
    texts: Texts,
    trained: Answers,
    original: Answers,
    precision: str,
    device: Any,
) -> Artefact:
    """Load an artefact and compare it. Raises ModelError where it is not the trained model."""
    with track(f"loading {form} afresh"):
        model, asked = load_form(form, place, subject, device)
    fault = _other_tokens(asked, subject.form, texts)
    if not fault:
        seen = answers_of(model, asked, texts, f"--as {form}")
        moved, to_trained, to_original = likeness(trained, original), likeness(seen, trained), likeness(seen, original)
        worse = _worse(seen, trained)
        fault = fault_of(to_trained, to_original, moved, precision, worse or ())
    if fault:
        raise ModelError(
            f"--as {form}: what was written is not the trained model: {fault}; it was removed, and what was made in "
            "the same way elsewhere should not be served"
        )
    arms = {"exported": seen, "unlearned": trained, "original": original} if texts.judge else {}
    return Artefact(
        form=cast(Any, form),
        place=str(place),
        dtype=precision,
        bytes=bytes_of(place),
        trained=to_trained,
        original=to_original,
        moved=moved,
        bad_rates=[bad_rate(arm, "harmful", _judged(answers)) for arm, answers in arms.items()],
        bad_difference=worse,
    )


def _other_tokens(asked: PromptFormat, wanted: PromptFormat, texts: Texts) -> str:
    """Say so where an artefact's tokenizer or template makes other tokens of the prompts or known replies."""
    rows = [row for _, row in texts.rows]
    prompts = sum(tuple(asked.prompt_ids(row.example.turns)) != row.prompt_ids for row in rows)
    if prompts:
        return f"its tokenizer or chat template makes other tokens of {prompts} of {len(rows)} prompts"
    known = [row.example.reply for row in rows if not row.example.prompt_only]
    replies = sum(asked.ids.of(reply) != wanted.ids.of(reply) for reply in known)
    if replies:
        return f"its tokenizer makes other tokens of {replies} of {len(known)} known replies"
    ends = {row.reply_ids[-1] for row in rows if not row.truncated} & wanted.end.tokens
    if ends - asked.end.tokens:
        return f"it does not know that the token {asked.tokenizer.decode(sorted(ends - asked.end.tokens))} ends a reply"
    return ""


def _judged(answers: Answers) -> list[Verdict]:
    return [verdict for verdict in answers.verdicts if verdict is not None]


def _worse(seen: Answers, trained: Answers) -> tuple[float | None, float | None, float | None] | None:
    """Return the paired difference of the bad rate, exported minus trained; None where no pair has two verdicts."""
    pairs = [
        (float(ours == "bad"), float(theirs == "bad"))
        for ours, theirs in zip(seen.verdicts, trained.verdicts, strict=True)
        if ours in ("good", "bad") and theirs in ("good", "bad")
    ]
    if not pairs:
        return None
    return paired_difference([ours for ours, _ in pairs], [theirs for _, theirs in pairs])


def _notes_on(subject: Subject) -> list[str]:
    """Say what a server must be told that no file carries."""
    settings, notes = subject.form.settings, []
    if subject.form.name == "plain":
        notes.append("the run asked in the plain format (### Question), which no adapter says to a server")
    if settings.system:
        notes.append("the run was asked with a system message (--system), which only a Modelfile carries")
    if settings.arguments:
        given = ", ".join(f"{name}={value}" for name, value in settings.arguments.items())
        notes.append(f"the run was asked with template arguments ({given}); give the server the same")
    if settings.date:
        notes.append(f"the chat template asks for the day; the run was measured with {settings.date}")
    if (subject.run.model / "guidance.json").is_file():
        notes.append(
            "guidance.json says which reminder the model was measured with, and whether the template brings it"
        )
    return notes
