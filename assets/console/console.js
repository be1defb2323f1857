// Keeps the parts of a page that change up to date, and copies commands. Everything works without this file.
"use strict";

const seconds = Number(document.body.dataset.refresh || 0);
const said = document.getElementById("said");

function say(text) {
  if (said) said.textContent = text;
}

// Somebody who types or selects something there must not lose it.
function isInUse(part) {
  const active = document.activeElement;
  if (active && active !== part && part.contains(active) && active.matches("input, select, textarea, button, summary")) {
    return true;
  }
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && part.contains(selection.anchorNode));
}

// What was unfolded stays so.
function keepOpen(part, fresh) {
  const open = new Set();
  for (const details of part.querySelectorAll("details[open] > summary")) open.add(details.closest("[id]")?.id);
  for (const details of fresh.querySelectorAll("details")) details.open = open.has(details.closest("[id]")?.id);
}

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { credentials: "same-origin", headers: { Accept: "text/html" } });
  if (answer.status === 401) {
    location.reload();
    return;
  }
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || isInUse(part) || fresh.innerHTML === part.innerHTML) continue;
    keepOpen(part, fresh);
    const focused = document.activeElement?.getAttribute?.("href");
    const hadFocus = part.contains(document.activeElement);
    part.replaceChildren(...fresh.childNodes);
    if (hadFocus && focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
  const footer = document.querySelector("footer time");
  const now = page.querySelector("footer time");
  if (footer && now) footer.replaceWith(now);
}

function showLive(isLive) {
  const live = document.getElementById("live");
  if (!live) return;
  live.hidden = false;
  live.textContent = isLive ? " · live" : " · out of date: the service does not answer";
  live.classList.toggle("bad", !isLive);
}

if (seconds > 0) {
  showLive(true);
  setInterval(() => {
    refresh().then(() => showLive(true), () => showLive(false));
  }, seconds * 1000);
}

for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  // Only where the browser lets pages copy.
  if (!source || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(source.textContent).then(
      () => {
        button.firstChild.textContent = "Copied";
        say("Copied");
        setTimeout(() => { button.firstChild.textContent = "Copy"; }, 2000);
      },
      () => say("The browser did not let it be copied"),
    );
  });
}
