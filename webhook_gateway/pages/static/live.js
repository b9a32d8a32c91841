// Keeps what is marked by data-live up to date: asks for the page again and takes those parts of it over.
// Without this script every page works the same, once it is loaded again.
"use strict";

const seconds = Number(document.body.dataset.seconds);
const fresh = document.getElementById("fresh");
let failures = 0;

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload(); // the session has ended
    if (!answer.ok) throw new Error(String(answer.status));
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) replace(part, next.getElementById(part.id));
    for (const part of next.querySelectorAll("[data-live]"))
      if (!document.getElementById(part.id)) return location.reload(); // the page has got another shape
    const said = next.getElementById("fresh");
    if (said === null) return location.reload(); // nothing changes on it any more
    fresh.replaceChildren(...document.importNode(said, true).childNodes);
    failures = 0;
  } catch (error) {
    failures += 1;
    fresh.textContent = "This page could not be brought up to date; it is tried again.";
  }
}

function replace(part, next) {
  if (next === null) return part.replaceChildren();
  if (part.isEqualNode(next)) return;
  const held = document.activeElement;
  if (part.contains(held) && held.matches("input, select, textarea")) return; // somebody is writing
  if (part.contains(getSelection().anchorNode) && !getSelection().isCollapsed) return; // or copying
  const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
  const place = part.contains(held) ? [...part.querySelectorAll("a, button, summary")].indexOf(held) : -1;
  part.replaceChildren(...document.importNode(next, true).childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (place >= 0) part.querySelectorAll("a, button, summary")[place]?.focus({ preventScroll: true });
}

async function loop() {
  await refresh();
  setTimeout(loop, 1000 * seconds * Math.min(2 ** failures, 32));
}

if (seconds) setTimeout(loop, 1000 * seconds);
document.addEventListener("visibilitychange", () => seconds && refresh());
