// The page: two views, whose token, and which colours.

import { Chat } from "./chat";
import { Cluster } from "./cluster";
import { byId } from "./dom";
import { token } from "./host";
import { HINT } from "./inspector";

const THEME = "llambo-theme";
const THEMES = ["system", "dark", "light"] as const;

const dialog = byId<HTMLDialogElement>("token-dialog");
const field = byId<HTMLInputElement>("token");

const chat = new Chat(() => askForToken());
const cluster = new Cluster(() => askForToken());
byId("readout").textContent = HINT;

// === which view ===

function route(): void {
  const name = location.hash === "#cluster" ? "cluster" : "chat";
  for (const view of ["chat", "cluster"]) {
    byId(`view-${view}`).hidden = view !== name;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === name) link?.setAttribute("aria-current", "page");
    else link?.removeAttribute("aria-current");
  }
  document.title = name === "chat" ? "Chat – llambo" : "Cluster – llambo";
  if (name === "cluster") cluster.open();
}

addEventListener("hashchange", () => {
  route();
  if (location.hash === "#cluster") byId("main").focus();
  else chat.focus();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});

// === whose token ===

function askForToken(): void {
  if (!dialog.open) {
    field.value = token.get();
    dialog.showModal();
  }
}

byId("token-button").addEventListener("click", askForToken);
byId("token-cancel").addEventListener("click", () => dialog.close());
byId("token-forget").addEventListener("click", () => use(""));
byId<HTMLFormElement>("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  use(field.value.trim());
});

function use(text: string): void {
  token.set(text);
  field.value = "";
  dialog.close();
  marked();
  void chat.load();
  cluster.again();
}

function marked(): void {
  byId("token-button").classList.toggle("set", token.get() !== "");
  byId("token-state").textContent = token.get() === "" ? "none" : "set";
}

// === which colours ===

function theme(): (typeof THEMES)[number] {
  const kept = localStorage.getItem(THEME);
  return THEMES.find((name) => name === kept) ?? "system";
}

function colour(): void {
  const name = theme();
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme-state").textContent = name;
  cluster.recolour();
}

byId("theme-button").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length] ?? "system";
  localStorage.setItem(THEME, next);
  colour();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colour);

colour();
marked();
route();
void chat.load();
if (location.hash !== "#cluster") chat.focus();
