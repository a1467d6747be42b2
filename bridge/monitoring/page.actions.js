"use strict";
// What a person with a token can do here. The token is typed, stays in this variable, and goes into
// one header of each request: no cookie, no storage, nothing that a browser would add by itself.

const ACT_PATIENCE_MS = 30000;

let token = "";

async function send(method, path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, cache: "no-store", credentials: "omit",
    body: body && JSON.stringify(body), signal: AbortSignal.timeout(ACT_PATIENCE_MS) });
  const told = await answer.json();
  return { ok: answer.ok, status: answer.status, ...told };
}

function say(text) { write(byId("acted"), text); }

// What has the focus is about to be hidden: whoever uses the keyboard goes on in its place.
function lock(text) {
  const wasUnlocked = byId("login").hidden;
  token = "";
  byId("login").hidden = false;
  if (wasUnlocked) byId("token").focus();
  byId("acting").hidden = true;
  document.body.classList.remove("unlocked");
  showActs();
  say(text);
}

function unlock(who) {
  write(byId("who"), who);
  byId("login").hidden = true;
  byId("acting").hidden = false;
  byId("lock").focus();
  document.body.classList.add("unlocked");
  showActs();
  say("");
}

// The column of buttons is there while somebody may act: an empty one would only confuse.
function showActs() {
  for (const name of ["parked", "parked-last"]) {
    const heads = byId(name).parentNode.querySelector("thead tr");
    const there = heads.querySelector(".acts");
    if (!token && there) there.remove();
    if (!token || there) continue;
    const head = element("th", "Act", "acts");
    head.scope = "col";
    heads.append(head);
  }
}

// Resolves to whether the person said yes; Escape is a no.
function confirmed(text) {
  return new Promise((resolve) => {
    const dialog = byId("confirm");
    write(byId("confirm-text"), text);
    byId("confirm-yes").onclick = () => dialog.close("yes");
    byId("confirm-no").onclick = () => dialog.close("no");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.returnValue = "no";
    dialog.showModal();
    byId("confirm-no").focus();
  });
}

// Asks twice: the first answer says what would be done and with which text to confirm it.
async function act(action, body = {}) {
  try {
    const path = `api/actions/${action}`;
    let told = await send("POST", path, body);
    if (told.status === 409 && told.confirm) {
      if (!await confirmed(told.message)) return say("Nothing was done.");
      told = await send("POST", path, { ...body, confirm: told.confirm });
    }
    if (told.status === 401) return lock(told.message);
    return say(told.message);
  } catch (error) {
    console.info("no answer:", error);
    return say("The bridge did not answer. Check whether it was done before you try again.");
  }
}

// buttons: [text, action, body] each, for a cell of a table.
KINDS.acts = (buttons) => {
  const span = element("span", undefined, "copied");
  for (const [text, action, body] of buttons) {
    const button = element("button", text, "copy");
    button.type = "button";
    button.setAttribute("aria-label", `${text}: ${Object.values(body).flat().join(" ")}`);
    button.addEventListener("click", () => act(action, body));
    span.append(button);
  }
  return span;
};

const acts = (body) => (token
  ? [["Act", [["Retry", "retry", body], ["Drop", "drop", body]], "acts"]] : []);

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  try {
    const told = await send("GET", "api/actions");
    if (told.ok) unlock(told.who); else lock(told.message);
  } catch (error) {
    console.info("no answer:", error);
    lock("The bridge does not answer, or a browser cannot send such a token.");
  }
});
byId("lock").addEventListener("click", () => lock(""));
for (const action of ["pause", "resume", "verify"]) {
  byId(`act-${action}`).addEventListener("click", () => act(action));
}
byId("replay").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = { from: Number(byId("first").value) };
  if (byId("last").value) body.to = Number(byId("last").value);
  act("replay", body);
});

function showCommand(state, now) {
  byId("command-beside").hidden = !state;
  if (!state) return;
  const text = state.ended_at === null ? `Running: ${state.text}, for ${lasting(now - state.started_at)}.`
    : `Last command: ${state.text}: ${state.result}${delivered(state.summary)}. ${state.message}`;
  write(byId("command-beside"), text);
}

const delivered = (summary) => (summary && summary.delivered !== undefined
  ? `, ${counted(summary.delivered, "instance")} delivered` : "");

function showActions(status) {
  byId("act").hidden = !status.acts;
  byId("in-clear").hidden = isSecureContext;
  byId("act-pause").hidden = status.hold === "paused";
  byId("act-resume").hidden = status.hold !== "paused";
  byId("act-verify").hidden = !status.verification;
  showCommand(status.command_beside, status.now);
  showActs();
}
