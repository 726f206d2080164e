"use strict";
// All text is set by textContent. The server has made what a model wrote harmless and visible (escape.inert).

const one = (selector, within = document) => within.querySelector(selector);
const marking = document.body.dataset.marking === "on";
const form = one("#ask"), prompt = one("#prompt"), send = one("#send"), stop = one("#stop");
const letters = ["A", "B"];
let asked = null;
let answered = null; // the prompt of the replies on the page, as it was typed
let shownPrompt = ""; // the same prompt, as it can be shown

const sides = [...document.querySelectorAll(".side")].map((section, place, all) => ({
  section,
  name: all.length > 1 ? ` of ${letters[place]}` : "",
  reply: one(".reply", section),
  status: one(".status", section),
  guided: one(".guided input", section),
  marking: one(".marking", section),
  marked: one(".marked", section),
  note: one(".note", section),
  message: one(".message", section),
  number: null,
  mark: null,
}));

function tell(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

async function call(path, body) {
  let answer;
  try {
    const options = body === undefined ? {}
      : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    answer = await fetch(path, options);
  } catch {
    throw new Error("unteach try does not answer. Is it still running in the terminal?");
  }
  if (answer.ok) return answer;
  let said = `The request failed (${answer.status}).`;
  try {
    said = answer.headers.get("content-type")?.includes("json") ? (await answer.json()).error : await answer.text();
  } catch { /* the status number must do */ }
  throw new Error(said);
}

async function* linesOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

function reset(side) {
  side.number = side.mark = null;
  side.reply.textContent = "";
  side.reply.classList.remove("nothing");
  side.status.textContent = "Waiting …";
  if (!marking) return;
  side.note.value = "";
  side.marking.hidden = side.marked.hidden = true;
  tell(side.message, "");
}

function write(side, change) {
  if (change.text !== undefined) side.reply.textContent = change.text;
  if (change.add !== undefined) {
    const below = side.reply.scrollHeight - side.reply.scrollTop - side.reply.clientHeight < 40;
    if (side.reply.firstChild) side.reply.firstChild.appendData(change.add);
    else side.reply.textContent = change.add;
    if (below) side.reply.scrollTop = side.reply.scrollHeight;
  }
  if (change.ended === undefined) {
    side.status.textContent = "Writing …";
    return;
  }
  const how = { end: "", length: ", cut at the longest reply", stopped: ", stopped" }[change.ended] ?? "";
  const count = `${change.tokens} ${change.tokens === 1 ? "token" : "tokens"} in ${change.seconds} s`;
  if (change.error) side.status.textContent = `No reply: ${change.error}`;
  else if (change.blank) side.status.textContent = `The reply is blank (${count}${how}).`;
  else side.status.textContent = count + how;
  side.number = change.reply ?? null;
  if (marking) side.marking.hidden = side.number === null;
}

function speak(side) {
  // Only finished replies are read out, and no more of a reply than a person would listen to.
  const text = side.reply.textContent;
  const heard = text.length > 600 ? `${text.slice(0, 600)} … and more` : text;
  const line = document.createElement("span");
  line.textContent = `Reply${side.name}: ${heard || side.status.textContent} `;
  one("#spoken").append(line);
}

async function ask() {
  const sampled = form.elements.decoding.value === "sampled", sent = prompt.value;
  tell(one("#message"), "");
  if (!sent.trim()) {
    tell(one("#message"), "The prompt is empty; write something first.");
    prompt.focus();
    return;
  }
  send.disabled = true;
  try {
    const answer = await call("ask", {
      prompt: sent,
      temperature: sampled ? Number(one("#temperature").value) : 0,
      seed: sampled ? Number(one("#seed").value) : 0,
      guided: sides.map((side) => side.guided?.checked ?? false),
    });
    // Cleared only now: if the prompt was refused, the last replies must stay under their own prompt.
    one("#spoken").textContent = "";
    answered = sent;
    shownPrompt = "";
    sides.forEach(reset);
    for await (const line of linesOf(answer)) {
      asked = line.ask ?? asked;
      stop.hidden = asked === null; // before the first line there is nothing that could be named to stop
      if (line.prompt !== undefined) {
        shownPrompt = line.prompt;
        showAnswered();
      }
      if (line.side !== undefined) {
        write(sides[line.side], line);
        if (line.ended !== undefined) speak(sides[line.side]);
      } else if (line.ahead) {
        const others = line.ahead === 1 ? "1 other prompt" : `${line.ahead} other prompts`;
        for (const side of sides) side.status.textContent = `Waiting for ${others} …`;
      }
    }
  } catch (error) {
    tell(one("#message"), error.message);
  } finally {
    for (const side of sides) if (/…$/.test(side.status.textContent)) side.status.textContent = "No reply.";
    asked = null;
    send.disabled = false;
    if (document.activeElement === stop) prompt.focus();
    stop.hidden = true;
  }
}

function showAnswered() {
  // While the next prompt is typed, the page still shows which prompt the replies below answer.
  const place = one("#answered");
  place.hidden = !shownPrompt || prompt.value === answered;
  one("bdi", place).textContent = shownPrompt;
}

async function markBad(side) {
  const button = one(".bad", side.section);
  button.disabled = true;
  tell(side.message, "");
  try {
    const state = await (await call("mark", { reply: side.number, note: side.note.value })).json();
    side.mark = state.mark;
    side.marking.hidden = true;
    side.marked.hidden = false;
    one(".undo", side.marked).focus();
    show(state);
    one("#spoken").textContent = `Marked. The file holds ${state.negatives}.`;
  } catch (error) {
    tell(side.message, error.message);
    await refresh(null); // the file may have changed
  } finally {
    button.disabled = false;
  }
}

function focusIsLost() {
  const at = document.activeElement;
  return !at || at === document.body || !at.checkVisibility();
}

async function undo(mark, place) {
  try {
    const state = await (await call("undo", { mark })).json();
    show(state);
    one("#spoken").textContent = `Taken back. The file holds ${state.negatives}.`;
  } catch (error) {
    tell(place, error.message);
    await refresh();
  }
  for (const side of sides) if (side.mark === mark) unmark(side);
  // Move the focus to the next undo button, or to the prompt.
  if (focusIsLost()) (one("#last button") ?? prompt).focus();
}

function unmark(side) {
  side.mark = null;
  side.marked.hidden = true;
  side.marking.hidden = false;
  if (focusIsLost()) one(".bad", side.section).focus();
}

function show(state) {
  one("#file").hidden = false;
  one("#file-name").textContent = state.file;
  const held = state.negatives
    ? `${state.negatives} ${state.negatives === 1 ? "negative" : "negatives"}, ${state.marked} marked here.`
    : "No negatives in it yet. Replies that you mark as bad are written to this file.";
  const broken = state.broken
    ? ` ${state.broken} ${state.broken === 1 ? "line" : "lines"} cannot be read; unteach run will name them.` : "";
  one("#counts").textContent = held + broken;
  one("#last").replaceChildren(...state.last.map(listed));
  const more = state.marked - state.last.length;
  tell(one("#more"), more > 0 ? `${more} more, marked before these.` : "");
  one("#next").hidden = state.negatives === 0;
  one("#command").replaceChildren(...state.command.split(" ").flatMap((word) => [unbroken(word), " "]).slice(0, -1));
}

function unbroken(word) {
  const span = document.createElement("span");
  span.textContent = word;
  return span;
}

function listed(mark) {
  const item = document.createElement("li"), text = document.createElement("div");
  const about = [sides.length > 1 && mark.model, mark.note && `Note: ${mark.note}`].filter(Boolean).join(" · ");
  const parts = [["line", mark.prompt], ["line soft", mark.completion], ["line soft about", about]];
  for (const [kind, content] of parts) {
    if (!content) continue;
    const line = document.createElement("div");
    line.className = kind;
    line.textContent = content;
    text.append(line);
  }
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Undo";
  button.setAttribute("aria-label", `Undo the mark on the reply to: ${mark.prompt.slice(0, 80)}`);
  button.addEventListener("click", () => undo(mark.mark, one("#message")));
  item.append(text, button);
  return item;
}

async function refresh(place = one("#message")) {
  try {
    show(await (await call("marks")).json());
  } catch (error) {
    if (place) tell(place, error.message);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!send.disabled) ask();
});
form.addEventListener("change", () => {
  const greedy = form.elements.decoding.value === "greedy";
  for (const label of document.querySelectorAll(".sampling")) {
    label.hidden = greedy;
    one("input", label).disabled = greedy; // a hidden field must not block the form
  }
});
form.addEventListener("input", () => tell(one("#message"), "")); // the message was about the old input
prompt.addEventListener("input", showAnswered);
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
stop.addEventListener("click", () => {
  if (asked !== null) call("stop", { ask: asked }).catch((error) => tell(one("#message"), error.message));
});
if (marking) {
  for (const side of sides) {
    one(".bad", side.section).addEventListener("click", () => markBad(side));
    one(".undo", side.section).addEventListener("click", () => undo(side.mark, side.message));
    side.note.addEventListener("keydown", (event) => {
      if (event.key === "Enter") markBad(side);
    });
  }
  one("#copy").addEventListener("click", async () => {
    const button = one("#copy"), code = one("#command");
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected"; // a page from another machine may not write to the clipboard
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  refresh();
}
