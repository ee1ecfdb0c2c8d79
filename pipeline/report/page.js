"use strict";
// Search, filters, pages and transcripts. All texts are data: they become text nodes, and nothing else.
(() => {
  const PAGE = 50; // items
  const GIST = 300; // characters of a reply that is not open
  const blocks = [...document.querySelectorAll('script[type="application/json"]')].map((block) => JSON.parse(block.textContent));
  const head = blocks.pop();
  const at = (id) => document.getElementById(id);
  const several = head.arms.length > 1;

  function element(tag, look, ...children) {
    const made = document.createElement(tag);
    if (look) made.className = look;
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  // ---- what there is: an item is what was asked, with the reply of each arm

  class Reply {
    constructor(part, n) {
      this.part = part;
      this.n = n;
      this.arm = part.arm;
      this.fails = Object.keys(part.scores).filter((name) => this.beyond(name));
    }
    text(column) { return head.texts[this.part[column][this.n]]; }
    value(column) { return this.part[column][this.n]; }
    score(name) { return this.part.scores[name][this.n]; }
    beyond(name) {
      const value = this.score(name), [least, most] = head.bounds[name] || [null, null];
      return value !== null && ((least !== null && value < least) || (most !== null && value > most));
    }
    get notes() {
      const told = {};
      for (const [scorer, reason, evidence] of this.value("notes")) told[head.texts[scorer]] = [head.texts[reason], evidence || ""];
      return told;
    }
    get outcome() {
      return this.text("outcome") === "reply" && this.text("finish") === "length" ? "cut off" : this.text("outcome");
    }
    get dropped() { return this.text("fate").startsWith("dropped"); }
    get flawed() { return this.fails.length > 0 || this.dropped || this.text("outcome") !== "reply"; }
    get flaws() { return this.fails.length + (this.text("outcome") !== "reply") + (this.dropped && !this.fails.length); }
  }

  const items = [], itemOf = new Map(), byKey = new Map();
  for (const part of blocks) {
    for (let n = 0; n < part.id.length; n++) {
      const reply = new Reply(part, n);
      const key = [part.persona[n], part.scenario[n], part.sample[n], part.of[n]].join();
      if (!byKey.has(key)) {
        byKey.set(key, { replies: [], place: items.length });
        items.push(byKey.get(key));
      }
      byKey.get(key).replies.push(reply);
      itemOf.set(reply.value("id"), byKey.get(key));
    }
  }

  function haystack(item) {
    if (item.words === undefined) {
      const first = item.replies[0];
      const parts = [first.text("persona"), first.text("scenario"), first.text("category"), first.text("line")];
      for (const reply of item.replies) {
        parts.push(reply.value("reply") || reply.text("error"), ...reply.fails, reply.text("fate"));
        for (const [reason, evidence] of Object.values(reply.notes)) parts.push(reason, evidence);
      }
      item.words = parts.join("\n").toLowerCase();
    }
    return item.words;
  }

  // ---- what is shown of it

  const form = at("filters"), list = at("list");
  let found = [], page = 0;

  function options(id, all, entries) {
    const select = at(id);
    select.append(new Option(all, ""), ...entries.map(([value, label]) => new Option(label || value, value)));
    select.parentElement.hidden = entries.length < 2;
  }

  function counted(values) {
    const counts = new Map();
    for (const value of values) if (value) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([value, count]) => [value, `${value} (${count})`]);
  }

  const replies = items.flatMap((item) => item.replies);
  options("persona", "all", counted(items.map((item) => item.replies[0].text("persona"))));
  options("scenario", "all", counted(items.map((item) => item.replies[0].text("scenario"))));
  options("scorer", "whatever", [["*", "anything"], ["-", "nothing"], ...counted(replies.flatMap((reply) => reply.fails))]);
  options("outcome", "all", counted(replies.map((reply) => reply.outcome)));
  const fates = counted(replies.map((reply) => reply.text("fate")));
  options("fate", "all", fates.length ? [["kept", "kept"], ["dropped", "dropped"], ...fates] : []);
  options("agree", "all", several ? [["differ", "do not agree"], ...head.arms.map((name, n) => [String(n), `only ${name} fails`])] : []);

  function wanted() {
    const chosen = Object.fromEntries([...form.elements].filter((field) => field.id).map((field) => [field.id, field.value]));
    const words = chosen.search.toLowerCase().split(/\s+/).filter(Boolean);
    const fails = (reply) => (head.bounds[chosen.scorer] ? reply.fails.includes(chosen.scorer) : reply.flawed);
    const one = (reply) =>
      (!chosen.scorer || (chosen.scorer === "-" ? !reply.flawed : fails(reply))) &&
      (!chosen.outcome || reply.outcome === chosen.outcome) &&
      (!chosen.fate || reply.text("fate") === chosen.fate || reply.text("fate").startsWith(`${chosen.fate} `));
    const agree = (item) => {
      if (!chosen.agree) return true;
      const failing = item.replies.filter(fails);
      if (chosen.agree === "differ") return failing.length > 0 && failing.length < item.replies.length;
      return failing.length === 1 && String(failing[0].arm) === chosen.agree && item.replies.length > 1;
    };
    const kept = items.filter((item) =>
      (!chosen.persona || item.replies[0].text("persona") === chosen.persona) &&
      (!chosen.scenario || item.replies[0].text("scenario") === chosen.scenario) &&
      item.replies.some(one) && agree(item) && words.every((word) => haystack(item).includes(word)));
    const by = {
      plan: () => 0,
      worst: (item) => Math.max(...item.replies.map((reply) => reply.flaws)),
      slow: (item) => Math.max(...item.replies.map((reply) => reply.value("ms") || 0)),
    }[chosen.order];
    return kept.map((item) => [by(item), item]).sort(([a, x], [b, y]) => b - a || x.place - y.place).map(([, item]) => item);
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(entry));
    list.start = page * PAGE + 1;
    at("found").textContent = found.length === items.length ? `${items.length} items` : `${found.length} of ${items.length} items`;
    at("page").textContent = `page ${page + 1} of ${pages}`;
    at("pages").hidden = pages < 2;
    at("previous").disabled = page === 0;
    at("next").disabled = page === pages - 1;
  }

  function search() {
    found = wanted();
    page = 0;
    show();
  }

  function turn(by) {
    page += by;
    show();
    list.querySelector("summary").focus();
  }

  // ---- one item

  function entry(item) {
    const first = item.replies[0];
    const said = item.replies.find((reply) => reply.value("reply"));
    const signs = element("span", "signs");
    for (const reply of item.replies) {
      const named = reply.dropped && !reply.fails.length ? [reply.text("fate")] : reply.fails.map(plain);
      const shown = named.length > 3 ? [...named.slice(0, 3), `and ${named.length - 3} more`] : named;
      const of = several ? `${head.arms[reply.arm]}: ` : "";
      if (reply.text("outcome") !== "reply") signs.append(element("span", "badge bad", of + reply.text("outcome")), " ");
      for (const name of several && shown.length ? [shown.join(", ")] : shown) signs.append(element("span", "badge unsure", of + name), " ");
    }
    const text = element("span", "said", said ? said.value("reply").slice(0, GIST) : first.text("error") || "no reply");
    text.dir = "auto";
    const line = element("span", "asked", first.text("line").slice(0, GIST));
    line.dir = "auto";
    const contrast = first.text("of") ? ` \u00b7 ${first.text("of")}` : "";
    const name = element("span", "name", element("b", "", first.text("persona")), ` ${first.text("scenario")}${contrast}`);
    const details = element("details", "", element("summary", "", name, " ", signs, " ", line, " ", text));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(whole(item));
    });
    return element("li", "", details);
  }

  function whole(item) {
    const first = item.replies[0];
    const sides = element("div", "sides");
    for (const [arm, name] of head.arms.entries()) {
      const own = item.replies.filter((reply) => reply.arm === arm);
      if (several && !own.length) sides.append(element("article", "", element("h3", "", name), element("p", "soft", "Was not asked this.")));
      sides.append(...own.map((reply) => side(reply, name)));
    }
    return element("div", "whole", labelled("player", "line", first.text("line")), sides);
  }

  function labelled(who, look, text) {
    const said = element("span", "text", text);
    said.dir = "auto";
    return element("p", look, element("span", "who", who), said);
  }

  function side(reply, arm) {
    const told = reply.notes, text = reply.value("reply");
    const unseen = new Set();
    const made = element("article", "");
    if (several) made.append(element("h3", `s${reply.arm % 6}`, arm));
    if (text === null) made.append(labelled(reply.text("outcome"), "reply error", reply.text("error")));
    else {
      const spans = [];
      for (const name of reply.fails) {
        const evidence = told[name] ? told[name][1] : "";
        const span = evidence && where(text, evidence);
        if (span) spans.push([...span, name]);
        else if (evidence) unseen.add(name);
      }
      const said = labelled(reply.text("persona"), "reply", "");
      said.lastChild.replaceChildren(...marked(text, spans));
      made.append(said);
    }
    const list = element("ul", "flaws");
    for (const name of reply.fails) {
      const [reason, evidence] = told[name] || ["", ""];
      list.append(element("li", "", element("b", "", plain(name)), ` ${reply.score(name)} `, element("span", "soft", bound(name)),
        reason ? `: ${reason}` : "", unseen.has(name) ? element("q", "", evidence) : ""));
    }
    if (list.childElementCount) made.append(list);
    if (reply.text("fate")) made.append(fate(reply));
    const link = element("a", "", "link");
    link.href = `#reply-${reply.value("id")}`;
    link.setAttribute("aria-label", "Link to this reply");
    made.append(element("p", "facts soft", facts(reply), link), scores(reply, told));
    return made;
  }

  function fate(reply) {
    const [reason, evidence] = reply.value("drop").length ? reply.value("drop") : [null, ""];
    const made = element("p", "fate", element("span", reply.dropped ? "badge bad" : "badge good", plain(reply.text("fate"))), reason === null ? "" : ` ${head.texts[reason]}`);
    if (evidence && itemOf.has(evidence)) {
      const link = element("a", "", "the other one");
      link.href = `#reply-${evidence}`;
      made.append(": ", link);
    }
    return made;
  }

  function facts(reply) {
    const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
    const said = [reply.outcome];
    if (reply.value("ms") !== null) said.push(seconds(reply.value("ms")));
    if (reply.value("first") !== null) said.push(`first token ${seconds(reply.value("first"))}`);
    if (reply.value("tokens") !== null) said.push(`${reply.value("tokens")} tokens`);
    if (reply.value("sample")) said.push(`sample ${reply.value("sample")}`);
    return `${said.join(" \u00b7 ")} \u00b7 `;
  }

  function scores(reply, told) {
    const body = element("tbody", "");
    for (const name of Object.keys(reply.part.scores)) {
      const value = reply.score(name), [reason, evidence] = told[name] || ["", ""];
      const scorer = element("th", "", plain(name));
      scorer.scope = "row";
      body.append(element("tr", reply.fails.includes(name) ? "fails" : "", scorer,
        element("td", "n", value === null ? "n/a" : String(value)), element("td", "soft", bound(name)),
        element("td", "", reason, evidence ? element("q", "", evidence) : "")));
    }
    const heads = ["score", "value", "passes", "reason"].map((name) => {
      const cell = element("th", "", name);
      cell.scope = "col";
      return cell;
    });
    const table = element("table", "", element("caption", "", "All scores of this reply"), element("thead", "", element("tr", "", ...heads)), body);
    const scroll = element("div", "scroll", table);
    return body.childElementCount ? element("details", "all", element("summary", "", "All scores"), scroll) : "";
  }

  function bound(name) {
    const [least, most] = head.bounds[name] || [null, null];
    return [least === null ? "" : `from ${least}`, most === null ? "" : `up to ${most}`].filter(Boolean).join(" ");
  }

  const plain = (name) => name.replaceAll("_", " ");

  // As the scorer saw it: case and white space may differ.
  function where(text, evidence) {
    const words = evidence.trim().split(/\s+/).map((word) => word.replace(/[\\^$.*+?()[\]{}|\/-]/g, "\\$&"));
    const hit = words[0] && new RegExp(words.join("\\s+").replaceAll("\\-", "[-]"), "iu").exec(text);
    return hit ? [hit.index, hit.index + hit[0].length] : null;
  }

  function marked(text, spans) {
    const ends = [...new Set([0, text.length, ...spans.flatMap(([start, end]) => [start, end])])].sort((a, b) => a - b);
    return ends.slice(1).map((end, n) => {
      const names = spans.filter(([start, stop]) => start <= ends[n] && end <= stop).map(([, , name]) => plain(name));
      const piece = text.slice(ends[n], end);
      if (!names.length) return document.createTextNode(piece);
      const mark = element("mark", "", piece);
      mark.title = names.join(", ");
      return mark;
    });
  }

  // ---- hands on

  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  at("all").addEventListener("click", () => {
    form.reset();
    search();
  });
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("transcripts").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const all = [...list.querySelectorAll(":scope > li > details > summary")];
    const here = all.indexOf(document.activeElement);
    if (!step || (here < 0 && document.activeElement.id !== "search")) return;
    const next = here < 0 ? (step > 0 ? all[0] : null) : here + step < 0 ? at("search") : all[here + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-scorer], a[data-fate]");
    if (!link) return;
    form.reset();
    const [id, value] = link.dataset.scorer ? ["scorer", link.dataset.scorer] : ["fate", link.dataset.fate];
    at(id).value = value;
    if (at(id).selectedIndex < 0) at(id).value = "";
    search();
  });

  function follow() {
    const item = location.hash.startsWith("#reply-") && itemOf.get(location.hash.slice(7));
    if (!item) return;
    form.reset();
    found = wanted();
    page = Math.floor(found.indexOf(item) / PAGE);
    show();
    const details = list.children[found.indexOf(item) % PAGE].firstChild;
    details.open = true;
    details.firstChild.focus();
    details.scrollIntoView({ block: "start" });
  }

  if (head.shown < head.all) {
    const bounded = at("bounded");
    bounded.textContent = `${head.shown} of ${head.all} replies are here: those with a flaw, in turns of what is wrong with them, and a sample of the others. All are in replies.parquet and scores.parquet.`;
    bounded.hidden = false;
  }
  form.hidden = false;
  search();
  follow();
  window.addEventListener("hashchange", follow);
})();
