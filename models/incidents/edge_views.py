"""What a shard shows of edge agents. Called by views.py for the questions of models/edge/questions.py."""

from __future__ import annotations

import msgspec

from models.edge.agent import AWAY_OWED, BACK_OWED, EdgeAgent
from models.edge.questions import (
    AGENTS_PAGE_MAX,
    WORK_MAX,
    EdgeActionPage,
    EdgeAgentPage,
    EdgeAgentView,
    EdgeAnswer,
    EdgeNotice,
    EdgeNoticePage,
    EdgeQuestion,
    EdgeWork,
    EdgeWorkPage,
    GetEdgeAction,
    GetEdgeAgent,
    GetEdgeWork,
    ListEdgeAgents,
    ListEdgeNotices,
)
from models.shard.core import Core
from models.shard.edge_outbox import EdgeOutbox, result_of


def edge_answer(shard: Core, question: EdgeQuestion) -> EdgeAnswer:
    """The answer to a question about edge agents."""
    outbox = shard.of(EdgeOutbox)
    match question:
        case GetEdgeAgent():
            agent = outbox.find(question.tenant, question.agent)
            return EdgeAgentPage([] if agent is None else [EdgeAgentView(agent, _open(agent))])
        case ListEdgeAgents():
            return _list(outbox, question)
        case GetEdgeAction():
            agent = outbox.find(question.tenant, question.agent)
            action = None if agent is None else result_of(agent, question.action, question.same_as)
            return EdgeActionPage([] if action is None else [action])
        case GetEdgeWork():
            return _work(shard, outbox, question)
        case ListEdgeNotices():
            found = outbox.store.noticed(question.tenant)
            return EdgeNoticePage([_notice(each) for each in found if each.notice in (AWAY_OWED, BACK_OWED)])


def _list(outbox: EdgeOutbox, question: ListEdgeAgents) -> EdgeAgentPage:
    limit = max(1, min(question.limit, AGENTS_PAGE_MAX))
    ids = sorted(
        each.id
        for each in outbox.store.agents.values()
        if each.tenant == question.tenant and each.id > question.after
    )
    page = []
    for identity in ids[:limit]:
        agent = outbox.find(question.tenant, identity)
        assert agent is not None
        page.append(EdgeAgentView(msgspec.structs.replace(agent, actions={}), _open(agent)))
    return EdgeAgentPage(page, ids[limit - 1] if len(ids) > limit else None)


def _work(shard: Core, outbox: EdgeOutbox, question: GetEdgeWork) -> EdgeWorkPage:
    items: list[EdgeWork] = []
    room = WORK_MAX
    for agent in outbox.store.work_of(question.gateway):
        if room <= 0:
            break
        if agent.tenant != question.tenant:
            continue
        actions = agent.to_deliver(shard.clock)[:room]
        config = (agent.config.version, agent.config.values) if agent.wants_config else None
        check = (agent.check.id, agent.check.service) if agent.wants_check else None
        if actions or config or check:
            room -= len(actions) + 1
            items.append(EdgeWork(agent.id, agent.stream, actions, config, check))
    lost = []
    for identity, stream in question.streams:
        agent_ = outbox.find(question.tenant, identity)
        if agent_ is None or agent_.stream != stream:
            lost.append(stream)
    return EdgeWorkPage(items, lost)


def _notice(agent: EdgeAgent) -> EdgeNotice:
    return EdgeNotice(agent.id, agent.since, agent.notice == AWAY_OWED, agent.status, agent.services)


def _open(agent: EdgeAgent) -> int:
    return sum(each.is_open for each in agent.actions.values())
