"use strict";
// What the scripts of all pages share. Text only ever becomes text nodes: nothing that a server says
// can become markup.

const COPIED_MS = 2000;

const byId = (id) => document.getElementById(id);
const number = (value) => (value === null ? "–" : value.toLocaleString("en"));
const counted = (n, thing) => `${number(n)} ${thing}${n === 1 ? "" : "s"}`;
const moment = (epoch_s) => new Date(epoch_s * 1000).toLocaleString("en-GB");
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

// A command with a button beside it that copies it. Without HTTPS a browser has no clipboard for
// pages of other machines: there the command is selected and copied as by hand.
function command(text) {
  const shown = element("code", text, "command");
  const button = element("button", "Copy", "copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy: ${text}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(shown);
      document.execCommand("copy");
    }
    write(button, "Copied");
    setTimeout(() => write(button, "Copy"), COPIED_MS);
  });
  const both = element("span", undefined, "copied");
  both.append(shown, button);
  return both;
}

// links: [text, address] each; an address is one of the settings, and ours from there on.
function links(pairs) {
  const span = element("span");
  for (const [text, address] of pairs) {
    const link = element("a", text);
    link.href = address;
    link.rel = "noreferrer";
    span.append(link, " ");
  }
  return span;
}

const KINDS = { command, links, code: (text) => element("code", text) };

// cells: [label, value, kind] with kind "number", "code", "command", "links" or nothing
function row(cells) {
  const tr = document.createElement("tr");
  for (const [label, value, kind] of cells) {
    const td = element("td", undefined, kind === "number" ? "number" : "");
    td.dataset.label = label;
    td.append(KINDS[kind] ? KINDS[kind](value) : element("span", value));
    tr.append(td);
  }
  return tr;
}

// Only what differs is made anew: a button that has the focus must not vanish under the finger.
function fill(name, rows) {
  const node = byId(name);
  const now = JSON.stringify(rows);
  if (node.dataset.rows === now) return;
  node.dataset.rows = now;
  node.replaceChildren(...rows.map(row));
}

function list(name, rows) {
  fill(name, rows);
  byId(`${name}-some`).hidden = rows.length === 0;
  const none = byId(`${name}-none`);
  if (none) none.hidden = rows.length > 0;
}

const linkToStudy = (search) => `studies?${new URLSearchParams({ search })}`;

// The address of a resource in the Explorer of an Orthanc. kind: "instance" or "study".
const explorer = (base, kind, id) =>
  `${base}/app/explorer.html#${kind}?uuid=${encodeURIComponent(id)}`;
