// @ts-check
// One incident: what it is, who has it, what happened, and what can be done.
import { get, post } from "../api.js";
import { away, fill, h, keep, words } from "../dom.js";
import { paced } from "../pace.js";
import { button, chip, choice, fail, holder, isOpen, marks, moreButton, nothing, pairs, severity, trouble } from "../parts.js";
import { session } from "../session.js";
import { makeSilence, matchersOf } from "../silencing.js";
import { clock, exact, when } from "../times.js";
import { acknowledge, comment, part, resolve, split, verbsOf } from "../verbs.js";
import { runCard } from "./runs.js";

const ALERTS_PAGE = 50;
const AGAIN_MS = 1000;
/** Lines of the timeline that say who was told, or why not. */
const TELLING = /^(Notification|Escalation)|^(AlertsMuted|AlertsUnmuted|SymptomMuteEnded)$/;
const PEOPLES = new Set(["CommentAdded", "Acknowledged", "AcknowledgementEnded", "AssignmentChanged", "Reclassified", "LabelsChanged", "StakeholdersUpdated", "Linked", "Unlinked", "Merged", "Unmerged", "Split", "ApprovalGiven", "ApprovalDenied"]);
const BAD = /^(NotificationFailed|EscalationFailed|StepFailed|MergeRefused|TargetPassed|UpdateMissed|EscalationEnded|SideEffect)$/;

/** @param {any} shell @param {string} id */
export function incidentPage(shell, id) {
  /** @type {any} */
  let incident = null;
  /** @type {any[]} */
  let alerts = [];
  /** @type {string | null} */
  let nextAlerts = null;
  /** @type {any[]} */
  let lines = [];
  let dropped = 0;
  /** @type {any[]} */
  let runs = [];
  let only = "all";

  const state = h("div", { role: "status" }, "Loading…");
  const head = h("header", { class: "incident-head" }, h("h1", { tabindex: "-1" }, "Incident"));
  const verbs = h("div", { class: "verbs", role: "group", "aria-label": "What to do" });
  const notices = h("div", { class: "notices" });
  const facts = h("section", { class: "facts", "aria-labelledby": "facts-h" });
  const told = h("ol", { class: "lines" });
  const timeline = h("ol", { class: "lines" });
  const cut = h("p", { class: "hint", hidden: true });
  const alertList = h("ol", { class: "alerts" });
  const alertFoot = h("div", { class: "foot" });
  const alertCount = h("span", { class: "count" });
  const runList = h("ol", { class: "runs" });
  const runSection = h("section", { "aria-labelledby": "runs-h", hidden: true }, h("h2", { id: "runs-h" }, "Playbooks"), runList);
  const related = h("section", { "aria-labelledby": "related-h", hidden: true });
  const text = /** @type {HTMLTextAreaElement} */ (h("textarea", { id: "note", rows: "2", maxlength: "8192", placeholder: "What you see, what you try", required: true }));
  let isSending = false;
  const note = h("form", { class: "note", on: { submit: async (/** @type {Event} */ event) => {
    event.preventDefault();
    const written = text.value.trim();
    if (!written || isSending) return;
    isSending = true;
    if (await comment(on(), written)) text.value = "";
    isSending = false;
  }, keydown: (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) /** @type {HTMLFormElement} */ (note).requestSubmit();
  } } }, h("label", { for: "note" }, "Note"), text, h("button", { type: "submit" }, "Add note"));
  const filter = choice([["all", "everything"], ["people", "what people did"], ["telling", "who was told"], ["system", "without people"]], "all", { id: "only", "aria-label": "Which lines" });
  filter.addEventListener("change", () => {
    only = filter.value;
    showTimeline();
  });
  const why = h("div", { class: "why" });
  const body = h(
    "div",
    { class: "incident-body", hidden: true },
    h(
      "div",
      { class: "column" },
      notices,
      related,
      runSection,
      h("section", { "aria-labelledby": "timeline-h" }, h("div", { class: "section-head" }, h("h2", { id: "timeline-h" }, "Timeline"), filter), session.may("respond") && note, timeline, cut),
    ),
    h(
      "div",
      { class: "column side" },
      facts,
      h("section", { "aria-labelledby": "alerts-h" }, h("h2", { id: "alerts-h" }, "Alerts ", alertCount), alertList, alertFoot),
      h("section", { "aria-labelledby": "told-h" }, h("h2", { id: "told-h" }, "Who was told, and why"), told, button("Who would be told now?", whoIsTold, { kind: "quiet" }), why),
    ),
  );
  const element = h("div", { class: "page incident-page" }, h("a", { class: "back", href: "/ui/incidents", data: { back: "" } }, "← Incidents"), state, head, verbs, body);

  const on = () => ({ incident, done: (/** @type {any} */ after) => {
    take(after);
    later();
  } });

  /** @param {any} found */
  function take(found) {
    // An answer may be older than what was heard meanwhile.
    if (incident && found.version < incident.version) return;
    incident = found;
    show();
  }

  async function load() {
    const more = { signal: shell.signal };
    const reads = [get(`/v1/incidents/${id}`, more), get(`/v1/incidents/${id}/timeline`, more), get(`/v1/incidents/${id}/alerts`, { ...more, query: { limit: Math.max(ALERTS_PAGE, Math.min(1000, alerts.length)) } }), get(`/v1/incidents/${id}/runs`, more)];
    const [whole, history, members, its] = await Promise.allSettled(reads);
    if (shell.signal.aborted) return;
    if (whole.status === "rejected") {
      fill(state, trouble(whole.reason, whole.reason?.status === 404 ? null : load));
      return;
    }
    const failed = [history, members, its].find((each) => each.status === "rejected");
    fill(state, failed && trouble(/** @type {PromiseRejectedResult} */ (failed).reason, load));
    if (history.status === "fulfilled") {
      lines = history.value.items;
      dropped = history.value.dropped;
    }
    if (members.status === "fulfilled") {
      alerts = members.value.items;
      nextAlerts = members.value.next;
    }
    if (its.status === "fulfilled") runs = its.value.items;
    body.hidden = false;
    if (!incident || whole.value.version >= incident.version) incident = whole.value;
    show();
    showTimeline();
    showAlerts();
    runSection.hidden = !runs.length;
    keep(runList, [...runs].reverse(), (each) => each.id, (run) => runCard(run, () => later(), { isAlone: true }));
  }

  let shown = "";
  function show() {
    const now = JSON.stringify(incident);
    if (now === shown) return;
    shown = now;
    if (incident.situation) shell.sawSituation();
    shell.retitle(`${incident.severity} ${incident.title}`);
    const open = isOpen(incident);
    replace(
      head,
      h("div", { class: "badges" }, severity(incident.severity), chip(incident.state, open ? "state" : "state over"), chip(incident.incident_type, "quiet"), marks(incident)),
      h("h1", { tabindex: "-1", class: incident.title.length > 90 ? "long" : "" }, words(incident.title)),
      h("p", { class: "lead" }, words(incident.service, "service"), " · opened ", when(incident.created_at), " · ", h("span", { class: "has" }, open ? "who has it: " : "", holder(incident))),
    );
    verbs.hidden = !session.may("respond");
    const all = verbsOf(on(), { silence: () => makeSilence(matchersOf(incident), () => later()), runs: () => later(), split: () => split(on(), alerts, (made) => shell.go(`/ui/incidents/${made.id}`)) });
    const menu = h("details", { class: "menu", data: { part: "menu" } }, h("summary", { data: { focus: "menu" } }, "More"), h("ul", null, all.rest.map(([label, does, kind]) => h("li", { class: kind }, button(label, () => {
      menu.removeAttribute("open");
      return does();
    })))));
    replace(verbs, all.first.map(([label, does, kind, key]) => button(label, does, { kind, data: { focus: label }, "aria-keyshortcuts": key || undefined })), menu);
    showNotices();
    showFacts();
    showRelated();
  }

  /** In place, with the focus where it was. @param {HTMLElement} place @param {...any} children */
  function replace(place, ...children) {
    const made = /** @type {HTMLElement} */ (place.cloneNode(false));
    fill(made, ...children);
    const focused = document.activeElement;
    const wasTitle = focused instanceof HTMLElement && focused.tagName === "H1" && place.contains(focused);
    const name = focused instanceof HTMLElement && place.contains(focused) ? focused.dataset.focus : "";
    const isOpenMenu = place.querySelector("details[open]");
    fill(place, ...made.childNodes);
    if (isOpenMenu) place.querySelector("details")?.setAttribute("open", "");
    if (wasTitle) place.querySelector("h1")?.focus({ preventScroll: true });
    else if (name) /** @type {HTMLElement | null} */ (place.querySelector(`[data-focus="${CSS.escape(name)}"]`) ?? place.querySelector("button"))?.focus({ preventScroll: true });
  }

  function showNotices() {
    const found = [];
    const link = (/** @type {string} */ other, /** @type {string} */ said) => h("a", { href: `/ui/incidents/${other}` }, said);
    if (incident.merged_into) found.push(h("p", { class: "notice" }, "It was merged into ", link(incident.merged_into, "another incident"), ", which has its severity and its alerts too."));
    if (incident.split_from) found.push(h("p", { class: "notice" }, "Its alerts were split from ", link(incident.split_from, "another incident"), "."));
    if (incident.muted) {
      const by = incident.muted.by.map((/** @type {any} */ each) =>
        h("li", null, each.silence ? ["silence of ", words(each.by), each.comment && [": ", words(each.comment)], each.until && [", ends ", when(each.until)]] : ["while ", words(each.title || each.fingerprint), " fires", each.rule && [" (", words(each.rule), ")"]]));
      found.push(h("div", { class: "notice" }, h("p", null, incident.muted.is_muted ? "All that fires is muted, so nobody is notified." : `${incident.muted.alerts} of its firing alerts are muted.`, incident.muted.withheld && ` Withheld: ${incident.muted.withheld}.`), h("ul", null, by)));
    }
    if (incident.due.resolve_due_at && isOpen(incident)) found.push(h("p", { class: "notice" }, "To be resolved ", when(incident.due.resolve_due_at), "."));
    if (incident.update_due_at) found.push(h("p", { class: "notice" }, "The next stakeholder update is due ", when(incident.update_due_at), "."));
    const escalation = incident.escalation;
    if (escalation) found.push(h("div", { class: `notice ${escalation.status === "running" ? "hot" : ""}` },
      h("p", null, "Escalation ", h("b", null, words(escalation.policy)), `: ${escalation.status}`, escalation.next_at && [`; level ${escalation.level} is told `, when(escalation.next_at)], escalation.why && [" (", words(escalation.why), ")"]),
      escalation.told.length > 0 && h("p", null, "Paged: ", words(escalation.told.join(", ")))));
    if (incident.resolution) {
      const { resolution } = incident;
      found.push(h("div", { class: "notice good" }, h("p", null, "Resolved by ", words(resolution.resolved_by), " ", when(resolution.resolved_at), ` (${resolution.resolution_method})`),
        resolution.root_cause && h("p", null, h("b", null, "Root cause: "), words(resolution.root_cause)), resolution.notes && h("p", { class: "prose" }, words(resolution.notes))));
    }
    if (incident.overflow) found.push(h("p", { class: "notice hot" }, `It stands for ${incident.overflow.count} groups, because there are too many incidents.`));
    fill(notices, found);
  }

  function showFacts() {
    const rows = /** @type {[string, any][]} */ ([
      ["Impact", words(incident.impact || "not known")],
      ["Classified", incident.classified_by && words(incident.classified_by)],
      ["Set by people", [incident.said.severity, incident.said.incident_type, incident.said.impact].filter(Boolean).join(", ")],
      ["Alerts", `${incident.alerts_firing} firing of ${incident.alerts}`],
      ["Acknowledged", incident.acknowledged && [words(incident.acknowledged.by), " ", when(incident.acknowledged.at), incident.acknowledged.until && [", until ", when(incident.acknowledged.until)]]],
      ["Assigned", incident.assignees.length > 0 && words(incident.assignees.join(", "))],
      ...Object.entries(incident.roles).map(([role, who]) => [role, words(/** @type {string} */ (who))]),
      ["Group", incident.group_key && words(incident.group_key, "code")],
      ["Opened by", words(incident.created_by)],
      ["First alert", incident.began_at && when(incident.began_at)],
    ]).filter(([, value]) => value);
    replace(
      facts,
      h("h2", { id: "facts-h" }, "What it is"),
      incident.description && h("p", { class: "prose" }, words(incident.description)),
      runbooks(incident.annotations),
      h("dl", null, rows.map(([name, value]) => [h("dt", null, words(name)), h("dd", null, value)])),
      h("details", { data: { part: "labels" } }, h("summary", { data: { focus: "labels" } }, "Labels"), pairs(incident.labels)),
      Object.keys(incident.annotations).length > 0 && h("details", { data: { part: "annotations" } }, h("summary", { data: { focus: "annotations" } }, "Annotations"), pairs(incident.annotations)),
    );
  }

  function showRelated() {
    const can = session.may("respond");
    const parts = [];
    const causes = incident.probable_causes ?? [];
    if (incident.situation) {
      parts.push(h("p", null, `One of ${incident.situation.incidents} incidents that belong together; it is ${incident.situation.part === "cause" ? "the probable cause" : `a ${incident.situation.part} one`}. `,
        h("a", { href: `/ui/situations/${incident.situation.id}` }, "All of them"), incident.situation.symptom_of && [" · ", h("a", { href: `/ui/incidents/${incident.situation.symptom_of}` }, "the cause")],
        incident.situation.muted_until && [" · waits as a symptom until ", when(incident.situation.muted_until, "clock")]));
    }
    if (causes.length) parts.push(causeList(causes));
    if (incident.parts.length) parts.push(h("h3", null, "Merged into it"), h("ul", { class: "others" }, incident.parts.map((/** @type {any} */ each) => h("li", null, severity(each.severity), h("a", { href: `/ui/incidents/${each.incident}` }, each.incident.slice(0, 18)), each.pending && chip(each.pending, "quiet"), can && button("Take out", () => part(on(), "unmerge", each.incident), { kind: "small" })))));
    if (incident.related_incidents.length) parts.push(h("h3", null, "Linked"), h("ul", { class: "others" }, incident.related_incidents.map((/** @type {string} */ each) => h("li", null, h("a", { href: `/ui/incidents/${each}` }, each.slice(0, 18)), can && button("Unlink", () => part(on(), "unlink", each), { kind: "small" })))));
    if (incident.updates.length) parts.push(h("h3", null, "Stakeholder updates"), h("ul", { class: "updates" }, [...incident.updates].reverse().map((/** @type {any} */ each) => h("li", null, h("p", { class: "prose" }, words(each.text)), h("p", { class: "sub" }, words(each.by), " to ", words(each.audience), " ", when(each.at))))));
    related.hidden = !parts.length;
    fill(related, h("h2", { id: "related-h" }, "What belongs to it"), parts);
  }

  function showTimeline() {
    const numbered = lines.map((line, place) => ({ ...line, key: `${line.timestamp} ${line.event_type} ${dropped && place > 20 ? place - lines.length : place}` }));
    const chosen = numbered.filter((line) => only === "all" || (only === "people" && PEOPLES.has(line.event_type)) || (only === "telling" && TELLING.test(line.event_type)) || (only === "system" && !PEOPLES.has(line.event_type)));
    keep(timeline, chosen.reverse(), (each) => each.key, entry);
    keep(told, numbered.filter((line) => TELLING.test(line.event_type)).reverse().slice(0, 30), (each) => each.key, entry);
    if (!told.children.length) fill(told, h("li", { class: "nothing" }, "Nobody was told of it."));
    cut.hidden = !dropped;
    fill(cut, `${dropped} lines in between are no longer kept.`);
  }

  function showAlerts() {
    fill(alertCount, `${incident.alerts_firing} firing of ${incident.alerts}`);
    keep(alertList, alerts, (each) => each.fingerprint + each.incident_id, alertItem);
    fill(alertFoot, !alerts.length && nothing(incident.group_key ? "No alert." : "It was created by hand and has no alerts."), nextAlerts && moreButton(async () => {
      const page = await get(`/v1/incidents/${id}/alerts`, { query: { limit: ALERTS_PAGE, cursor: nextAlerts }, signal: shell.signal });
      alerts = [...alerts, ...page.items];
      nextAlerts = page.next;
      showAlerts();
    }));
  }

  async function whoIsTold() {
    try {
      const found = await post("/v1/routes/test", { labels: labelsFor(incident.labels), severity: incident.severity, incident_type: incident.incident_type, service: incident.service });
      fill(why,
        found.discarded_by && h("p", null, "Nobody: the route ", words(found.discarded_by), " discards it."),
        found.told.length > 0 && h("ul", null, found.told.map((/** @type {any} */ each) => h("li", null, h("b", null, words(each.receiver)), " by route ", words(each.route), ": ", words(each.why)))),
        found.escalation && h("p", null, "Then people on call, by ", h("b", null, words(found.escalation))),
        !found.discarded_by && !found.told.length && h("p", null, "Nobody: no receiver is set."));
    } catch (error) {
      fail(error, "Routes");
    }
  }

  const later = paced(load, AGAIN_MS);

  void load();
  return {
    element,
    title: "Incident",
    refresh: load,
    /** @param {any} event */
    heard(event) {
      if (event.event === "reset" || (event.event === "incident" && event.incident.id === id)) later();
    },
    keys: {
      a: () => incident && isOpen(incident) && !incident.acknowledged && acknowledge(on()),
      s: () => incident && isOpen(incident) && makeSilence(matchersOf(incident), () => later()),
      r: () => incident && isOpen(incident) && resolve(on()),
      c: () => text.focus(),
      u: shell.back,
    },
    leave() {
      later.cancel();
    },
  };
}

/** The API takes only such names, and so many, when it is asked who would be told. @param {Record<string, string>} labels */
function labelsFor(labels) {
  return Object.fromEntries(Object.entries(labels).filter(([name, value]) => /^[a-zA-Z_][a-zA-Z0-9_]{0,127}$/.test(name) && value.length <= 1024).slice(0, 64));
}

/** @param {any[]} causes */
export function causeList(causes) {
  return h("ol", { class: "causes" }, causes.map((each) => h("li", null, h("b", null, words(each.service)), each.incident && [" ", h("a", { href: `/ui/incidents/${each.incident}` }, words(each.title || "its incident"))], chip(`${Math.round(each.score * 100)} %`, "quiet"), h("ul", null, each.reasons.map((/** @type {string} */ reason) => h("li", null, words(reason)))))));
}

/** Links to what to do, where an alert brought one. @param {Record<string, string>} annotations */
function runbooks(annotations) {
  const found = Object.entries(annotations).filter(([name]) => /runbook|playbook_url|dashboard/i.test(name));
  return found.length > 0 && h("p", { class: "runbooks" }, found.map(([name, url]) => [away(url, name.replace(/_?url$/i, "").replace(/_/g, " ")), " "]));
}

/** @param {any} line */
function entry(line) {
  const more = Object.entries(line.metadata);
  return h(
    "li",
    { class: `line ${PEOPLES.has(line.event_type) ? "by-person" : ""} ${BAD.test(line.event_type) ? "bad" : ""}` },
    h("time", { datetime: line.timestamp, title: exact(line.timestamp) }, clock(line.timestamp)),
    h("div", null,
      h("p", { class: "kind" }, line.event_type.replace(/([a-z])([A-Z])/g, "$1 $2"), line.actor !== "system" && [" · ", words(line.actor)]),
      h("p", { class: "prose" }, words(line.description)),
      more.length > 0 && h("details", { data: { part: "more" } }, h("summary", null, "details"), pairs(line.metadata))),
  );
}

/** @param {any} alert */
function alertItem(alert) {
  const name = alert.labels.alertname || alert.fingerprint;
  const summary = alert.annotations.summary || alert.annotations.description || "";
  return h(
    "li",
    { class: `alert ${alert.firing ? "firing" : "ended"}` },
    h("p", null, h("span", { class: "lamp", "aria-hidden": "true" }), h("b", null, words(name)), " ", chip(alert.firing ? "firing" : "ended", alert.firing ? "due" : "quiet"), (alert.silenced_by.length > 0 || alert.inhibited_by) && chip("muted", "quiet"), " ", when(alert.firing ? alert.starts_at : alert.ends_at ?? alert.last_seen_at)),
    summary && h("p", { class: "prose" }, words(summary)),
    h("details", { data: { part: "all" } }, h("summary", { data: { focus: "all" } }, "labels, and why it is here"),
      pairs(alert.labels),
      Object.keys(alert.annotations).length > 0 && pairs(alert.annotations),
      h("ul", { class: "why-list" }, alert.why.map((/** @type {any} */ each) => h("li", null, words(each.reason), each.count > 1 && ` (${each.count} times)`, ", last ", when(each.last_at), each.sender && [" from ", words(each.sender)]))),
      alert.generator_url && h("p", null, "From ", away(alert.generator_url)),
      runbooks(alert.annotations)),
  );
}
