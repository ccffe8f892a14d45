// The page in a browser, against a host as its users start it: LLAMBO_HTTP needs no token, LLAMBO_GUARDED wants one of LLAMBO_TOKENS
// (one that may infer and observe, one that may only infer). LLAMBO_BROWSER is the browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { chromium } from "playwright-core";

const { LLAMBO_HTTP: open, LLAMBO_GUARDED: guarded, LLAMBO_TOKENS, LLAMBO_BROWSER } = process.env;
const [seer, asker] = LLAMBO_TOKENS.split(" ");
const DESKTOP = { width: 1280, height: 850 };
const PHONE = { width: 360, height: 740 };
// what takes longer hangs
const PATIENCE = 30_000;

let browser;
before(async () => {
  // containers have no namespaces for a sandbox, nor much shared memory
  browser = await chromium.launch({ executablePath: LLAMBO_BROWSER, args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] });
});
after(() => browser?.close());

/** Opens a view in a browser that knows nothing yet. What it complains of, and what it asks of others, fails the test at its end. */
async function visit(t, view, { host = open, viewport = DESKTOP, expected = [], ...options } = {}) {
  const context = await browser.newContext({ viewport, reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !expected.some((text) => message.text().includes(text))) complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${host}/`)) complaints.push(`asked ${request.url()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  await page.goto(`${host}/#${view}`);
  return page;
}

/** Changes what the page asks of the model. */
async function asking(page, more) {
  await page.route("**/v1/chat/completions", (route) => route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), ...more }) }));
}

/** Answers in the model's place. */
async function says(page, ...pieces) {
  const chunks = pieces.map((content) => `data: ${JSON.stringify({ choices: [{ delta: { content }, finish_reason: null }] })}\n\n`);
  await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body: `${chunks.join("")}data: [DONE]\n\n` }));
}

async function send(page, text) {
  await page.fill("#prompt", text);
  await page.keyboard.press("Enter");
}

const status = async () => (await fetch(`${open}/cluster/status`)).json();
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

async function until(what, isSo) {
  const end = Date.now() + PATIENCE;
  while (!(await isSo())) {
    assert.ok(Date.now() < end, `not so in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("an answer streams to its end and tells what it was", async (t) => {
  const page = await visit(t, "chat");
  await page.locator("#settings-box summary").click();
  await page.fill("[name=max_tokens]", "7");
  await page.fill("[name=seed]", "1");
  await asking(page, { ignore_eos: true });
  await send(page, "What is ownership?");
  const line = await page.locator(".answer footer span").textContent();
  assert.match(line, /^tiny-\d+ · 7 tokens · .*ms/);
  const first = await page.locator(".answer .text").textContent();
  assert.ok(first.trim().length > 0);
  assert.match(await page.locator("#spoken").textContent(), /^The answer is there\. /);
  await page.click("#new-chat");
  assert.equal(await page.locator("#messages li").count(), 0);
  await send(page, "What is ownership?");
  await page.locator(".answer footer").waitFor();
  assert.equal(await page.locator(".answer .text").textContent(), first, "a seed says the same");
});

test("an answer that is stopped ends on the host too", async (t) => {
  const page = await visit(t, "chat");
  await asking(page, { ignore_eos: true, max_tokens: 100_000 });
  const { cancelled } = (await status()).totals;
  await send(page, "Tell me everything.");
  await page.locator(".answer[aria-busy] .text > *").first().waitFor();
  await page.click("#stop");
  assert.match(await page.locator(".answer footer span").textContent(), /^stopped · tiny-/);
  await until("the host called it off", async () => (await status()).totals.cancelled > cancelled);
  assert.ok(await page.locator("#send").isVisible());
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
});

test("what a model says as HTML stays text", async (t) => {
  const page = await visit(t, "chat");
  await says(page, "<img src=x oner", "ror=\"window.taken=1\"> <script>window.taken=1</script>\n\n[a](javascript:window.taken=1) <iframe src=https://a.b>", "\n\n```html\n<b>x</b>\n```");
  await send(page, "x");
  await page.locator(".answer footer").waitFor();
  const text = page.locator(".answer .text");
  assert.equal(await text.locator("img, script, iframe, b, a").count(), 0);
  assert.match(await text.textContent(), /<script>window\.taken=1<\/script>/);
  assert.equal(await page.evaluate(() => window.taken), undefined);
});

test("errors say what to do, and the question is not lost", async (t) => {
  const page = await visit(t, "chat", { expected: ["400", "503"] });
  await asking(page, { temperature: 99 });
  await send(page, "Keep this");
  await page.locator(".answer .error").waitFor();
  assert.match(await page.locator(".answer .error").textContent(), /temperature.*request [0-9a-f]{16}/s);
  assert.equal(await page.inputValue("#prompt"), "Keep this");
  await page.unroute("**/v1/chat/completions");
  await says(page, "half");
  await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body: 'data: {"choices":[{"delta":{"content":"half"}}]}\n\n' }));
  await send(page, "Again");
  await page.getByText("The answer broke off.").waitFor();
});

test("the dashboard counts what is there, and what is served", async (t) => {
  const page = await visit(t, "cluster");
  const { nodes_by_type } = await status();
  const total = Object.values(nodes_by_type).reduce((sum, n) => sum + n, 0);
  await until("all isolates are shown", async () => (await page.textContent("#isolates")) === String(total));
  assert.equal(await page.locator(".state.ready b").textContent(), String(total));
  const rows = await page.locator("#types tr").allTextContents();
  assert.deepEqual(rows.sort(), Object.entries(nodes_by_type).filter(([, n]) => n > 0).map(([type, n]) => `${type}${n}${n}00`).sort());
  const before = (await status()).totals.finished;
  const ask = () => fetch(`${open}/v1/completions`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"prompt":"A trait is","max_tokens":5,"ignore_eos":true}' });
  for (let i = 0; i < 20; i += 1) assert.equal((await ask()).status, 200);
  await until("20 more are told", async () => (await page.locator("[aria-label=Requests] .detail").textContent()) === `${before + 20} finished`);
  const label = await page.locator("[aria-label=Tokens] svg").getAttribute("aria-label");
  assert.doesNotMatch(label, / 0 at most/);
  // the cell under the pointer is the isolate that the host says it is
  await page.locator("#field").hover({ position: { x: 12, y: 12 } });
  const node = await (await fetch(`${open}/cluster/cells/0`)).json();
  await until("its isolate is told", async () => (await page.textContent("#readout")).startsWith(`${node.id} · ${node.type} · ${node.model} · ready · served `));
});

test("every cell is painted in the colour of its state", async (t) => {
  const page = await visit(t, "cluster");
  await until("cells are painted", async () => (await page.textContent("#isolates")) === "48");
  const painted = () =>
    page.evaluate(() => {
      const canvas = document.querySelector("#field");
      const ready = getComputedStyle(document.documentElement).getPropertyValue("--ready").trim();
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const wanted = [1, 3, 5].map((at) => Number.parseInt(ready.slice(at, at + 2), 16));
      let n = 0;
      for (let i = 0; i < data.length; i += 4) n += wanted.every((value, c) => data[i + c] === value) ? 1 : 0;
      return n;
    });
  await until("48 cells of one size are ready", async () => (await painted()) > 0 && (await painted()) % 48 === 0);
  await page.locator(".state.busy").click();
  await until("those in other states are dim", async () => (await painted()) === 0);
  assert.equal(await page.locator(".state.busy").getAttribute("aria-pressed"), "true");
});

test("everything can be done by the keyboard, and is seen to be", async (t) => {
  const page = await visit(t, "chat");
  await until("models are there", async () => (await page.locator("#model option").count()) > 0);
  await page.evaluate(() => document.activeElement.blur());
  const seen = [];
  for (let i = 0; i < 14; i += 1) {
    await page.keyboard.press("Tab");
    const [name, isSeen] = await page.evaluate(() => {
      const active = document.activeElement;
      // the box around the message is its outline
      const outlined = active.id === "prompt" ? active.closest("form") : active;
      const style = getComputedStyle(outlined);
      return [active.id || active.textContent.trim(), style.outlineStyle !== "none" || style.borderTopColor !== getComputedStyle(document.querySelector("select")).borderTopColor];
    });
    if (name && active(name)) assert.ok(isSeen, `${name} has the focus and shows nothing`);
    seen.push(name);
  }
  for (const name of ["skip", "Chat", "Cluster", "token-button", "theme-button", "conversation", "new-chat", "prompt", "model", "send"]) assert.ok(seen.includes(name), `${name} is not reached: ${seen}`);
  await page.focus("#prompt");
  await asking(page, { ignore_eos: true, max_tokens: 100_000 });
  await page.keyboard.type("Hello");
  await page.keyboard.press("Enter");
  await page.locator(".answer[aria-busy] .text > *").first().waitFor();
  await page.keyboard.press("Escape");
  await page.locator(".answer footer").waitFor();
  await page.focus('nav a[href="#cluster"]');
  await page.keyboard.press("Enter");
  await until("isolates are there", async () => (await page.textContent("#isolates")) === "48");
  await page.focus("#field-box");
  for (const key of ["Home", "ArrowRight", "ArrowRight", "ArrowLeft"]) await page.keyboard.press(key);
  const node = await (await fetch(`${open}/cluster/cells/1`)).json();
  await until("the second isolate is told", async () => (await page.textContent("#readout")).startsWith(node.id));
  await until("and spoken", async () => (await page.textContent("#spoken")).startsWith(node.id));
  await page.keyboard.press("End");
  await until("the last one is told", async () => (await page.textContent("#readout")).includes("-"));
  assert.ok(await page.locator("#ring").isVisible());

  function active(name) {
    return name !== "body";
  }
});

for (const colorScheme of ["dark", "light"]) {
  for (const viewport of [DESKTOP, PHONE]) {
    test(`nobody is shut out: ${colorScheme}, ${viewport.width} px`, async (t) => {
      for (const view of ["chat", "cluster"]) {
        // axe puts itself into the page, which nobody else can
        const page = await visit(t, view, { colorScheme, viewport, bypassCSP: true });
        if (view === "chat") {
          await says(page, "# A\n\n`b` [c](https://d.e)\n\n```\nf\n```\n\n|g|h|\n|-|-|\n|1|2|");
          await page.locator("#settings-box summary").click();
          await send(page, "x");
          await page.locator(".answer footer").waitFor();
        } else {
          await until("two moments are told", async () => (await page.locator("[aria-label=Load] b").textContent()) !== "–");
        }
        await page.evaluate(axe.source);
        const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
        const told = violations.map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map(({ html }) => html.slice(0, 120)).join(" ")}`);
        assert.deepEqual(told, [], view);
        const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
        assert.equal(ground, colorScheme === "dark" ? "rgb(15, 18, 20)" : "rgb(247, 245, 240)");
      }
    });
  }
}

test("a phone scrolls down and never sideways", async (t) => {
  const page = await visit(t, "chat", { viewport: PHONE, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
  await says(page, `${"x".repeat(400)}\n\n\`\`\`\n${"y".repeat(400)}\n\`\`\`\n\n|${"z".repeat(80)}|b|\n|-|-|\n|1|2|\n\nhttps://a.b/${"c".repeat(300)}`);
  await page.locator("#settings-box summary").click();
  assert.equal(await overflow(page), 0);
  await send(page, "w".repeat(300));
  await page.locator(".answer footer").waitFor();
  assert.equal(await overflow(page), 0);
  await page.goto(`${open}/#cluster`);
  await until("isolates are there", async () => (await page.textContent("#isolates")) === "48");
  assert.equal(await overflow(page), 0);
  const wide = await page.evaluate(() => document.querySelector("#view-cluster").scrollWidth - document.querySelector("#view-cluster").clientWidth);
  assert.equal(wide, 0);
});

test("colours follow the system until somebody chooses", async (t) => {
  const page = await visit(t, "chat", { colorScheme: "light" });
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const light = await ground();
  await page.emulateMedia({ colorScheme: "dark" });
  const dark = await ground();
  assert.notEqual(light, dark);
  await page.emulateMedia({ colorScheme: "light" });
  await page.click("#theme-button");
  assert.equal(await ground(), dark);
  await page.reload();
  assert.equal(await ground(), dark, "it is remembered");
  await page.click("#theme-button");
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await ground(), light);
});

test("a host that wants a token gets one, and this tab alone keeps it", async (t) => {
  const page = await visit(t, "chat", { host: guarded, expected: ["401", "403"] });
  await page.locator("#token-dialog[open]").waitFor();
  await page.fill("#token", "wrong");
  await page.keyboard.press("Enter");
  await page.locator("#chat-notice .error").waitFor();
  await page.locator("#token-dialog[open]").waitFor();
  await page.fill("#token", asker);
  await page.keyboard.press("Enter");
  await until("models are there", async () => (await page.locator("#model option").count()) > 0);
  await send(page, "x");
  await page.locator(".answer footer").waitFor();
  await page.click('nav a[href="#cluster"]');
  await page.getByText("`observe`").waitFor();
  await page.click("#token-button");
  await page.fill("#token", seer);
  await page.keyboard.press("Enter");
  await until("isolates are there", async () => (await page.textContent("#isolates")) === "8");
  const kept = await page.evaluate((token) => [JSON.stringify(sessionStorage).includes(token), JSON.stringify(localStorage).includes(token), document.cookie], seer);
  assert.deepEqual(kept, [true, false, ""]);
  await page.click("#token-button");
  await page.click("#token-forget");
  assert.equal(await page.evaluate(() => JSON.stringify(sessionStorage).includes("llambo_")), false);
});
