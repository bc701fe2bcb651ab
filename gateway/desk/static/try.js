// Loads the try page again when a newer call was recorded. The page works without it.
"use strict";
const shown = document.getElementById("newest").dataset.newest;
async function look() {
  try {
    const answer = await fetch("/try/newest", { credentials: "same-origin" });
    if (answer.ok && (await answer.json()).id !== (shown || null)) { location.reload(); return; }
  } catch { /* the desk is away; look again later */ }
  setTimeout(look, 2000);
}
setTimeout(look, 2000);
