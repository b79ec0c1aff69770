"""The report as one page of HTML that needs no other file and no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import mist_ext
from mist_ext.report.columns import accuracies
from mist_ext.report.comparisons import Comparison
from mist_ext.report.experiments import Experiment
from mist_ext.report.figures import Drawing
from mist_ext.report.table import DASH, Tables
from mist_ext.system.bounded_files import MOST_YAML_BYTES, read_bytes
from mist_ext.system.names import printable_lines, shown

_TEMPLATE = "page.html.jinja"


def page(
    comparisons: Sequence[Comparison],
    tables: Tables,
    joint: Drawing | None,
    drawings: Sequence[Sequence[Drawing]],
    digest: str = "",
) -> str:
    """Make the page.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Of all experiments.
    tables : Tables
        Their `joint_table`.
    joint : Drawing or None
        The figure that compares all experiments.
    drawings : sequence of sequences of Drawing
        Each experiment's figures.
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
    return template.render(
        heading=", ".join(dict.fromkeys(shown(one.experiment.data) for one in comparisons)),
        digest=digest,
        version=mist_ext.__version__,
        content=tables,
        joint=None if joint is None else _figure(joint, "joint"),
        experiments=[
            _section(one, f"experiment-{number}", own)
            for number, (one, own) in enumerate(zip(comparisons, drawings, strict=True), 1)
        ],
    )


def _section(one: Comparison, anchor: str, drawings: Sequence[Drawing]) -> dict[str, Any]:
    experiment = one.experiment
    columns = accuracies([one])
    accuracy = {each.column.name: each.cell(one).text for each in columns}
    return {
        "anchor": anchor,
        "title": f"{shown(experiment.data)} · {shown(one.label)} · {shown(experiment.method)}",
        "gaps": experiment.gaps,
        "published": None if experiment.expected is None else shown(experiment.expected.source, 200),
        "seeds": f"seed{'' if len(experiment.seeds) == 1 else 's'} {', '.join(map(str, experiment.seeds))}",
        "tasks": experiment.tasks,
        "accuracy": {name: value for name, value in accuracy.items() if value != DASH},
        "figures": [_figure(drawing, f"{anchor}-{drawing.name}") for drawing in drawings],
        "configuration": printable_lines(configuration(experiment)),
        "environment": [(shown(n), shown(v, 200)) for n, v in experiment.environment.items() if v is not None],
    }


def configuration(experiment: Experiment) -> str:
    """Return the file that the run left for repeating it, else what its results say."""
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
