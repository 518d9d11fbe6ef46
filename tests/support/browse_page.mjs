// Look at a report in headless Chromium, and print what is there as JSON.
//
//   BROWSER_TOOLS=FOLDER node browse_page.mjs report.html [screenshots/]
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
const require = createRequire(`${process.env.BROWSER_TOOLS}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [file, shots] = process.argv.slice(2);
const VIEWS = {
  wide: { viewport: { width: 1280, height: 900 } },
  phone: { viewport: { width: 390, height: 844 } },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  paper: { viewport: { width: 695, height: 1000 } },  // an A4 page within its margins
};
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
const found = { errors: [], fetched: [] };

async function open(view) {
  const page = await (await browser.newContext(VIEWS[view])).newPage();
  page.setDefaultTimeout(120_000);  // of a machine that does much else
  page.on("pageerror", (error) => found.errors.push(`${view}: ${error.message}`));
  page.on("console", (said) => said.type() === "error" && found.errors.push(`${view}: ${said.text()}`));
  page.on("request", (request) => request.url().startsWith("file://") || found.fetched.push(request.url()));
  await page.exposeFunction("hit", () => found.errors.push(`${view}: a script of another ran`));
  if (view === "paper") await page.emulateMedia({ media: "print" });
  await page.goto(`file://${file}`);
  if (await page.locator("#answers").count()) await page.waitForSelector("body[data-ready]");
  return page;
}

const shoot = async (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png` });
const faults = async (page) => {
  await page.evaluate(axe);
  const said = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return said.violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ target }) => target.join(" ")).join(", ")}`);
};

// What reaches beyond the window, and the smallest letters of drawings, in pixels.
const measure = (page) => page.evaluate(() => {
  const beyond = [...document.querySelectorAll("main *")].filter((each) => {
    const { right, width } = each.getBoundingClientRect();
    return width && right > innerWidth + 1;
  });
  const letters = [...document.querySelectorAll("svg text")].map((text) => {
    const svg = text.ownerSVGElement;
    return parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  }).filter((size) => size > 0);
  return { beyond: beyond.map((each) => `${each.tagName} ${each.className} ${each.textContent.slice(0, 40)}`).slice(0, 5),
    letters: Math.min(...letters), wide: document.documentElement.scrollWidth, inside: innerWidth };
});

const count = async (page) => parseInt((await page.textContent("#count")).replaceAll(",", ""), 10);
const first = (page) => page.locator(".line.row").first();

async function use(page) {
  const used = { all: await count(page), drawn: await page.locator(".line.row").count() };
  await page.selectOption("#verdict", "wrong");
  used.wrong = await count(page);
  await page.selectOption("#verdict", "");
  used.changes = {};
  for (const kind of ["fixed", "broken"]) {
    if (!(await page.locator(`#change option[value="${kind}"]`).count())) continue;
    await page.selectOption("#change", kind);
    used.changes[kind] = await count(page);
  }
  await page.click("#clear");
  await page.fill("#words", "second CLASS");
  used.words = await count(page);
  await page.click("#clear");
  await page.click('[data-sort="request"]');
  used.sorted = [await first(page).locator(".request").textContent()];
  await page.click('[data-sort="request"]');
  used.sorted.push(await first(page).locator(".request").textContent());
  await page.locator("#list").evaluate((list) => { list.scrollTop = list.scrollHeight; });
  await page.waitForTimeout(100);
  used.lastIndex = Number(await page.locator(".line.row").last().getAttribute("data-i"));
  await page.locator("#list").evaluate((list) => { list.scrollTop = 0; });
  await page.waitForTimeout(100);
  await first(page).focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  used.place = await page.textContent("#place");
  await page.keyboard.press("ArrowRight");
  used.next = await page.textContent("#place");
  used.dialog = await page.textContent("#inside");
  used.inDialog = await faults(page);
  await page.keyboard.press("Escape");
  used.focus = await page.evaluate(() => document.activeElement.dataset.i);
  await page.locator("button[data-fault]").first().click();
  used.fault = [await page.inputValue("#fault"), await count(page)];
  await page.click("#clear");
  return used;
}

async function openAll(page) {
  await page.click("#clear");
  const n = await count(page);
  await first(page).click();
  for (let i = 1; i < n; i++) await page.keyboard.press("ArrowRight");
  const last = await page.textContent("#place");
  await page.keyboard.press("Escape");
  return last;
}

for (const view of Object.keys(VIEWS)) {
  const page = await open(view);
  await shoot(page, view);
  found[view] = { ...(await measure(page)), axe: view === "paper" ? [] : await faults(page) };
  if (view === "dark") found.dark.background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  if (view === "wide" && (await page.locator("#list").count())) {
    found.use = await use(page);
    if (found.use.all < 50) found.opened = await openAll(page);
    found.live = await page.evaluate(() => ({
      scripts: document.scripts.length,
      foreign: document.querySelectorAll("img, iframe, object, embed, video, link, base, form, meta[http-equiv=refresh], input[autofocus], svg script").length,
      handlers: [...document.querySelectorAll("*")].filter((each) => [...each.attributes].some(({ name }) => name.startsWith("on"))).length,
      links: [...document.links].filter(({ protocol }) => protocol !== "file:").length,
      styles: document.querySelectorAll("style").length,
    }));
  }
  if (view === "paper") found.paper.answers = await page.locator("#paper > div").count();
  if (shots && view !== "paper" && (await page.locator("#list").count())) {
    await page.evaluate(() => document.getElementById("table").scrollIntoView());
    await shoot(page, `${view}_table`);
    if (await page.locator(".r4").count()) await page.selectOption("#verdict", "4");  // one that shows a difference
    await first(page).click();
    await shoot(page, `${view}_answer`);
  }
  await page.context().close();
}
await browser.close();
console.log(JSON.stringify(found));
