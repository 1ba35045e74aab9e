"""`llm-im learn train|models|show|promote|rollback|shadow|evaluate`: the classifier that learns from corrections."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.shared import output, terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, Reason, with_options
from services.cli.shared.output import Column, Form, Output, Row

if TYPE_CHECKING:
    from models.learned.evaluate import Figures
    from models.learned.examples import Example

PATH = "/v1/models"
#: How often `train` looks whether it is done.
LOOK_S = 0.25
#: Lines of a file that `evaluate` reads, and bytes of one: 50,000 take a minute.
ROWS_MAX, ROW_BYTES_MAX = 50_000, 64 * 1024
#: What is mistaken for what, of the most frequent.
CONFUSED_SHOWN = 10

app = typer.Typer(help="Learn from corrected incidents.", no_args_is_help=True, epilog=EPILOG)

Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="As shown by llm-im learn models.")]


def _share(value: float) -> str:
    return f"{value:.1%}"


def _right(row: Row, what: str) -> str:
    found = row["evaluation"].get(what)
    return "-" if found is None else f"{_share(found['accuracy'])} ({_share(found['rules_accuracy'])})"


COLUMNS = (
    Column("version", lambda row: str(row["version"]), lambda row: row["version"], right=True),
    Column("state", lambda row: terminal.plain(row["state"]), lambda row: row["state"]),
    Column("trained", lambda row: terminal.when(row["trained_at"]), lambda row: row["trained_at"]),
    Column(
        "by", lambda row: terminal.plain(row["trained_by"]), lambda row: row["trained_by"], gives_way=True
    ),
    Column("examples", lambda row: f"{row['examples']:,}", lambda row: row["examples"], right=True),
    Column("corrected", lambda row: f"{row['corrected']:,}", lambda row: row["corrected"], right=True),
    Column("severity (rules)", lambda row: _right(row, "severity"), None, right=True),
    Column("type (rules)", lambda row: _right(row, "type"), None, right=True),
)


@app.command(epilog=EPILOG)
@with_options
def train(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    *,
    asked: Asked,
) -> None:
    """Train a model on the incidents of this system. It is only compared until you promote it.

    llm-im learn train
    """
    client = asked.client()
    training = _json(client, client.post_json(f"{PATH}/train", {}), 202)
    while wait and training["ended_at"] is None:
        time.sleep(LOOK_S)
        now = client.get_json(PATH)["training"]
        if now is None or now["id"] != training["id"]:
            break  # another one was asked for since: this one is over
        training = now
    if asked.as_json:
        output.write_json(training)
    elif training["version"] is not None:
        typer.echo(
            f"model {training['version']} is trained, and the shadow: see llm-im learn show {training['version']}"
        )
    elif training["ended_at"] is None:
        typer.echo("training was asked for: see llm-im learn models")
    if training["ended_at"] is not None and training["version"] is None:
        raise Failure(f"no model was trained: {training['reason']}", ExitCode.FAILED)


@app.command(epilog=EPILOG)
@with_options
def models(form: Form = Output.TABLE, *, asked: Asked) -> None:
    """List the versions, how often each is right (and the rules, on the same incidents), and the last training."""
    body = asked.client().get_json(PATH)
    found = body["items"]
    match output.form_of(form, asked.as_json):
        case Output.JSON:
            output.write_json(body)
        case Output.CSV:
            output.write_csv(COLUMNS, found)
        case Output.ID:
            output.write_ids(found, "version")
        case kind:
            if found:
                output.write_table(COLUMNS, found, kind is Output.WIDE)
            typer.echo(_standing(body), err=bool(found))
            if said := _of_training(body["training"]):
                typer.echo(said, err=True)


@app.command(epilog=EPILOG)
@with_options
def show(version: Version, *, asked: Asked) -> None:
    """Show one version: what it learned from, and how good it is beside the rules."""
    client = asked.client()
    found = _json(client, client.get(f"{PATH}/{version}"), 200)
    if asked.as_json:
        output.write_json(found)
        return
    out = terminal.console()
    for name, text in (
        ("version", f"{found['version']}, {found['state']} since {terminal.when(found['changed_at'])}"),
        ("by", f"{found['changed_by']}{': ' + found['reason'] if found['reason'] else ''}"),
        ("trained", f"{found['trained_at']}, in {found['took_s']:.1f} s, asked for by {found['trained_by']}"),
        (
            "examples",
            f"{found['examples']:,}: {found['corrected']:,} corrected by people, {found['seen']:,} worked on",
        ),
        ("held out", f"by {found['evaluated_by']}; sure means {_share(found['confidence'])}"),
        *((f"no {what}", why) for what, why in found["skipped"].items()),
        ("file", f"{found['bytes']:,} bytes, sha256 {found['sha256']}"),
        ("", "" if found["can_be_promoted"] else "kept no more: it can't be promoted"),
    ):
        if text:
            out.print(f"  {name:<12}{terminal.plain(text)}")
    for what, figures in found["evaluation"].items():
        _print_figures(what, figures)


@app.command(epilog=EPILOG)
@with_options
def promote(version: Version, reason: Reason = None, *, asked: Asked) -> None:
    """Have new incidents classified by this version, where it is sure."""
    client = asked.client()
    made = _json(client, client.post_json(f"{PATH}/{version}/promote", {"reason": reason or ""}), 200)
    _write(made, f"model {version} is active", asked)


@app.command(epilog=EPILOG)
@with_options
def rollback(reason: Reason = None, *, asked: Asked) -> None:
    """Go back to the version that was active before, or to the rules alone."""
    client = asked.client()
    active = client.get_json(PATH)["active"]
    # By its number, so that a repeat of a call that got no answer does not go back twice.
    made = _json(
        client, client.post_json(f"{PATH}/rollback", {"version": active, "reason": reason or ""}), 200
    )
    _write(made, _standing(made), asked)


@app.command(epilog=EPILOG)
@with_options
def shadow(
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="VERSION", min=0, help="Compare with this version; 0: with none.", show_default=False
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Show what the shadow would have said of new incidents, or make a version the shadow.

    llm-im learn shadow

    llm-im learn shadow 4
    """
    client = asked.client()
    if version is not None:
        reply = (
            client.delete(f"{PATH}/shadow")
            if version == 0
            else client.post_json(f"{PATH}/{version}/shadow", {})
        )
        made = _json(client, reply, 200)
        _write(made, _standing(made), asked)
        return
    found = _json(client, client.get(f"{PATH}/shadow"), 200)
    if asked.as_json:
        output.write_json(found)
        return
    for what in ("severity", "type"):
        rows = [each for each in found["items"] if each["what"] == what]
        total, same = (
            sum(each["count"] for each in rows),
            sum(each["count"] for each in rows if each["given"] == each["shadow"]),
        )
        if not total:
            continue
        typer.echo(
            f"{what}: model {found['version']} would have said the same of {same:,} of {total:,} incidents"
        )
        for each in [each for each in rows if each["given"] != each["shadow"]][:CONFUSED_SHOWN]:
            typer.echo(
                f"  {each['count']:>6,}  {terminal.plain(each['given'])}, by the shadow {terminal.plain(each['shadow'])}"
            )
    if not found["items"]:
        typer.echo(
            f"model {found['version']} is the shadow; no incident was classified since the classifiers started"
        )
    if found["silent"]:
        typer.echo(f"without the counts of {', '.join(found['silent'])}", err=True)


@app.command(epilog=EPILOG)
@with_options
def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="JSON lines with title, description, labels, and severity or type (or both).",
        ),
    ],
    version: Annotated[
        int | None,
        typer.Option(
            "--version",
            min=1,
            help="Which version; default the shadow, else the active one.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1.0, help="How sure it must be; default as when it was trained.", show_default=False
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Try a version on incidents of yours, beside the built-in rules. Changes nothing.

    llm-im learn evaluate incidents.jsonl --version 3
    """
    from models.classification.rules import Classifier
    from models.learned.model import decode_model
    from models.learned.train import evaluate as evaluated

    client = asked.client()
    if version is None:
        body = client.get_json(PATH)
        version = body["shadow"] or body["active"]
    if version is None:
        raise Failure("there is no model yet: train one with llm-im learn train", ExitCode.FAILED)
    about = _json(client, client.get(f"{PATH}/{version}"), 200)
    reply = client.get(f"{PATH}/{version}/file")
    if reply.status != 200:
        raise client.failure(reply)
    examples = [*_examples(file)]
    found = evaluated(
        decode_model(reply.body), examples, Classifier().rule, confidence or about["confidence"]
    )
    figures = {name: _figures(each) for name, each in found.heads.items() if each.count}
    if asked.as_json:
        output.write_json({"version": version, "examples": len(examples), "evaluation": figures})
        return
    typer.echo(f"model {version} on {len(examples):,} incidents of {file}")
    for what, each in figures.items():
        _print_figures(what, each)


def _examples(file: Path) -> Iterator[Example]:
    import msgspec

    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number > ROWS_MAX:
                raise Failure(f"{file}: over {ROWS_MAX:,} lines", ExitCode.USAGE)
            if len(line) > ROW_BYTES_MAX:
                raise Failure(f"{file}, line {number}: over {ROW_BYTES_MAX:,} bytes", ExitCode.USAGE)
            if not line.strip():
                continue
            try:
                yield _example(msgspec.json.decode(line, type=dict[str, Any]))
            except (msgspec.MsgspecError, KeyError, ValueError, TypeError, AttributeError) as error:
                raise Failure(
                    f'{file}, line {number}: expected {{"title": "...", "labels": {{...}}, "severity": "P1", "type": "Performance"}} ({error})',
                    ExitCode.USAGE,
                ) from None


def _example(row: Mapping[str, Any]) -> Example:
    from models.incidents.incident import IncidentType, Severity
    from models.learned.examples import SEEN, Example
    from models.partition.sharding import TENANT
    from models.shard.effects import Classify

    labels = {str(name): str(value) for name, value in (row.get("labels") or {}).items()}
    severity = Severity[str(row["severity"]).upper()] if row.get("severity") else None
    type_ = IncidentType(str(row["type"]).capitalize()) if row.get("type") else None
    if severity is None and type_ is None:
        raise ValueError("neither severity nor type")
    signals = [str(row["signal"])] if row.get("signal") else []
    service = str(row.get("service") or labels.get("service", ""))
    title, description = (
        str(row.get("title") or labels.get("alertname", "")),
        str(row.get("description") or ""),
    )
    question = Classify(b"", TENANT, service, "", title, description, labels, {}, signals, len(signals))
    return Example(question, 0.0, severity, SEEN, type_, SEEN)


def _figures(found: Figures) -> Row:
    return {
        "count": found.count,
        "accuracy": found.both_accuracy,
        "macro_f1": found.both_f1,
        "rules_accuracy": found.rules_accuracy,
        "rules_macro_f1": found.rules_f1,
        "model_accuracy": found.accuracy,
        "model_macro_f1": found.macro_f1,
        "sure": found.sure,
        "sure_accuracy": found.sure_accuracy,
        "calibration_error": found.calibration_error,
        "confusion": [{"expected": so, "said": said, "count": count} for so, said, count in found.confusion],
    }


def _print_figures(what: str, found: Row) -> None:
    typer.echo(f"{what}, of {found['count']:,} incidents")
    for name, text in (
        ("together", f"right {_share(found['accuracy'])}, F1 {found['macro_f1']:.3f}"),
        ("rules alone", f"right {_share(found['rules_accuracy'])}, F1 {found['rules_macro_f1']:.3f}"),
        ("model alone", f"right {_share(found['model_accuracy'])}, F1 {found['model_macro_f1']:.3f}"),
        ("where sure", f"{_share(found['sure'])} of them, right {_share(found['sure_accuracy'])}"),
        ("calibration", f"off by {found['calibration_error']:.3f}"),
    ):
        typer.echo(f"  {name:<13}{text}")
    wrong = [each for each in found["confusion"] if each["expected"] != each["said"]][:CONFUSED_SHOWN]
    for each in wrong:
        typer.echo(
            f"  {each['count']:>6,}  {terminal.plain(each['expected'])} taken for {terminal.plain(each['said'])}"
        )


def _standing(body: Row) -> str:
    active = "the rules alone decide" if body["active"] is None else f"model {body['active']} is active"
    return active + ("" if body["shadow"] is None else f", model {body['shadow']} is the shadow")


def _of_training(training: Row | None) -> str:
    if training is None:
        return ""
    who = f"asked for by {terminal.plain(training['asked_by'])}"
    if training["ended_at"] is None:
        return f"a training is under way, {who} {terminal.when(training['asked_at'])}"
    if training["version"] is None:
        return f"the last training, {who}, made no model: {terminal.plain(training['reason'])}"
    return ""


def _write(made: Row, words: str, asked: Asked) -> None:
    if asked.as_json:
        output.write_json(made)
    else:
        typer.echo(words)


def _json(client: Client, reply: Reply, status: int) -> Any:
    if reply.status == status:
        return reply.json()
    raise client.failure(reply, "see llm-im learn models" if reply.status == 404 else "")
