// A button beside each text that is there to be pasted, and one that opens every step, for paper. Both only where scripts run.
for (const block of document.querySelectorAll("pre[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + block.dataset.copy);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    } catch {
      // no permission: leave it selected, for the keyboard
      getSelection().selectAllChildren(block);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  block.parentElement.append(button);
}
for (const place of document.querySelectorAll("[data-open-all]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "open-all";
  button.textContent = "Open all SQL";
  button.addEventListener("click", () => {
    const blocks = [...document.querySelectorAll("#" + place.dataset.openAll + " details")];
    const open = blocks.some((each) => !each.open);
    for (const each of blocks) each.open = open;
    button.textContent = open ? "Close all SQL" : "Open all SQL";
  });
  place.append(button);
}
