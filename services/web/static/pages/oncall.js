// @ts-check
// Who is on call now, who is next, and what would keep somebody from being told.
import { change, get, post } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { ask, button, chip, choice, fail, field, nothing, say, trouble } from "../parts.js";
import { session } from "../session.js";
import { clock, when } from "../times.js";
import { named } from "../verbs.js";
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
      session.may("respond") && h("div", { class: "buttons small" }, button("Somebody else for a while…", () => replace(duty), { kind: "small", data: { focus: "override" } })),
    );
  }
  /** @param {any} duty */
  async function replace(duty) {
    if (!(await named())) return;
    let people;
    try {
      people = (await get("/v1/people", { signal: shell.signal })).items.map((/** @type {any} */ each) => each.name);
    } catch (error) {
      fail(error, "People");
      return;
    }
    const who = choice(people, people.find((/** @type {string} */ each) => each !== duty.person));
    const lasts = choice([["1h", "1 hour"], ["2h", "2 hours"], ["4h", "4 hours"], ["8h", "8 hours"], ["12h", "12 hours"], ["1d", "1 day"]], "8h");
    const reason = /** @type {HTMLInputElement} */ (h("input", { type: "text", maxlength: "200", autocomplete: "off" }));
    const path = `/v1/schedules/${encodeURIComponent(duty.schedule)}/overrides`;
    await ask({
      title: `Who is on call in ${duty.schedule} from now on?`,
      fields: [field("Who", who), field("For", lasts), field("Reason", reason)],
      yes: "Put on call",
      submit: async () => {
        const made = await post(path, { person: who.value, ends_in: lasts.value, reason: reason.value.trim() });
        say(`${who.value} is on call now`, async () => {
          try {
            await change("DELETE", `${path}/${encodeURIComponent(made.id)}`);
          } catch (error) {
            fail(error, "Undo");
          }
          page.later();
        });
        page.later();
      },
    });
  }
  const page = plainPage(shell, "On call", {
    body: [faults, list, none],
    everyMs: 30_000,
    load: async () => {
      const [now, check] = await Promise.all([get("/v1/oncall", { signal: shell.signal }), get("/v1/oncall/check", { signal: shell.signal })]);
      keep(list, now.items, (each) => each.schedule, row);
      fill(none, !now.items.length && nothing("There is no schedule."));
      fill(faults, check.items.length > 0 && h("div", { class: "notice hot" }, h("p", null, "What would keep somebody from being told:"), h("ul", null, check.items.map((/** @type {string} */ each) => h("li", null, words(each))))));
    },
  });
  return page;
}
