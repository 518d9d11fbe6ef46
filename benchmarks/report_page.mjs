// Measure a report's page in headless Chromium; benchmarks/report_page.sh makes one and calls this.
import { createRequire } from "node:module";
import { statSync } from "node:fs";
const require = createRequire(`${process.env.BROWSER_TOOLS}/`);
const { chromium } = require("playwright-core");
const file = process.argv[2], TIMES = 5;
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const paints = [], filters = { verdict: [], words: [], sort: [] };
for (let i = 0; i < TIMES; i++) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
  await page.goto(`file://${file}`);
  paints.push(await page.evaluate(() => new Promise((resolve) => {
    const told = () => performance.getEntriesByName("first-contentful-paint")[0];
    const wait = () => (told() ? resolve(told().startTime) : requestAnimationFrame(wait));
    wait();
  })));
  await page.waitForSelector("body[data-ready]");
  for (const [name, times] of Object.entries(filters)) times.push(await page.evaluate((what) => {
    const begun = performance.now();
    if (what === "sort") document.querySelector('[data-sort="schema"]').click();
    else {
      const field = document.getElementById(what);
      field.value = what === "words" ? "lyon" : "wrong";
      field.dispatchEvent(new Event("input"));
    }
    document.getElementById("rows").getBoundingClientRect();  // the layout is part of it
    return performance.now() - begun;
  }, name));
  await page.context().close();
}
await browser.close();
console.log(`size ${(statSync(file).size / 1e6).toFixed(2)} MB`);
const say = (name, times) => console.log(`${name} ${median(times).toFixed(0)} ms (median of ${TIMES}; best ${Math.min(...times).toFixed(0)} ms)`);
say("first paint", paints);
for (const [name, times] of Object.entries(filters)) say(`filter by ${name}`, times);
