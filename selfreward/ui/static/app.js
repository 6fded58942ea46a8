"use strict";
// Keys and the live part of the run page. Every page works without it.

const link = (rel) => document.querySelector(`a[rel="${rel}"]`);
const button = (value) => document.querySelector(`button[name="review"][value="${value}"]`);
const rows = () => [...document.querySelectorAll("a.row")];

function move(step) {
  const all = rows();
  if (all.length === 0) {
    link(step > 0 ? "next" : "prev")?.click();
    return;
  }
  const to = all.indexOf(document.activeElement) + step;
  if (to >= all.length) link("next")?.focus();
  else all[Math.max(0, to)].focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  a: () => button("keep")?.click(),
  d: () => button("drop")?.click(),
  n: () => document.querySelector("textarea[name=note]")?.focus(),
  "/": () => document.querySelector("input[type=search]")?.focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Escape") document.activeElement?.blur();
  if (event.target.closest("input:not([type=checkbox]), textarea, select")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// A run that works is asked again every few seconds; what the reader has hold of stays as it is.
async function refresh() {
  const live = document.getElementById("live");
  if (!live?.dataset.live) return;
  if (document.visibilityState === "visible" && !live.contains(document.activeElement)) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("live");
        if (fresh) live.replaceWith(fresh);
      }
    } catch {
      // the server has ended; the page stays as it was
    }
  }
  setTimeout(refresh, 1000 * live.dataset.live);
}

// A search that has found nothing yet goes on by itself, a moment's worth of pairs at a time.
async function searchOn() {
  const on = document.getElementById("found")?.dataset.on;
  if (!on) return;
  try {
    const answer = await fetch(on, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("found");
    if (!answer.ok || !fresh) return;
    document.getElementById("found").replaceWith(fresh);
    history.replaceState(null, "", on);
  } catch {
    return; // the link is still there
  }
  setTimeout(searchOn, 0);
}
searchOn();

const begin = document.getElementById("live")?.dataset.live;
if (begin) setTimeout(refresh, 1000 * begin);
