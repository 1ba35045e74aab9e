// @ts-check
// Making a silence, with what it would mute before it is made. From the page of silences, and from an incident.
import { change, post } from "./api.js";
import { fill, h, words } from "./dom.js";
import { ask, chip, choice, field, say } from "./parts.js";
import { named } from "./verbs.js";

const LASTS = /** @type {[string, string][]} */ ([
  ["30m", "30 minutes"], ["1h", "1 hour"], ["2h", "2 hours"], ["4h", "4 hours"], ["8h", "8 hours"], ["1d", "1 day"], ["3d", "3 days"], ["7d", "1 week"],
]);
const PREVIEW_MS = 350;

/** A matcher as people write it: names that are no identifiers are quoted. @param {string} name @param {string} value */
export function matcher(name, value) {
  const quoted = (/** @type {string} */ text) => `"${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`;
  return `${/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(name) ? name : quoted(name)}=${quoted(value)}`;
}

/** What mutes just the alerts like those of an incident. @param {any} incident */
export function matchersOf(incident) {
  const labels = Object.keys(incident.group_labels).length ? incident.group_labels : { service: incident.service };
  return Object.entries(labels).filter(([, value]) => value !== "").map(([name, value]) => matcher(name, value));
}

/** @param {string[]} matchers @param {(made: any) => void} [done] */
export async function makeSilence(matchers, done) {
  if (!(await named())) return;
  const text = /** @type {HTMLTextAreaElement} */ (h("textarea", { rows: String(Math.max(3, matchers.length + 1)), required: true, spellcheck: "false", class: "code", value: matchers.join("\n") }));
  const lasts = choice(LASTS, "1h");
  const comment = /** @type {HTMLInputElement} */ (h("input", { type: "text", maxlength: "8192", autocomplete: "off" }));
  const force = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox" }));
  const forced = h("label", { class: "check danger", hidden: true }, force, " I mean it: this mutes most of what fires");
  const shown = h("div", { class: "preview", role: "status" });
  const read = () => text.value.split("\n").map((each) => each.trim()).filter(Boolean);
  let asked = 0;
  /** @type {any} */
  let timer;
  const preview = async () => {
    const mine = ++asked;
    if (!read().length) {
      fill(shown, "Write at least one matcher.");
      return;
    }
    try {
      const found = await post("/v1/silences/preview", { matchers: read() });
      if (mine !== asked) return;
      forced.hidden = !found.needs_force;
      fill(
        shown,
        h("p", null, h("b", null, found.muted ? `Mutes ${found.muted} of ${found.firing} firing alerts` : `Mutes none of ${found.firing} firing alerts now`), found.incident_count ? `, of ${found.incident_count} ${found.incident_count === 1 ? "incident" : "incidents"}:` : "."),
        found.incidents.length > 0 && h("ul", { class: "muted-incidents" }, found.incidents.slice(0, 8).map((/** @type {any} */ each) =>
          h("li", null, words(each.title), " ", chip(each.muted >= each.firing ? "all of it" : `${each.muted} of ${each.firing}`, "quiet")))),
        found.incident_count > 8 && h("p", null, `and ${found.incident_count - 8} more`),
      );
    } catch (error) {
      if (mine === asked) fill(shown, h("span", { class: "wrong" }, words(/** @type {Error} */ (error).message)));
    }
  };
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(preview, PREVIEW_MS);
  });
  void preview();
  const made = await ask({
    title: "Silence",
    fields: [
      field("Matchers", text, 'One a line, all must match: service="llm-api", severity=~"P3|P4". Operators = != =~ !~'),
      shown,
      field("For", lasts),
      field("Comment", comment, "Why: it is shown wherever it mutes something."),
      forced,
    ],
    yes: "Silence",
    submit: () => post("/v1/silences", { matchers: read(), duration: lasts.value, comment: comment.value.trim(), force: force.checked && !forced.hidden }),
  });
  clearTimeout(timer);
  if (!made) return;
  say(`Silenced for ${LASTS.find(([value]) => value === lasts.value)?.[1]}: ${made.muted} alerts are muted`, async () => {
    await expire(made.silence.id);
    done?.(made);
  });
  done?.(made);
}

/** @param {string} id */
export async function expire(id) {
  const after = await change("DELETE", `/v1/silences/${id}`);
  say("The silence has ended");
  return after;
}
