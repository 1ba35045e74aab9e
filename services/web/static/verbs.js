// @ts-check
// What people do to an incident, for the list and for the incident's own page: with the API's own errors, an undo where there is one, and a
// question where somebody else was faster.
import { Refused, get, post, text } from "./api.js";
import { h, words } from "./dom.js";
import { SEVERITIES, TYPES, ask, choice, fail, field, isOpen, say } from "./parts.js";
import { isName, session } from "./session.js";

/** As many as the API takes at once. */
const BULK_MAX = 1000;

/** @typedef {{incident: any, done: (incident: any) => void}} On what it is done to, and who is told how it is then */

/** Without tokens nobody knows who acts: ask once. @returns {Promise<boolean>} whether to go on */
export async function named() {
  if (session.isNamed) return true;
  const input = /** @type {HTMLInputElement} */ (h("input", { type: "text", autocomplete: "name", maxlength: "128" }));
  const answer = await ask({
    title: "Who are you?",
    fields: field("Your name", input, "It stands in the timeline beside what you do. Nobody checks it: this system has no tokens."),
    yes: "Go on",
    submit: async () => {
      const name = input.value.trim();
      if (!name) throw new Error("write a name, such as ana");
      if (!isName(name)) throw new Error("a name may have Latin letters, digits and punctuation here, as it travels in a header");
      return name;
    },
  });
  if (answer) session.name = answer;
  return Boolean(answer);
}

/**
 * Do a verb. @param {On} on @param {string} verb @param {Record<string, any>} body
 * @param {{doing: string, did: string, undo?: [string, Record<string, any>] | null, always?: boolean, throws?: boolean}} told
 * @returns {Promise<any>} the incident after it, null if it was not done
 */
export async function act(on, verb, body, told) {
  if (!(await named())) return null;
  const { incident } = on;
  const path = `/v1/incidents/${incident.id}/${verb}`;
  try {
    let after;
    try {
      after = await post(path, body, told.always ? null : incident.version);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 412) throw error;
      const current = await get(`/v1/incidents/${incident.id}`);
      on.done(current);
      if (!(await goesOn(incident, current, told.doing))) return null;
      after = await post(path, body, current.version);
    }
    on.done(after);
    const undo = told.undo;
    say(told.did, undo ? () => act({ incident: after, done: on.done }, undo[0], undo[1], { doing: "Undo", did: "Undone" }) : null);
    return after;
  } catch (error) {
    if (told.throws) throw error;
    fail(error, told.doing);
    return null;
  }
}

/** Say what somebody else changed since it was shown here, and ask. @param {any} before @param {any} after @param {string} doing */
function goesOn(before, after, doing) {
  const lines = differences(before, after);
  return ask({
    title: "It has changed meanwhile",
    fields: [
      lines.length
        ? h("ul", { class: "changes" }, lines.map(([what, from, to]) => h("li", null, h("b", null, `${what}: `), words(from), " → ", words(to))))
        : h("p", null, "Only its history has grown."),
      h("p", null, `${doing} all the same?`),
    ],
    yes: doing,
    no: "Leave it",
  });
}

/** @param {any} a @param {any} b @returns {[string, string, string][]} */
export function differences(a, b) {
  /** @type {[string, (i: any) => string][]} */
  const looks = [
    ["State", (i) => i.state],
    ["Severity", (i) => i.severity],
    ["Acknowledged by", (i) => i.acknowledged?.by ?? "nobody"],
    ["Assigned to", (i) => i.assignees.join(", ") || "nobody"],
    ["Roles", (i) => Object.entries(i.roles).map(([role, who]) => `${role} ${who}`).join(", ") || "none"],
    ["Title", (i) => i.title],
    ["Type", (i) => i.incident_type],
    ["Impact", (i) => i.impact],
    ["Labels", (i) => Object.entries(i.labels).map(([name, value]) => `${name}=${value}`).join(", ") || "none"],
    ["Merged into", (i) => i.merged_into ?? "none"],
    ["Children", (i) => String(i.parts.length)],
    ["Linked", (i) => String(i.related_incidents.length)],
    ["Updates", (i) => String(i.updates.length)],
  ];
  return looks.map(([name, of]) => /** @type {[string, string, string]} */ ([name, of(a), of(b)])).filter(([, from, to]) => from !== to);
}

/** @param {On} on @param {string} [lasts] "" until it ends */
export function acknowledge(on, lasts = "") {
  return act(on, "acknowledge", lasts ? { for: lasts } : {}, { doing: "Acknowledge", did: `Acknowledged: ${on.incident.title}`, undo: on.incident.acknowledged ? null : ["unacknowledge", {}] });
}

/** A storm: all that is shown and nobody has. @param {any[]} incidents @param {() => unknown} done */
export async function acknowledgeAll(incidents, done) {
  if (!(await named())) return;
  const found = await ask({
    title: `Acknowledge ${incidents.length} incidents?`,
    fields: [
      h("ul", { class: "muted-incidents" }, incidents.slice(0, 10).map((each) => h("li", null, `${each.severity} `, words(each.title)))),
      incidents.length > 10 && h("p", null, `and ${incidents.length - 10} more`),
    ],
    yes: "Acknowledge all",
    submit: () => many("acknowledge", incidents.slice(0, BULK_MAX).map((each) => each.id)),
  });
  if (!found) return;
  done();
  const refused = found.items.filter((/** @type {any} */ each) => each.status >= 400);
  if (refused.length) fail(new Error(`${refused.length} of ${found.items.length}: ${refused[0].detail}`), "Acknowledge");
  const changed = found.items.filter((/** @type {any} */ each) => each.changed).map((/** @type {any} */ each) => each.incident);
  say(`Acknowledged ${changed.length} incidents`, async () => {
    try {
      await many("unacknowledge", changed);
      say("Undone");
    } catch (error) {
      fail(error, "Undo");
    }
    done();
  });
}

/** @param {string} verb @param {string[]} incidents */
const many = (verb, incidents) => post("/v1/incidents/bulk", { verb, incidents, body: {} });

/** An incident that no alert opened. @param {(made: any) => void} done */
export async function create(done) {
  if (!(await named())) return;
  const service = line({ required: true, maxlength: "128" });
  const title = line({ required: true, maxlength: "256" });
  const severity = choice([["", "as classified"], ...SEVERITIES.map((each) => /** @type {[string, string]} */ ([each, each]))]);
  const description = lines();
  const made = await ask({
    title: "New incident",
    fields: [field("Title", title, "What is wrong, in one line."), field("Service", service), field("Severity", severity), field("Description", description)],
    yes: "Open it",
    submit: () => post("/v1/incidents", filled({ service: service.value.trim(), title: title.value.trim(), severity: severity.value, description: description.value.trim() })),
  });
  if (made) done(made);
}

/** @param {On} on */
export const unacknowledge = (on) => act(on, "unacknowledge", {}, { doing: "Withdraw", did: "Nobody has it now", undo: ["acknowledge", {}] });

/** @param {On} on */
export async function take(on) {
  if (!(await named())) return null;
  const me = session.actor;
  return act(on, "assign", { add: [me] }, { doing: "Assign", did: `Assigned to ${me}`, undo: ["assign", { remove: [me] }] });
}

/** @param {On} on */
export async function release(on) {
  const me = session.actor;
  return act(on, "assign", { remove: [me] }, { doing: "Unassign", did: `No longer assigned to ${me}`, undo: ["assign", { add: [me] }] });
}

/** A question whose answer is the body of a verb. @param {On} on @param {string} verb @param {string} title @param {any} fields @param {string} yes @param {() => Record<string, any>} read @param {any} told */
async function asked(on, verb, title, fields, yes, read, told) {
  if (!(await named())) return null;
  return ask({ title, fields, yes, submit: () => act(on, verb, read(), { ...told, throws: true }) });
}

const line = (/** @type {Record<string, any>} */ props = {}) => /** @type {HTMLInputElement} */ (h("input", { type: "text", autocomplete: "off", ...props }));
const lines = (/** @type {Record<string, any>} */ props = {}) => /** @type {HTMLTextAreaElement} */ (h("textarea", { rows: "4", maxlength: "8192", ...props }));
/** Only what was filled in. @param {Record<string, any>} body */
const filled = (body) => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== "" && value !== undefined));

/** @param {On} on */
export function resolve(on) {
  const cause = line({ maxlength: "8192" });
  const notes = lines();
  return asked(on, "resolve", "Resolve it", [field("Root cause", cause, "If you know it already."), field("Notes", notes, "How it was resolved, for whoever reads this later.")], "Resolve",
    () => filled({ root_cause: cause.value.trim(), notes: notes.value.trim() }), { doing: "Resolve", did: "Resolved", undo: ["reopen", { reason: "resolved by mistake" }] });
}

/** @param {On} on */
export const close = (on) => act(on, "close", {}, { doing: "Close", did: "Closed", undo: ["reopen", { reason: "closed by mistake" }] });
/** @param {On} on */
export const reopen = (on) => act(on, "reopen", {}, { doing: "Reopen", did: "Reopened" });

/** @param {On} on */
export function reclassify(on) {
  const { incident } = on;
  const { said } = incident;
  const severity = choice([["", `as classified (${incident.judged.severity})`], ...SEVERITIES.map((each) => /** @type {[string, string]} */ ([each, each]))], said.severity ?? "");
  const type = choice([["", `as classified (${incident.judged.incident_type})`], ...TYPES.map((each) => /** @type {[string, string]} */ ([each, each]))], said.incident_type ?? "");
  const reason = line({ maxlength: "1024" });
  const wanted = (/** @type {string} */ one, /** @type {string} */ other) => ({
    ...filled({ severity: one, incident_type: other }),
    clear: [!one && said.severity && "severity", !other && said.incident_type && "incident_type"].filter(Boolean),
  });
  const before = {
    ...filled({ severity: said.severity ?? "", incident_type: said.incident_type ?? "" }),
    clear: [!said.severity && "severity", !said.incident_type && "incident_type"].filter(Boolean),
  };
  return asked(on, "reclassify", "Severity and type", [field("Severity", severity), field("Type", type), field("Reason", reason)], "Set",
    () => ({ ...wanted(severity.value, type.value), ...filled({ reason: reason.value.trim() }) }), { doing: "Set", did: "Severity and type are set", undo: ["reclassify", before] });
}

/** @param {On} on */
export function assign(on) {
  const who = line({ required: true, maxlength: "128" });
  const role = line({ maxlength: "128", placeholder: "commander" });
  return asked(on, "assign", "Assign somebody", [field("Who", who), field("Role", role, "Empty: works on it, without a role.")], "Assign",
    () => (role.value.trim() ? { roles: { [role.value.trim()]: who.value.trim() } } : { add: [who.value.trim()] }), { doing: "Assign", did: "Assigned" });
}

/** @param {On} on */
export function label(on) {
  const set = line({ placeholder: "team=inference" });
  const remove = line({ placeholder: "pod" });
  const read = () => {
    const found = set.value.trim();
    const at = found.indexOf("=");
    if (found && at < 1) throw new Error("write name=value");
    return { set: found ? { [found.slice(0, at).trim()]: found.slice(at + 1).trim() } : {}, remove: remove.value.split(/[\s,]+/).filter(Boolean) };
  };
  return asked(on, "label", "Labels", [field("Set", set), field("Remove", remove)], "Change", read, { doing: "Label", did: "Labels are changed" });
}

/** @param {On} on */
export function update(on) {
  const audience = line({ required: true, value: "customers", maxlength: "128" });
  const text = lines({ required: true });
  const next = choice([["", "no promise"], ["30m", "in 30 minutes"], ["1h", "in an hour"], ["4h", "in 4 hours"]]);
  return asked(on, "update", "Stakeholder update", [field("For whom", audience), field("Text", text), field("Next one", next)], "Post",
    () => filled({ audience: audience.value.trim(), text: text.value, next_due_in: next.value }), { doing: "Post", did: "Update is posted", always: true });
}

/** @param {On} on */
export function resend(on) {
  const receiver = line();
  return asked(on, "resend", "Tell of it again", field("Receiver", receiver, "Empty: everybody who is told of it."), "Send",
    () => filled({ receiver: receiver.value.trim() }), { doing: "Send", did: "It is told again", always: true });
}

/** @param {On} on @param {"link" | "merge"} verb */
export function join(on, verb) {
  const other = line({ required: true, placeholder: "id of the other incident, or its address" });
  const read = () => {
    const found = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/i.exec(other.value);
    if (!found) throw new Error("write the id of an incident, or the address of its page");
    return { incident: found[0] };
  };
  const isMerge = verb === "merge";
  return asked(on, verb, isMerge ? "Merge another incident into this one" : "Link a related incident",
    field("The other one", other, isMerge ? "It becomes a child of this one; you can take it out again." : undefined), isMerge ? "Merge" : "Link", read, { doing: isMerge ? "Merge" : "Link", did: isMerge ? "Merged" : "Linked", always: true });
}

/** @param {On} on @param {"unlink" | "unmerge"} verb @param {string} other */
export const part = (on, verb, other) => act(on, verb, { incident: other }, { doing: verb === "unlink" ? "Unlink" : "Take out", did: verb === "unlink" ? "Unlinked" : "It is independent again", undo: [verb === "unlink" ? "link" : "merge", { incident: other }] });

/** @param {On} on @param {string} text */
export const comment = (on, text) => act(on, "comment", { text }, { doing: "Comment", did: "Your note is in the timeline", always: true });

/** Some of its alerts to an incident of their own. @param {On} on @param {any[]} alerts @param {(made: any) => void} done */
export async function split(on, alerts, done) {
  const own = alerts.filter((each) => each.incident_id === on.incident.id);
  if (own.length < 2) {
    fail(new Error("it has fewer than two alerts of its own"), "Split");
    return;
  }
  if (!(await named())) return;
  const boxes = own.map((each) => /** @type {HTMLInputElement} */ (h("input", { type: "checkbox", name: each.fingerprint })));
  const title = line({ maxlength: "256", placeholder: on.incident.title.slice(0, 256) });
  const made = await ask({
    title: "Split alerts off",
    fields: [
      h("fieldset", { class: "picks" }, h("legend", null, "Which of them"), own.map((each, place) => h("label", { class: "check" }, boxes[place], " ", words(Object.entries(each.labels).map(([name, value]) => `${name}=${value}`).join(" "))))),
      field("Title of the new incident", title, "Empty: the same."),
    ],
    yes: "Split",
    submit: () => {
      const chosen = boxes.filter((each) => each.checked).map((each) => each.name);
      if (!chosen.length) throw new Error("choose at least one alert");
      return post(`/v1/incidents/${on.incident.id}/split`, filled({ alerts: chosen, title: title.value.trim() }), on.incident.version);
    },
  });
  if (made) {
    say("Its alerts have an incident of their own");
    done(made);
  }
}

/** Its post-incident report, as a file. @param {any} incident */
export async function report(incident) {
  try {
    const written = await text(`/v1/incidents/${incident.id}/report`, { format: "markdown" });
    const place = URL.createObjectURL(new Blob([written], { type: "text/markdown" }));
    const link = /** @type {HTMLAnchorElement} */ (h("a", { download: `incident-${incident.id}.md` }));
    link.href = place;
    link.click();
    setTimeout(() => URL.revokeObjectURL(place), 10_000);
  } catch (error) {
    fail(error, "Report");
  }
}

/** @param {On} on @param {() => void} done */
export async function runPlaybook(on, done) {
  if (!(await named())) return;
  let books;
  try {
    books = (await get("/v1/playbooks")).items;
  } catch (error) {
    fail(error, "Playbooks");
    return;
  }
  if (!books.length) {
    fail(new Error("no playbook was applied: llm-im playbooks apply"), "Playbooks");
    return;
  }
  const book = choice(books.map((/** @type {any} */ each) => [each.name, each.description ? `${each.name}: ${each.description}` : each.name]));
  const shadow = h("input", { type: "checkbox" });
  const reason = line({ maxlength: "1024" });
  await ask({
    title: "Run a playbook",
    fields: [field("Playbook", book), field("Reason", reason), h("label", { class: "check" }, shadow, " Only show what it would do")],
    yes: "Run",
    submit: async () => {
      await post(`/v1/incidents/${on.incident.id}/runs`, filled({ playbook: book.value, shadow: /** @type {HTMLInputElement} */ (shadow).checked, reason: reason.value.trim() }));
      say(`${book.value} runs`);
      done();
    },
  });
}

/** Answer an approval. @param {any} run @param {any} asks @param {boolean} yes @param {() => void} done */
export async function answer(run, asks, yes, done) {
  if (!(await named())) return;
  const reason = line({ maxlength: "1024" });
  await ask({
    title: yes ? "Approve this?" : "Deny this?",
    fields: [
      h("p", { class: "message" }, words(asks.message || `step ${asks.step} of ${run.playbook}`)),
      h("p", null, `${run.playbook} ${run.version}, step ${asks.step}`, ` for ${run.title}`),
      field("Reason", reason),
    ],
    yes: yes ? "Approve" : "Deny",
    kind: yes ? "" : "danger",
    submit: async () => {
      await post(`/v1/runs/${run.id}/${yes ? "approve" : "deny"}`, filled({ step: asks.step, question: asks.question, reason: reason.value.trim() }));
      say(yes ? "Approved" : "Denied");
      done();
    },
  });
}

/** @param {any} run @param {"pause" | "resume" | "cancel"} verb @param {() => void} done */
export async function steer(run, verb, done) {
  if (!(await named())) return;
  if (verb === "cancel" && !(await ask({ title: `Cancel ${run.playbook}?`, fields: h("p", null, "What was asked is waited for; what is to be done at the end is done."), yes: "Cancel the run", no: "Let it run", kind: "danger" }))) return;
  try {
    await post(`/v1/runs/${run.id}/${verb}`, {});
    say({ pause: "Paused", resume: "Goes on", cancel: "Cancelled" }[verb], verb === "pause" ? () => steer(run, "resume", done) : verb === "resume" ? () => steer(run, "pause", done) : null);
    done();
  } catch (error) {
    fail(error, verb);
  }
}

/** The buttons of an incident, the most wanted first. @param {On} on @param {{silence: () => unknown, runs: () => void, split: () => unknown}} more @returns {{first: any[], rest: [string, () => unknown, string?][]}} */
export function verbsOf(on, more) {
  const { incident } = on;
  const open = isOpen(incident);
  /** @type {any[]} */
  const first = [];
  /** @type {[string, () => unknown, string?][]} */
  const rest = [];
  const me = session.actor;
  const mine = incident.assignees.includes(me);
  if (open && !incident.acknowledged) first.push(["Acknowledge", () => acknowledge(on), "primary", "a"]);
  if (open && incident.acknowledged) rest.push(["Withdraw acknowledgement", () => unacknowledge(on)]);
  if (open) {
    /** @type {[string, () => unknown]} */
    const own = mine ? ["Leave it", () => release(on)] : ["Assign to me", () => take(on)];
    // In the menu where there is no room.
    first.push([...own, "wide", ""]);
    rest.push([...own, "narrow"]);
    first.push(["Silence", more.silence, "", "s"], ["Resolve", () => resolve(on), "", "r"]);
    for (const [text, lasts] of [["Acknowledge for 30 min", "30m"], ["Acknowledge for 1 h", "1h"], ["Acknowledge for 4 h", "4h"]]) rest.push([text, () => acknowledge(on, lasts)]);
  } else {
    first.push(["Reopen", () => reopen(on), "", ""]);
    if (incident.state === "Resolved") first.push(["Close", () => close(on), "", ""]);
  }
  rest.push(
    ["Assign somebody…", () => assign(on)],
    ["Severity and type…", () => reclassify(on)],
    ["Labels…", () => label(on)],
    ["Stakeholder update…", () => update(on)],
    ["Tell receivers again…", () => resend(on)],
    ["Run a playbook…", () => runPlaybook(on, more.runs)],
    ["Link an incident…", () => join(on, "link")],
    ["Merge an incident into this…", () => join(on, "merge")],
    ["Split alerts off…", more.split],
    ["Report as a file", () => report(incident)],
  );
  return { first, rest };
}
