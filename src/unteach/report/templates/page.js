// Folds long replies, filters and searches the samples, and keeps both in the address. The page reads without it.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const samples = [...document.querySelectorAll("details.sample")];
  document.documentElement.classList.add("js");

  const fold = (text) => {
    const length = Number(text.dataset.long).toLocaleString("en");
    const button = document.createElement("button");
    const say = () => {
      const open = text.classList.contains("whole");
      button.textContent = open ? "Fold" : `Show all ${length} characters`;
      button.setAttribute("aria-expanded", String(open));
    };
    button.type = "button";
    button.className = "unfold";
    button.addEventListener("click", () => { text.classList.toggle("whole"); say(); });
    say();
    text.after(button);
  };
  document.querySelectorAll("pre[data-long]").forEach(fold);
  if (samples.length === 0) return;

  const controls = { split: get("split"), arm: get("arm"), verdict: get("verdict"), q: get("q") };
  const usual = Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, control.value]));
  const words = new Map();
  const wordsOf = (sample) => {
    if (!words.has(sample)) words.set(sample, sample.textContent.toLowerCase());
    return words.get(sample);
  };

  const matches = (sample) => {
    const { split, arm, verdict, q } = controls;
    if (split.value && sample.dataset.split !== String(split.selectedIndex - 1)) return false;
    const place = arm.selectedIndex;
    const given = sample.dataset.verdicts.split(" ")[place];
    const same = sample.dataset.same.split(" ")[place];
    if (verdict.value === "changed" ? same !== "0" : verdict.value === "same" ? same !== "1"
      : verdict.value && given !== verdict.value) return false;
    const asked = q.value.trim().toLowerCase();
    return !asked || wordsOf(sample).includes(asked);
  };

  const filter = () => {
    let count = 0;
    for (const sample of samples) {
      sample.hidden = !matches(sample);
      count += sample.hidden ? 0 : 1;
    }
    const all = samples.length.toLocaleString("en");
    const filtered = Boolean(controls.split.value || controls.verdict.value || controls.q.value.trim());
    get("list").classList.toggle("filtered", filtered);
    get("shown").textContent = count === 0 ? "No sample matches." : filtered
      ? `${count.toLocaleString("en")} of ${all} samples` : `${all} samples`;
  };

  const remember = () => {
    const kept = new URLSearchParams();
    for (const [name, control] of Object.entries(controls)) {
      if (control.value && (control.value !== usual[name] || name === "arm" && controls.verdict.value)) {
        kept.set(name, control.value);
      }
    }
    history.replaceState(null, "", `#${kept.size ? kept : "samples"}`);
  };

  const clear = () => {
    for (const [name, control] of Object.entries(controls)) control.value = usual[name];
    filter();
  };

  const follow = () => {
    const place = location.hash.slice(1);
    if (/^sample-\d+$/.test(place)) {
      const sample = get(place);
      if (!sample) {
        get("shown").textContent = `There is no sample ${place.slice("sample-".length)} on this page.`;
        get("samples").scrollIntoView({ block: "start" });
        return;
      }
      if (sample.hidden) clear();
      sample.open = true;
      sample.scrollIntoView({ block: "start" });
      sample.querySelector("summary").focus({ preventScroll: true });
    } else if (place.includes("=")) {
      const asked = new URLSearchParams(place);
      for (const [name, control] of Object.entries(controls)) {
        control.value = asked.get(name) ?? usual[name];
        if (control.selectedIndex === -1) control.value = usual[name];
      }
      filter();
      get("samples").scrollIntoView({ block: "start" });
    }
  };

  let waiting = 0;
  const changed = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { filter(); remember(); }, 120);
  };
  for (const control of Object.values(controls)) control.addEventListener("input", changed);
  get("reset").addEventListener("click", () => { clear(); remember(); });
  get("all").addEventListener("click", () => {
    const open = get("all").textContent === "Open all";
    for (const sample of samples) if (!sample.hidden) sample.open = open;
    get("all").textContent = open ? "Close all" : "Open all";
  });
  get("list").addEventListener("click", async (event) => {
    const link = event.target.closest(".link a");
    if (!link) return;
    try {
      await navigator.clipboard.writeText(link.href);
      get("shown").textContent = link.textContent = "Link copied";
    } catch {
      link.textContent = "The link is in the address bar";
    }
  });
  window.addEventListener("hashchange", follow);
  document.querySelector(".filters").hidden = false;
  filter();
  follow();
})();
