// @ts-check
// Whether the system itself is well: what does not answer, whom it can't reach, what it has seen.
import { Refused, get } from "../api.js";
import { fill, h, keep, words } from "../dom.js";
import { chip, nothing, severity } from "../parts.js";
import { session } from "../session.js";
import { span, when } from "../times.js";
import { plainPage } from "./list.js";

/** @param {any} shell */
export function statusPage(shell) {
  const health = h("div");
  const figures = h("dl", { class: "figures" });
  const targets = h("ol", { class: "targets" });
  const silent = h("div");
  const about = h("p", { class: "sub" });
  return plainPage(shell, "Status", {
    body: h("div", null, health, h("section", { "aria-labelledby": "day" }, h("h2", { id: "day" }, "The last 24 hours"), figures), h("section", { "aria-labelledby": "t" }, h("h2", { id: "t" }, "Who is called"), silent, targets), about),
    everyMs: 5000,
    load: async () => {
      const [ready, stats, called] = await Promise.allSettled([get("/health/ready", { signal: shell.signal }), get("/v1/stats", { signal: shell.signal }), get("/v1/targets", { signal: shell.signal })]);
      // Not ready is an answer too.
      const said = ready.status === "fulfilled" ? ready.value : ready.reason instanceof Refused && ready.reason.problem.status ? ready.reason.problem : null;
      if (!said) throw /** @type {PromiseRejectedResult} */ (ready).reason;
      const reasons = Object.entries(said.reasons ?? {});
      fill(health, h("div", { class: `notice ${said.status === "ready" ? "good" : "hot"}` }, h("p", null, h("b", null, words(String(said.status)))), reasons.length > 0 && h("ul", null, reasons.map(([what, why]) => h("li", null, h("b", null, words(what)), ": ", words(String(why))))), said.notifications && h("p", null, "Notifications are ", words(said.notifications))));
      if (stats.status === "fulfilled") {
        const found = stats.value;
        const time = (/** @type {any} */ each) => (each.count ? `${span(each.p50_s)} median, ${span(each.p90_s)} for 9 of 10` : "none yet");
        const rows = /** @type {[string, any][]} */ ([
          ["Open", [`${found.open} `, Object.entries(found.by_severity).filter(([, count]) => count).map(([name, count]) => [severity(name), ` ${count} `])]],
          ["Acknowledged", found.acknowledged], ["Unassigned", found.unassigned], ["Past a target", found.overdue],
          ["Opened", found.opened], ["Resolved", found.resolved],
          ["Time to acknowledge", time(found.time_to_acknowledge)], ["Time to resolve", time(found.time_to_resolve)],
        ]);
        fill(figures, rows.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
      } else fill(figures, h("dd", { class: "wrong" }, words(stats.reason.message)));
      if (called.status === "fulfilled") {
        keep(targets, called.value.items, (each) => `${each.target} ${each.responder}`, (each) => h("li", { class: `target ${each.state}` }, h("p", null, chip({ closed: "works", open: "not called", "half-open": "trying" }[/** @type {"closed" | "open" | "half-open"} */ (each.state)] ?? each.state, each.state === "closed" ? "good" : "bad"), " ", h("b", null, words(each.target)), " ", h("span", { class: "sub" }, words(each.responder))), each.last_error && h("p", { class: "prose" }, "last error ", each.last_error_at && when(each.last_error_at), ": ", words(each.last_error)), each.retry_at && h("p", { class: "sub" }, "tried again ", when(each.retry_at))));
        fill(silent, called.value.silent.length > 0 && h("p", { class: "notice hot" }, "No answer from ", words(called.value.silent.join(", "))), !called.value.items.length && nothing("No receiver is set, so nobody is notified."));
      }
      fill(about, "Version ", words(session.me?.version ?? "?"), ". Its metrics are at /metrics.");
    },
  });
}
