// The sample app: a public SMART client in plain JavaScript over the npm package fhirclient, which does the OAuth part.
// It keeps nothing but what fhirclient keeps in this tab's session storage.
"use strict";

const SCOPE = "openid fhirUser patient/Patient.r patient/Observation.rs patient/Condition.rs patient/Appointment.rs";
const at = (id) => document.getElementById(id);

/** Says one sentence at the top of the page; an empty one takes it away. */
function say(text, bad = false) {
  const note = at("status");
  note.textContent = text;
  note.hidden = text === "";
  note.classList.toggle("bad", bad);
}

/** An element with text and children: text is never read as HTML. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "circle", "line", "text", "title"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const codeText = (concept) =>
  concept?.text ?? concept?.coding?.find((coding) => coding.display)?.display ?? concept?.coding?.[0]?.code ?? "";

function day(text) {
  if (!text) return "";
  const date = new Date(text.length === 10 ? `${text}T12:00:00` : text);
  if (text.length < 10 || Number.isNaN(date.getTime())) return text;
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

const clock = (text) => new Date(text).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

/** All resources of a search, page after page. */
function all(client, query) {
  return client.request(query, { pageLimit: 10, flat: true }).then((found) =>
    found.filter((resource) => resource && resource.resourceType !== "OperationOutcome"));
}

/** What to say of a part that did not come. */
function absent(error, what) {
  const status = error?.statusCode ?? error?.status;
  const text = status === 403 ? `You have not given this app access to ${what}.` : `The ${what} could not be read.`;
  return make("p", { class: "soft" }, text);
}

// ---- demographics

function nameOf(patient) {
  const name = patient.name?.find((one) => one.use === "official") ?? patient.name?.[0] ?? {};
  return name.text ?? [...(name.given ?? []), name.family].filter(Boolean).join(" ");
}

function years(patient) {
  if (!patient.birthDate) return "";
  const end = patient.deceasedDateTime ? new Date(patient.deceasedDateTime) : new Date();
  const [y, m = 1, d = 1] = patient.birthDate.split("-").map(Number);
  let age = end.getFullYear() - y;
  if (end.getMonth() + 1 < m || (end.getMonth() + 1 === m && end.getDate() < d)) age -= 1;
  return `${age} years`;
}

function showPatient(patient) {
  const name = nameOf(patient) || "Unnamed patient";
  at("name").textContent = name;
  at("initials").textContent = name.split(/\s+/).map((part) => part[0]).filter((c) => /\p{L}/u.test(c)).slice(0, 2).join("");
  at("about").textContent = [patient.gender, years(patient)].filter(Boolean).join(" · ");
  document.title = `${name} · Patient summary`;
  const contact = (system) => patient.telecom?.find((one) => one.system === system)?.value;
  const address = patient.address?.[0];
  const record = patient.identifier?.find((one) => one.type?.coding?.some((coding) => coding.code === "MR"));
  const facts = [
    ["Born", day(patient.birthDate)],
    ["Died", day(patient.deceasedDateTime)],
    ["Record number", record?.value],
    ["Phone", contact("phone")],
    ["E-mail", contact("email")],
    ["Address", address && [...(address.line ?? []), [address.postalCode, address.city].filter(Boolean).join(" "), address.state].filter(Boolean).join(", ")],
    ["Language", codeText(patient.communication?.[0]?.language)],
  ];
  at("facts").replaceChildren(...facts.filter(([, value]) => value).map(([label, value]) =>
    make("div", {}, make("dt", {}, label), make("dd", {}, value))));
}

// ---- vital signs

const SIGNS = [
  { code: "85354-9", name: "Blood pressure", unit: "mmHg", parts: ["8480-6", "8462-4"], labels: ["systolic", "diastolic"] },
  { code: "8867-4", name: "Heart rate", unit: "/min" },
  { code: "29463-7", name: "Body weight", unit: "kg" },
  { code: "39156-5", name: "Body mass index", unit: "kg/m²" },
  { code: "2708-6", name: "Oxygen saturation", unit: "%" },
  { code: "8310-5", name: "Body temperature", unit: "°C" },
];

const hasCode = (concept, code) => concept?.coding?.some((one) => one.system === "http://loinc.org" && one.code === code);

/** [{when, values}] of one vital sign, the oldest first. */
function series(observations, sign) {
  const points = observations.filter((one) => hasCode(one.code, sign.code) && one.effectiveDateTime).map((one) => ({
    when: one.effectiveDateTime,
    values: sign.parts
      ? sign.parts.map((part) => one.component?.find((c) => hasCode(c.code, part))?.valueQuantity?.value)
      : [one.valueQuantity?.value],
  }));
  return points.filter((point) => point.values.every((value) => typeof value === "number"))
    .sort((a, b) => new Date(a.when) - new Date(b.when));
}

function chart(points, sign) {
  const [width, height, left, right, top, bottom] = [320, 130, 34, 10, 10, 22];
  const values = points.flatMap((point) => point.values);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high - low) * 0.15, Math.abs(high) * 0.02, 0.5);
  [low, high] = [low - room, high + room];
  const times = points.map((point) => new Date(point.when).getTime());
  const [first, last] = [times[0], times[times.length - 1]];
  const x = (time) => (last === first ? (left + width - right) / 2 : left + ((time - first) / (last - first)) * (width - left - right));
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const words = points.map((point) => `${day(point.when)}: ${point.values.join("/")}`).join("; ");
  const svg = make("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${sign.name} in ${sign.unit}. ${words}` });
  const digits = values.every(Number.isInteger) ? 0 : 1;
  for (const value of [low + room, high - room].filter((one, n, both) => n === 0 || both[0] !== one)) {
    svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(make("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(digits)));
  }
  points[0].values.forEach((_, n) => {
    const second = n === 1 ? " second" : "";
    const path = points.map((point, i) => `${x(times[i]).toFixed(1)},${y(point.values[n]).toFixed(1)}`).join(" ");
    svg.append(make("polyline", { class: `line${second}`, points: path }));
    points.forEach((point, i) => svg.append(make("circle", { class: `dot${second}`, cx: x(times[i]), cy: y(point.values[n]), r: 3 })));
  });
  const month = (time) => new Date(time).toLocaleDateString("en-GB", { month: "short", year: "numeric" });
  svg.append(make("text", { x: first === last ? x(first) : left, y: height - 5, "text-anchor": first === last ? "middle" : "start" }, month(first)));
  if (month(first) !== month(last)) svg.append(make("text", { x: width - right, y: height - 5, "text-anchor": "end" }, month(last)));
  return svg;
}

function asTable(points, sign) {
  const labels = sign.labels ?? [sign.unit];
  const head = make("tr", {}, make("th", { scope: "col" }, "Date"), ...labels.map((label) => make("th", { scope: "col" }, label)));
  const rows = points.toReversed().map((point) =>
    make("tr", {}, make("td", {}, day(point.when)), ...point.values.map((value) => make("td", {}, String(value)))));
  return make("details", {}, make("summary", { class: "small" }, `All ${points.length} as a table`),
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function showVitals(observations) {
  const cards = SIGNS.map((sign) => [sign, series(observations, sign)]).filter(([, points]) => points.length > 0).map(([sign, points]) => {
    const latest = points[points.length - 1];
    return make("article", { class: "card" },
      make("div", { class: "top" }, make("h3", {}, sign.name), make("span", { class: "soft small" }, day(latest.when))),
      make("div", { class: "latest" }, `${latest.values.join("/")} `, make("small", {}, sign.unit)),
      chart(points, sign), asTable(points, sign));
  });
  at("vitals").replaceChildren(...(cards.length ? cards : [make("p", { class: "soft" }, "No vital signs are on record.")]));
}

// ---- lists

function rows(list, none) {
  return list.length === 0 ? make("p", { class: "soft" }, none) : make("ul", { class: "rows" }, ...list);
}

function row(what, detail, tag, now) {
  return make("li", {}, make("div", {}, make("div", { class: "what" }, what), make("div", { class: "soft small" }, detail)),
    tag ? make("span", { class: now ? "tag now" : "tag" }, tag) : null);
}

function showConditions(conditions) {
  const status = (one) => one.clinicalStatus?.coding?.[0]?.code ?? "";
  const sorted = conditions.sort((a, b) => (status(a) === "active" ? 0 : 1) - (status(b) === "active" ? 0 : 1)
    || (b.onsetDateTime ?? "").localeCompare(a.onsetDateTime ?? ""));
  at("conditions").replaceChildren(rows(sorted.map((one) =>
    row(codeText(one.code) || "Condition", one.onsetDateTime ? `since ${day(one.onsetDateTime)}` : "", status(one), status(one) === "active")),
  "No conditions are on record."));
}

function showAppointments(appointments) {
  const now = new Date().toISOString();
  const time = (one) => new Date(one.start).getTime();
  const placed = appointments.filter((one) => one.start && one.status !== "entered-in-error");
  const coming = placed.filter((one) => new Date(one.start) >= new Date(now)).sort((a, b) => time(a) - time(b));
  const past = placed.filter((one) => new Date(one.start) < new Date(now)).sort((a, b) => time(b) - time(a)).slice(0, 5);
  const show = (one) => {
    const who = one.participant?.map((part) => part.actor).find((actor) => actor?.reference?.includes("Practitioner/"))?.display;
    const what = one.description ?? codeText(one.serviceType?.[0]) ?? "Appointment";
    return row(what, [`${day(one.start)}, ${clock(one.start)}`, who].filter(Boolean).join(" · "), one.status, coming.includes(one));
  };
  at("appointments").replaceChildren(rows([...coming, ...past].map(show), "There are no appointments."));
}

// ---- the flow

async function show(client) {
  const id = client.patient.id;
  if (!id) throw new Error("The server gave no patient.");
  say("Reading the record …");
  const part = (query, into, what, put) => all(client, query).then(put, (error) => at(into).replaceChildren(absent(error, what)));
  const patient = client.request(`Patient/${encodeURIComponent(id)}`).then(showPatient, (error) => {
    at("name").textContent = "A patient";
    at("facts").replaceChildren(absent(error, "demographics"));
  });
  const of = `patient=${encodeURIComponent(id)}`;
  await Promise.all([
    patient,
    part(`Observation?${of}&category=vital-signs&_count=200`, "vitals", "vital signs", showVitals),
    part(`Condition?${of}`, "conditions", "conditions", showConditions),
    part(`Appointment?${of}`, "appointments", "appointments", showAppointments),
  ]);
  const granted = client.getState("tokenResponse.scope") ?? "";
  at("footnote").textContent = `Read from ${client.state.serverUrl} with the access that you gave: ${granted}`;
  say("");
  at("record").hidden = false;
  at("leave").hidden = false;
}

/** Forgets the access in this tab. It ends at the server by itself, or on the account page there. */
function leave() {
  sessionStorage.clear();
  location.replace(location.pathname);
}

async function main() {
  if (typeof FHIR === "undefined") {
    say("The library fhirclient is not here. `make run` fetches it with npm; see its message, then start again.", true);
    return;
  }
  const settings = await fetch("settings.json").then((reply) => reply.json());
  // The address this app is registered at, should it have been opened under another name of the same machine.
  if (location.origin !== new URL(settings.redirect_uri).origin) {
    location.replace(settings.redirect_uri);
    return;
  }
  const ask = { clientId: settings.client_id, redirectUri: settings.redirect_uri, pkceMode: "required" };
  if (document.body.dataset.launch === "ehr") {
    // The EHR says in the address which server and which launch.
    await FHIR.oauth2.authorize({ ...ask, scope: `launch ${SCOPE}` });
    return;
  }
  const answer = new URLSearchParams(location.search);
  at("leave").addEventListener("click", leave);
  at("begin").addEventListener("click", () => {
    FHIR.oauth2.authorize({ ...ask, iss: settings.iss, scope: `launch/patient ${SCOPE}` }).catch(failed);
  });
  if (answer.has("error")) {
    history.replaceState(null, "", location.pathname);
    at("start").hidden = false;
    say(answer.get("error") === "access_denied" ? "You gave this app no access. Nothing was read." : answer.get("error_description") ?? "The server refused.", true);
  } else if (answer.has("code") || sessionStorage.getItem("SMART_KEY")) {
    await show(await FHIR.oauth2.ready());
  } else {
    at("start").hidden = false;
  }
}

function failed(error) {
  console.error(error);
  say(`This did not work: ${error?.message ?? error}`, true);
  const start = at("start");
  if (start) start.hidden = false;
}

main().catch(failed);
