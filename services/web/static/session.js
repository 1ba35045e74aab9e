// @ts-check
// Who reads this page: the token, or without tokens a name. docs/security.md says why it is kept here and in no cookie.

const TOKEN = "llm-im.token";
const NAME = "llm-im.name";

/** Storage may be forbidden; then a token lasts as long as the page. @param {() => any} work */
function tried(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

let memory = "";
/** @type {{name: string, is_proven: boolean, scopes: string[], version: string} | null} */
let me = null;

export const session = {
  /** The token, "" without one. */
  get token() {
    return tried(() => sessionStorage.getItem(TOKEN)) || tried(() => localStorage.getItem(TOKEN)) || memory;
  },
  /** Who we are as the server says; null before it was asked. */
  get me() {
    return me;
  },
  set me(found) {
    me = found;
  },
  /** What the reader calls himself where nobody checks it. */
  get name() {
    return tried(() => localStorage.getItem(NAME)) ?? "";
  },
  set name(name) {
    tried(() => (name ? localStorage.setItem(NAME, name) : localStorage.removeItem(NAME)));
  },
  /** Whether the name was asked for; an empty one is an answer too. */
  get isNamed() {
    return Boolean(me?.is_proven) || tried(() => localStorage.getItem(NAME)) !== null;
  },
  /** The actor of what is done here. */
  get actor() {
    return me?.is_proven ? me.name : this.name || "anonymous";
  },
  /** @param {string} scope */
  may(scope) {
    return !me || me.scopes.includes(scope);
  },
  /** @param {string} token @param {boolean} stays also when the tab is closed */
  signIn(token, stays) {
    this.signOut();
    const isKept = tried(() => {
      (stays ? localStorage : sessionStorage).setItem(TOKEN, token);
      return true;
    });
    if (!isKept) memory = token;
  },
  signOut() {
    memory = "";
    me = null;
    tried(() => sessionStorage.removeItem(TOKEN));
    tried(() => localStorage.removeItem(TOKEN));
  },
};

/** What a header may hold: printable Latin-1, which is what the server reads. @param {string} name */
export function isName(name) {
  return name.length <= 128 && /^[\x20-\x7e\xa1-\xff]*$/.test(name);
}

/** Whether single keys are shortcuts: people with speech input switch them off. */
export const keys = {
  get areOn() {
    return tried(() => localStorage.getItem("llm-im.keys")) !== "off";
  },
  set areOn(on) {
    tried(() => localStorage.setItem("llm-im.keys", on ? "on" : "off"));
  },
};
