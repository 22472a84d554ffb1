"use strict";
(function () {
  var root = document.documentElement;
  var toggle = document.getElementById("theme");
  var dark = function () {
    var chosen = root.getAttribute("data-theme");
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  var label = function () { toggle.textContent = dark() ? "Light" : "Dark"; };
  toggle.hidden = false;
  label();
  toggle.addEventListener("click", function () {
    root.setAttribute("data-theme", dark() ? "light" : "dark");
    label();
  });
  var number = function (text) {
    var match = /^[~\[\u2248\u2265\u2264 ]*([+-]?[0-9]*\.?[0-9]+)/.exec(text.replace(/,(?=[0-9]{3})/g, ""));
    return match ? parseFloat(match[1]) : null;
  };
  var compare = function (a, b) {
    var x = number(a), y = number(b);
    if (x !== null && y !== null) { return x - y; }
    return a < b ? -1 : a > b ? 1 : 0;
  };
  var sort = function (table, column, down) {
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    var text = function (row) { return row.cells[column].textContent.trim(); };
    rows.sort(function (a, b) {
      var x = text(a), y = text(b);
      // What is absent stays last, whichever way the rest is sorted.
      if ((x === "-") !== (y === "-")) { return x === "-" ? 1 : -1; }
      return down ? compare(y, x) : compare(x, y);
    });
    rows.forEach(function (row) { body.appendChild(row); });
  };
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      // No <button>: browsers print those of a table's head on its first page alone.
      var button = document.createElement("span");
      button.setAttribute("role", "button");
      button.tabIndex = 0;
      button.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("keydown", function (event) {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); button.click(); }
      });
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  });
  var open = function () {
    var at = location.hash && document.getElementById(location.hash.slice(1));
    if (at && at.tagName === "DETAILS") { at.open = true; at.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();
})();
