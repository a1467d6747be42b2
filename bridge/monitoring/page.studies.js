"use strict";
// Asks api/studies and shows studies: a list, or one of them with its parked instances. What is
// searched for stands in the address, so that it can be sent to somebody. What is shown is asked for
// again every few seconds while somebody looks: a study grows, and is stable after a while.

const PATIENCE_MS = 5000;
const PERIOD_MS = 5000;
const PAGES_MAX = 5; // so many are kept up to date; who looks further back looks at what is over

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

let pages = 1;

function show(answers) {
  const answer = answers.at(-1);
  const bases = Object.entries(answer.public_urls).filter(([, base]) => base);
  const rows = answers.flatMap((one) => one.studies.map((study) => cells(study, bases)));
  list("studies", rows);
  write(byId("name"), answer.name);
  write(byId("said"), rows.length ? `${counted(rows.length, "study").replace("studys", "studies")} shown.`
    : asked.get("search") ? "No such study is on record." : "No study is on record.");
  byId("older").hidden = !answer.older;
  showParked(answers[0]);
}

// One page after the other: a study that has grown goes to the front, and moves the others.
async function ask() {
  try {
    const answers = [];
    let after = "";
    do {
      const query = new URLSearchParams(asked);
      if (after) query.set("after", after);
      const answer = await fetch(`api/studies?${query}`,
        { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      const told = await answer.json();
      if (!answer.ok) return void write(byId("said"), told.message);
      answers.push(told);
      after = told.older;
    } while (after && answers.length < pages);
    show(answers);
  } catch (error) {
    console.info("no studies:", error);
    write(byId("said"), "The bridge does not answer.");
  }
}

// What has the focus must not vanish under the finger.
const isUsed = () => document.querySelector("main table :focus") !== null;

async function askAgain() {
  if (!document.hidden && !isUsed() && pages <= PAGES_MAX) await ask();
  setTimeout(askAgain, PERIOD_MS);
}

byId("wanted").value = asked.get("search") || "";
byId("incomplete").checked = asked.get("incomplete") === "1";
byId("older").addEventListener("click", () => {
  pages += 1;
  ask();
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams();
  if (byId("wanted").value.trim()) query.set("search", byId("wanted").value.trim());
  if (byId("incomplete").checked) query.set("incomplete", "1");
  location.search = query;
});
askAgain();
