// The labelling page. The server keeps all strokes; the page draws them and sends each new one until it is kept.
"use strict";

const ERASER = 255;
const RETRY_AFTER = 2000; // milliseconds
const MOST_CORNERS = 5000;
const element = (id) => document.getElementById(id);
const canvas = element("strokes");

let images = []; // {id, labelled}
let classes = []; // {name, colour}
let index = 0; // of the image shown
let chosen = 0; // class that is painted
let size = [1, 1]; // width and height of the image
let kept = []; // strokes that the server has
let unsent = []; // changes that it does not have yet: {path, body, stroke?}
let current = null; // stroke that is being drawn
let sending = false;

// --- the server

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  };
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error), { refused: true });
  return content;
}

function change(path, body, stroke) {
  unsent.push({ path: `${path}/${index}`, body, stroke, index });
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  while (unsent.length > 0) {
    const next = unsent[0];
    try {
      const start = performance.now();
      const state = await ask(next.path, next.body);
      unsent.shift();
      if (next.index === index) show(state, `${((performance.now() - start) / 1000).toFixed(2)} s`);
    } catch (error) {
      if (error.refused) {
        unsent.shift();
        complain(`not kept: ${error.message}`);
        draw();
      } else {
        complain(`not saved yet, the server does not answer: ${unsent.length} waiting`);
        await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER));
      }
    }
  }
  sending = false;
}

// --- what is shown

function show(state, note = "") {
  kept = state.strokes;
  images[index].labelled = state.mask !== null;
  for (const name of ["mask", "uncertainty"]) {
    if (state[name]) element(name).src = state[name];
    else element(name).removeAttribute("src");
  }
  arrange();
  draw();
  const labelled = images.filter((image) => image.labelled).length;
  tell(`${index + 1} of ${images.length}, ${labelled} labelled${note && ", " + note}`);
  document.body.dataset.shown = String(kept.length); // how many strokes the mask follows from
}

function tell(text, bad = false) {
  element("status").textContent = text;
  element("status").classList.toggle("bad", bad);
}

function complain(text) {
  tell(text, true);
}

function arrange() {
  const zoom = Number(element("zoom").value);
  const stage = element("stage");
  const [width, height] = size;
  const scale = Math.min((stage.clientWidth - 24) / width, (stage.clientHeight - 24) / height) * zoom;
  element("frame").style.width = `${Math.max(width * scale, 1)}px`;
  element("frame").style.height = `${Math.max(height * scale, 1)}px`;
  element("mask").hidden = !element("mask").hasAttribute("src") || element("opacity").value === "0";
  element("mask").style.opacity = element("opacity").value / 100;
  element("uncertainty").hidden = !element("uncertainty").hasAttribute("src") || !element("unsure").checked;
  element("undo").disabled = kept.length === 0;
}

function draw() {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const waiting = unsent.filter((item) => item.stroke && item.index === index).map((item) => item.stroke);
  for (const stroke of [...kept, ...waiting, ...(current ? [current] : [])]) drawStroke(context, stroke);
}

function drawStroke(context, stroke) {
  const [first, ...others] = stroke.corners;
  context.globalCompositeOperation = stroke.class_id === ERASER ? "destination-out" : "source-over";
  context.strokeStyle = stroke.class_id === ERASER ? "#000" : classes[stroke.class_id].colour;
  context.lineWidth = stroke.width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...first);
  for (const corner of others.length > 0 ? others : [first]) context.lineTo(...corner);
  context.stroke();
}

async function open(number) {
  index = number;
  kept = [];
  current = null;
  for (const name of ["mask", "uncertainty"]) element(name).removeAttribute("src");
  element("name").textContent = element("name").title = images[index].id;
  location.hash = String(index);
  tell("loading");
  delete document.body.dataset.shown;
  try {
    const picture = element("image");
    picture.src = `image/${index}`;
    const [state] = await Promise.all([ask(`state/${index}`), picture.decode()]);
    if (number !== index) return;
    size = state.size;
    [canvas.width, canvas.height] = size;
    show(state);
  } catch (error) {
    if (number === index) complain(error.message);
  }
}

// --- drawing

function place(event) {
  const box = canvas.getBoundingClientRect();
  const across = ((event.clientX - box.left) / box.width) * size[0];
  const down = ((event.clientY - box.top) / box.height) * size[1];
  return [Math.round(across * 10) / 10, Math.round(down * 10) / 10];
}

function begin(event) {
  if (event.button !== 0 || !event.isPrimary) return;
  canvas.setPointerCapture(event.pointerId);
  const key = crypto.getRandomValues(new Uint32Array(4)).join("x");
  current = { key, class_id: chosen, corners: [place(event)], width: Number(element("width").value) };
  draw();
}

function go(event) {
  if (!current || !event.isPrimary) return;
  for (const part of event.getCoalescedEvents?.() ?? [event]) {
    const [x, y] = place(part);
    const [lastX, lastY] = current.corners.at(-1);
    if (Math.hypot(x - lastX, y - lastY) >= 1.5 && current.corners.length < MOST_CORNERS) current.corners.push([x, y]);
  }
  draw();
}

function end() {
  if (!current) return;
  const stroke = current;
  current = null;
  change("add", stroke, stroke);
}

function cancel() {
  current = null;
  draw();
}

function undo() {
  const waiting = unsent.filter((item) => item.stroke && item.index === index);
  const last = waiting.length > 0 ? waiting.at(-1).stroke : kept.at(-1);
  if (last) change("undo", last.key);
}

// --- controls

function choose(number) {
  chosen = number;
  for (const button of element("classes").children) {
    button.setAttribute("aria-checked", String(Number(button.dataset.id) === chosen));
  }
}

function classButton(id, name, colour) {
  const button = document.createElement("button");
  button.dataset.id = id;
  button.setAttribute("role", "radio");
  const chip = button.appendChild(document.createElement("span"));
  chip.className = "chip";
  chip.style.background = colour;
  button.append(name);
  const key = id === ERASER ? "e" : id < 10 ? String(id) : "";
  button.appendChild(document.createElement("kbd")).textContent = key;
  button.addEventListener("click", () => choose(id));
  return button;
}

async function suggest() {
  try {
    open(await ask(`suggest/${index}`, null));
  } catch (error) {
    complain(error.message);
  }
}

function step(by) {
  open((index + by + images.length) % images.length);
}

function widen(by) {
  element("width").value = Number(element("width").value) + by;
}

function toggleMask() {
  const opacity = element("opacity");
  if (opacity.value === "0") opacity.value = opacity.dataset.before || 55;
  else [opacity.dataset.before, opacity.value] = [opacity.value, 0];
  arrange();
}

const KEYS = {
  e: () => choose(ERASER), z: undo, n: suggest, m: toggleMask,
  u: () => { element("unsure").click(); },
  "[": () => widen(-2), "]": () => widen(2),
  ArrowLeft: () => step(-1), ArrowRight: () => step(1),
};

function press(event) {
  if (event.altKey || event.target.matches("input[type=range], select")) return;
  const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
  if ((event.ctrlKey || event.metaKey) && !isUndo) return;
  if (/^[0-9]$/.test(event.key) && Number(event.key) < classes.length) choose(Number(event.key));
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

async function start() {
  const overview = await ask("images");
  ({ images, classes } = overview);
  element("classes").append(...classes.map(({ name, colour }, id) => classButton(id, name, colour)));
  element("classes").append(classButton(ERASER, "eraser", "transparent"));
  choose(Math.min(1, classes.length - 1));
  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", go);
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", cancel);
  element("undo").addEventListener("click", undo);
  element("suggest").addEventListener("click", suggest);
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  for (const name of ["opacity", "unsure", "zoom"]) element(name).addEventListener("input", arrange);
  addEventListener("resize", arrange);
  addEventListener("keydown", press);
  addEventListener("beforeunload", (event) => { if (unsent.length > 0) event.preventDefault(); });
  const asked = Number(location.hash.slice(1));
  open(asked >= 0 && asked < images.length ? asked : 0);
}

start().catch((error) => complain(error.message));
