// The page: takes pictures by dropping, pasting, choosing or from the camera, and shows the server's answers.

import {ask, get, make} from "../shared/common.js";
import {followTheme} from "../shared/theme.js";

const KEPT = 12;                // pictures in the strip
const PAUSE = 150;              // milliseconds between two pictures of the camera
let largest = Infinity;         // bytes that the server takes
let current = null;             // the picture that is shown: {data, address}
let asked = 0;                  // number of the last question: answers to older ones are dropped
let stream = null;              // of the camera, while it runs

// -- asking and showing -----------------------------------------------------------------------------------------------

async function question(data, target = null) {
  if (data.size > largest) throw new Error(`the file has ${Math.round(data.size / 1e6)} MB; at most ${Math.round(largest / 1e6)} MB are allowed; reduce its size`);
  return ask("answer", {class: target}, {method: "POST", body: data});
}

async function show(picture, target = null) {
  const number = ++asked;
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await question(picture.data, target);
    if (number !== asked) return;
    current = picture;
    notice("");
    draw(answer);
  } catch (error) {
    if (number === asked) notice(`${picture.name ? `${picture.name}: ` : ""}${told(error)}`);
  } finally {
    if (number === asked) document.body.removeAttribute("aria-busy");
  }
  for (const button of get("strip").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.picture === current));
  }
}

const told = error => error instanceof TypeError ? "the server does not answer; was caffe try ended?" : error.message;

function notice(text) {
  get("notice").textContent = text;
  get("notice").hidden = !text;
}

function draw(answer) {
  const chosen = answer.classes.find(each => each.number === answer.target);
  get("answer").hidden = false;
  get("seen").src = answer.seen;
  get("seen").alt = `The region of the picture that the net uses (${answer.size.join(" x ")} pixels)`;
  get("heat").src = answer.heat;
  get("heat").alt = answer.method ? `The regions that support ${chosen.name}` : "";
  get("why").textContent = answer.method
    ? `Bright regions support “${chosen.name}” (${answer.method}). Only the region of the picture that the net uses is shown.`
    : `No region of the picture supports “${chosen.name}”. Only the region that the net uses is shown.`;
  get("best").textContent = `${answer.classes[0].name}: ${percent(answer.classes[0].probability)}`;
  const focused = document.activeElement?.dataset?.number;
  get("classes").replaceChildren(...answer.classes.map(each => row(each, answer.target)));
  if (focused !== undefined) get("classes").querySelector(`[data-number="${focused}"]`)?.focus();
  get("others").textContent = answer.others ? `and ${answer.others} other classes` : "";
  get("notes").replaceChildren(...answer.notes.map(text => make("li", {text})));
  get("took").textContent = `${answer.size.join(" x ")} pixels, answered in ${(1000 * answer.seconds).toFixed(0)} ms`;
}

function row(each, target) {
  const bar = make("i");
  bar.style.width = `${100 * each.probability}%`;
  return make("li", {}, make("button", {
    type: "button", "data-number": each.number, "aria-pressed": String(each.number === target),
    title: "Show the regions that support this class", onclick: () => current && show(current, each.number),
  }, make("span", {class: "name", text: each.name}), make("span", {class: "share", text: percent(each.probability)}),
  make("span", {class: "bar"}, bar)));
}

const percent = share => `${(100 * share).toFixed(share > 0.0995 ? 1 : 2)} %`;

// -- pictures that are given ------------------------------------------------------------------------------------------

async function take(files) {
  stopCamera();
  for (const data of files) {
    const picture = {data, name: data.name ?? "", address: URL.createObjectURL(data)};
    await show(picture);
    if (current === picture) keep(picture);
  }
}

function keep(picture) {
  const button = make("button", {type: "button", title: picture.name, "aria-current": "true", onclick: () => show(picture)},
    make("img", {src: picture.address, alt: picture.name || "picture"}));
  button.picture = picture;
  for (const other of get("strip").querySelectorAll("button")) other.setAttribute("aria-current", "false");
  get("strip").prepend(make("li", {}, button));
  while (get("strip").children.length > KEPT) {
    URL.revokeObjectURL(get("strip").lastElementChild.firstElementChild.picture.address);
    get("strip").lastElementChild.remove();
  }
}

get("choose").addEventListener("click", () => get("file").click());
get("file").addEventListener("change", event => {
  take([...event.target.files]);
  event.target.value = "";
});
addEventListener("paste", event => {
  const files = [...event.clipboardData.files];
  if (files.length) take(files);
  else notice("There is no picture in the clipboard.");
});
addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("over");
  const files = [...event.dataTransfer.files];
  if (files.length) take(files);
  else notice("This was not a file. Save the picture, and drop the file.");
});
get("opacity").addEventListener("input", event => { get("heat").style.opacity = event.target.value; });

// -- the camera -------------------------------------------------------------------------------------------------------

get("camera").addEventListener("click", () => stream ? stopCamera() : startCamera());

async function startCamera() {
  if (!navigator.mediaDevices) {
    return notice("The browser gives the camera only to pages of this machine, or with https: open the page as http://localhost.");
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  } catch (error) {
    stream = null;
    const reasons = {NotAllowedError: "it was not allowed", NotFoundError: "there is none", NotReadableError: "another program uses it"};
    return notice(`The camera cannot be used: ${reasons[error.name] ?? error.message}.`);
  }
  notice("");
  get("camera").setAttribute("aria-pressed", "true");
  get("camera").textContent = "Stop the camera";
  get("video").srcObject = stream;
  get("live").hidden = false;
  await get("video").play();
  follow(stream);
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  get("video").srcObject = null;
  get("live").hidden = true;
  get("camera").setAttribute("aria-pressed", "false");
  get("camera").textContent = "Use the camera";
}

// Ask about one picture of the camera after the other, until it is stopped.
async function follow(mine) {
  const video = get("video"), canvas = make("canvas");
  while (stream === mine) {
    if (video.videoWidth) {
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      canvas.getContext("2d").drawImage(video, 0, 0);
      const data = await new Promise(done => canvas.toBlob(done, "image/jpeg", 0.9));
      if (stream === mine && data) await show({data, name: ""});
    }
    await new Promise(done => setTimeout(done, PAUSE));
  }
}

// -- the beginning ----------------------------------------------------------------------------------------------------

followTheme();
get("heat").style.opacity = get("opacity").value;
ask("model").then(model => {
  largest = model.largest;
  document.title = get("title").textContent = `Try ${model.name}`;
  const names = model.classes.slice(0, 8).join(", ") + (model.classes.length > 8 ? " ..." : "");
  get("facts").textContent = `${model.classes.length} classes (${names}); takes ${model.takes}`;
  get("files").replaceChildren(...model.files.map(text => make("li", {text})));
}, error => notice(told(error)));
