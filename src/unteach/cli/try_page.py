"""The verb `unteach try`."""

from typing import Annotated

from unteach.cli.flags import option, switch


def try_command(
    model: Annotated[
        list[str],
        option("--model", "Model to try: a directory, a run directory or a hub id; twice for two.", "Model", "DIR|ID"),
    ],
    negatives: Annotated[
        str | None, option("--negatives", "File that gets the replies you mark as bad (JSONL).", "Marking", "FILE")
    ] = None,
    seed: Annotated[int, option("--seed", "First seed of sampled replies. \\[0]", "Replies", "N")] = 0,
    max_new_tokens: Annotated[int, option("--max-new-tokens", "Longest reply, tokens. \\[256]", "Replies", "N")] = 256,
    prompt_format: Annotated[
        str | None,
        option("--prompt-format", "Prompt format: auto, plain or chat; unset: the run's, or auto.", "Replies", "NAME"),
    ] = None,
    dtype: Annotated[
        str, option("--dtype", "Precision: auto, float32, bfloat16 or float16. \\[auto]", "Model", "NAME")
    ] = "auto",
    device: Annotated[
        str | None, option("--device", "cpu, cuda, cuda:0 …; the GPU where there is one.", "Model", "NAME")
    ] = None,
    load_in_4bit: Annotated[bool, switch("--load-in-4bit", "4-bit weights.", "Model")] = False,
    trust_remote_code: Annotated[
        bool, switch("--trust-remote-code", "Run Python code that comes with the model.", "Model")
    ] = False,
    host: Annotated[
        str,
        option(
            "--host", "Address to serve on; others than this machine's own need --anyone. \\[127.0.0.1]", "Page", "NAME"
        ),
    ] = "127.0.0.1",
    port: Annotated[int, option("--port", "0 means a free one. \\[0]", "Page", "N")] = 0,
    anyone: Annotated[bool, switch("--anyone", "Let other machines use the page, unencrypted.", "Page")] = False,
    open_browser: Annotated[bool, switch("--open", "Open the page in the browser.", "Page")] = False,
) -> None:
    """Try a model, or two side by side, on a page that this machine serves, and mark bad replies.

    [bold]Examples[/bold]
      unteach try --model ./model --negatives bad.jsonl
      unteach try --model ./model --model ./out --negatives bad.jsonl

    What you mark can be given to unteach run --forget FILE; docs/user-reports.md shows how.
    Values in \\[brackets] are defaults. Ctrl-C ends it.
    """
    from unteach.try_page.serve import try_models

    try_models(
        model,
        negatives,
        host=host,
        port=port,
        anyone=anyone,
        seed=seed,
        open_browser=open_browser,
        max_new_tokens=max_new_tokens,
        prompt_format=prompt_format,
        dtype=dtype,
        device=device,
        load_in_4bit=load_in_4bit,
        trust_remote_code=trust_remote_code,
    )
