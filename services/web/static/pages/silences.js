// @ts-check
// Silences: which there are, a new one with what it would mute, longer, over.
import { get, post } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { ask, button, chip, choice, fail, field, moreButton, nothing, say } from "../parts.js";
import { session } from "../session.js";
import { expire, makeSilence } from "../silencing.js";
import { when } from "../times.js";
import { named } from "../verbs.js";
import { plainPage } from "./list.js";

const PAGE = 100;

/** @param {any} shell */
export function silencesPage(shell) {
  const can = session.may("respond");
  const isOver = shell.query.get("state") === "expired";
  const list = h("ol", { class: "silences" });
  const foot = h("div", { class: "foot" });
  /** @type {any[]} */
  let items = [];
  /** @type {string | null} */
  let next = null;
  const read = (/** @type {string | null} */ cursor) => get("/v1/silences", { query: { state: isOver ? "expired" : undefined, limit: PAGE, cursor }, signal: shell.signal });
  const show = () => {
    keep(list, items, (each) => each.id, row);
    fill(foot, !items.length && nothing(isOver ? "No silence has ended in the last days." : "Nothing is silenced."), next && moreButton(async () => {
      const page = await read(next);
      items = [...items, ...page.items];
      next = page.next;
      show();
    }));
  };
  /** @param {any} silence */
  function row(silence) {
    const matchers = silence.matchers;
    return h(
      "li",
      { class: `silence ${silence.state}` },
      h("p", { class: "matchers" }, matchers.map((/** @type {string} */ each) => h("code", null, words(each)))),
      silence.comment && h("p", { class: "prose" }, words(silence.comment)),
      h("p", { class: "sub" }, chip(silence.state, silence.state === "active" ? "state" : "quiet"), " by ", words(silence.created_by), silence.state === "pending" && [" · begins ", when(silence.starts_at)], silence.state === "expired" ? " · ended " : " · ends ", when(silence.ends_at)),
      can && h("div", { class: "buttons small" },
        silence.state !== "expired" && button("Change end…", () => extend(silence), { kind: "small", data: { focus: "extend" } }),
        silence.state !== "expired" && button("End it now", () => over(silence), { kind: "small danger", data: { focus: "over" } }),
        silence.state === "expired" && button("Silence again…", () => makeSilence(matchers, page.later), { kind: "small", data: { focus: "again" } })),
    );
  }
  /** @param {any} silence */
  async function extend(silence) {
    if (!(await named())) return;
    const lasts = choice([["30m", "30 minutes"], ["1h", "1 hour"], ["4h", "4 hours"], ["8h", "8 hours"], ["1d", "1 day"], ["7d", "1 week"]], "1h");
    await ask({
      title: "When shall it end?",
      fields: [h("p", null, silence.matchers.map((/** @type {string} */ each) => h("code", null, words(each)))), field("From now", lasts)],
      yes: "Change",
      submit: async () => {
        await post(`/v1/silences/${silence.id}/extend`, { duration: lasts.value });
        say("Its end is changed", async () => {
          await post(`/v1/silences/${silence.id}/extend`, { ends_at: silence.ends_at });
          page.later();
        });
        page.later();
      },
    });
  }
  /** @param {any} silence */
  async function over(silence) {
    if (!(await named())) return;
    const sure = await ask({ title: "End this silence?", fields: [h("p", null, silence.matchers.map((/** @type {string} */ each) => h("code", null, words(each)))), h("p", null, "What it muted and still fires is told at once.")], yes: "End it", kind: "danger", no: "Let it be" });
    if (!sure) return;
    try {
      await expire(silence.id);
    } catch (error) {
      fail(error, "End");
    }
    page.later();
  }
  const page = plainPage(shell, "Silences", {
    top: [
      h("nav", { class: "tabs", "aria-label": "Which silences" }, h("a", { href: "/ui/silences", "aria-current": isOver ? undefined : "page" }, "Active"), h("a", { href: "/ui/silences?state=expired", "aria-current": isOver ? "page" : undefined }, "Ended")),
      can && button("New silence…", () => makeSilence([], page.later), { kind: "primary", data: { focus: "new" } }),
    ],
    body: [list, foot],
    everyMs: 15_000,
    load: async () => {
      const first = await read(null);
      items = first.items;
      next = first.next;
      show();
    },
    keys: { n: () => can && makeSilence([], page.later) },
  });
  return page;
}
