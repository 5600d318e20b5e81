// The page works without this script: it adds results while one types, previews, the player, and dropped pictures.
"use strict";
const by = (id) => document.getElementById(id);
const form = by("ask"), results = by("results"), player = by("player"), stage = by("player-stage");
let example = null; // a picture or clip to search with
let newest = 0; // number of the newest question: answers to older ones are dropped
let asked = null; // AbortController of the question in work
let wait = 0;

function question() {
  const fields = new FormData(form);
  for (const [name, value] of [...fields]) if (value === "") fields.delete(name);
  if (fields.get("top") === "24") fields.delete("top");
  return fields;
}

async function ask(keep) {
  clearTimeout(wait);
  const number = ++newest;
  const fields = question();
  const address = "/?" + new URLSearchParams(fields);
  if (keep) history.pushState(null, "", address); else history.replaceState(null, "", address);
  const words = fields.get("q");
  document.title = (words ? words + " – " : "") + document.querySelector("h1").textContent;
  asked?.abort();
  asked = new AbortController();
  results.classList.add("old");
  let html;
  try {
    let answer;
    if (example) {
      fields.set("file", example);
      answer = await fetch("/results", { method: "POST", body: fields, signal: asked.signal });
    } else {
      answer = await fetch("/results?" + new URLSearchParams(fields), { signal: asked.signal });
    }
    if (answer.status === 401) { location.assign("/login"); return; }
    html = await answer.text();
    if (!(answer.headers.get("content-type") || "").includes("text/html")) {
      say(JSON.parse(html).error);
      return;
    }
  } catch (error) {
    if (error.name !== "AbortError") say("The server does not answer.");
    return;
  }
  if (number !== newest) return;
  results.innerHTML = html;
  results.classList.remove("old");
  const count = results.querySelectorAll(".tile").length;
  by("count").textContent = results.querySelector(".hint") ? "" : count + (count === 1 ? " result" : " results");
}

function say(words) {
  const note = document.createElement("p");
  note.className = "note said";
  note.setAttribute("role", "status");
  note.textContent = words;
  results.replaceChildren(note);
  results.classList.remove("old");
}

function later() {
  clearTimeout(wait);
  wait = setTimeout(ask, 250);
}

form.addEventListener("submit", (event) => { event.preventDefault(); ask(true); });
for (const id of ["q", "minus"]) by(id).addEventListener("input", later);
for (const id of ["folder", "top", "group", "after"]) by(id).addEventListener("change", () => ask());
by("min").addEventListener("input", () => {
  const lowest = by("min").value === by("min").min; // then any score will do, and the field is not sent
  by("min").name = lowest ? "" : "min_score";
  by("min-shown").value = lowest ? "any" : Number(by("min").value).toFixed(1);
  later();
});
addEventListener("popstate", () => location.reload());

// What to search with beside words: a picture or clip, or a moment that was found.
function searchWith(file, like, words, image) {
  const shown = by("with-image");
  if (shown.src.startsWith("blob:")) URL.revokeObjectURL(shown.src);
  example = file;
  by("like").value = like;
  by("like").disabled = !like;
  by("with-words").textContent = words;
  shown.hidden = !image;
  if (image) shown.src = image; else shown.removeAttribute("src");
  by("with").hidden = !(file || like);
  ask(true);
}

function searchWithFile(file) {
  if (!file) return;
  const image = file.type.startsWith("image/") ? URL.createObjectURL(file) : "";
  searchWith(file, "", "like " + (file.name || "the picture"), image);
}

by("with-none").addEventListener("click", () => { by("file").value = ""; searchWith(null, "", "", ""); by("q").focus(); });
by("file").addEventListener("change", () => searchWithFile(by("file").files[0]));
addEventListener("paste", (event) => searchWithFile(event.clipboardData?.files[0]));
let inside = 0;
addEventListener("dragenter", (event) => {
  if (event.dataTransfer?.types.includes("Files")) by("drop").hidden = !++inside;
});
addEventListener("dragleave", () => { if (inside && !--inside) by("drop").hidden = true; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  by("drop").hidden = true;
  searchWithFile(event.dataTransfer?.files[0]);
});

// Results: a preview of the moment under the pointer or the focus, the player, more like this.
const still = matchMedia("(prefers-reduced-motion: reduce)");
let previewed = null;

function span(link) {
  return [Number(link.dataset.start), Number(link.dataset.end)];
}

function preview(link) {
  if (previewed === link) return;
  const before = previewed;
  previewed = link; // first: the removal below may take the focus away, and ends here again
  before?.querySelector("video")?.remove();
  if (!link || link.dataset.kind !== "video" || still.matches) return;
  const [start, end] = span(link);
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.tabIndex = -1;
  video.setAttribute("aria-hidden", "true");
  video.src = link.href.split("#")[0] + "#t=" + start;
  video.addEventListener("timeupdate", () => { if (video.currentTime >= end) video.currentTime = start; });
  video.addEventListener("ended", () => { video.currentTime = start; video.play().catch(() => {}); });
  video.addEventListener("error", () => video.remove());
  link.querySelector("img").after(video);
  video.play().catch(() => {});
}

function play(link) {
  preview(null);
  const [start] = span(link);
  const of = document.createElement(link.dataset.kind === "image" ? "img" : "video");
  const address = link.href.split("#")[0];
  of.addEventListener("error", () => { by("player-fault").hidden = false; });
  by("player-fault").hidden = true;
  by("player-file").href = address;
  by("player-file").download = link.dataset.name;
  by("player-name").textContent = link.dataset.name;
  if (of instanceof HTMLVideoElement) {
    of.controls = true;
    of.autoplay = true;
    of.addEventListener("loadedmetadata", () => { if (of.currentTime < start) of.currentTime = start; }, { once: true });
    of.src = address + "#t=" + start;
  } else {
    of.alt = link.dataset.name;
    of.src = address;
  }
  stage.replaceChildren(of);
  player.showModal();
}

function like(link) {
  const image = link.closest(".tile").querySelector("img");
  by("q").value = "";
  searchWith(null, link.dataset.like, "like " + link.dataset.name, image.src);
  by("q").focus();
  scrollTo({ top: 0 });
}

results.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse") preview(event.target.closest(".play")); });
results.addEventListener("pointerleave", () => preview(null));
results.addEventListener("focusin", (event) => preview(event.target.closest(".play")));
results.addEventListener("focusout", () => preview(null));
results.addEventListener("error", (event) => { if (event.target.matches(".play img")) event.target.classList.add("lost"); }, true);
results.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab of its own
  const link = event.target.closest("a.play, a.like");
  if (!link) return;
  event.preventDefault();
  if (link.matches(".play")) play(link); else like(link);
});
by("player-close").addEventListener("click", () => player.close());
player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
player.addEventListener("close", () => stage.replaceChildren());

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || player.open) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "ArrowDown" && event.target === by("q")) {
      event.preventDefault();
      results.querySelector(".play")?.focus();
    }
    return;
  }
  const tile = event.target.closest(".tile");
  if (event.key === "/") {
    event.preventDefault();
    by("q").focus();
    by("q").select();
  } else if (tile && event.key === "m") {
    event.preventDefault();
    like(tile.querySelector(".like"));
  } else if (tile && event.key.startsWith("Arrow")) {
    const tiles = [...results.querySelectorAll(".tile")];
    const columns = tiles.filter((one) => one.offsetTop === tiles[0].offsetTop).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const next = tiles.indexOf(tile) + step;
    event.preventDefault();
    if (next < 0) by("q").focus(); else tiles[next]?.querySelector(".play").focus();
  }
});

// How far the index is.
async function watch() {
  let state = "";
  try {
    const answer = await fetch("/api/progress");
    if (answer.ok) {
      const now = await answer.json();
      state = now.state;
      const words = [now.files.toLocaleString("en") + (now.files === 1 ? " file" : " files")];
      if (state === "indexing") words.push(now.total ? `embedding ${now.done.toLocaleString("en")} of ${now.total.toLocaleString("en")}` + (now.note ? ` (${now.note})` : "") : "looking for files");
      if (now.unreadable) words.push(`${now.unreadable.toLocaleString("en")} cannot be read`);
      if (now.problem) words.push(now.problem);
      by("state-words").textContent = words.join(", ");
      by("state-bar").hidden = state !== "indexing" || !now.total;
      by("state-bar").max = now.total || 1;
      by("state-bar").value = now.done;
      by("state").dataset.state = state;
    }
  } catch {
    by("state-words").textContent = "The server does not answer.";
  }
  setTimeout(watch, state === "indexing" ? 1000 : 15000);
}
by("again").addEventListener("click", async () => { await fetch("/api/refresh", { method: "POST" }); setTimeout(watch, 300); });
watch();
