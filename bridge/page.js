"use strict";
// Asks api/status (relative: it works behind a path prefix) and shows it. Text only ever becomes
// text nodes: nothing that a server says can become markup.

const PERIOD_MS = 2000;
const PATIENCE_MS = 5000;
const ROWS_MAX = 10;
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const number = (value) => (value === null ? "–" : value.toLocaleString("en"));
const counted = (n, thing) => `${number(n)} ${thing}${n === 1 ? "" : "s"}`;
const clock = (epoch_s) => new Date(epoch_s * 1000).toLocaleTimeString("en-GB");

function lasting(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (bytes >= 1000 && power < units.length - 1) { bytes /= 1000; power += 1; }
  return `${power && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[power]}`;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Only what differs is written: a screen reader would read the sentence again every two seconds.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, tone) {
  node.classList.toggle("ok", tone === "ok");
  node.classList.toggle("bad", tone === "bad");
}

// cells: [label, text, kind] with kind "number", "code", "command" or nothing
function row(cells) {
  const tr = document.createElement("tr");
  for (const [label, text, kind] of cells) {
    const td = element("td", undefined, kind === "number" ? "number" : "");
    td.dataset.label = label;
    const tag = kind === "code" || kind === "command" ? "code" : "span";
    td.append(element(tag, text, kind === "command" ? "command" : ""));
    tr.append(td);
  }
  return tr;
}

function list(name, rows) {
  byId(name).replaceChildren(...rows);
  byId(`${name}-some`).hidden = rows.length === 0;
  byId(`${name}-none`).hidden = rows.length > 0;
}

function station(id, tone, state, detail) {
  mark(byId(id).querySelector(".state"), tone);
  write(byId(id).querySelector(".state"), state);
  write(byId(id).querySelector(".detail"), detail);
}

function showServer(id, view, status) {
  if (view.up && view.trial) {
    station(id, "wait", "on trial", "It answers again; one instance after the other is tried.");
  } else if (view.up) {
    const reset = id === "source" && status.reasons.some((r) => r.code === "feed_went_backwards");
    const version = view.version ? `Orthanc ${view.version}` : "";
    station(id, reset ? "bad" : "ok", reset ? "up, with another history" : "up", version);
  } else {
    const since = view.down_since === null ? "" : ` for ${lasting(status.now - view.down_since)}`;
    const waiting = view.problem === "not_contacted";
    const state = waiting ? "not asked yet" : `down${since}: ${view.problem.replaceAll("_", " ")}`;
    station(id, waiting ? "wait" : "bad", state, waiting ? "" : view.message);
  }
}

const STAGES = { queued: "waits for a worker", fetch: "fetching", transcode: "transcoding",
  deliver: "delivering", prove: "proving" };
const HOLDS = { paused: "paused", quiet_hours: "quiet hours", rate_limit: "at its rate limit" };

function limits(limit) {
  const rates = [limit.instances_s && `${number(limit.instances_s)} instances`,
    limit.mbit_s && `${number(limit.mbit_s)} Mbit`].filter(Boolean);
  return (rates.length ? ` At most ${rates.join(" and ")} a second.` : "") +
    (limit.quiet_hours ? ` Quiet hours: ${limit.quiet_hours}.` : "");
}

function showBridge(status) {
  const trouble = status.reasons.some((reason) => /^(state|workers|stalled)/.test(reason.code));
  const doing = status.hold ? `${HOLDS[status.hold] || status.hold} (${status.phase})` : status.phase;
  const tone = trouble ? "bad" : status.hold || status.phase !== "following" ? "wait" : "ok";
  station("bridge", tone, trouble ? `in trouble (${status.phase})` : doing,
    `Running for ${lasting(status.now - status.started_at)}.${limits(status.limits)}`);
}

function showFigures(status) {
  const figures = [
    ["Lag", counted(status.lag_changes, "change")],
    ["Oldest of them", status.lag_s ? lasting(status.lag_s) : "–"],
    ["Checkpoint", number(status.checkpoint)],
    ["Newest change", number(status.last)],
    ["Waiting", number(status.waiting)],
    ["In flight", number(status.in_flight.length)],
    ["Parked", number(status.parked_total)],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value]) => {
    const div = document.createElement("div");
    div.append(element("dt", name), element("dd", value));
    if (name === "Parked" && status.parked_total) div.className = "bad";
    return div;
  }));
}

function showThroughput(throughput) {
  const counts = throughput.instances;
  const peak = Math.max(...counts, 1);
  byId("chart").setAttribute("viewBox", `0 0 ${counts.length} 24`);
  byId("chart").replaceChildren(...counts.map((count, index) => {
    const bar = document.createElementNS(SVG, "rect");
    bar.dataset.count = count;
    const height = count ? Math.max((count / peak) * 22, 0.5) : 0;
    for (const [name, value] of Object.entries(
      { x: index + 0.1, y: 24 - height, width: 0.8, height })) bar.setAttribute(name, value);
    return bar;
  }));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const minute = Math.round(60 / throughput.interval_s);
  const lately = sum(counts.slice(-minute - 1, -1));
  const rate = (peak / throughput.interval_s).toFixed(1);
  write(byId("chart-text"), sum(counts)
    ? `${counted(sum(counts), "instance")}, ${size(sum(throughput.target_bytes))} in all; ` +
      `${number(lately)} in the last full minute. Highest bar: ${rate} a second.`
    : "No instance was delivered.");
}

function showTables(status) {
  list("parked", Object.entries(status.parked).map(([reason, count]) => row([
    ["Reason", reason, "code"], ["Instances", number(count), "number"],
    ["Retry", `orthanc-bridge parked retry --reason ${reason}`, "command"]])));
  const flight = status.in_flight;
  list("flight", flight.slice(0, ROWS_MAX).map((item) => row([
    ["Change", number(item.sequence), "number"], ["Instance", item.instance, "code"],
    ["Stage", STAGES[item.stage] || "–"],
    ["Attempt", number(item.attempt), "number"], ["Age", lasting(item.age_s), "number"]])));
  byId("flight-more").hidden = flight.length <= ROWS_MAX;
  write(byId("flight-more"), `and ${number(flight.length - ROWS_MAX)} younger ones`);
  list("failures", status.failures.map((failure) => row([
    ["Time", clock(failure.at)],
    ["Reason", `${failure.reason}: ${failure.what === "parked" ? "parked" : "will be retried"}`],
    ["Change", number(failure.sequence), "number"], ["Instance", failure.instance_id, "code"]])));
}

// The first reason is the sentence at the top.
function showReasons(reasons) {
  byId("reasons").hidden = reasons.length < 2;
  byId("reasons").replaceChildren(...reasons.map((reason) => {
    const li = element("li");
    li.append(element("code", reason.code), ` ${reason.message} ${reason.advice}`);
    return li;
  }));
}

let seen_at = null;
let misses = 0;

function show(status) {
  const fine = status.status === "ok";
  document.body.classList.remove("stale");
  mark(byId("verdict"), fine ? "ok" : "bad");
  write(byId("verdict"), status.headline);
  document.title = `${fine ? "✓" : "!"} orthanc-bridge`;
  showReasons(status.reasons);
  showServer("source", status.source, status);
  showBridge(status);
  showServer("target", status.target, status);
  showFigures(status);
  showThroughput(status.throughput);
  showTables(status);
  const { version, ...parts } = status.versions;
  write(byId("versions"), [`orthanc-bridge ${version}`,
    ...Object.entries(parts).map(([name, value]) => `${name} ${value}`)].join(" · "));
  seen_at = new Date();
  write(byId("updated"), `Updated ${seen_at.toLocaleTimeString("en-GB")}`);
}

function showSilence() {
  document.body.classList.toggle("stale", seen_at !== null);
  mark(byId("verdict"), "bad");
  document.title = "! orthanc-bridge does not answer";
  const old = seen_at === null ? "" : ` What is below is as of ${seen_at.toLocaleTimeString("en-GB")}.`;
  write(byId("verdict"), "Attention: the bridge does not answer. See whether it runs and what its " +
    `log says; a restart loses nothing.${old}`);
  write(byId("updated"), "Trying again every 2 seconds");
}

// A connection may end just when it is used again: only a second miss is silence.
async function update() {
  let next_ms = PERIOD_MS;
  try {
    const answer = await fetch("api/status",
      { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
    misses = 0;
  } catch (error) {
    console.info("no status:", error);
    misses += 1;
    if (misses > 1) showSilence(); else next_ms = PERIOD_MS / 4;
  }
  setTimeout(update, next_ms);
}

update();
