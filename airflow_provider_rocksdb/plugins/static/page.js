"use strict";
/* Follows Airflow's theme, opens what a link of Airflow's UI asked for, and opens links to Airflow in Airflow's own
   window: this page is in a frame of it, which may not navigate its parent. Without this script all of it is readable. */
(() => {
  const root = document.documentElement;

  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      });
    }
  });

  let shell = null;
  try {
    if (parent !== window && parent.document) shell = parent;
  } catch {
    return; // framed by another origin
  }
  if (!shell) return;

  const followTheme = () => {
    const isDark = shell.document.documentElement.classList.contains("dark");
    root.classList.toggle("dark", isDark);
    root.classList.toggle("light", !isDark);
  };
  followTheme();
  new MutationObserver(followTheme).observe(shell.document.documentElement, { attributeFilter: ["class"] });

  const asked = new URLSearchParams(shell.location.search);
  const isEntry = /\/plugin\/[^/]+\/?$/.test(shell.location.pathname);
  if (isEntry && !location.search && (asked.has("repository") || asked.has("connection"))) {
    shell.history.replaceState(shell.history.state, "", shell.location.pathname);
    location.replace(`?${asked}`);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const own = shell.document.createElement("a");
    own.href = link.href;
    own.click();
  });
})();
