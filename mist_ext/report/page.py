"""The report as one page of HTML that needs no other file and no network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import mist_ext
from mist_ext.report import text
from mist_ext.report.experiments import Experiment
from mist_ext.report.figures import Drawing
from mist_ext.report.rows import Row, groups, is_best
from mist_ext.system.bounded_files import MOST_YAML_BYTES, read_bytes
from mist_ext.system.names import printable_lines, shown

_TEMPLATE = "page.html.jinja"
_METRICS = {"A_avg": "average_accuracy", "A_last": "last_accuracy", "forgetting": "forgetting"}


def page(
    rows: Sequence[Row], joint: Drawing | None, drawings: Callable[[Experiment], Sequence[Drawing]], digest: str = ""
) -> str:
    """Make the page.

    Parameters
    ----------
    rows : sequence of Row
        Of all experiments.
    joint : Drawing or None
        The figure that compares all experiments.
    drawings : callable
        Gives an experiment's figures.
    digest : str
        Of what the page shows; it carries it.

    Returns
    -------
    str
        HTML. It names no date and no path of this machine: the same results make the same page.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    anchors = {id(row): f"experiment-{number}" for number, row in enumerate(rows, 1)}
    return template.render(
        heading=", ".join(dict.fromkeys(shown(row.experiment.data) for row in rows)),
        digest=digest,
        version=mist_ext.__version__,
        groups=[
            {"title": text.title(group, members), "tables": _tables(members, anchors)}
            for group, members in groups(rows).items()
        ],
        incomplete=text.incomplete(rows),
        notes=text.warnings(rows) + text.sources(rows) + text.shared(rows),
        legend=text.legend(rows),
        joint=None if joint is None else _figure(joint, "joint"),
        experiments=[_section(row, anchors[id(row)], drawings(row.experiment)) for row in rows],
    )


def _tables(rows: Sequence[Row], anchors: Mapping[int, str]) -> list[dict[str, Any]]:
    headings = list(text.accuracy_texts(rows[0], rows))
    costs = [f"{name}, %" for name in text.SHARE_HEADINGS] + [f"{name}, s" for name in text.SECOND_HEADINGS]

    def table(caption: str, headings: Sequence[str], texts: Callable[[Row], Sequence[str]]) -> dict[str, Any]:
        lines = [_names(row, anchors) | {"values": [{"text": each, "look": ""} for each in texts(row)]} for row in rows]
        return {"caption": caption, "headings": headings, "rows": lines}

    accuracies = {"caption": "Accuracy, %", "headings": headings, "rows": [_line(row, rows, anchors) for row in rows]}
    change = [table("The backbone", text.BACKBONE_HEADINGS, text.backbone_texts)] if text.diagnosed(rows) else []
    memory = [table("Peak memory, MiB", text.MEMORY_HEADINGS, text.memory_texts)] if text.memory_recorded(rows) else []
    spent = table("Costs", costs, lambda row: [*text.share_texts(row), *text.second_texts(row)])
    return [accuracies, *change, spent, *memory]


def _line(row: Row, rows: Sequence[Row], anchors: Mapping[int, str]) -> dict[str, Any]:
    values = [
        {"text": value, "look": "best" if name in _METRICS and is_best(row, rows, _METRICS[name]) else ""}
        for name, value in text.accuracy_texts(row, rows).items()
    ]
    if row.gain and row.gain.mean:
        values[-1]["look"] = "up" if row.gain.mean > 0 else "down"
    return _names(row, anchors) | {"values": values}


def _names(row: Row, anchors: Mapping[int, str]) -> dict[str, Any]:
    return {"method": text.method(row), "tuner": text.label(row), "anchor": anchors[id(row)]}


def _section(row: Row, anchor: str, drawings: Sequence[Drawing]) -> dict[str, Any]:
    experiment = row.experiment
    return {
        "anchor": anchor,
        "title": f"{shown(experiment.data)} · {shown(row.label)} · {text.method(row)}",
        "gaps": experiment.gaps,
        "published": None if experiment.expected is None else shown(experiment.expected.source, 200),
        "seeds": f"seed{'' if len(row.seeds) == 1 else 's'} {', '.join(map(str, row.seeds))}",
        "tasks": experiment.tasks,
        "accuracy": {name: value for name, value in text.accuracy_texts(row, [row]).items() if value != text.DASH},
        "figures": [_figure(drawing, f"{anchor}-{drawing.name}") for drawing in drawings],
        "configuration": printable_lines(configuration(experiment)),
        "environment": [(shown(n), shown(v, 200)) for n, v in experiment.environment.items() if v is not None],
    }


def configuration(experiment: Experiment) -> str:
    """The file that the run left for repeating it, else what its results say."""
    results = Path(experiment.source)
    file = results.parent / "config.yaml"
    if results.is_file() and file.is_file():
        return read_bytes(file, MOST_YAML_BYTES).decode(errors="replace")
    import msgspec
    import yaml

    return yaml.safe_dump(msgspec.to_builtins(experiment.config), sort_keys=False, allow_unicode=True)


def _figure(drawing: Drawing, prefix: str) -> dict[str, Any]:
    head, body = drawing.svg[drawing.svg.index("<svg") :].split(">", 1)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    if size is None:
        raise RuntimeError(f"the SVG of the figure {drawing.name} has no viewBox; its first tag is {head}>")
    body = re.sub(r"<(metadata|title)>.*?</\1>|<!--.*?-->", "", body, flags=re.DOTALL)
    # One page holds many figures: without a prefix their identifiers would be the same.
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    return {
        "title": drawing.title,
        "description": drawing.description,
        "width": float(size[1]),
        "height": float(size[2]),
        "body": body.rsplit("</svg>", 1)[0],
    }
