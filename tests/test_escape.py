"""Hostile text is shown inertly in every medium."""

import io
import unicodedata

import pytest
from rich.console import Console

from unteach.text.escape import inert, inert_line, markdown_block, markdown_line, terminal_text

HOSTILE = {
    "html": "<b>bold</b> & <img src=x onerror=alert(1)>",
    "script": "</style></pre><script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" \'',
    "comment": "--> <!-- ]]>",
    "ansi colour": "\x1b[31mred\x1b[0m",
    "ansi clear": "\x1b[2J\x1b[H",
    "terminal title": "\x1b]0;owned\x07",
    "osc 8 link": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "8 bit csi": "\x9b31mred",
    "bell and backspace": "safe\x08\x08\x08\x08evil\x07",
    "carriage return": "safe\revil",
    "bidi override": "abc\u202egpj.exe\u202c",
    "bidi isolate": "\u2067abc\u2069\u200f",
    "zero width": "ki\u200bll\u200c\u200d\ufeff",
    "word joiner": "a\u2060b\u00adc",
    "tag letters": "hi\U000e0041\U000e0042",
    "nul": "a\x00b",
    "line separator": "a\u2028b\u2029c",
    "private use": "\ue000\U000f0000",
    "lone surrogate": "\ud800 half",
    "hangul filler": "\u3164\u115f\uffa0",
    "variation selectors": "x\ufe0f\U000e0100",
    "stacked marks": "Z" + "\u0301" * 200,
    "fence": "```\n# out\n````\n`````",
    "markdown link": "[click](javascript:alert(1)) ![x](https://evil.example/p.png)",
    "bare link": "https://evil.example www.evil.example <https://evil.example>",
    "table break": "a | b || c\n|---|",
    "heading": "# big\n===\n- item\n1. one\n> quote",
    "front matter": "---\nlibrary_name: evil\n---",
    "rich markup": "[bold red]x[/] [link=https://evil.example]y[/link] [/nothing]",
    "jinja": "{{ 7 * 7 }} {% raw %} {# x #}",
    "megabyte": "A" * 1_000_000,
    "svg": "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x dur=1s></svg>",
    "frame": "<iframe srcdoc='<script>alert(1)</script>'></iframe><iframe src=javascript:alert(1)>",
    "meta refresh": '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    "base and form": "<base href=https://evil.example><form action=//evil.example><input autofocus onfocus=alert(1)>",
    "style": "<style>*{display:none}body{background:url(https://evil.example)}</style><b style='position:fixed'>x",
    "toggle": "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "closing tags": "</pre></summary></details></textarea></title></select></table><img src=x onerror=alert(1)>",
    "cdata": "<![CDATA[<script>alert(1)</script>]]> <!--><script>alert(1)</script>-->",
    "mutation": "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></math>",
    "noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>"></noscript>',
    "named like ours": "<a id=list name=shown><form id=q><input id=split></form><p id=sample-1 class=sample>",
    "escaped already": "&lt;script&gt;alert(1)&lt;/script&gt; &amp;amp; &#x3C;img src=x onerror=alert(1)&#x3E; &nbsp;",
    "script in data": '</script><script>alert(1)</script>"}]; //',
    "template words": "${alert(1)} `${7*7}` #{7*7} <%= 7*7 %> {% include '/etc/passwd' %} __proto__ constructor",
    "javascript url": "javascript:alert(1) data:text/html,<script>alert(1)</script> vbscript:x",
    "quotes": "' \" ` \\' \\\" &quot; &#39; =\"x\" onclick='alert(1)'",
    "fragment": "#split=unseen&q=%3Cimg%20src=x%20onerror=alert(1)%3E",
    "alternate screen": "\x1b[?1049h\x1b[10;10Hgone\x1b[8m hidden \x1b[3J",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07 \x1bP1$r0m\x1b\\ \x1b_apc\x1b\\ \x1b^pm\x1b\\",
    "every c0": "".join(map(chr, range(32))) + "\x7f",
    "every c1": "".join(map(chr, range(0x80, 0xA0))),
    "leading lines": "\n\n  first\n\tsecond\r\nthird\n\n",
    "arabic and hebrew": "مرحبا \u061c\u200f(abc) שלום 123 \u2066x",
    "emoji": "👩\u200d👩\u200d👧 1\ufe0f\u20e3 🏴\U000e0067\U000e0062",
    "invisible operators": "a\u2061b\u2062c\u2063d\u180ee\ufff9f\ufffbg",
    "no characters": "\ufffe\uffff\U0010ffff\ufdd0",
    "surrogates": "\udfff\ud83d \ud800",
    "flood of marks": "".join("e" + "\u0489\u0334" * 40 for _ in range(30)),
    "one long word": "W" * 3000,
    "flood of lines": "x\n" * 3000,
    "plotted": "$\\frac{1}{0}$ $x^{$ \\LaTeX $",
}


def hidden(text: str) -> set[str]:
    """Characters that command or that no eye sees, other than the line break."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")} - {"\n"}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_hidden_is_left(text: str) -> None:
    assert not hidden(inert(text))
    assert not hidden(markdown_line(text)) and not hidden(markdown_block(text))
    assert "\n" not in inert_line(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_terminal_gets_no_command(text: str) -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system=None, width=80, legacy_windows=False).print(
        terminal_text(text, limit=500), highlight=False
    )
    assert not hidden(out.getvalue())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_fence_holds_its_text(text: str) -> None:
    first, *body, last = markdown_block(text).split("\n")
    assert set(last) == {"`"} and len(last) >= 3 and first == last + "text"
    assert all(not line.strip().startswith(last) for line in body)


def test_what_is_hidden_is_shown_as_an_escape() -> None:
    assert inert("a\x1b[0m\x00\u202e\U000e0041\u200b") == "a\\x1b[0m\\x00\\u202e\\U000e0041\\u200b"
    assert inert("a\tb\r\nc\rd") == "a    b\nc\\x0dd"
    assert inert("e" + "\u0301" * 5) == "e" + "\u0301" * 3 + "\\u0301" * 2


def test_plain_words_of_any_script_stay() -> None:
    text = "Grüße, Привет, שלום, 你好, नमस्ते, こんにちは, 😀 naïve – “quoted” 1 €"
    assert inert(text) == text


def test_a_cut_says_by_how_much() -> None:
    assert inert("A" * 1_000_000, 10) == "AAAAAAAAAA … (999,990 more characters)"
    assert inert("A" * 10, 10) == "A" * 10


def test_one_line() -> None:
    assert inert_line("  a\n\n b\tc ") == "a ⏎ ⏎ b c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b) *c* _d_ `e`", r"\[a\](b) \*c\* \_d\_ \`e\`"),
        ("<b> | & ~~x~~", r"\<b\> \| \& \~\~x\~\~"),
        ("https://x.example www.x.example", r"https\://x.example www\.x.example"),
        ("# a", r"\# a"),
        ("- a - b", r"\- a - b"),
        ("12. a 1.5", r"12\. a 1.5"),
        ("0.5 % (n=200), fell: yes", "0.5 % (n=200), fell: yes"),
        ("\\", "\\\\"),
    ],
)
def test_markdown_stays_readable_but_dead(text: str, expected: str) -> None:
    assert markdown_line(text) == expected
