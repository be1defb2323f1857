// What scripts/console-browser does in the browser. Ends with 1 and the reasons when anything is not as it should be.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { CONSOLE, KEY, CHROMIUM, SCREENSHOTS } = process.env;
const origin = new URL(CONSOLE).origin;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const faults = [];
const counts = { pages: 0, rules: 0, minor: 0, pictures: 0 };
if (SCREENSHOTS) mkdirSync(SCREENSHOTS, { recursive: true });

function check(holds, what) {
  if (!holds) faults.push(what);
}

async function api(path, options = {}) {
  const answer = await fetch(origin + path, { ...options, headers: { Authorization: `Bearer ${KEY}` } });
  return answer.json();
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });

async function open(name, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  watch(page, name);
  context.on("page", (other) => watch(other, name));
  return { context, page, name, script: options.javaScriptEnabled !== false };
}

// Nothing may come from elsewhere, and nothing may go wrong silently.
function watch(page, name) {
  page.on("request", (request) => {
    check(request.url().startsWith(origin) || /^(data|about|chrome)/.test(request.url()), `${name}: asks ${request.url()}`);
  });
  page.on("pageerror", (error) => faults.push(`${name}: ${error}`));
  page.on("console", (message) => {
    // The page to sign in comes with 401, which the browser notes.
    if (message.type() === "error" && !/401|422|404/.test(message.text())) faults.push(`${name}: ${message.text()}`);
  });
}

async function look(view, label) {
  const { page, name, script } = view;
  counts.pages += 1;
  check((await page.locator("h1").count()) === 1, `${name} ${label}: not one h1`);
  check((await page.locator("main").count()) === 1, `${name} ${label}: not one main`);
  if (script) {
    const width = await page.evaluate(() => [document.scrollingElement.scrollWidth, window.innerWidth]);
    check(width[0] <= width[1], `${name} ${label}: ${width[0]} px wide in ${width[1]}`);
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    counts.rules = Math.max(counts.rules, found.passes.length + found.violations.length);
    for (const violation of found.violations) {
      if (violation.impact === "serious" || violation.impact === "critical") {
        const first = violation.nodes[0];
        faults.push(`${name} ${label}: ${violation.id} (${violation.impact}) at ${first.target}: ${first.failureSummary}`);
      } else {
        counts.minor += 1;
        console.log(`  note: ${name} ${label}: ${violation.id} (${violation.impact}) at ${violation.nodes[0].target}`);
      }
    }
  }
  if (SCREENSHOTS) {
    counts.pictures += 1;
    await page.screenshot({ path: `${SCREENSHOTS}/${name}-${label}.png`, fullPage: true });
  }
}

async function signIn(view) {
  const { page, name } = view;
  await page.goto(`${CONSOLE}/accounts`);
  await look(view, "sign-in");
  await page.getByLabel("API key").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  check(await page.getByRole("alert").isVisible(), `${name}: a wrong key is not told`);
  await page.getByLabel("API key").fill(KEY);
  await page.getByRole("button", { name: "Sign in" }).click();
  check(page.url() === `${CONSOLE}/accounts`, `${name}: signing in leads to ${page.url()}`);
}

async function everyPage(view) {
  const { page } = view;
  await page.goto(CONSOLE);
  await look(view, "now");
  for (const place of ["Verifications", "Unmatched", "Webhooks", "Accounts", "Configuration"]) {
    await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: place, exact: true }).click();
    await look(view, place.toLowerCase());
  }
  await page.getByRole("link", { name: "API", exact: true }).click();
  await look(view, "docs");
  await page.goto(`${CONSOLE}/verifications`);
  await page.getByLabel("Status").selectOption("passed");
  await page.getByRole("button", { name: "Filter" }).click();
  check(page.url().includes("status=passed"), `${view.name}: the filter is not in ${page.url()}`);
  const rows = await page.locator("tbody tr").count();
  const passed = await page.locator("tbody .status.passed").count();
  check(rows > 0 && rows === passed, `${view.name}: ${passed} of ${rows} rows are passed`);
  await look(view, "filtered");
  await page.goto(`${CONSOLE}/verifications?status=expired`);
  await page.locator("tbody a").first().click();
  await look(view, "expired");
  await page.goto(`${CONSOLE}/verifications/nothing`);
  await look(view, "not-found");
  const stuck = (await api("/verifications?status=collecting")).items[0];
  await page.goto(`${CONSOLE}/verifications/${stuck.id}`);
  const why = await api(`/verifications/${stuck.id}/why`);
  check(await page.locator(`[data-code="${why.code}"]`).isVisible(), `${view.name}: ${why.code} is not shown`);
  await look(view, "stuck");
  return stuck;
}

async function withEvidence() {
  for (const item of (await api("/verifications?status=passed&limit=200")).items) {
    if (item.evidence.some((evidence) => evidence.kind === "face_image" && evidence.state === "stored")) return item;
  }
  throw new Error("nothing with evidence is in the demo");
}

async function act(view, stuck) {
  const { page, context, name, script } = view;
  await page.goto(`${CONSOLE}/verifications/${stuck.id}`);
  await page.getByRole("button", { name: "Ask the provider now", exact: true }).click();
  check(await page.getByText("The provider is asked now.").isVisible(), `${name}: collect is not confirmed`);

  const seen = await withEvidence();
  await page.goto(`${CONSOLE}/verifications/${seen.id}`);
  await look(view, "passed");
  const reads = async () => (await api(`/verifications/${seen.id}/history`)).items.filter((item) => item.read).length;
  const before = await reads();
  const [picture] = await Promise.all([
    context.waitForEvent("page"),
    page.getByRole("button", { name: /^Show the face image/ }).click(),
  ]);
  await picture.waitForLoadState();
  if (script) {
    const width = await picture.evaluate(() => document.images[0]?.naturalWidth ?? 0);
    check(width > 0, `${name}: the picture is not shown`);
  }
  await picture.close();
  check((await reads()) === before + 1, `${name}: the look is not recorded`);

  const copies = await page.getByRole("button", { name: /^Copy/ }).count();
  check(copies === (script ? 4 : 0), `${name}: ${copies} buttons to copy`);

  await page.locator("summary", { hasText: "Erase" }).click();
  await page.getByLabel(/^Reason/).fill("asked for by the person");
  await page.getByLabel(/^Type/).fill("erase");
  await look(view, "erase");
  await page.getByRole("button", { name: "Erase for good" }).click();
  check(await page.getByText("It is erased.").isVisible(), `${name}: the erasure is not confirmed`);
  check((await api(`/verifications/${seen.id}`)).erased_at !== null, `${name}: it is not erased`);
  await look(view, "erased");
}

// Somebody else's deed appears without loading the page.
async function live(view) {
  const { page, name } = view;
  const seen = await withEvidence();
  await page.goto(`${CONSOLE}/verifications/${seen.id}`);
  const before = await page.locator(".timeline li").count();
  await api(`/verifications/${seen.id}/raw`);
  await page.waitForFunction((n) => document.querySelectorAll(".timeline li").length > n, before, { timeout: 15_000 }).then(
    () => {},
    () => faults.push(`${name}: the page does not keep itself up to date`),
  );
}

async function keyboard(view) {
  const { page, name } = view;
  await page.goto(CONSOLE);
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => {
    const focused = document.activeElement;
    return [focused.textContent, getComputedStyle(focused).outlineStyle];
  });
  check(first[0] === "To the content" && first[1] !== "none", `${name}: the first stop of Tab is ${first}`);
  await page.keyboard.press("Enter");
  check(page.url().endsWith("#main"), `${name}: the first stop leads to ${page.url()}`);
}

const started = Date.now();
for (const [name, colorScheme, javaScriptEnabled] of [
  ["light", "light", true],
  ["dark", "dark", true],
  ["plain", "light", false],
]) {
  const view = await open(name, { colorScheme, javaScriptEnabled });
  await signIn(view);
  const stuck = await everyPage(view);
  await act(view, stuck);
  if (javaScriptEnabled) {
    await keyboard(view);
    await live(view);
  }
  await view.page.getByRole("button", { name: "Sign out" }).click();
  check(view.page.url() === `${CONSOLE}/login`, `${name}: signing out leads to ${view.page.url()}`);
  await view.context.close();
}
const narrow = await open("narrow", { colorScheme: "dark", viewport: { width: 390, height: 844 } });
await signIn(narrow);
await everyPage(narrow);
await narrow.context.close();
await browser.close();

const seconds = ((Date.now() - started) / 1000).toFixed(1);
console.log(
  `${counts.pages} pages looked at in ${seconds} s, with up to ${counts.rules} rules of access each; ` +
    `${counts.minor} minor notes, ${faults.length} faults` + (SCREENSHOTS ? `, ${counts.pictures} pictures` : ""),
);
for (const fault of faults) console.error(`FAULT ${fault}`);
process.exit(faults.length === 0 ? 0 : 1);
