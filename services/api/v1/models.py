"""/v1/models: versions of the learned classifier, and what is done with them: train, promote, roll back, compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.control.model_versions import ModelState, ModelVersion, Training
from models.control.modelling import Standing
from models.learned.evaluate import Figures
from services.api.auth import ADMIN, READ, Caller, requires
from services.api.models import ModelDesk
from services.api.v1.bodies import json_response
from services.api.v1.fields import TextOrNone, Time, says
from services.api.v1.incidents import PREFIX
from services.api.v1.requests import (
    BodyKind,
    BodyReader,
    IdempotencyKey,
    asks_for,
    describe_bodies,
    origin_of,
)
from services.api.v1.route_table import Route, add_routes
from services.times import timestamp

PATH = f"{PREFIX}/models"


@dataclass(frozen=True, slots=True)
class ConfusionBody:
    """How often an incident that is one thing would have been called another, or the same."""

    expected: Annotated[str, says("What it is.")]
    said: Annotated[str, says("What would have been said: by the model where it is sure, else by the rules.")]
    count: Annotated[int, says("How often.")]


@dataclass(frozen=True, slots=True)
class FiguresBody:
    """How good a model is at one thing, on incidents of services that it had not seen, each of which somebody worked on."""

    count: Annotated[int, says("Incidents that it was tried on.")]
    accuracy: Annotated[
        float, says("How often model and rules together are right: the model where it is sure.")
    ]
    macro_f1: Annotated[float, says("Their F1, the mean over what occurs.")]
    rules_accuracy: Annotated[float, says("How often the rules alone are right.")]
    rules_macro_f1: Annotated[float, says("Their F1.")]
    model_accuracy: Annotated[float, says("How often the model alone is right, sure or not.")]
    model_macro_f1: Annotated[float, says("Its F1.")]
    sure: Annotated[float, says("For how many incidents it is sure enough to be heard, as a share.")]
    sure_accuracy: Annotated[float, says("How often it is right there.")]
    calibration_error: Annotated[
        float, says("By how much what it says of its certainty is off on the average.")
    ]
    confusion: Annotated[list[ConfusionBody], says("What was taken for what, the most frequent first.")]


@dataclass(frozen=True, slots=True)
class ModelBody:
    """One version."""

    version: Annotated[int, says("Its number.")]
    state: Annotated[
        ModelState,
        says("`active`: incidents are classified by it. `shadow`: it is only compared. `retired`: neither."),
    ]
    trained_at: Annotated[Time, says("When it was trained.")]
    trained_by: Annotated[str, says("Who asked for it, or `schedule`.")]
    took_s: Annotated[float, says("How long that took, in seconds.")]
    examples: Annotated[int, says("Incidents that it learned from.")]
    corrected: Annotated[int, says("Of those, how many a person had corrected.")]
    seen: Annotated[int, says("How many of the others somebody had worked on.")]
    evaluation: Annotated[dict[str, FiguresBody], says("How good it is, by `severity` and `type`.")]
    evaluated_by: Annotated[str, says("What the incidents were held out by: `service` or `alertname`.")]
    confidence: Annotated[float, says("How sure it had to be there.")]
    skipped: Annotated[dict[str, str], says("What it does not decide, and why.")]
    sha256: Annotated[str, says("The digest of its file.")]
    bytes: Annotated[int, says("The size of its file.")]
    can_be_promoted: Annotated[bool, says("Whether its file is still kept.")]
    changed_at: Annotated[Time, says("When its state last changed.")]
    changed_by: Annotated[str, says("By whom.")]
    reason: Annotated[str, says("Why; may be empty.")]


@dataclass(frozen=True, slots=True)
class TrainingBody:
    """A training that was asked for."""

    id: Annotated[str, says("Its id.")]
    asked_at: Annotated[Time, says("When.")]
    asked_by: Annotated[str, says("By whom, or `schedule`.")]
    ended_at: Annotated[Time | None, says("When it ended; null: it is under way.")]
    version: Annotated[int | None, says("The model that came of it; null: none, or none yet.")]
    reason: Annotated[str, says("Why no model came of it; empty if one did.")]


@dataclass(frozen=True, slots=True)
class ModelsBody:
    """All versions, the newest first, and the last training."""

    items: Annotated[list[ModelBody], says("The versions.")]
    active: Annotated[
        int | None, says("The version that incidents are classified by; null: by the rules alone.")
    ]
    shadow: Annotated[int | None, says("The version that is compared with it; null: none.")]
    training: Annotated[TrainingBody | None, says("The last training that was asked for.")]


@dataclass(frozen=True, slots=True)
class StandingBody:
    """What counts now."""

    active: Annotated[
        int | None, says("The version that incidents are classified by; null: by the rules alone.")
    ]
    shadow: Annotated[int | None, says("The version that is compared with it; null: none.")]


@dataclass(frozen=True, slots=True)
class ComparedBody:
    """How often one answer of the shadow stood beside one that counted."""

    what: Annotated[str, says("`severity` or `type`.")]
    given: Annotated[str, says("What the incident was classified as.")]
    shadow: Annotated[str, says("What it would have been by the shadow.")]
    count: Annotated[int, says("How often, since the classifiers started.")]


@dataclass(frozen=True, slots=True)
class AgreementBody:
    """What the shadow would have said of the incidents that came meanwhile."""

    version: Annotated[int, says("The shadow.")]
    items: Annotated[list[ComparedBody], says("What it would have said beside what was said.")]
    silent: Annotated[list[str], says("Classifiers that did not answer, whose counts are missing.")]


class PromoteRequest(BaseModel):
    """Why; may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[TextOrNone, Field(description="Why; kept with the version.")] = ""


class RollBackRequest(BaseModel):
    """Which version to go back from, and why; both may be left out."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**31,
            description="The active version that it is about: a repeat goes back once. null: whichever is active.",
        ),
    ] = None
    reason: Annotated[TextOrNone, Field(description="Why; kept with the version.")] = ""


_Version = Annotated[int, Path(ge=1, le=2**31, description="The version.")]
_May = Annotated[Caller, Depends(requires(ADMIN))]
_MISSING = {"404": "There is no such version."}


def add_model_routes(app: FastAPI, desk: ModelDesk, bodies: BodyReader) -> None:
    """The eight routes."""
    why, back = BodyKind(PromoteRequest), BodyKind(RollBackRequest)

    async def models() -> Response:
        """All versions of the learned classifier, the newest first, with what counts and the last training."""
        items = [_body(desk, each) for each in await desk.all()]
        standing, training = desk.standing, await desk.training()
        found = ModelsBody(items, standing.active or None, standing.shadow or None, None)
        if training is None:
            return json_response(found)
        return json_response(ModelsBody(items, found.active, found.shadow, _training(training)))

    async def model(version: _Version) -> Response:
        """One version."""
        return json_response(_body(desk, await desk.find(version)))

    async def file(version: _Version) -> Response:
        """A version's file, as docs/learning.md describes it."""
        return Response(await desk.file(version), media_type="application/octet-stream")

    async def train(request: Request, caller: _May, idempotency_key: IdempotencyKey = None) -> Response:
        """Train a new model on the cluster, from the incidents of this system. It becomes the shadow and decides nothing until it is
        promoted. The answer comes at once: look at `training` of the list."""
        asked = await desk.train(origin_of(request).delivery_id or uuid4().hex, caller.name)
        return json_response(_training(asked), 202)

    async def promote(version: _Version, request: Request, caller: _May) -> Response:
        """Have new incidents classified by this version where it is sure. Those that are open keep what they have. Safe to repeat."""
        wanted = await bodies.read(request, why)
        return json_response(_body(desk, await desk.promote(version, caller.name, wanted.reason)))

    async def shadow(version: _Version, caller: _May) -> Response:
        """Have this version compared with what counts. Safe to repeat."""
        return json_response(_standing(await desk.shadow(version, caller.name)))

    async def unshadow(caller: _May) -> Response:
        """Compare with no version. Safe to repeat."""
        return json_response(_standing(await desk.shadow(0, caller.name)))

    async def roll_back(request: Request, caller: _May) -> Response:
        """Go back to the version that was active before, or to the rules alone."""
        wanted = await bodies.read(request, back)
        return json_response(_standing(await desk.roll_back(caller.name, wanted.reason, wanted.version)))

    async def agreement() -> Response:
        """What the shadow would have said of the incidents that were classified since the classifiers started."""
        found = await desk.agreement()
        return json_response(
            AgreementBody(found.version, [ComparedBody(*each) for each in found.counts], found.silent)
        )

    one = f"{PATH}/{{version}}"
    off = {"409": "No model is a shadow."}
    routes = (
        Route(PATH, models, "GET", 200, ModelsBody, {}, None, READ),
        Route(f"{PATH}/train", train, "POST", 202, TrainingBody, {"409": "A training is under way."}, None, ADMIN),
        Route(f"{PATH}/shadow", agreement, "GET", 200, AgreementBody, off, None, READ),
        Route(f"{PATH}/shadow", unshadow, "DELETE", 200, StandingBody, {}, None, ADMIN),
        Route(
            f"{PATH}/rollback", roll_back, "POST", 200, StandingBody,
            {"409": "No model is active."}, asks_for(RollBackRequest, {"version": 3, "reason": "pages too often"}), ADMIN,
        ),
        Route(one, model, "GET", 200, ModelBody, _MISSING, None, READ),
        Route(f"{one}/file", file, "GET", 200, None, _MISSING, None, READ),
        Route(
            f"{one}/promote", promote, "POST", 200, ModelBody,
            {**_MISSING, "409": "Its file is kept no more."}, asks_for(PromoteRequest, {"reason": "better in shadow"}), ADMIN,
        ),
        Route(f"{one}/shadow", shadow, "POST", 200, StandingBody, {**_MISSING, "409": "It is active, or its file is kept no more."}, None, ADMIN),
    )  # fmt: skip
    add_routes(app, "models", routes)
    describe_bodies(app, PromoteRequest, RollBackRequest)


def _body(desk: ModelDesk, model: ModelVersion) -> ModelBody:
    evaluation = model.evaluation
    return ModelBody(
        model.version,
        model.state,
        timestamp(model.trained_at),
        model.asked_by,
        round(model.took_s, 3),
        model.examples.all,
        model.examples.corrected,
        model.examples.seen,
        {name: _figures(each) for name, each in evaluation.heads.items()},
        evaluation.split_by,
        evaluation.confidence,
        model.skipped,
        model.digest,
        model.file_bytes,
        desk.is_kept(model.version),
        timestamp(model.changed_at),
        model.changed_by,
        model.why,
    )


def _figures(found: Figures) -> FiguresBody:
    return FiguresBody(
        found.count,
        round(found.both_accuracy, 4),
        round(found.both_f1, 4),
        round(found.rules_accuracy, 4),
        round(found.rules_f1, 4),
        round(found.accuracy, 4),
        round(found.macro_f1, 4),
        round(found.sure, 4),
        round(found.sure_accuracy, 4),
        round(found.calibration_error, 4),
        [ConfusionBody(*each) for each in found.confusion],
    )


def _training(found: Training) -> TrainingBody:
    ended = timestamp(found.ended_at) if found.ended_at else None
    return TrainingBody(found.id, timestamp(found.at), found.actor, ended, found.version or None, found.why)


def _standing(found: Standing) -> StandingBody:
    return StandingBody(found.active or None, found.shadow or None)
