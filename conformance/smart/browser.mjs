// Drives a real headless browser through a demonstration: what people see, from the login to the app, with and without
// JavaScript. Called by tests/browser.rs with a folder of one; prints one JSON line with what it saw, and keeps pictures
// when PHIAL_SCREENSHOTS names a folder.
import { createHmac } from "node:crypto";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [data, npm] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(join(npm, "playwright-core"));
const demo = JSON.parse(readFileSync(join(data, "demo.json"), "utf8"));
const pictures = process.env.PHIAL_SCREENSHOTS ?? "";
if (pictures) mkdirSync(pictures, { recursive: true });
const saw = { faults: [] };
const user = (name) => demo.users.find((one) => one.username === name);
const app = `${demo.issuer}/apps/sample/`;

/** The six digits of an authenticator app (RFC 6238). */
function code(secret, step) {
  const bits = [...secret].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const digest = createHmac("sha1", key).update(counter).digest();
  const at = digest[19] & 15;
  return String((digest.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

const used = new Map();
/** A code that was not used before: a login may have to wait for the next one. */
async function nextCode(one) {
  for (;;) {
    const step = Math.floor(Date.now() / 30_000);
    // The server also takes the code before and after the present one.
    const free = [step - 1, step, step + 1].find((candidate) => candidate > (used.get(one.username) ?? 0));
    if (free !== undefined) {
      used.set(one.username, free);
      return code(one.totp_secret, free);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

const taken = new Set();
/** One of each page: a second look at the same one is not kept. */
async function picture(page, name) {
  if (!pictures || taken.has(name) || name.startsWith("launch-")) return;
  taken.add(name);
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

/** No page is wider than the window, and every field and button has a name. */
async function inspect(page, name) {
  await page.waitForLoadState("load");
  const found = await page.evaluate(() => {
    const faults = [];
    if (document.documentElement.scrollWidth > document.documentElement.clientWidth) faults.push("wider than the window");
    if (!document.title) faults.push("no title");
    if (document.documentElement.lang !== "en") faults.push("no language");
    const headings = [...document.querySelectorAll("h1")].filter((one) => one.checkVisibility());
    if (headings.length !== 1) faults.push(`${headings.length} first headings`);
    for (const field of document.querySelectorAll("input:not([type=hidden]), select")) {
      if (!(field.labels?.length > 0 || field.getAttribute("aria-label"))) faults.push(`the field ${field.name} has no label`);
    }
    /** WCAG 2.2, 1.4.3: text stands out from what is behind it by 4.5 to 1, large text by 3 to 1. */
    const channels = (color) => (color.match(/[\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const own = channels(getComputedStyle(at).backgroundColor);
        if (own.length === 3 || own[3] > 0) return own;
      }
      return [255, 255, 255];
    };
    for (const element of document.querySelectorAll("body *")) {
      const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!says || element.closest("svg") || !element.checkVisibility()) continue;
      const style = getComputedStyle(element);
      const [one, other] = [light(channels(style.color)), light(behind(element))].sort((a, b) => b - a);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const contrast = (one + 0.05) / (other + 0.05);
      if (contrast < (large ? 3 : 4.5)) faults.push(`"${element.textContent.trim().slice(0, 30)}" has a contrast of ${contrast.toFixed(2)}`);
    }
    for (const link of document.querySelectorAll("nav a, a.button")) {
      const box = link.getBoundingClientRect();
      if (box.height > 0 && (box.height < 24 || box.width < 24)) faults.push(`the link ${link.textContent} is too small`);
    }
    for (const button of document.querySelectorAll("button")) {
      if (!(button.textContent.trim() || button.getAttribute("aria-label"))) faults.push("a button has no text");
      const box = button.getBoundingClientRect();
      if (box.width > 0 && box.height < 24) faults.push(`the button ${button.textContent} is ${box.height} pixels high`);
    }
    return faults;
  });
  saw.faults.push(...found.map((fault) => `${name}: ${fault}`));
}

async function seen(page, name) {
  await inspect(page, name);
  await picture(page, name);
}

async function login(page, one, name) {
  await page.waitForSelector("#username");
  await seen(page, `${name}-login`);
  await page.fill("#username", one.username);
  await page.fill("#password", one.password);
  await page.click("main button");
  if (!one.totp_secret) return;
  await page.waitForSelector("#code");
  await seen(page, `${name}-factor`);
  // A code may have been used a moment ago, by whatever else logged in as this user.
  for (let tries = 0; tries < 4; tries += 1) {
    await page.fill("#code", await nextCode(one));
    await page.click("main button");
    if (!(await page.$("[role=alert]"))) return;
  }
  throw new Error(`${name}: no code is taken`);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function visit(name, options, work) {
  const context = await browser.newContext({ viewport: { width: 900, height: 700 }, ...options });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => saw.faults.push(`${name}: ${error.message}`));
  page.on("console", (message) => {
    // Browsers say every refusal aloud. A wrong password or code, a type that was denied and the icon of a site without one are
    // no faults of the page.
    const at = message.location().url ?? "";
    const meant = name === "errors" || message.text().includes("401") || (message.text().includes("404") && at.includes("/invitation")) || at.includes("/fhir/Appointment") || at.endsWith("/favicon.ico") || at.startsWith("https://client.example/");
    if (message.type() === "error" && !meant) saw.faults.push(`${name}: ${message.text()}`);
  });
  try {
    return await work(page, context);
  } catch (error) {
    const text = await page.textContent("main").catch(() => "");
    throw new Error(`${name} at ${page.url().split("?")[0]}: ${error.message}\n${text.replace(/\s+/g, " ").slice(0, 600)}`);
  } finally {
    await context.close();
  }
}

/** What the app shows of the record. */
async function record(page) {
  await page.waitForSelector("#record:not([hidden])");
  return page.evaluate(() => ({
    name: document.getElementById("name").textContent,
    charts: document.querySelectorAll("svg.chart").length,
    conditions: document.querySelectorAll("#conditions li").length,
    appointments: document.querySelectorAll("#appointments li").length,
    facts: document.getElementById("facts").textContent,
    note: document.getElementById("footnote").textContent,
  }));
}

/** A clinician opens the app by itself: login, second factor, patient, consent. */
saw.standalone = await visit("standalone", {}, async (page) => {
  await page.goto(app);
  await page.waitForSelector("#begin");
  await seen(page, "app-start");
  await page.click("#begin");
  await page.waitForSelector("#username");
  await picture(page, "page-login");
  await page.fill("#username", "provider");
  await page.fill("#password", "not the password");
  await page.click("main button");
  saw.wrong = (await page.waitForSelector("[role=alert]").then((alert) => alert.textContent())).trim();
  await login(page, user("provider"), "page");
  await page.waitForSelector("#q");
  await seen(page, "page-patient");
  const first = (await page.textContent("ul.rows .name")).trim();
  await page.fill("#q", first.split(" ").at(-1));
  await page.click(".search button");
  await page.waitForSelector(`ul.rows .name:has-text("${first}")`);
  await page.click(`ul.rows li:has(.name:has-text("${first}")) button`);
  await page.waitForSelector("button[value=allow]");
  await seen(page, "page-consent");
  await page.click("button[value=allow]");
  const shown = await record(page);
  await seen(page, "app-record");
  await page.goto(`${demo.issuer}/account`);
  await seen(page, "page-account");
  return { picked: first, ...shown };
});

/** The same on a phone, in the dark, by a patient, who sees their own record without choosing; one type is denied. */
saw.patient = await visit("patient", { viewport: { width: 390, height: 800 }, colorScheme: "dark", isMobile: true, hasTouch: true }, async (page) => {
  await page.goto(app);
  await page.click("#begin");
  await login(page, user("patient"), "phone");
  await page.waitForSelector("button[value=allow]");
  await seen(page, "phone-consent");
  await page.locator("fieldset", { hasText: /Appointment/ }).first().locator("input[type=checkbox]").uncheck();
  await page.click("button[value=allow]");
  const shown = await record(page);
  await seen(page, "phone-record");
  return { ...shown, denied: await page.textContent("#appointments") };
});

/** From the launch page, which stands in for an EHR. */
saw.launch = await visit("launch", {}, async (page) => {
  await page.goto(`${demo.issuer}/launch`);
  await login(page, user("provider"), "launch");
  await page.waitForSelector("#q");
  const first = (await page.textContent("ul.rows .name")).trim();
  await page.click("ul.rows button");
  await page.waitForSelector("#encounter");
  await seen(page, "page-launch");
  await page.click(`li:has-text("Patient summary") button`);
  await page.waitForSelector("button[value=allow]");
  await page.click("button[value=allow]");
  return { picked: first, ...(await record(page)) };
});

/** Passkeys, with a virtual authenticator of the browser's own. */
saw.passkey = await visit("passkey", {}, async (page, context) => {
  const cdp = await context.newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const device = { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true };
  const first = await cdp.send("WebAuthn.addVirtualAuthenticator", { options: device });
  const one = user("staff");
  const add = async (name) => {
    await page.goto(`${demo.issuer}/account/passkey`);
    await page.waitForSelector("#passkey button:visible");
    await seen(page, "page-passkey");
    await page.fill("#name", name);
    await page.click("#passkey button");
    await page.waitForSelector(".codes, [role=status]");
  };
  const listed = () => page.$$eval(`li:has(input[name=remove]) .name`, (all) => all.map((item) => item.firstChild.textContent.trim()));
  await page.goto(`${demo.issuer}/account`);
  await login(page, one, "passkey-before");
  await page.waitForSelector("header button");
  await add("Laptop");
  await seen(page, "page-codes");
  await page.goto(`${demo.issuer}/account`);
  await page.click("header button");
  await page.fill("#username", one.username);
  await page.fill("#password", one.password);
  await page.click("main button");
  await page.waitForSelector("#passkey button:visible");
  await seen(page, "page-factor-passkey");
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId: first.authenticatorId, isUserVerified: false });
  await page.click("#passkey button");
  const unverified = await page.waitForSelector("#passkey-fault:visible").then((fault) => fault.textContent());
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId: first.authenticatorId, isUserVerified: true });
  await page.click("#passkey button");
  await page.waitForURL((url) => url.pathname === "/account");
  const inside = (await page.textContent("h1")).trim() === one.username;
  await cdp.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId: first.authenticatorId });
  await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { ...device, transport: "usb" } });
  await add("Second key");
  await page.goto(`${demo.issuer}/account`);
  const both = await listed();
  await seen(page, "page-account-passkeys");
  await page.setViewportSize({ width: 390, height: 800 });
  await seen(page, "phone-account");
  await page.click(`li:has-text("Laptop") button`);
  await page.waitForSelector("[role=status]");
  return { listed: both, in: inside, unverified, left: await listed() };
});

/** A clinician breaks the glass for a patient of somebody else's, and reads on; somebody else will have to look at that. */
const scopes = "openid fhirUser user/Patient.rs user/Observation.rs";
saw.emergency = await visit("emergency", {}, async (page) => {
  const client = demo.clients.find((one) => one.kind === "public" && one.name !== "Patient summary");
  const back = "https://client.example/callback";
  const ask = new URLSearchParams({
    response_type: "code", client_id: client.client_id, redirect_uri: back, scope: scopes, state: "s", aud: demo.base_url,
    code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", code_challenge_method: "S256",
  });
  let answer = "";
  // Nobody is there: the code is read off the redirect.
  page.on("request", (request) => { if (request.url().startsWith(back)) answer = request.url(); });
  await page.goto(`${demo.issuer}/oauth/authorize?${ask}`);
  await login(page, user("provider"), "emergency");
  await page.click("button[value=allow]");
  for (let tries = 0; !answer && tries < 100; tries += 1) await new Promise((resolve) => setTimeout(resolve, 100));
  const post = async (fields) => (await fetch(`${demo.issuer}/oauth/token`, { method: "POST", body: new URLSearchParams(fields) })).json();
  const token = await post({
    grant_type: "authorization_code", client_id: client.client_id, redirect_uri: back,
    code: new URL(answer).searchParams.get("code"), code_verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
  });
  const own = user("patient").fhirUser.split("/")[1];
  const given = await post({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange", client_id: client.client_id,
    subject_token: token.access_token, subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    patient: own, purpose: "ETREAT", reason: "Brought in unconscious, allergies unknown",
  });
  const read = (path) => fetch(`${demo.base_url}/${path}`, { headers: { authorization: `Bearer ${given.access_token}` } });
  return [(await read(`Patient/${own}`)).status, (await read(`Observation?patient=${own}&_count=3`)).status];
});

/** The pages of administration, on a desk and on a phone. */
const ADMIN = ["users", "invitations", "clients", "sessions", "consents", "keys", "providers", "reviews"];
saw.admin = await visit("admin", {}, async (page, context) => {
  await page.goto(`${demo.issuer}/admin/users`);
  await login(page, user("admin"), "admin");
  await page.waitForSelector("nav.menu");
  await page.goto(`${demo.issuer}/admin/providers`);
  await page.click("button[aria-label=\"Ask it now: Clinic\"]");
  await page.waitForSelector("dd:has-text(\"keys, asked\")");
  for (const name of ADMIN) {
    await page.goto(`${demo.issuer}/admin/${name}`);
    await seen(page, `admin-${name}`);
  }
  await page.goto(`${demo.issuer}/admin/users`);
  await page.click(`a:text-is("nurse")`);
  await page.waitForSelector("dl.facts");
  await seen(page, "admin-user");
  await page.goto(`${demo.issuer}/admin/clients`);
  await page.click(`a:text-is("Patient summary")`);
  await page.waitForSelector("#sure");
  await seen(page, "admin-client");
  await page.goto(`${demo.issuer}/admin/reviews`);
  await page.click(`a:text-is("Review")`);
  await page.waitForSelector("#note");
  await seen(page, "admin-review");
  await page.setViewportSize({ width: 390, height: 800 });
  await seen(page, "phone-admin-review");
  await page.setViewportSize({ width: 900, height: 700 });
  const under = await page.$$eval("ol.rows .name", (all) => all.map((one) => one.textContent.split("·")[1].trim()));
  await page.check("#finding-justified");
  await page.fill("#note", "The emergency room's notes confirm it.");
  await page.click("main form button");
  await page.waitForSelector("[role=status]");
  await seen(page, "admin-review-closed");
  const finding = (await page.textContent("h2:has-text(\"Finding\")")).trim();
  await page.goto(`${demo.issuer}/admin/invitations`);
  await page.selectOption("#role", "NURSE");
  await page.fill("#note", "for Ann");
  await page.click("main .card button");
  const link = (await page.textContent(".key")).trim();
  await seen(page, "admin-invited");
  await page.setViewportSize({ width: 390, height: 800 });
  for (const name of ADMIN) {
    await page.goto(`${demo.issuer}/admin/${name}`);
    await seen(page, `phone-admin-${name}`);
  }
  await context.clearCookies();
  await page.goto(link);
  await seen(page, "phone-invitation");
  await page.setViewportSize({ width: 900, height: 700 });
  await seen(page, "page-invitation");
  await page.fill("#username", "ann");
  await page.fill("#password", "Quiet-Lamp-4711");
  await page.fill("#again", "Quiet-Lamp-4711");
  await page.click("main button");
  await page.waitForSelector(".picture svg");
  await seen(page, "page-enrol");
  await page.goto(link);
  await seen(page, "page-error");
  return { over: (await page.textContent("main")).includes("This link is over"), under, finding };
});

/** A new phone: the authenticator app is replaced by keyboard alone, without JavaScript, and new recovery codes are made. */
saw.second = await visit("second", { javaScriptEnabled: false, viewport: { width: 390, height: 800 } }, async (page) => {
  const one = user("nurse");
  await page.goto(`${demo.issuer}/account/factor`);
  await login(page, one, "second");
  await page.waitForSelector("h1:has-text(\"Your second step\")");
  await picture(page, "phone-second");
  await page.setViewportSize({ width: 900, height: 700 });
  await picture(page, "page-second");
  /** Presses Tab until the element has the focus, which must be seen. */
  const reach = async (selector) => {
    for (let presses = 0; presses < 30; presses += 1) {
      await page.keyboard.press("Tab");
      if (await page.locator(`${selector}:focus-visible`).count()) return;
    }
    throw new Error(`no key leads to ${selector}`);
  };
  await reach('a[href$="set=1"]');
  await page.keyboard.press("Enter");
  await page.waitForSelector(".picture svg");
  await picture(page, "page-device");
  const secret = (await page.textContent(".key")).replace(/\s/g, "");
  await reach("#code");
  await page.keyboard.type(code(secret, Math.floor(Date.now() / 30_000)));
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=status], .codes");
  await page.goto(`${demo.issuer}/account/factor`);
  await reach('button:text-is("Make new codes")');
  await page.keyboard.press("Enter");
  await page.waitForSelector("h1:has-text(\"Your recovery codes\")");
  return { codes: await page.locator(".codes li").count() };
});

/** What people see when something does not work. */
saw.errors = await visit("errors", {}, async (page) => {
  const titles = {};
  for (const [name, path] of [["400", "/oauth/authorize?client_id=nobody"], ["404", "/no/such/page"], ["405", "/logout"]]) {
    await page.goto(`${demo.issuer}${path}`);
    await seen(page, `page-error-${name}`);
    titles[name] = (await page.textContent("h1")).trim();
  }
  await page.setViewportSize({ width: 390, height: 800 });
  await seen(page, "phone-error");
  return titles;
});

/** Without JavaScript the pages of the server do their work up to the redirect; the app says what it needs. */
saw.plain = await visit("plain", { javaScriptEnabled: false }, async (page) => {
  await page.goto(app);
  const said = (await page.textContent("noscript")).trim();
  const challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
  const client = demo.clients.find((one) => one.name === "Patient summary");
  const ask = new URLSearchParams({
    response_type: "code", client_id: client.client_id, redirect_uri: app, scope: "launch/patient patient/Patient.r",
    state: "s", aud: demo.base_url, code_challenge: challenge, code_challenge_method: "S256",
  });
  await page.goto(`${demo.issuer}/oauth/authorize?${ask}`);
  await page.fill("#username", "receptionist");
  await page.fill("#password", user("receptionist").password);
  await page.click("main button");
  await page.fill("#code", await nextCode(user("receptionist")));
  await page.click("main button");
  await page.click("ul.rows button");
  await page.click("button[value=allow]");
  await page.waitForURL((url) => url.pathname === "/apps/sample/");
  const answer = new URL(page.url()).searchParams;
  await page.goto(`${demo.issuer}/account`);
  await page.click("header button");
  await page.waitForURL((url) => url.pathname === "/login");
  return { said, code: answer.has("code"), state: answer.get("state") };
});

await browser.close();
console.log(JSON.stringify(saw));
