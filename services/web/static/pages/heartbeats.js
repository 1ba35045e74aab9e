// @ts-check
// Heartbeats: what must be heard from, and what stays away.
import { get, post } from "../api.js";
import { away, fill, h, keep, words } from "../dom.js";
import { button, chip, fail, moreButton, nothing, say, severity } from "../parts.js";
import { session } from "../session.js";
import { when } from "../times.js";
import { named } from "../verbs.js";
import { plainPage } from "./list.js";

const PAGE = 200;
const KINDS = /** @type {Record<string, string>} */ ({ up: "good", late: "due", missed: "bad", new: "quiet", paused: "quiet" });
const ORDER = ["missed", "late", "new", "paused", "up"];

/** @param {any} shell */
export function heartbeatsPage(shell) {
  const list = h("ol", { class: "heartbeats" });
  const foot = h("div", { class: "foot" });
  /** @type {any[]} */
  let items = [];
  /** @type {string | null} */
  let next = null;
  const show = () => {
    items.sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name));
    keep(list, items, (each) => each.name, row);
    fill(foot, !items.length && nothing("No heartbeat is expected."), next && moreButton(async () => {
      const page = await get("/v1/heartbeats", { query: { limit: PAGE, after: next }, signal: shell.signal });
      items = [...items, ...page.items];
      next = page.next;
      show();
    }));
  };
  /** @param {any} beat */
  function row(beat) {
    return h(
      "li",
      { class: `heartbeat ${beat.state}` },
      h("p", null, chip(beat.state, KINDS[beat.state] ?? ""), " ", h("b", null, words(beat.name)), " ", severity(beat.severity), " ", words(beat.service)),
      h("p", { class: "sub" }, `every ${beat.interval}, ${beat.grace} grace · `, beat.last_beat_at ? ["heard ", when(beat.last_beat_at)] : "never heard", beat.missed_at ? [" · missed since ", when(beat.missed_at)] : beat.due_at && [" · due ", when(beat.due_at)],
        beat.incident_id && [" · ", h("a", { href: `/ui/incidents/${beat.incident_id}` }, "its incident")], beat.runbook && [" · ", away(beat.runbook, "runbook")], beat.from_settings && " · from the settings"),
      session.may("respond") && !beat.from_settings && h("div", { class: "buttons small" }, beat.state === "paused" ? button("Wait for it again", () => turn(beat, "resume"), { kind: "small", data: { focus: "turn" } }) : button("Pause", () => turn(beat, "pause"), { kind: "small", data: { focus: "turn" } })),
    );
  }
  /** @param {any} beat @param {"pause" | "resume"} verb */
  async function turn(beat, verb) {
    if (!(await named())) return;
    try {
      await post(`/v1/heartbeats/${encodeURIComponent(beat.name)}/${verb}`);
      say(verb === "pause" ? `Nobody misses ${beat.name} now` : `${beat.name} is waited for`, () => turn(beat, verb === "pause" ? "resume" : "pause"));
    } catch (error) {
      fail(error, beat.name);
    }
    page.later();
  }
  const page = plainPage(shell, "Heartbeats", {
    body: [list, foot],
    everyMs: 10_000,
    load: async () => {
      const first = await get("/v1/heartbeats", { query: { limit: Math.max(PAGE, items.length) }, signal: shell.signal });
      items = first.items;
      next = first.next;
      show();
    },
  });
  return page;
}
