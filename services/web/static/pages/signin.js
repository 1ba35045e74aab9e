// @ts-check
// Asks for a token. A form as password managers know it.
import { Refused, get } from "../api.js";
import { fill, h, words } from "../dom.js";
import { session } from "../session.js";

/** @param {string} why what led here @param {() => void} done @returns {HTMLElement} */
export function signInPage(why, done) {
  const token = /** @type {HTMLInputElement} */ (h("input", { type: "password", id: "token", name: "password", autocomplete: "current-password", required: true, spellcheck: "false", autocapitalize: "off", placeholder: "llmim_…" }));
  const stays = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox", id: "stays" }));
  const wrong = h("p", { class: "wrong", role: "alert" }, why && words(why));
  const go = /** @type {HTMLButtonElement} */ (h("button", { type: "submit", class: "primary" }, "Sign in"));
  const form = h(
    "form",
    { class: "sign-in", on: { submit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        const given = token.value.trim();
        if (!/^[\x21-\x7e]+$/.test(given)) throw new Error("that is no token: it begins with llmim_ and has no spaces");
        session.signIn(given, stays.checked);
        session.me = await get("/v1/whoami");
        token.value = "";
        done();
      } catch (error) {
        session.signOut();
        const refused = error instanceof Refused ? error.status : -1;
        fill(wrong, words(refused === 401 ? "This token is not valid: it may have expired, been revoked, or be cut." : refused === 403 ? "This token may not read. One with the scope read or respond is needed." : /** @type {Error} */ (error).message));
        token.focus();
      } finally {
        go.disabled = false;
      }
    } } },
    h("h1", { tabindex: "-1" }, "Sign in"),
    h("p", null, "This system asks for an API token."),
    h("div", { class: "field" }, h("label", { for: "token" }, "Token"), token),
    h("label", { class: "check" }, stays, " Stay signed in on this device"),
    h("p", { class: "hint" }, "Without it, closing the tab signs you out. Choose it on your own phone only."),
    wrong,
    h("div", { class: "buttons" }, go),
    h("p", { class: "hint" }, "A token for yourself: ", h("code", null, "llm-im tokens create NAME --scope respond"), ". Its name stands beside what you do."),
  );
  return h("main", { id: "main", class: "signing-in" }, form);
}
