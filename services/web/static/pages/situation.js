// @ts-check
// Incidents that belong together, and what probably caused them.
import { get } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { chip, moreButton, nothing, severity } from "../parts.js";
import { when } from "../times.js";
import { causeList } from "./incident.js";
import { plainPage } from "./list.js";

/** All that are open. @param {any} shell */
export function situationsPage(shell) {
  const list = h("ol", { class: "situations" });
  const foot = h("div", { class: "foot" });
  /** @type {any[]} */
  let items = [];
  /** @type {string | null} */
  let next = null;
  const read = (/** @type {string | null} */ cursor) => get("/v1/situations", { query: { limit: 50, cursor }, signal: shell.signal });
  const show = () => {
    keep(list, items, (each) => each.id, (each) => h("li", { class: "situation" }, h("p", null, h("a", { href: `/ui/situations/${each.id}` }, `${each.incidents.length} incidents`), " since ", when(each.opened_at)), each.probable_causes.length > 0 && h("p", null, "probably caused by ", h("b", null, words(each.probable_causes[0].service)), ": ", words(each.probable_causes[0].reasons.join("; ")))));
    fill(foot, !items.length && nothing("No incidents belong together now."), next && moreButton(async () => {
      const page = await read(next);
      items = [...items, ...page.items];
      next = page.next;
      show();
    }));
  };
  return plainPage(shell, "Situations", { body: [list, foot], everyMs: 10_000, load: async () => {
    const first = await read(null);
    items = first.items;
    next = first.next;
    show();
  } });
}

/** One. @param {any} shell @param {string} id */
export function situationPage(shell, id) {
  const head = h("div");
  const list = h("ol", { class: "incidents" });
  return plainPage(shell, "Situation", {
    body: [head, list],
    everyMs: 10_000,
    load: async () => {
      const found = await get(`/v1/situations/${id}`, { signal: shell.signal });
      fill(head, h("p", null, found.ended_at ? ["over ", when(found.ended_at)] : ["since ", when(found.opened_at)]), found.probable_causes.length > 0 && h("h2", null, "Probable causes"), causeList(found.probable_causes), h("h2", null, "Incidents"));
      keep(list, found.incidents, (each) => each.incident, (each) => h("li", { class: `row ${each.severity.toLowerCase()} ${each.ended_at ? "over" : "waiting"}` }, severity(each.severity), h("div", { class: "what" }, h("a", { class: "title", href: `/ui/incidents/${each.incident}`, data: { focus: "title" } }, words(each.title)), h("div", { class: "sub" }, words(each.service), chip(each.part, each.part === "cause" ? "due" : "quiet"))), h("div", { class: "who" }), h("div", { class: "state" }, each.ended_at ? "over" : "open"), h("div", { class: "age" }, when(each.began_at, "age")), h("div", { class: "does" })));
    },
  });
}
