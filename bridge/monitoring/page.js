"use strict";
// Asks api/status (relative: it works behind a path prefix) and shows it. Text only ever becomes
// text nodes: nothing that a server says can become markup.

const PERIOD_MS = 2000;
const PATIENCE_MS = 5000;
const ROWS_MAX = 10;
const LONG_S = 10; // so long an instance is under way before it is worth a line
const SVG = "http://www.w3.org/2000/svg";

function station(id, tone, state, detail) {
  mark(byId(id).querySelector(".state"), tone);
  write(byId(id).querySelector(".state"), state);
  write(byId(id).querySelector(".detail"), detail);
}

function showServer(id, view, status) {
  write(byId(id).querySelector(".address"), view.url);
  if (view.up && view.trial) {
    station(id, "wait", "on trial", "It answers again. The bridge tries one instance at a time.");
  } else if (view.up) {
    const reset = id === "source" && status.reasons.some((r) => r.code === "feed_went_backwards");
    const version = view.version ? `Orthanc ${view.version}` : "";
    station(id, reset ? "bad" : "ok", reset ? "up, feed was reset or replaced" : "up", version);
  } else {
    const since = view.down_since === null ? "" : ` for ${lasting(status.now - view.down_since)}`;
    const waiting = view.problem === "not_contacted";
    const state = waiting ? "not asked yet" : `down${since}: ${view.problem.replaceAll("_", " ")}`;
    station(id, waiting ? "wait" : "bad", state, waiting ? "" : view.message);
  }
}

const STAGES = { queued: "waiting for a worker", fetch: "fetching", transcode: "transcoding",
  deliver: "delivering", prove: "proving", ended: "finished" };
const HELD = { paused: "paused", quiet_hours: "quiet hours", source_down: "source down",
  target_down: "target down", state_unwritable: "state not writable" };
const HOLDS = { paused: "paused", quiet_hours: "quiet hours", rate_limit: "at the rate limit" };

function limits(limit) {
  const rates = [limit.instances_s && `${number(limit.instances_s)} instances/s`,
    limit.mbit_s && `${number(limit.mbit_s)} Mbit/s`].filter(Boolean);
  return (rates.length ? ` At most ${rates.join(" and ")}.` : "") +
    (limit.quiet_hours ? ` Quiet hours: ${limit.quiet_hours}.` : "");
}

function showBridge(status) {
  const trouble = status.reasons.some((reason) => /^(state|workers|stalled)/.test(reason.code));
  const doing = status.hold ? `${HOLDS[status.hold] || status.hold} (${status.phase})` : status.phase;
  const tone = trouble ? "bad" : status.hold || status.phase !== "following" ? "wait" : "ok";
  station("bridge", tone, trouble ? `in trouble (${status.phase})` : doing,
    `Running for ${lasting(status.now - status.started_at)}.${limits(status.limits)}`);
}

function timeLeft(status) {
  const left = status.time_left;
  if (left === null) return "–";
  if (left.from_s === null) return "not catching up";
  const [first, last] = [left.from_s, left.to_s].map((s) => s !== null && lasting(s).split(" ")
    .slice(0, 2).join(" "));
  if (!last) return `${first} or more`;
  return first === last ? first : `${first} to ${last}`;
}

function atOnce(workers) {
  const most = workers.threads_max;
  return counted(workers.threads, "transfer") + (most ? ` (at most ${number(most)})` : "");
}

function showFigures(status) {
  const figures = [
    ["Lag", counted(status.lag_changes, "change")],
    ["Oldest change", status.lag_s ? lasting(status.lag_s) : "–"],
    ["Time left", timeLeft(status)],
    ["Checkpoint", number(status.checkpoint)],
    ["Newest change", number(status.last)],
    ["Waiting", number(status.waiting)],
    ["In flight", number(status.in_flight.length)],
    ["At once", atOnce(status.workers)],
    ["Parked", number(status.parked_total)],
  ];
  if (status.verification) figures.push(["Verified", status.verification.text]);
  if (status.carry) figures.push(["Labels, metadata and attachments", status.carry.text]);
  if (status.signs) figures.push(["Signs at the source", status.signs.text]);
  byId("figures").replaceChildren(...figures.map(([name, value]) => {
    const div = document.createElement("div");
    div.append(element("dt", name), element("dd", value));
    if (name === "Parked" && status.parked_total) div.className = "bad";
    return div;
  }));
}

function showBars(throughput) {
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
  }), ...throughput.held.flatMap((why, index) => {
    if (!isHeld(why)) return [];
    const stripe = document.createElementNS(SVG, "rect");
    stripe.dataset.held = why;
    for (const [name, value] of Object.entries(
      { x: index, y: 0, width: 1, height: 1.5 })) stripe.setAttribute(name, value);
    return [stripe];
  }));
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

// The last quarter of an hour comes with each status; longer spans are asked for when they are shown.
const AXES = { "": "15 minutes ago", hour: "an hour ago", day: "24 hours ago", month: "30 days ago" };
const HISTORY_MS = 30000;
let history_asked_at = 0;

async function showHistory() {
  const span = byId("span").value;
  if (!span || Date.now() - history_asked_at < HISTORY_MS) return;
  history_asked_at = Date.now();
  try {
    const answer = await fetch("api/throughput",
      { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const throughput = (await answer.json())[span];
    if (byId("span").value !== span) return;
    showBars(throughput);
    const peak = Math.max(...throughput.instances);
    const held = {};
    throughput.held.forEach((why, index) => {
      if (isHeld(why)) held[why] = (held[why] || 0) + throughput.held_s[index];
    });
    const away = throughput.held.filter((why) => why === "not_running").length;
    const told = Object.entries(held).map(([why, s]) => `${HELD[why] || why} for ${lasting(s)}`);
    if (away) told.push(`not running for ${lasting(away * throughput.interval_s)} or so`);
    const text = `${counted(sum(throughput.instances), "instance")}, ` +
      `${size(sum(throughput.target_bytes))} in all. Highest bar: ${number(peak)} in ` +
      `${lasting(throughput.interval_s)}.`;
    write(byId("chart-text"), told.length ? `${text} Stripe at the top: ${told.join(", ")}.` : text);
  } catch (error) {
    console.info("no history:", error);
    history_asked_at = 0;
  }
}

byId("span").addEventListener("change", () => {
  history_asked_at = 0;
  write(byId("axis-begin"), AXES[byId("span").value]);
  showHistory();
});

function showThroughput(throughput, running_s) {
  if (byId("span").value) return void showHistory();
  showBars(throughput);
  const counts = throughput.instances;
  const peak = Math.max(...counts, 1);
  const minute = Math.round(60 / throughput.interval_s);
  const lately = sum(counts.slice(-minute - 1, -1));
  // The bar under way does not count. A bridge that runs for less has no full minute behind it,
  // unless bars from before the restart are shown.
  const own = Math.ceil(running_s / throughput.interval_s) + 1;
  const young = running_s < 60 + throughput.interval_s && !sum(counts.slice(0, -own));
  const rate = (peak / throughput.interval_s).toFixed(1);
  const text = sum(counts)
    ? `${counted(sum(counts), "instance")}, ${size(sum(throughput.target_bytes))} in all; ` +
      (young ? `in the ${lasting(running_s)} since the start. ` :
        `${number(lately)} in the last full minute. `) + `Highest bar: ${rate} a second.`
    : "No instance was delivered.";
  const spells = {};
  for (const why of throughput.held.filter(isHeld)) spells[why] = (spells[why] || 0) + 1;
  const told = Object.entries(spells).map(([why, count]) =>
    `${HELD[why] || why} for ${lasting(count * throughput.interval_s)}`);
  write(byId("chart-text"), told.length ? `${text} Stripe at the top: ${told.join(", ")}.` : text);
}

const isHeld = (why) => why && why !== "not_running";

function showTables(status) {
  const prefix = status.command_prefix ? `${status.command_prefix} ` : "";
  const bases = Object.entries(status.public_urls).filter(([, base]) => base);
  list("parked", Object.entries(status.parked).map(([reason, count]) => [
    ["Reason", reason, "code"], ["Instances", number(count), "number"],
    ["Retry", `${prefix}orthanc-bridge parked retry --reason ${reason}`, "command"],
    ...acts({ reason })]));
  fill("parked-last", status.parked_newest.map((one) => [
    ["Time", moment(one.parked_at)], ["Why", `${one.reason}: ${one.message}`],
    ["Instance", one.instance, "code"],
    one.study ? ["Study", [[one.study, linkToStudy(one.study)]], "links"] : ["Study", "–"],
    bases.length
      ? ["Look", bases.map(([side, base]) => [`at the ${side}`, explorer(base, "instance", one.instance)]), "links"]
      : ["Look", `${prefix}orthanc-bridge parked show ${one.instance}`, "command"],
    ...acts({ instances: [one.instance] })]));
  const parked_more = status.parked_total - status.parked_newest.length;
  byId("parked-more").hidden = parked_more <= 0;
  write(byId("parked-more"), `and ${number(parked_more)} more: ${prefix}orthanc-bridge parked list`);
  const flight = status.in_flight.filter((item) => item.age_s >= LONG_S);
  list("flight", flight.slice(0, ROWS_MAX).map((item) => [
    ["Change", number(item.sequence), "number"], ["Instance", item.instance, "code"],
    ["Stage", STAGES[item.stage] || "–"],
    ["Attempt", number(item.attempt), "number"], ["Age", lasting(item.age_s), "number"]]));
  byId("flight-more").hidden = flight.length <= ROWS_MAX;
  write(byId("flight-more"), `and ${number(flight.length - ROWS_MAX)} more`);
  list("failures", status.failures.map((failure) => [
    ["Time", clock(failure.at)], ["Reason", `${failure.reason}: ${followed(failure)}`],
    ["Change", number(failure.sequence), "number"],
    ["Instance", failure.instance_id || "–", failure.instance_id ? "code" : ""]]));
}

function followed(failure) {
  if (failure.what === "parked") return "parked";
  if (failure.what !== "outage") return "will be retried";
  return failure.lasted_s === null ? "outage" : `outage, over after ${lasting(failure.lasted_s)}`;
}

// The first reason is the sentence at the top. That a server was not asked yet is nothing wrong.
function showReasons(reasons, standing) {
  byId("reasons").hidden = reasons.length < 2 || standing !== "needs_person";
  byId("reasons").replaceChildren(...reasons.map((reason) => {
    const li = element("li");
    li.append(element("code", reason.code), ` ${reason.message} ${reason.advice}`);
    return li;
  }));
}

let seen_at = null;
let misses = 0;

const TONES = { well: ["ok", "✓"], working: ["wait", "…"], needs_person: ["bad", "!"] };

function showVerdict(status) {
  const [tone, sign] = TONES[status.standing];
  mark(byId("verdict"), tone);
  write(byId("verdict"), status.headline);
  write(byId("name"), status.name);
  document.title = `${sign} ${status.name ? `${status.name} · ` : ""}orthanc-bridge`;
  byId("command").hidden = !status.command;
  if (byId("command").dataset.shown !== status.command) {
    byId("command").dataset.shown = status.command;
    byId("command").replaceChildren(element("span", "Next:"), command(status.command));
  }
}

function show(status) {
  document.body.classList.remove("stale");
  showVerdict(status);
  showReasons(status.reasons, status.standing);
  showServer("source", status.source, status);
  showBridge(status);
  showServer("target", status.target, status);
  showFigures(status);
  showThroughput(status.throughput, status.now - status.started_at);
  showTables(status);
  showActions(status);
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
  const old = seen_at === null ? "" : ` The figures below are of ${seen_at.toLocaleTimeString("en-GB")}.`;
  write(byId("verdict"), "Attention: the bridge does not answer. Check whether it runs, and read " +
    `its log; a restart loses nothing.${old}`);
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
