// @ts-check
// Runs of playbooks: first those that wait for somebody to agree, then those under way, then what was.
import { get } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { button, chip, moreButton, nothing, pairs } from "../parts.js";
import { session } from "../session.js";
import { when } from "../times.js";
import { answer, steer } from "../verbs.js";
import { plainPage } from "./list.js";

const PAGE = 50;
const ACTIVE_MAX = 200;
const RUNS = /^(Playbook|Action|Step|Approval)/;
const KINDS = /** @type {Record<string, string>} */ ({ waiting: "due", failed: "bad", aborted: "bad", succeeded: "good", running: "state", cancelled: "quiet", paused: "quiet", ending: "state" });

/** @param {any} shell */
export function runsPage(shell) {
  const waiting = h("ol", { class: "runs" });
  const running = h("ol", { class: "runs" });
  const over = h("ol", { class: "runs" });
  const foot = h("div", { class: "foot" });
  const none = h("div");
  /** @type {string | null} */
  let next = null;
  /** @type {any[]} */
  let ended = [];
  const show = () => {
    keep(over, ended, (each) => each.id, card);
    fill(foot, !ended.length && nothing("No playbook has run."), next && moreButton(async () => {
      const page = await get("/v1/runs", { query: { active: false, limit: PAGE, cursor: next }, signal: shell.signal });
      ended = [...ended, ...page.items];
      next = page.next;
      show();
    }));
  };
  const page = plainPage(shell, "Playbook runs", {
    body: h("div", null, h("section", { "aria-labelledby": "w" }, h("h2", { id: "w" }, "Waiting for approval"), waiting, none), h("section", { "aria-labelledby": "u" }, h("h2", { id: "u" }, "Under way"), running), h("section", { "aria-labelledby": "o" }, h("h2", { id: "o" }, "Over"), over, foot)),
    everyMs: 15_000,
    hears: (event) => event.event === "incident" && RUNS.test(event.kind),
    load: async () => {
      const [active, past] = await Promise.all([
        get("/v1/runs", { query: { active: true, limit: ACTIVE_MAX }, signal: shell.signal }),
        get("/v1/runs", { query: { active: false, limit: Math.max(PAGE, Math.min(1000, ended.length)) }, signal: shell.signal }),
      ]);
      const waits = active.items.filter((/** @type {any} */ each) => each.waits_for.length);
      keep(waiting, waits, (each) => each.id, card);
      keep(running, active.items.filter((/** @type {any} */ each) => !each.waits_for.length), (each) => each.id, card);
      fill(none, !waits.length && nothing("Nothing waits."));
      ended = past.items;
      next = past.next;
      show();
      shell.counted();
    },
  });
  /** @param {any} run */
  const card = (run) => runCard(run, page.later);
  return page;
}

/** A run, with what can be done about it. @param {any} run @param {() => void} done @param {{isAlone?: boolean}} [how] */
export function runCard(run, done, { isAlone = false } = {}) {
  const can = session.may("respond");
  return h(
    "li",
    { class: `run ${run.waits_for.length ? "waits" : ""}` },
    h("p", { class: "run-head" }, h("b", null, words(run.playbook)), " version ", words(run.version), " ", chip(run.status, KINDS[run.status] ?? ""), run.shadow && chip("shadow", "quiet", "it decides and does nothing"), " ", when(run.ended_at ?? run.started_at)),
    !isAlone && h("p", null, h("a", { href: `/ui/incidents/${run.incident}` }, words(run.title)), " · ", words(run.service)),
    h("p", { class: "sub" }, "started by ", words(run.by), run.why && [": ", words(run.why)]),
    run.detail && h("p", { class: "prose" }, words(run.detail)),
    run.waits_for.map((/** @type {any} */ asks) => h(
      "div",
      { class: "approval" },
      h("p", { class: "message" }, words(asks.message || `step ${asks.step} waits`)),
      h("p", { class: "sub" }, "step ", words(asks.step), ` · ${asks.approved_by.length} of ${asks.needed} agreed`, asks.approved_by.length > 0 && [" (", words(asks.approved_by.join(", ")), ")"], " · ", asks.who.length ? ["may agree: ", words(asks.who.join(", "))] : "anybody who may respond", " · too late ", when(asks.until)),
      can && h("div", { class: "buttons" }, button("Approve…", () => answer(run, asks, true, done), { kind: "primary", data: { focus: `approve-${asks.step}` } }), button("Deny…", () => answer(run, asks, false, done), { kind: "danger", data: { focus: `deny-${asks.step}` } })),
    )),
    h("details", { data: { part: "steps" } }, h("summary", { data: { focus: "steps" } }, run.steps.length === 1 ? "1 step" : `${run.steps.length} steps`), h("ol", { class: "steps" }, run.steps.map(step))),
    can && !run.ended_at && h("div", { class: "buttons small" }, run.status === "paused" ? button("Go on", () => steer(run, "resume", done), { kind: "small" }) : button("Pause", () => steer(run, "pause", done), { kind: "small" }), button("Cancel…", () => steer(run, "cancel", done), { kind: "small" })),
  );
}

/** @param {any} step */
function step(step) {
  return h("li", null, h("b", null, words(step.id)), " ", chip(step.status, KINDS[step.status] ?? "quiet"), step.detail && [" ", words(step.detail)],
    step.actions.length > 0 && h("ul", null, step.actions.map((/** @type {any} */ each) => h("li", null, words(each.action), each.undo && " (rollback)", ": ", words(each.status), each.detail && [", ", words(each.detail)], each.policy && [" · policy: ", words(each.policy)]))),
    Object.keys(step.outputs).length > 0 && pairs(Object.fromEntries(Object.entries(step.outputs).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]))));
}
