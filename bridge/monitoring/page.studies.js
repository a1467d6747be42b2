"use strict";
// Asks api/studies and shows studies: a list, or one of them with its parked instances. What is
// searched for stands in the address, so that it can be sent to somebody.

const PATIENCE_MS = 5000;

const asked = new URLSearchParams(location.search);

function arrived(study) {
  const parts = [`${number(study.delivered)} of ${number(study.seen)}`];
  if (study.parked) parts.push(`${number(study.parked)} parked or dropped`);
  if (study.skipped) parts.push(`${number(study.skipped)} skipped`);
  return parts.join(", ");
}

function state(study) {
  const more = study.stable ? "stable: the source expects no more" : "more may come";
  return study.parked ? `lacks instances; ${more}` : more;
}

function cells(study, bases) {
  const looks = study.orthanc_id
    ? bases.map(([side, base]) => [`at the ${side}`, explorer(base, "study", study.orthanc_id)]) : [];
  return [["Last", moment(study.last_at)], ["Study", [[study.uid, linkToStudy(study.uid)]], "links"],
    ["Arrived", arrived(study)], ["State", state(study)], ["Look", looks, "links"]];
}

function showParked(answer) {
  const prefix = answer.command_prefix ? `${answer.command_prefix} ` : "";
  const parked = answer.parked || [];
  list("parked", parked.map((one) => [
    ["Time", moment(one.parked_at)], ["Why", `${one.reason}: ${one.message}`],
    ["Instance", one.instance, "code"],
    ["Retry", `${prefix}orthanc-bridge parked retry ${one.instance}`, "command"]]));
  byId("parked-more").hidden = !answer.parked_more;
  if (answer.parked_more) {
    write(byId("parked-more"),
      `and more: ${prefix}orthanc-bridge parked list --study ${answer.studies[0].uid}`);
  }
}

let rows = [];

function show(answer) {
  const bases = Object.entries(answer.public_urls).filter(([, base]) => base);
  rows = [...rows, ...answer.studies.map((study) => cells(study, bases))];
  list("studies", rows);
  write(byId("name"), answer.name);
  write(byId("said"), rows.length ? `${counted(rows.length, "study").replace("studys", "studies")} shown.`
    : asked.get("search") ? "No such study is on record." : "No study is on record.");
  byId("older").hidden = !answer.older;
  byId("older").dataset.after = answer.older;
  showParked(answer);
}

async function ask(after) {
  const query = new URLSearchParams(asked);
  if (after) query.set("after", after);
  try {
    const answer = await fetch(`api/studies?${query}`,
      { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const told = await answer.json();
    if (answer.ok) show(told); else write(byId("said"), told.message);
  } catch (error) {
    console.info("no studies:", error);
    write(byId("said"), "The bridge does not answer.");
  }
}

byId("wanted").value = asked.get("search") || "";
byId("incomplete").checked = asked.get("incomplete") === "1";
byId("older").addEventListener("click", () => ask(byId("older").dataset.after));
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams();
  if (byId("wanted").value.trim()) query.set("search", byId("wanted").value.trim());
  if (byId("incomplete").checked) query.set("incomplete", "1");
  location.search = query;
});
ask("");
