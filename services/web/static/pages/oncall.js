// @ts-check
// Who is on call now, who is next, and what would keep somebody from being told.
import { get } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { chip, nothing, trouble } from "../parts.js";
import { clock, when } from "../times.js";
import { plainPage } from "./list.js";

/** @param {any} shell */
export function onCallPage(shell) {
  const list = h("ol", { class: "oncall" });
  const none = h("div");
  const faults = h("div");
  /** @param {any} duty */
  function row(duty) {
    const shifts = h("ol", { class: "shifts" });
    const more = h("details", { data: { part: "shifts" }, on: { toggle: async () => {
      if (!(/** @type {HTMLDetailsElement} */ (more).open) || shifts.children.length) return;
      try {
        const found = await get(`/v1/schedules/${encodeURIComponent(duty.schedule)}/shifts`, { signal: shell.signal });
        fill(shifts, found.items.slice(0, 40).map((/** @type {any} */ each) => h("li", { class: each.person ? "" : "bad" }, h("span", null, clock(each.starts_at), " – ", clock(each.ends_at)), " ", h("b", null, words(each.person ?? "nobody")), each.override && chip("override", "quiet"))));
      } catch (error) {
        fill(shifts, h("li", null, trouble(error)));
      }
    } } }, h("summary", { data: { focus: "shifts" } }, "The next two weeks"), shifts);
    return h(
      "li",
      { class: `duty ${duty.person ? "" : "bad"}` },
      h("p", null, h("span", { class: "schedule" }, words(duty.schedule)), " ", h("b", { class: "person" }, words(duty.person ?? "nobody is on call")), duty.override && chip("override", "quiet")),
      h("p", { class: "sub" }, duty.until && ["until ", when(duty.until, "clock")], duty.next && [", then ", words(duty.next)], " · ", words(duty.time_zone)),
      more,
    );
  }
  return plainPage(shell, "On call", {
    body: [faults, list, none],
    everyMs: 30_000,
    load: async () => {
      const [now, check] = await Promise.all([get("/v1/oncall", { signal: shell.signal }), get("/v1/oncall/check", { signal: shell.signal })]);
      keep(list, now.items, (each) => each.schedule, row);
      fill(none, !now.items.length && nothing("There is no schedule."));
      fill(faults, check.items.length > 0 && h("div", { class: "notice hot" }, h("p", null, "What would keep somebody from being told:"), h("ul", null, check.items.map((/** @type {string} */ each) => h("li", null, words(each))))));
    },
  });
}
