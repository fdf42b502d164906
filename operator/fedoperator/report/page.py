"""The page: one file that asks nobody for anything."""

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from html import escape

from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.report import figures, markup, sections, summary
from fedtrain import contract

_SCRIPTS = ("draw.js", "curves.js", "gantt.js", "round.js", "page.js")


def html(training: Training, records: Sequence[Record]) -> str:
    """The report of a training and of its rounds that are known, in any order; the same text for
    the same values."""
    found = figures.of(training, records)
    style = _asset("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "})();\n"
    # Nothing but our own script and style is run, whatever a name or a message holds, and nothing
    # is fetched from anywhere.
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(training.name)} - fedtrain report</title>
<style>{style}</style>
</head>
<body>
<header>
<div class="bar"><span>fedtrain report</span>{_navigation(found)}
<button type="button" id="theme" title="Light, dark, or as the system has it">Theme</button></div>
{summary.html(found)}
{sections.left_out(found)}
</header>
<main>
<noscript><p class="note">Plots need JavaScript; all tables are below all the same.</p></noscript>
{_body(found)}
</main>
<footer>{escape(training.namespace)}/{escape(training.name)}, uid {escape(training.uid)},
generation {training.generation}. fedtrain {contract.VERSION}.</footer>
<div id="tip" role="status" hidden></div>
{markup.embedded("figures", figures.document(found))}
<script>{script}</script>
</body>
</html>
"""


def _body(found: figures.Figures) -> str:
    if not found.records:
        return markup.note("No round has begun.")
    updates = sections.updates(found)
    parts = [
        _section("good", "How good", sections.good(found)),
        _section("updates", "The updates", updates) if updates else "",
        _section(
            "time",
            "Where the time went",
            _TIME + markup.folded("The same figures", sections.time(found)),
        ),
        _section("round", "Round by round", _ROUND),
        _section("who", "Who took part", sections.who(found)),
        _section("dropped", "Who was dropped, and why", sections.dropped(found)),
        _section("lineage", "Lineage", sections.lineage(found)),
    ]
    return "\n".join(filter(None, parts))


_TIME = """<figure id="timing"><figcaption><p>Starting: until the first pods are ready. Training:
until all are settled, or the deadline. Aggregating: until the model is published. Evaluating is
beside the next round. Choose a round to see it below.</p>
<fieldset><legend>Rounds begin</legend>
<label><input type="radio" name="clock" value="aligned" checked> side by side</label>
<label><input type="radio" name="clock" value="clock"> by the clock</label></fieldset></figcaption>
<div class="legend"></div><div class="plot"></div></figure>"""

_ROUND = """<div class="chooser"><button type="button" id="earlier" aria-label="The round before">
&larr;</button> <label>Round <select id="chosen"></select></label>
<button type="button" id="later" aria-label="The round after">&rarr;</button>
<span id="told"></span></div>
<figure id="contributions"><figcaption><p>A bar begins when all pods of the attempt were ready, and
is as long as the process measured its own training: its start-up is not in it.</p></figcaption>
<div class="legend"></div><div class="plot"></div></figure>
<div class="scroll" tabindex="0" role="region" aria-label="The contributions of the round">
<table id="table-round"></table></div><p class="note" id="round-note"></p>"""


def _section(key: str, title: str, inside: str) -> str:
    return f'<section id="{key}"><h2>{escape(title)}</h2>\n{inside}\n</section>'


def _navigation(found: figures.Figures) -> str:
    if not found.records:
        return ""
    parts = {
        "good": "how good",
        "time": "time",
        "round": "rounds",
        "who": "who",
        "dropped": "dropped",
        "lineage": "lineage",
    }
    links = " ".join(f'<a href="#{key}">{title}</a>' for key, title in parts.items())
    return f"<nav>{links}</nav>"


def _asset(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
